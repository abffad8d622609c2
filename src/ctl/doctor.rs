//! `moatctl doctor`

use serde::{Deserialize, Serialize};

use super::output::{table, tint};
use super::{EX_NO, EX_OK, EX_UNAVAILABLE, Failure, Global, Outcome, checksystem, client, output};
use crate::daemon::control::Request;
use crate::dataplane::firewalls::{self, Finding};
use crate::dataplane::iptables::Feature;

/// The whole answer.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    features: Vec<Feature>,
    firewalls: Vec<Finding>,
}

/// Says what this host lacks, and which packet filters of others come between packets and policy.
pub fn run(global: &Global) -> Outcome {
    let report = Report {
        features: checksystem::features(global)?,
        firewalls: firewalls(global)?,
    };
    output::print(global.output, &report, || text(&report))?;
    let is_well = report.firewalls.is_empty() && report.features.iter().all(|f| f.works);
    Ok(if is_well { EX_OK } else { EX_NO })
}

fn firewalls(global: &Global) -> Result<Vec<Finding>, Failure> {
    match client::ask(global, &Request::Firewalls) {
        Ok(findings) => Ok(findings),
        Err(failure) if failure.code == EX_UNAVAILABLE => firewalls::examine().map_err(|error| {
            let message = format!("cannot list packet filters (as root?): {error}");
            Failure::new(EX_UNAVAILABLE, message)
        }),
        Err(failure) => Err(failure),
    }
}

fn text(report: &Report) -> String {
    let features = checksystem::text(&report.features);
    if report.firewalls.is_empty() {
        let last =
            "no other packet filter can deny what policy accepts, or accept before policy is asked";
        return format!("{features}\n\n{}", tint(true, last));
    }
    let row = |f: &Finding| {
        let through = f
            .through
            .as_ref()
            .map_or(String::new(), |t| format!(", in {t}"));
        vec![
            format!("{} {}", f.hook, f.priority),
            f.chain.clone(),
            f.owner.clone(),
            format!("{}{through}", f.effect),
        ]
    };
    let rows: Vec<_> = report.firewalls.iter().map(row).collect();
    let mut advice: Vec<_> = report
        .firewalls
        .iter()
        .map(|f| format!("{}: {}", f.owner, f.advice))
        .collect();
    advice.sort();
    advice.dedup();
    format!(
        "{features}\n\n{}\n{}\n{}",
        table(&["HOOK", "CHAIN", "OWNER", "EFFECT"], &rows),
        tint(
            false,
            "packet filters of others come between packets and policy"
        ),
        advice.join("\n")
    )
}
