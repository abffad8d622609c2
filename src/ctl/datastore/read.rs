//! `moatctl get` from a datastore.

use serde_json::Value;

use super::change::{named, refusal};
use super::db::Db;
use super::{Inputs, access, render};
use crate::api::Kind;
use crate::ctl::output::Output;
use crate::ctl::{EX_NO, EX_OK, EX_USAGE, Failure, Global, Outcome, output};
use crate::etcd::document;

/// What is to be shown.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Kind or its alias.
    pub kind: Option<&'a str>,
    /// Names; none for all.
    pub names: &'a [String],
    /// Files whose resources are looked up.
    pub inputs: &'a Inputs,
    /// One namespace.
    pub namespace: Option<&'a str>,
    /// All namespaces.
    pub all_namespaces: bool,
    /// Without what belongs to this datastore only.
    pub export: bool,
}

/// Whether a datastore is configured for moatctl.
pub fn is_configured(global: &Global) -> Result<bool, Failure> {
    Ok(access::find(global)?.is_some())
}

/// Shows resources of the datastore.
pub fn show(global: &Global, wanted: &Wanted<'_>) -> Outcome {
    let mut db = Db::open(global)?;
    let (kind, mut found, errors) = find(global, &mut db, wanted)?;
    if wanted.export {
        found = found.into_iter().map(document::exported).collect();
    }
    print(global, kind, &found, wanted)?;
    match errors.is_empty() {
        true => Ok(EX_OK),
        false => Err(Failure::new(EX_NO, errors.join("\n"))),
    }
}

type Found = (Option<Kind>, Vec<Value>, Vec<String>);

fn find(global: &Global, db: &mut Db, wanted: &Wanted<'_>) -> Result<Found, Failure> {
    let Some(kind) = wanted.kind else {
        let ids = wanted
            .inputs
            .read(global)?
            .into_iter()
            .map(|r| r.id)
            .collect();
        return look_up(db, ids);
    };
    if !wanted.names.is_empty() {
        return look_up(db, named(kind, wanted.names, wanted.namespace)?);
    }
    let kind: Kind = kind
        .parse()
        .map_err(|e| Failure::new(EX_USAGE, format!("{e}")))?;
    if wanted.namespace.is_some() && !kind.is_namespaced() {
        let text = format!("{kind} is not in a namespace: leave out --namespace");
        return Err(Failure::new(EX_USAGE, text));
    }
    let namespace = match wanted.all_namespaces {
        true => None,
        false => Some(wanted.namespace.unwrap_or("default")),
    };
    let mut found: Vec<Value> = db
        .list(kind, namespace)?
        .into_iter()
        .map(|s| s.document)
        .collect();
    if kind == Kind::Tier {
        // By order, those without one last.
        let order = |tier: &Value| tier["spec"]["order"].as_f64().unwrap_or(f64::INFINITY);
        found.sort_by(|a, b| order(a).total_cmp(&order(b)));
    }
    Ok((Some(kind), found, Vec::new()))
}

fn look_up(db: &mut Db, ids: Vec<crate::api::ResourceId>) -> Result<Found, Failure> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for id in &ids {
        match db.get(id)? {
            Some(stored) => found.push(stored.document),
            None => errors.push(refusal("resource does not exist", id).message),
        }
    }
    let first = ids.first().map(|id| id.kind);
    let kind = first.filter(|kind| ids.iter().all(|id| id.kind == *kind));
    Ok((kind, found, errors))
}

fn print(
    global: &Global,
    kind: Option<Kind>,
    found: &[Value],
    wanted: &Wanted<'_>,
) -> Result<(), Failure> {
    let text = || match global.output {
        Output::Columns(columns) => render::columns(found, columns),
        Output::Template(template) => render::template(found, template),
        Output::Name => render::names(found),
        _ => render::tables(kind, found, global.output == Output::Wide),
    };
    match found {
        [one] if wanted.names.len() == 1 => output::print(global.output, one, text),
        _ => {
            let of = kind.map_or("", Kind::name);
            let list = serde_json::json!({
                "apiVersion": "projectcalico.org/v3",
                "kind": format!("{of}List"),
                "metadata": {},
                "items": found,
            });
            output::print(global.output, &list, text)
        }
    }
}
