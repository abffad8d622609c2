//! `moatctl explain`

use clap::Args;

use super::files::{self, Inputs};
use super::{EX_NO, EX_OK, EX_USAGE, Failure, Global, Outcome, client, output};
use crate::calc;
use crate::daemon::control::Request;
use crate::verdict::{self, Answer, Query};

/// Command line.
#[derive(Debug, Args)]
pub struct Explain {
    /// Source: an address, or the name of an endpoint
    #[arg(long, value_name = "ADDR|ENDPOINT")]
    from: String,
    /// Destination: an address, or the name of an endpoint
    #[arg(long, value_name = "ADDR|ENDPOINT")]
    to: String,
    /// tcp, udp, icmp, sctp, another name, or a number
    #[arg(long, value_name = "PROTO", default_value = "tcp")]
    proto: String,
    /// Destination port
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Source port (default: 40000, as a client would use)
    #[arg(long, value_name = "N")]
    sport: Option<u16>,
    /// ICMP type, or type/code (default: echo request)
    #[arg(long, value_name = "TYPE[/CODE]", value_parser = parse_icmp)]
    icmp: Option<(u8, u8)>,
    /// Interface of this host; IN,OUT for forwarded traffic
    #[arg(long, value_name = "NAME")]
    iface: Option<String>,
    #[command(flatten)]
    inputs: Inputs,
    /// Answer from files alone, without the daemon
    #[arg(long)]
    offline: bool,
}

fn parse_icmp(text: &str) -> Result<(u8, u8), String> {
    let (kind, code) = text.split_once('/').unwrap_or((text, "0"));
    let number = |t: &str| {
        t.parse::<u8>()
            .map_err(|_| format!("`{t}` is not a number from 0 to 255"))
    };
    Ok((number(kind)?, number(code)?))
}

/// Says what policy does with a packet.
pub fn run(global: &Global, args: &Explain) -> Outcome {
    let query = Query {
        from: args.from.clone(),
        to: args.to.clone(),
        proto: Some(args.proto.clone()),
        port: args.port,
        sport: args.sport,
        iface: args.iface.clone(),
        icmp: args.icmp,
    };
    let answer = if args.offline || !args.inputs.filenames.is_empty() {
        offline(global, args, &query)?
    } else {
        client::ask(global, &Request::Explain(query))?
    };
    output::print(global.output, &answer, || text(&answer))?;
    Ok(if answer.verdict == "allow" {
        EX_OK
    } else {
        EX_NO
    })
}

fn offline(global: &Global, args: &Explain, query: &Query) -> Result<Answer, Failure> {
    let read = files::read(global, &args.inputs.filenames)?;
    if read.is_invalid() {
        let errors: Vec<_> = read
            .issues
            .iter()
            .filter(|i| i.severity == crate::api::Severity::Error)
            .cloned()
            .collect();
        files::complain(&errors);
        eprintln!("moatctl: answering from the valid resources only");
    }
    let loaded = files::settings(global, &read.resources)?;
    let policy = files::host_policy(&loaded, &read.resources);
    let mut answer = verdict::explain(query, &policy, &read.resources, None)
        .map_err(|m| Failure::new(EX_USAGE, m))?;
    let others = calc::nodes(&read.resources);
    if policy.is_empty() && !others.is_empty() {
        let names: Vec<String> = others.into_iter().collect();
        answer.notes.push(format!(
            "the question is about node {}; the endpoints in these files belong to {}: say --node",
            policy.node,
            names.join(", ")
        ));
    }
    Ok(answer)
}

fn text(answer: &Answer) -> String {
    let allowed = answer.verdict == "allow";
    let mut lines = vec![
        format!(
            "{}  {}",
            output::tint(allowed, &answer.verdict),
            answer.packet
        ),
        format!("path: {}", answer.path),
    ];
    for (i, step) in answer.trace.iter().enumerate() {
        let mut parts = vec![format!("{:>3}. {:<5}", i + 1, step.action)];
        parts.extend(step.tier.iter().map(|t| format!("tier {t}")));
        parts.extend(step.policy.clone());
        parts.extend(step.rule.map(|r| format!("rule {r}")));
        let place = match (&step.file, step.line) {
            (Some(file), Some(line)) => format!(" ({file}:{line})"),
            (Some(file), None) => format!(" ({file})"),
            _ => String::new(),
        };
        let head = parts.join(" ");
        lines.push(format!("{}: {}{place}", head.trim_end(), step.why));
    }
    lines.extend(answer.notes.iter().map(|n| format!("note: {n}")));
    lines.join("\n")
}
