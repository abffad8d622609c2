//! `moatctl get` from a datastore.

use std::collections::BTreeMap;

use serde_json::Value;

use super::db::Db;
use super::render::{self, Look};
use super::words::{failed, named, of_kind, refusal};
use super::{Inputs, access, template};
use crate::api::{Kind, ResourceId};
use crate::ctl::output::Output;
use crate::ctl::{EX_NO, EX_OK, Failure, Global, Outcome, output};
use crate::etcd::{document, shape};

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
    let asked = match wanted.kind {
        None => wanted.inputs.read(global, wanted.namespace)?,
        Some(_) => Vec::new(),
    };
    let (mut found, errors) = match wanted.kind {
        None => {
            let ids = asked.into_iter().map(|r| r.id).collect();
            look_up(&mut Db::open(global)?, ids)?
        }
        Some(kind) => of(global, kind, wanted)?,
    };
    if wanted.export {
        found.iter_mut().for_each(export);
    }
    print(global, &found, wanted)?;
    match errors.is_empty() {
        true => Ok(EX_OK),
        false => Err(Failure::new(EX_NO, errors.join("\n"))),
    }
}

/// Resources, each by itself, or one list of them; and what could not be found.
type Found = (Vec<Value>, Vec<String>);

fn of(global: &Global, word: &str, wanted: &Wanted<'_>) -> Result<Found, Failure> {
    let no = |text: &str| Err(Failure::new(EX_NO, text));
    let kind = of_kind(word).map_err(|e| failed("get resources", e))?;
    if wanted.all_namespaces && wanted.namespace.is_some() {
        return no("cannot use both --namespace and --all-namespaces flags at the same time");
    }
    if wanted.all_namespaces && !kind.is_namespaced() {
        return Err(Failure::new(EX_NO, format!("{kind} is not namespaced")));
    }
    if !wanted.names.is_empty() {
        if wanted.all_namespaces {
            return no("cannot use --all-namespace flag for getting a single resource");
        }
        let ids = named(word, wanted.names, wanted.namespace)?;
        return look_up(&mut Db::open(global)?, ids);
    }
    if wanted.namespace.is_some() && !kind.is_namespaced() {
        return Err(Failure::new(EX_NO, format!("{kind} is not namespaced")));
    }
    let namespace = match wanted.all_namespaces {
        true => None,
        false => Some(wanted.namespace.unwrap_or("default")),
    };
    list(&mut Db::open(global)?, kind, namespace).map(|list| (vec![list], Vec::new()))
}

/// The list of a kind, in Calico's form.
fn list(db: &mut Db, kind: Kind, namespace: Option<&str>) -> Result<Value, Failure> {
    let found = db.list(kind, namespace)?;
    let mut found: Vec<Value> = found.into_iter().map(|s| s.document).collect();
    match kind {
        Kind::Tier => {
            // By order, those without one last.
            let order = |tier: &Value| tier["spec"]["order"].as_f64().unwrap_or(f64::INFINITY);
            found.sort_by(|a, b| order(a).total_cmp(&order(b)));
        }
        Kind::Profile => found.push(document::default_profile()),
        _ => {}
    }
    Ok(serde_json::json!({
        "kind": format!("{kind}List"),
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"resourceVersion": db.seen().to_string()},
        "items": found,
    }))
}

fn look_up(db: &mut Db, ids: Vec<ResourceId>) -> Result<Found, Failure> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for id in &ids {
        match db.get(id)? {
            Some(stored) => found.push(stored.document),
            None if id.kind == Kind::Profile && id.name == document::DEFAULT_PROFILE => {
                found.push(document::default_profile());
            }
            None => errors.push(refusal("resource does not exist", id).message),
        }
    }
    Ok((found, errors))
}

/// Without what belongs to this datastore; as with calicoctl, there is a time of creation that says nothing.
pub fn export(found: &mut Value) {
    if let Some(items) = found.get_mut("items").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(export);
        return;
    }
    *found = document::exported(found.take());
    if let Some(metadata) = found["metadata"].as_object_mut() {
        let names = metadata
            .keys()
            .take_while(|key| ["name", "namespace"].contains(&key.as_str()));
        let place = names.count();
        metadata.shift_insert(place, "creationTimestamp".into(), Value::Null);
    }
}

fn print(global: &Global, found: &[Value], wanted: &Wanted<'_>) -> Result<(), Failure> {
    let each = || -> Vec<&Value> { found.iter().flat_map(resources).collect() };
    match global.output {
        Output::Json | Output::Yaml => data(global.output, found),
        Output::Name => output::print_text(&render::names(&each())),
        Output::Template(text) => output::print_text(&render::template(&each(), text)),
        Output::GoTemplate(text) => template::print(text, found),
        Output::Text | Output::Wide | Output::Columns(_) => tables(global, found, wanted),
    }
}

/// The resources of a list, or the one that it is.
fn resources(found: &Value) -> Vec<&Value> {
    match found["items"].as_array() {
        Some(items) => items.iter().collect(),
        None => vec![found],
    }
}

/// One resource or list by itself, several as a list of the language.
fn data(output: Output, found: &[Value]) -> Result<(), Failure> {
    let all = match found {
        [one] => one.clone(),
        [] => Value::Null,
        more => more.to_vec().into(),
    };
    match output {
        Output::Yaml => output::print(output, &sorted(&all), String::new),
        _ => {
            let text = serde_json::to_string_pretty(&all).unwrap_or_default();
            output::print_text(&shape::escape_json(&text))
        }
    }
}

/// With the fields of each mapping in the order of their names.
pub fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let map: BTreeMap<&String, Value> = map.iter().map(|(k, v)| (k, sorted(v))).collect();
            serde_json::json!(map)
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// A table for each answer, with an empty line behind it.
fn tables(global: &Global, found: &[Value], wanted: &Wanted<'_>) -> Result<(), Failure> {
    let asn = || -> Result<String, Failure> {
        let id = ResourceId {
            kind: Kind::BGPConfiguration,
            namespace: String::new(),
            name: "default".to_owned(),
        };
        let stored = Db::open(global)?.get(&id)?;
        let number = stored.map(|s| render::plain(&s.document["spec"]["asNumber"]));
        Ok(number
            .filter(|n| !n.is_empty())
            .unwrap_or_else(|| "64512".to_owned()))
    };
    let is_of_nodes = |one: &Value| one["kind"].as_str().is_some_and(|k| k.starts_with("Node"));
    let shows_asn = match global.output {
        Output::Wide => true,
        Output::Columns(columns) => columns.to_uppercase().contains("ASN"),
        _ => false,
    };
    let asn = match shows_asn && found.iter().any(is_of_nodes) {
        true => asn()?,
        false => String::new(),
    };
    let look = Look {
        wide: global.output == Output::Wide,
        namespace: wanted.all_namespaces || wanted.namespace.is_some(),
        columns: match global.output {
            Output::Columns(columns) => Some(columns),
            _ => None,
        },
        asn: &asn,
    };
    for one in found {
        let kind = one["kind"].as_str().unwrap_or_default();
        let kind = Kind::from_document(kind.strip_suffix("List").unwrap_or(kind));
        if let Some(kind) = kind {
            output::print_raw(&(look.table(kind, &resources(one))? + "\n"))?;
        }
    }
    Ok(())
}
