//! `moatctl checksystem`

use super::output::{table, tint};
use super::{EX_NO, EX_OK, EX_UNAVAILABLE, Failure, Global, Outcome, client, files, output};
use crate::daemon::control::Request;
use crate::dataplane::iptables::{self, Feature};

/// Says what this kernel and its tools can do.
pub fn run(global: &Global) -> Outcome {
    let features = features(global)?;
    output::print(global.output, &features, || text(&features))?;
    Ok(if features.iter().all(|f| f.works) {
        EX_OK
    } else {
        EX_NO
    })
}

/// Asks the daemon, or looks here where it cannot.
pub(super) fn features(global: &Global) -> Result<Vec<Feature>, Failure> {
    match client::ask::<Vec<Feature>>(global, &Request::Checksystem) {
        Err(failure) if failure.code == EX_UNAVAILABLE => here(global),
        // As a service, the daemon may not make the network namespace that it would try them in.
        Ok(features) if !iptables::is_checked(&features) => here(global),
        other => other,
    }
}

fn here(global: &Global) -> Result<Vec<Feature>, Failure> {
    let settings = files::settings(global, &[])?.settings;
    let choice = iptables::would_choose(settings.iptables_backend, &settings.state_dir);
    let choice = choice.map_err(|m| Failure::new(EX_UNAVAILABLE, m))?;
    Ok(iptables::check_features(choice.backend))
}

/// For people.
pub(super) fn text(features: &[Feature]) -> String {
    let rows: Vec<Vec<String>> = features
        .iter()
        .map(|f| {
            let lost = if f.works {
                String::new()
            } else {
                format!("lost: {} ({})", f.lost, f.message)
            };
            vec![
                if f.works { "ok" } else { "missing" }.to_owned(),
                f.name.clone(),
                lost,
            ]
        })
        .collect();
    let good = features.iter().all(|f| f.works);
    let last = if good {
        "everything moat needs is there"
    } else {
        "something is missing"
    };
    format!(
        "{}\n{}",
        table(&["", "FEATURE", ""], &rows),
        tint(good, last)
    )
}
