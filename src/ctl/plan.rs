//! `moatctl plan`

use clap::Args;

use super::files::{self, Inputs};
use super::{EX_CHANGES, EX_NO, EX_NOINPUT, EX_OK, Failure, Global, Outcome, client, output};
use crate::compile;
use crate::daemon::PlanReport;
use crate::daemon::control::Request;
use crate::dataplane::iptables;

/// Command line.
#[derive(Debug, Args)]
pub struct Plan {
    #[command(flatten)]
    inputs: Inputs,
    /// Show everything that the files would put into an empty kernel, without the daemon
    #[arg(long)]
    offline: bool,
}

/// Shows the difference between what is wanted and what the kernel holds. Nothing is changed.
pub fn run(global: &Global, args: &Plan) -> Outcome {
    let report = if args.offline {
        offline(global, args)?
    } else {
        online(global, args)?
    };
    let Some(report) = report else {
        return Ok(EX_NO);
    };
    output::print(global.output, &report, || text(&report))?;
    Ok(if report.changes { EX_CHANGES } else { EX_OK })
}

fn online(global: &Global, args: &Plan) -> Result<Option<PlanReport>, Failure> {
    let mut texts = Vec::new();
    if !args.inputs.filenames.is_empty() {
        let read = files::read(global, &args.inputs.filenames)?;
        files::complain(&read.issues);
        if read.is_invalid() {
            return Ok(None);
        }
        for (name, bytes) in read.files {
            let text = String::from_utf8(bytes)
                .map_err(|_| Failure::new(EX_NOINPUT, format!("{name} is not UTF-8")))?;
            texts.push((name, text));
        }
    }
    client::ask(global, &Request::Plan { files: texts }).map(Some)
}

fn offline(global: &Global, args: &Plan) -> Result<Option<PlanReport>, Failure> {
    let read = files::read(global, &args.inputs.filenames)?;
    files::complain(&read.issues);
    if read.is_invalid() {
        return Ok(None);
    }
    let loaded = files::settings(global, &read.resources)?;
    let policy = files::host_policy(&loaded, &read.resources);
    let ruleset = compile::compile(&policy, &compile::Options::new(&loaded.settings, true));
    let plan = iptables::plan_from_nothing(&ruleset, &policy);
    let issues = read.issues.iter().map(ToString::to_string).collect();
    Ok(Some(PlanReport {
        changes: !plan.is_empty(),
        changed: plan.changed,
        lines: plan.lines,
        issues,
    }))
}

fn text(report: &PlanReport) -> String {
    if !report.changes {
        return "nothing would change".to_owned();
    }
    let c = &report.changed;
    let mut lines = report.lines.clone();
    lines.push(format!(
        "{} rules added, {} removed; {} chains changed, {} removed; {} sets created, {} removed, {} members changed",
        c.rules_added, c.rules_removed, c.chains, c.chains_removed, c.sets_created, c.sets_removed, c.members
    ));
    lines.join("\n")
}
