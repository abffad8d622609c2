//! `moatctl status`

use clap::Args;
use humantime::format_duration;

use super::output::{Output, ago, plain, table, tint};
use super::{EX_NO, EX_OK, Failure, Global, Outcome, client, output};
use crate::daemon::control::Request;
use crate::daemon::{Event, Happening, PublishedReport, State, Status};

/// Command line.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Exit 1 unless the state is enforcing, for monitoring
    #[arg(long)]
    check: bool,
    /// Go on and show every change as it is applied, repair and problem, until interrupted
    #[arg(long, conflicts_with = "check")]
    watch: bool,
}

/// Shows what moatd enforces.
pub fn run(global: &Global, args: &StatusArgs) -> Outcome {
    let mut status: Status = client::ask(global, &Request::Status)?;
    match client::ask(global, &Request::Published) {
        Ok(ports) => status.published = ports,
        Err(e) => status
            .warnings
            .push(format!("published ports are unknown: {}", e.message)),
    }
    output::print(global.output, &status, || text(&status))?;
    if args.watch {
        client::watch(global, |event| show(global, &event))?;
    }
    let good = status.state == State::Enforcing || !args.check;
    Ok(if good { EX_OK } else { EX_NO })
}

/// One event in a line: JSON where the answer is JSON, text otherwise.
fn show(global: &Global, event: &Event) -> Result<(), Failure> {
    match global.output {
        Output::Json | Output::Yaml => output::print_line(event),
        _ => output::print_text(&event_text(event)),
    }
}

fn event_text(event: &Event) -> String {
    let good = !matches!(
        event.what,
        Happening::Failed | Happening::Problem | Happening::Missed
    );
    let what = format!("{:?}", event.what).to_lowercase();
    let text = plain(&event.text);
    let generation = event.generation;
    let when = &event.when;
    format!(
        "{when}  {generation:>6}  {}  {text}",
        tint(good, &format!("{what:<8}"))
    )
}

fn text(status: &Status) -> String {
    let state = match status.state {
        State::Starting => tint(false, "starting"),
        State::Enforcing => tint(true, "enforcing"),
        State::Degraded => tint(false, "degraded"),
    };
    let mut lines = vec![
        format!("node        {}", status.node),
        format!("state       {state}, generation {}", status.generation),
        format!("backend     {} ({})", status.backend, status.backend_reason),
    ];
    if let Some(apply) = &status.last_apply {
        lines.push(format!(
            "last apply  {} in {} ms",
            apply.when, apply.milliseconds
        ));
    }
    if let Some(when) = &status.verified_at {
        lines.push(format!("verified    {when}"));
    }
    if status.repairs > 0 {
        lines.push(format!(
            "repaired    {} times what somebody else had changed",
            status.repairs
        ));
    }
    if status.connections_cut > 0 {
        lines.push(format!(
            "cut         {} connections that policy denies",
            status.connections_cut
        ));
    }
    if let Some(snapshot) = &status.snapshot {
        lines.push(format!(
            "snapshot    generation {}, {} s old",
            snapshot.generation, snapshot.age
        ));
    }
    for source in &status.sources {
        let sync = if source.in_sync {
            "in sync"
        } else {
            "from the snapshot"
        };
        let time = source.last_contact.as_deref().unwrap_or("never");
        let age = ago(time).map(|age| format!(" ({} ago)", format_duration(age)));
        let age = age.unwrap_or_default();
        lines.push(format!(
            "source      {}: {sync}, read {time}{age}",
            source.name
        ));
    }
    for object in &status.local_overrides {
        let (object, file, key) = (&object.object, &object.file, &object.key);
        let line = format!("override    {object} of {file} is in force, not that of etcd {key}");
        lines.push(plain(&line));
    }
    lines.extend(status.published.iter().map(published));
    lines.push(String::new());
    lines.extend(endpoints(status));
    if !status.degraded.is_empty() {
        lines.push("\nproblems".to_owned());
        lines.extend(
            status
                .degraded
                .iter()
                .map(|d| format!("  {}", plain(&d.reason))),
        );
    }
    if !status.warnings.is_empty() {
        lines.push("\nwarnings".to_owned());
        lines.extend(status.warnings.iter().map(|w| format!("  {}", plain(w))));
    }
    lines.join("\n")
}

fn published(port: &PublishedReport) -> String {
    let text = tint(!port.is_open(), &plain(&port.text()));
    format!("published   {text}")
}

fn endpoints(status: &Status) -> Vec<String> {
    if status.endpoints.is_empty() {
        return vec!["no endpoint belongs to this host: nothing is enforced".to_owned()];
    }
    let rows: Vec<Vec<String>> = status
        .endpoints
        .iter()
        .map(|e| {
            vec![
                e.name.clone(),
                join(&e.interfaces),
                join(&e.addresses),
                join(&e.policies),
                join(&e.profiles),
            ]
        })
        .collect();
    vec![table(
        &[
            "ENDPOINT",
            "INTERFACES",
            "ADDRESSES",
            "POLICIES IN ORDER",
            "PROFILES",
        ],
        &rows,
    )]
}

fn join(items: &[String]) -> String {
    if items.is_empty() {
        "-".to_owned()
    } else {
        items.join(",")
    }
}
