//! `moatctl create`, `apply`, `replace` and `delete`.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::db::{Db, Stored};
use super::words::{note, refusal, said, writable};
use super::{Inputs, cut, pool};
use crate::api::{Kind, Resource, ResourceId};
use crate::ctl::output::Output;
use crate::ctl::progress::Progress;
use crate::ctl::{EX_NO, EX_OK, Failure, Global, Outcome};
use crate::etcd::Condition;
use crate::etcd::{document, keys};

/// How often a write is tried that others come before.
const TRIES: u32 = 5;
/// Pause between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// Tiers that every cluster has: name, order, default action.
pub const CLUSTER_TIERS: [(&str, Option<f64>, &str); 3] = [
    ("default", Some(1_000_000.0), "Deny"),
    ("kube-admin", Some(1000.0), "Pass"),
    ("kube-baseline", Some(10_000_000.0), "Pass"),
];

/// What is to become of resources in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// They must be new.
    Create,
    /// They may be new or there.
    Apply,
    /// They must be there.
    Replace,
}

impl Verb {
    fn done(self) -> &'static str {
        match self {
            Verb::Create => "created",
            Verb::Apply => "applied",
            Verb::Replace => "replaced",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Apply => "apply",
            Verb::Replace => "replace",
        }
    }
}

/// Command line of the three.
#[derive(Debug, Args)]
pub struct Change {
    #[command(flatten)]
    inputs: Inputs,
    /// Namespace of resources that name none
    #[arg(short, long)]
    namespace: Option<String>,
    /// Resources that exist are left as they are (create)
    #[arg(long)]
    skip_exists: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

impl Change {
    /// Writes the resources of files.
    pub fn run(&self, global: &Global, verb: Verb) -> Outcome {
        let resources = self.inputs.read(global, self.namespace.as_deref())?;
        let mut db = Db::open(global)?;
        if verb != Verb::Create || !self.skip_exists {
            warn(&mut db, &resources, &[])?;
        }
        let mut tally = Tally::new(&resources, self.dry_run);
        let mut progress = Progress::new("resources written", Some(resources.len()));
        for (count, resource) in resources.iter().enumerate() {
            progress.done(count);
            match self.one(&mut db, verb, resource) {
                Ok(()) => tally.done += 1,
                Err(failure) => {
                    tally.errors.push(failure.message);
                    if verb == Verb::Replace {
                        break;
                    }
                }
            }
        }
        drop(progress);
        tally.report(global.output, verb.name(), verb.done())
    }

    fn one(&self, db: &mut Db, verb: Verb, resource: &Resource) -> Result<(), Failure> {
        let operation = if verb == Verb::Create {
            "create"
        } else {
            "Update"
        };
        writable(&resource.id, operation)?;
        let given = resource.meta.version.clone();
        if verb == Verb::Create && !given.is_empty() {
            let text = format!(
                "error with field Metadata.ResourceVersion = '{given}' (field must not be set for a Create request)"
            );
            return Err(Failure::new(EX_NO, text));
        }
        for _ in 0..TRIES {
            let before = db.find(&resource.id)?;
            if before.is_some() && verb == Verb::Create {
                return match self.skip_exists {
                    true => Ok(()),
                    false => Err(refusal("resource already exists", &resource.id)),
                };
            }
            if before.is_none() && verb == Verb::Replace {
                return Err(refusal("resource does not exist", &resource.id));
            }
            if let Some(before) = &before
                && !given.is_empty()
                && given != before.revision.to_string()
            {
                return Err(refusal("update conflict", &resource.id));
            }
            check_tier(db, resource, before.as_ref())?;
            if before.is_none() && resource.id.kind == Kind::Node {
                initialize(db)?;
            }
            if self.dry_run || write(db, resource, before.as_ref())? {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        Err(refusal("update conflict", &resource.id))
    }
}

/// Says before anything is written which endpoints would be cut off.
pub fn warn(db: &mut Db, changed: &[Resource], removed: &[ResourceId]) -> Result<(), Failure> {
    for warning in cut::check(db, changed, removed)? {
        eprintln!("moatctl: warning: {warning}");
    }
    Ok(())
}

/// Writes unless somebody else came before; says whether it did.
fn write(db: &mut Db, resource: &Resource, before: Option<&Stored>) -> Result<bool, Failure> {
    let (key, condition) = match before {
        Some(before) => (before.key.clone(), Condition::Revision(before.revision)),
        None => (db.new_key(resource)?, Condition::Absent),
    };
    let held = before.map(|b| &b.document);
    let mut stored = document::complete(resource, held, &key);
    pool::check(db, &stored, held)?;
    if resource.id.kind == Kind::IPPool && db.has_old_names()? {
        pool::for_old_clients(&mut stored, &resource.raw.value());
    }
    Ok(db.put(&key, condition, &stored)?.is_some())
}

/// Refuses a policy that would be in a tier that is not there, and was not before.
pub fn check_tier(
    db: &mut Db,
    resource: &Resource,
    before: Option<&Stored>,
) -> Result<(), Failure> {
    if !document::is_policy(resource.id.kind) {
        return Ok(());
    }
    let of = |document: &Value| {
        document["spec"]["tier"]
            .as_str()
            .unwrap_or("default")
            .to_owned()
    };
    let tier = of(&resource.raw.value());
    let is_same = before.is_some_and(|before| of(&before.document) == tier);
    let id = ResourceId {
        kind: Kind::Tier,
        namespace: String::new(),
        name: tier.clone(),
    };
    if tier == "default" || is_same || db.find(&id)?.is_some() {
        return Ok(());
    }
    let text = format!(
        "{}: the tier {tier} does not exist: create it first",
        resource.id
    );
    Err(Failure::new(EX_NO, text))
}

/// What Calico's client makes with the first Node: the cluster's own information and its tiers, as far as its version has tiers.
pub fn initialize(db: &mut Db) -> Result<(), Failure> {
    let guid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    let guid = guid.trim().replace('-', "");
    let spec = serde_json::json!({"clusterGUID": guid, "datastoreReady": true});
    let information = serde_json::json!({
        "kind": "ClusterInformation", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "default"}, "spec": spec,
    });
    let mut documents = vec![information];
    for (name, order, action) in CLUSTER_TIERS {
        documents.push(serde_json::json!({
            "kind": "Tier", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": name}, "spec": {"order": order, "defaultAction": action},
        }));
    }
    if db.has_old_names()? {
        documents.truncate(1);
    }
    for document in documents {
        let parsed = crate::api::parse_bytes("moatctl", document.to_string().as_bytes());
        for resource in parsed.resources {
            let key = keys::key(&resource.id);
            let stored = document::complete(&resource, None, &key);
            // What is there already stays.
            db.put(&key, Condition::Absent, &stored)?;
        }
    }
    complete_information(db, &spec)
}

/// Felix waits for ever where ClusterInformation does not say that the datastore is ready.
fn complete_information(db: &mut Db, wanted: &Value) -> Result<(), Failure> {
    let Some(found) = db.get_key(keys::CLUSTER_INFORMATION)? else {
        return Ok(());
    };
    let mut stored: Value = serde_json::from_slice(&found.value).unwrap_or_default();
    let Some(spec) = stored["spec"].as_object_mut() else {
        return Ok(());
    };
    let before = spec.len();
    for (field, value) in wanted.as_object().into_iter().flatten() {
        let is_there = spec.get(field).is_some_and(|v| !v.is_null() && v != "");
        if !is_there {
            spec.insert(field.clone(), value.clone());
        }
    }
    if spec.len() > before {
        // Somebody who changes it meanwhile does the same.
        let condition = Condition::Revision(found.revision);
        db.put(keys::CLUSTER_INFORMATION, condition, &stored)?;
    }
    Ok(())
}

/// How far a command came.
struct Tally {
    total: usize,
    kind: Option<Kind>,
    done: usize,
    errors: Vec<String>,
    dry_run: bool,
}

impl Tally {
    fn new(resources: &[Resource], dry_run: bool) -> Tally {
        let first = resources.first().map(|r| r.id.kind);
        Tally {
            total: resources.len(),
            kind: first.filter(|kind| resources.iter().all(|r| r.id.kind == *kind)),
            done: 0,
            errors: Vec::new(),
            dry_run,
        }
    }

    fn report(&self, form: Output, verb: &str, done: &str) -> Outcome {
        let note = note(self.dry_run);
        if self.total == 0 {
            said(form, "No resources specified")?;
            return Ok(EX_OK);
        }
        let kind = self.kind.map_or(String::new(), |kind| format!("'{kind}' "));
        if self.errors.is_empty() {
            let text = format!("Successfully {done} {} {kind}resource(s){note}", self.done);
            said(form, &text)?;
            return Ok(EX_OK);
        }
        let errors = match verb {
            // It ends with the first one.
            "replace" => self.errors.join(" "),
            _ => format!("[{}]", self.errors.join(" ")),
        };
        let text = match (self.total, self.done) {
            (1, _) => format!("failed to {verb} {kind}resource: {errors}"),
            (_, 0) => format!("failed to {verb} any {kind}resources: {errors}"),
            (total, n) => {
                let text = format!(
                    "Partial success: {done} the first {n} out of {total} {kind}resources:{note}"
                );
                said(form, &text)?;
                let plural = if verb == "apply" { "(s)" } else { "" };
                format!("hit error{plural}: {errors}")
            }
        };
        Err(Failure::new(EX_NO, text))
    }
}
