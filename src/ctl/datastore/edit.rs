//! `moatctl patch` and `label`.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::change::{check_tier, warn};
use super::db::{Db, Stored};
use super::patch::{merge, operations};
use super::pool;
use super::words::{failed, note, one, refusal, said, writable};
use crate::api::{self, Document, Resource, ResourceId};
use crate::ctl::{EX_NO, EX_OK, Failure, Global, Outcome, files};
use crate::etcd::{Condition, document};

/// Others may come before so often.
const TRIES: u32 = 5;

/// How a patch is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PatchType {
    /// As merge, with `$patch: replace` and `$patch: delete`: no list of these kinds has a key to merge by
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
        let id = one(&self.kind, &self.name, self.namespace.as_deref())?;
        let patch: Value = serde_json::from_str(&self.patch)
            .map_err(|e| Failure::new(EX_NO, format!("hit error: the patch is no JSON: {e}")))?;
        let mut db = Db::open(global)?;
        let patched = update(&mut db, &id, self.dry_run, |document| {
            match self.patch_type {
                PatchType::Strategic | PatchType::Merge => merge(document, &patch),
                PatchType::Json => operations(document, &patch),
            }
            .map_err(|what| Failure::new(EX_NO, what))
        });
        patched.map_err(|e| Failure::new(e.code, format!("hit error: {}", e.message)))?;
        let text = format!("Successfully patched 1 '{}' resource", id.kind);
        said(global.output, &(text + note(self.dry_run)))?;
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
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

impl Label {
    /// Sets or removes one label.
    pub fn run(&self, global: &Global) -> Outcome {
        let id = one(&self.kind, &self.name, self.namespace.as_deref())
            .map_err(|e| failed(&format!("get {} {}", self.kind, self.name), e))?;
        let (key, value) = match (self.label.split_once('='), self.remove) {
            (Some((key, value)), false) if !value.contains('=') => (key, Some(value)),
            (None, true) => (self.label.as_str(), None),
            _ => {
                let text = format!(
                    "invalid label {}: say KEY=VALUE, or KEY with --remove",
                    self.label
                );
                return Err(Failure::new(EX_NO, text));
            }
        };
        let mut db = Db::open(global)?;
        if db.get(&id)?.is_none() {
            let text = format!("{} {} not found", self.kind, self.name);
            return Err(Failure::new(EX_NO, text));
        }
        let mut done = "set";
        update(&mut db, &id, self.dry_run, |document| {
            done = self.change(document, key, value)?;
            Ok(())
        })?;
        let place = if done == "removed" { "from" } else { "on" };
        let (kind, name) = (&self.kind, &self.name);
        let text = format!("Successfully {done} label {key} {place} {kind} {name}");
        said(global.output, &(text + note(self.dry_run)))?;
        Ok(EX_OK)
    }

    fn change(
        &self,
        document: &mut Value,
        key: &str,
        value: Option<&str>,
    ) -> Result<&'static str, Failure> {
        let (kind, name) = (&self.kind, &self.name);
        let no = |text: String| Err(Failure::new(EX_NO, text));
        if document["metadata"]["labels"].is_null() {
            document["metadata"]["labels"] = Map::new().into();
        }
        let Some(labels) = document["metadata"]["labels"].as_object_mut() else {
            return no(format!("the labels of {kind} {name} are no mapping"));
        };
        let before = labels.get(key).and_then(Value::as_str).map(str::to_owned);
        match (value, before) {
            (None, None) => no(format!(
                "cannot remove label of {kind} {name}, key {key} does not exist"
            )),
            (None, Some(_)) => {
                labels.shift_remove(key);
                Ok("removed")
            }
            (Some(value), Some(before)) if before != value && !self.overwrite => no(format!(
                "failed to update label of {kind} {name}, key {key} is already present. please use '--overwrite' to set a new value."
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
    writable(id, "Update").map_err(|e| failed_update(&e))?;
    for _ in 0..TRIES {
        let before = db
            .get(id)?
            .ok_or_else(|| refusal("resource does not exist", id))?;
        let mut document = before.document.clone();
        change(&mut document)?;
        same_identity(&before.document, &document)?;
        let (resource, stored) = checked(id, &before, &document)?;
        check_tier(db, &resource, Some(&before))?;
        pool::check(db, &stored, Some(&before.document)).map_err(|e| failed_update(&e))?;
        warn(db, std::slice::from_ref(&resource), &[])?;
        let condition = Condition::Revision(before.revision);
        if dry_run || db.put(&before.key, condition, &stored)?.is_some() {
            return Ok(());
        }
    }
    Err(refusal("update conflict", id))
}

fn failed_update(failure: &Failure) -> Failure {
    let text = format!("updating existing resource: {}", failure.message);
    Failure::new(failure.code, text)
}

/// Refuses what only the datastore itself or Calico's programs write: it would be left as it was without a word.
fn same_identity(before: &Value, after: &Value) -> Result<(), Failure> {
    let fields = |document: &Value| {
        document["metadata"]
            .as_object()
            .cloned()
            .unwrap_or_default()
    };
    let (before, after) = (fields(before), fields(after));
    let is_changeable = |name: &str| ["name", "namespace", "labels", "annotations"].contains(&name);
    let mut names = before.keys().chain(after.keys());
    match names.find(|name| !is_changeable(name) && before.get(*name) != after.get(*name)) {
        Some(name) if name == "resourceVersion" => Err(Failure::new(
            EX_NO,
            "update conflict: another resourceVersion",
        )),
        Some(name) => {
            let text =
                format!("metadata.{name} cannot be changed: only labels and annotations can");
            Err(Failure::new(EX_NO, text))
        }
        None => Ok(()),
    }
}

/// The document to be stored, if it is still a valid one of the same resource.
fn checked(
    id: &ResourceId,
    before: &Stored,
    document: &Value,
) -> Result<(Resource, Value), Failure> {
    let parsed = api::parse_value(&before.key.as_str().into(), &Document::from(document));
    files::complain(&parsed.issues);
    match parsed.resources.first() {
        Some(resource) if !parsed.has_errors() && resource.id == *id => {
            let stored = document::complete(resource, Some(&before.document), &before.key);
            Ok((resource.clone(), stored))
        }
        _ => {
            let text = format!("{id} would not be valid: nothing was written");
            Err(Failure::new(EX_NO, text))
        }
    }
}
