//! `moatctl validate`

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::files::{self, Inputs};
use super::progress::Progress;
use super::{EX_NO, EX_OK, Global, Outcome, output};
use crate::api::{Issue, Resource, Spec};
use crate::calc;

/// The most hosts times resources that are looked at one by one, to be done in seconds.
const MAX_WORK: usize = 1_000_000;

/// Command line.
#[derive(Debug, Args)]
pub struct Validate {
    #[command(flatten)]
    inputs: Inputs,
    /// More inputs
    #[arg(value_name = "FILE|DIR|-")]
    more: Vec<PathBuf>,
    /// Warnings make the answer no, too
    #[arg(long)]
    strict: bool,
}

#[derive(Serialize)]
struct Report {
    valid: bool,
    files: usize,
    resources: usize,
    issues: Vec<Issue>,
}

/// Checks files with everything that the daemon would check.
pub fn run(global: &Global, args: &Validate) -> Outcome {
    let filenames: Vec<PathBuf> = args
        .inputs
        .filenames
        .iter()
        .chain(&args.more)
        .cloned()
        .collect();
    let read = files::read(global, &filenames)?;
    let mut issues = read.issues.clone();
    let mut settings = files::settings(global, &read.resources)?;
    issues.extend(calc::lint_resources(&read.resources));
    let asked = global.node.iter().cloned().collect();
    let nodes = if global.node.is_some() {
        asked
    } else {
        calc::nodes(&read.resources)
    };
    let most = (MAX_WORK / read.resources.len().max(1)).max(1);
    if nodes.len() > most {
        eprintln!(
            "moatctl: the endpoints of {most} of {} hosts are looked at one by one: say --node for another",
            nodes.len()
        );
    }
    // Which policies an endpoint has does not depend on network sets, of which there may be many.
    let is_set = |r: &&Resource| matches!(r.spec, Spec::NetworkSet(_));
    let others: Vec<Resource> = read
        .resources
        .iter()
        .filter(|r| !is_set(r))
        .cloned()
        .collect();
    let mut progress = Progress::new("hosts looked at", Some(nodes.len().min(most)));
    for (count, node) in nodes.into_iter().take(most).enumerate() {
        progress.done(count);
        settings.settings.felix_hostname = node;
        let policy = files::host_policy(&settings, &others);
        issues.extend(calc::lint_host(&others, &policy));
    }
    drop(progress);
    let valid = !read.is_invalid() && (!args.strict || issues.is_empty());
    let report = Report {
        valid,
        files: read.files.len(),
        resources: read.resources.len(),
        issues,
    };
    output::print(global.output, &report, || text(&report))?;
    Ok(if valid { EX_OK } else { EX_NO })
}

fn text(report: &Report) -> String {
    let mut lines: Vec<String> = report.issues.iter().map(ToString::to_string).collect();
    let word = if report.valid {
        output::tint(true, "valid")
    } else {
        output::tint(false, "invalid")
    };
    let (files, resources, issues) = (report.files, report.resources, report.issues.len());
    lines.push(format!(
        "{word}: {files} files, {resources} valid resources, {issues} errors and warnings"
    ));
    lines.join("\n")
}
