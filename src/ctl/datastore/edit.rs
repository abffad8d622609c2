//! `moatctl patch` and `label`.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::change::{named, refusal, warn, writable};
use super::db::{Db, Stored};

use crate::api::{self, Resource, ResourceId};
use crate::ctl::{EX_NO, EX_OK, EX_USAGE, Failure, Global, Outcome, files, output};
use crate::etcd::{Condition, document, keys};

/// Others may come before so often.
const TRIES: u32 = 5;

/// How a patch is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PatchType {
    /// As merge: no list of these kinds has a key to merge by
    Strategic,
    /// RFC 7386: fields replace fields, null removes
    Merge,
    /// RFC 6902: a list of operations
    Json,
}

/// Command line of `patch`.
#[derive(Debug, Args)]
pub struct Patch {
    /// Kind or its alias
    kind: String,
    /// Name
    name: String,
    /// The patch, in JSON
    #[arg(short, long, value_name = "JSON")]
    patch: String,
    /// How it is meant
    #[arg(short = 't', long = "type", value_enum, default_value_t = PatchType::Strategic)]
    patch_type: PatchType,
    /// Namespace of the resource
    #[arg(short, long)]
    namespace: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

impl Patch {
    /// Changes parts of one resource.
    pub fn run(&self, global: &Global) -> Outcome {
        let ids = named(
            &self.kind,
            std::slice::from_ref(&self.name),
            self.namespace.as_deref(),
        )?;
        let patch: Value = serde_json::from_str(&self.patch)
            .map_err(|e| Failure::new(EX_USAGE, format!("the patch is no JSON: {e}")))?;
        let mut db = Db::open(global)?;
        let id = &ids[0];
        update(&mut db, id, self.dry_run, |document| {
            match self.patch_type {
                PatchType::Strategic | PatchType::Merge => {
                    merge(document, &patch);
                    Ok(())
                }
                PatchType::Json => operations(document, &patch),
            }
        })?;
        let note = if self.dry_run {
            " (dry run: nothing was written)"
        } else {
            ""
        };
        output::print_text(&format!(
            "Successfully patched 1 '{}' resource{note}",
            id.kind
        ))?;
        Ok(EX_OK)
    }
}

/// Command line of `label`.
#[derive(Debug, Args)]
pub struct Label {
    /// Kind or its alias
    kind: String,
    /// Name
    name: String,
    /// KEY=VALUE, or KEY with --remove
    label: String,
    /// Namespace of the resource
    #[arg(short, long)]
    namespace: Option<String>,
    /// Replace another value
    #[arg(long)]
    overwrite: bool,
    /// Remove the label
    #[arg(long)]
    remove: bool,
}

impl Label {
    /// Sets or removes one label.
    pub fn run(&self, global: &Global) -> Outcome {
        let ids = named(
            &self.kind,
            std::slice::from_ref(&self.name),
            self.namespace.as_deref(),
        )?;
        let id = &ids[0];
        let (key, value) = match (self.label.split_once('='), self.remove) {
            (Some((key, value)), false) => (key, Some(value)),
            (None, true) => (self.label.as_str(), None),
            _ => {
                let text = "say KEY=VALUE, or KEY with --remove";
                return Err(Failure::new(EX_USAGE, text));
            }
        };
        let mut db = Db::open(global)?;
        let mut done = "set";
        update(&mut db, id, false, |document| {
            done = self.change(id, document, key, value)?;
            Ok(())
        })?;
        let (kind, name) = (id.kind, &id.name);
        output::print_text(&format!("Successfully {done} label {key} on {kind} {name}"))?;
        Ok(EX_OK)
    }

    fn change(
        &self,
        id: &ResourceId,
        document: &mut Value,
        key: &str,
        value: Option<&str>,
    ) -> Result<&'static str, Failure> {
        let no = |text: String| Err(Failure::new(EX_NO, text));
        if document["metadata"]["labels"].is_null() {
            document["metadata"]["labels"] = Map::new().into();
        }
        let Some(labels) = document["metadata"]["labels"].as_object_mut() else {
            return no(format!("{id}: its labels are no mapping"));
        };
        let before = labels.get(key).and_then(Value::as_str).map(str::to_owned);
        match (value, before) {
            (None, None) => no(format!(
                "failed to remove label {key} on {id}: it has no such label"
            )),
            (None, Some(_)) => {
                labels.shift_remove(key);
                Ok("removed")
            }
            (Some(value), Some(before)) if before != value && !self.overwrite => no(format!(
                "failed to update label {key} on {id}: it is {before} now: say --overwrite"
            )),
            (Some(value), before) => {
                labels.insert(key.to_owned(), value.into());
                Ok(if before.is_some() { "updated" } else { "set" })
            }
        }
    }
}

/// Changes one resource, and begins anew when somebody else changed it meanwhile.
fn update(
    db: &mut Db,
    id: &ResourceId,
    dry_run: bool,
    mut change: impl FnMut(&mut Value) -> Result<(), Failure>,
) -> Result<(), Failure> {
    writable(id.kind)?;
    for _ in 0..TRIES {
        let before = db
            .get(id)?
            .ok_or_else(|| refusal("resource does not exist", id))?;
        let mut document = before.document.clone();
        change(&mut document)?;
        let (resource, stored) = checked(id, &before, &document)?;
        warn(db, std::slice::from_ref(&resource), &[])?;
        let condition = Condition::Revision(before.revision);
        if dry_run || db.put(&before.key, condition, &stored)?.is_some() {
            return Ok(());
        }
    }
    Err(refusal("update conflict", id))
}

/// The document to be stored, if it is still a valid one of the same resource.
fn checked(
    id: &ResourceId,
    before: &Stored,
    document: &Value,
) -> Result<(Resource, Value), Failure> {
    let parsed = api::parse_bytes(&before.key, document.to_string().as_bytes());
    files::complain(&parsed.issues);
    match parsed.resources.first() {
        Some(resource) if !parsed.has_errors() && resource.id == *id => {
            let mut stored = document::complete(resource, Some(&before.document));
            if let Some(held) = keys::parse(&before.key) {
                stored["metadata"]["name"] = held.name.into();
            }
            Ok((resource.clone(), stored))
        }
        _ => {
            let text = format!("{id} would not be valid: nothing was written");
            Err(Failure::new(EX_NO, text))
        }
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Map::new().into();
    }
    let Some(map) = target.as_object_mut() else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            map.shift_remove(name);
        } else {
            merge(map.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// RFC 6902, without `move` and `copy`.
fn operations(document: &mut Value, patch: &Value) -> Result<(), Failure> {
    for operation in patch.as_array().into_iter().flatten() {
        let wrong = |what: &str| Failure::new(EX_NO, format!("{operation}: {what}"));
        let path = operation["path"]
            .as_str()
            .ok_or_else(|| wrong("has no path"))?;
        let value = &operation["value"];
        match operation["op"].as_str() {
            Some("test") if document.pointer(path) == Some(value) => {}
            Some("test") => return Err(wrong("does not hold")),
            Some("add" | "replace" | "remove") => {
                let op = operation["op"].as_str().unwrap_or_default();
                operate(document, op, path, value)
                    .ok_or_else(|| wrong("there is no such place"))?;
            }
            _ => return Err(wrong("only add, remove, replace and test are supported")),
        }
    }
    match patch.is_array() {
        true => Ok(()),
        false => Err(Failure::new(
            EX_USAGE,
            "a JSON patch is a list of operations",
        )),
    }
}

fn operate(document: &mut Value, op: &str, path: &str, value: &Value) -> Option<()> {
    let (parent, name) = path.rsplit_once('/')?;
    let name = name.replace("~1", "/").replace("~0", "~");
    match document.pointer_mut(parent)? {
        Value::Object(map) => {
            if op != "add" {
                map.get(&name)?;
            }
            match op {
                "remove" => drop(map.shift_remove(&name)),
                _ => drop(map.insert(name, value.clone())),
            }
        }
        Value::Array(items) => {
            let at = match name.as_str() {
                "-" if op == "add" => items.len(),
                index => index.parse().ok()?,
            };
            let inside = at < items.len() || (op == "add" && at == items.len());
            match (inside, op) {
                (false, _) => return None,
                (true, "remove") => drop(items.remove(at)),
                (true, "replace") => items[at] = value.clone(),
                (true, _) => items.insert(at, value.clone()),
            }
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merging() {
        let mut value = json!({"a": {"b": 1, "c": [1, 2]}, "d": 1});
        merge(
            &mut value,
            &json!({"a": {"b": null, "c": [3]}, "e": {"f": null, "g": 1}}),
        );
        assert_eq!(value, json!({"a": {"c": [3]}, "d": 1, "e": {"g": 1}}));
    }

    #[test]
    fn operating() {
        let mut value = json!({"a/b": [1, 2], "c": 1});
        let patch = json!([
            {"op": "test", "path": "/c", "value": 1},
            {"op": "add", "path": "/a~1b/-", "value": 3},
            {"op": "add", "path": "/a~1b/0", "value": 0},
            {"op": "remove", "path": "/c"},
            {"op": "replace", "path": "/a~1b/1", "value": 9},
        ]);
        operations(&mut value, &patch).unwrap();
        assert_eq!(value, json!({"a/b": [0, 9, 2, 3]}));
        for bad in [
            json!({}),
            json!([{"op": "remove", "path": "/none"}]),
            json!([{"op": "add", "path": "/a~1b/9", "value": 1}]),
            json!([{"op": "test", "path": "/a~1b/0", "value": 1}]),
            json!([{"op": "fly", "path": "/a~1b"}]),
        ] {
            assert!(operations(&mut value, &bad).is_err(), "{bad}");
        }
    }
}
