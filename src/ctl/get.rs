//! `moatctl get`

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::output::{Output, table};
use super::{EX_NO, EX_OK, EX_USAGE, Failure, Global, Outcome, client, output};
use crate::api::Kind;
use crate::daemon::control::Request;

/// Command line.
#[derive(Debug, Args)]
pub struct Get {
    /// Kind or its alias, such as hep, gnp, tier
    kind: String,
    /// Only this one
    name: Option<String>,
    /// Only this namespace (default: all)
    #[arg(short, long)]
    namespace: Option<String>,
}

/// One resource in force.
#[derive(Deserialize, Serialize)]
struct Found {
    resource: Value,
    origin: String,
}

/// Shows resources in force.
pub fn run(global: &Global, args: &Get) -> Outcome {
    let kind: Kind = args
        .kind
        .parse()
        .map_err(|e| Failure::new(EX_USAGE, format!("{e}")))?;
    let request = Request::Get {
        kind: kind.name().to_owned(),
        namespace: args.namespace.clone(),
        name: args.name.clone(),
    };
    let found: Vec<Found> = client::ask(global, &request)?;
    if let (Some(name), true) = (&args.name, found.is_empty()) {
        eprintln!("moatctl: no {} {name} is in force", kind.name());
        return Ok(EX_NO);
    }
    let resources: Vec<&Value> = found.iter().map(|f| &f.resource).collect();
    match resources.as_slice() {
        [one] if args.name.is_some() => {
            output::print(global.output, one, || text(global, kind, &found))?
        }
        _ => {
            let list = serde_json::json!({
                "apiVersion": "projectcalico.org/v3",
                "kind": format!("{}List", kind.name()),
                "items": resources,
            });
            output::print(global.output, &list, || text(global, kind, &found))?;
        }
    }
    Ok(EX_OK)
}

/// Column title and where its value is.
type Column = (&'static str, &'static str);

/// calicoctl's columns.
fn columns(kind: Kind, wide: bool) -> Vec<Column> {
    let (short, more): (&[Column], &[Column]) = match kind {
        Kind::HostEndpoint => (
            &[("NODE", "/spec/node")],
            &[
                ("INTERFACE", "/spec/interfaceName"),
                ("IPS", "/spec/expectedIPs"),
                ("PROFILES", "/spec/profiles"),
            ],
        ),
        Kind::GlobalNetworkPolicy | Kind::NetworkPolicy => (
            &[("TIER", "/spec/tier")],
            &[("ORDER", "/spec/order"), ("SELECTOR", "/spec/selector")],
        ),
        Kind::Tier => (
            &[("ORDER", "/spec/order")],
            &[("DEFAULT ACTION", "/spec/defaultAction")],
        ),
        Kind::NetworkSet | Kind::GlobalNetworkSet => (&[], &[("NETS", "/spec/nets")]),
        Kind::WorkloadEndpoint => (
            &[("NODE", "/spec/node"), ("INTERFACE", "/spec/interfaceName")],
            &[("NETWORKS", "/spec/ipNetworks")],
        ),
        _ => (&[], &[]),
    };
    let more = if wide { more } else { &[] };
    short.iter().chain(more).copied().collect()
}

fn text(global: &Global, kind: Kind, found: &[Found]) -> String {
    let name = |f: &Found| cell(&f.resource, "/metadata/name");
    if global.output == Output::Name {
        return found
            .iter()
            .map(|f| format!("{}/{}", kind.name(), name(f)))
            .collect::<Vec<_>>()
            .join("\n");
    }
    let columns = columns(kind, global.output == Output::Wide);
    let mut header = Vec::new();
    if kind.is_namespaced() {
        header.push("NAMESPACE");
    }
    header.push("NAME");
    header.extend(columns.iter().map(|(title, _)| *title));
    header.push("FROM");
    let row = |f: &Found| {
        let mut row = Vec::new();
        if kind.is_namespaced() {
            row.push(cell(&f.resource, "/metadata/namespace"));
        }
        row.push(name(f));
        row.extend(columns.iter().map(|(_, at)| cell(&f.resource, at)));
        row.push(f.origin.clone());
        row
    };
    table(&header, &found.iter().map(row).collect::<Vec<_>>())
}

fn cell(resource: &Value, at: &str) -> String {
    match resource.pointer(at) {
        None if at == "/spec/tier" => "default".to_owned(),
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            items.iter().map(text).collect::<Vec<_>>().join(",")
        }
        Some(other) => other.to_string(),
    }
}
