//! `moatctl config`

use clap::{Args, Subcommand};

use super::output::table;
use super::{EX_OK, Global, Outcome, client, files, output};
use crate::daemon::ConfigReport;
use crate::daemon::control::Request;

/// Commands about settings.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Show every setting in force
    Show(Show),
}

/// Command line.
#[derive(Debug, Args)]
pub struct Show {
    /// Also say where each value was given
    #[arg(long)]
    origin: bool,
    /// Read the settings files, without the daemon
    #[arg(long)]
    offline: bool,
}

/// Shows settings.
pub fn run(global: &Global, command: &Config) -> Outcome {
    let Config::Show(args) = command;
    let report: ConfigReport = if args.offline || global.config.is_some() {
        let loaded = files::settings(global, &[])?;
        let settings = loaded
            .rows()
            .iter()
            .filter_map(|row| serde_json::to_value(row).ok())
            .collect();
        ConfigReport {
            settings,
            notes: loaded.notes,
        }
    } else {
        client::ask(global, &Request::Config)?
    };
    output::print(global.output, &report, || text(&report, args.origin))?;
    Ok(EX_OK)
}

fn text(report: &ConfigReport, origin: bool) -> String {
    let field = |row: &serde_json::Value, key: &str| match row.get(key) {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let row = |row: &serde_json::Value| {
        let mut cells = vec![field(row, "name"), field(row, "value")];
        if origin {
            cells.push(field(row, "origin"));
        }
        cells
    };
    let header: &[&str] = if origin {
        &["SETTING", "VALUE", "ORIGIN"]
    } else {
        &["SETTING", "VALUE"]
    };
    let mut lines = vec![table(
        header,
        &report.settings.iter().map(row).collect::<Vec<_>>(),
    )];
    lines.extend(report.notes.iter().map(|n| format!("note: {n}")));
    lines.join("\n")
}
