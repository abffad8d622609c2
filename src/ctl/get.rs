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
    kind: Option<String>,
    /// Only these
    names: Vec<String>,
    /// Only this namespace (in force: all of them, in a datastore: default)
    #[arg(short, long)]
    namespace: Option<String>,
    /// What moatd enforces, also where a datastore is configured
    #[arg(long)]
    in_force: bool,
    #[cfg(feature = "etcd")]
    #[command(flatten)]
    inputs: super::datastore::Inputs,
    /// All namespaces of the datastore
    #[cfg(feature = "etcd")]
    #[arg(short = 'A', short_alias = 'a', long)]
    all_namespaces: bool,
    /// Without what belongs to this datastore only
    #[cfg(feature = "etcd")]
    #[arg(long)]
    export: bool,
}

/// One resource in force.
#[derive(Deserialize, Serialize)]
struct Found {
    resource: Value,
    origin: String,
}

/// Every failure has one code there.
#[cfg(feature = "etcd")]
fn as_calicoctl(failure: Failure) -> Failure {
    Failure::new(EX_NO, failure.message)
}

/// Shows resources in force.
pub fn run(global: &Global, args: &Get) -> Outcome {
    #[cfg(feature = "etcd")]
    if !args.in_force && super::datastore::is_configured(global).map_err(as_calicoctl)? {
        let wanted = super::datastore::Wanted {
            kind: args.kind.as_deref(),
            names: &args.names,
            inputs: &args.inputs,
            namespace: args.namespace.as_deref(),
            all_namespaces: args.all_namespaces,
            export: args.export,
        };
        return super::datastore::show(global, &wanted).map_err(as_calicoctl);
    }
    in_force(global, args)
}

fn in_force(global: &Global, args: &Get) -> Outcome {
    let usage = |text: String| Failure::new(EX_USAGE, text);
    if args.names.len() > 1 {
        return Err(usage("one name at a time".to_owned()));
    }
    let name = args.names.first();
    let kind = args.kind.as_ref();
    let kind = kind.ok_or_else(|| usage("say which kind of resource".to_owned()))?;
    let kind: Kind = kind.parse().map_err(|e| usage(format!("{e}")))?;
    let request = Request::Get {
        kind: kind.name().to_owned(),
        namespace: args.namespace.clone(),
        name: name.cloned(),
    };
    let found: Vec<Found> = client::ask(global, &request)?;
    if let (Some(name), true) = (name, found.is_empty()) {
        eprintln!("moatctl: no {} {name} is in force", kind.name());
        return Ok(EX_NO);
    }
    let resources: Vec<&Value> = found.iter().map(|f| &f.resource).collect();
    match resources.as_slice() {
        [one] if name.is_some() => {
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
