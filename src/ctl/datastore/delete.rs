//! `moatctl delete`.

use clap::Args;

use super::Inputs;
use super::change::{CLUSTER_TIERS, warn};
use super::db::Db;
use super::words::{named, note, refusal, writable};
use crate::api::{Kind, Resource, ResourceId};
use crate::ctl::{EX_NO, EX_OK, Failure, Global, Outcome, output};
use crate::etcd::document::is_policy;
use crate::etcd::{Condition, Write};

/// Command line of `delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// Kind or its alias
    kind: Option<String>,
    /// Names
    names: Vec<String>,
    #[command(flatten)]
    inputs: Inputs,
    /// Namespace of the resources
    #[arg(short, long)]
    namespace: Option<String>,
    /// Resources that do not exist are no error
    #[arg(short = 's', long)]
    skip_not_exists: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

impl Delete {
    /// Removes resources.
    pub fn run(&self, global: &Global) -> Outcome {
        let (ids, versions) = self.ids(global)?;
        let mut db = Db::open(global)?;
        warn(&mut db, &[], &ids)?;
        let (mut done, mut errors) = (0, Vec::new());
        for (id, version) in ids.iter().zip(&versions) {
            match self.one(&mut db, id, version) {
                Ok(()) => done += 1,
                Err(failure) => errors.push(failure.message),
            }
        }
        let first = ids.first().map(|id| id.kind);
        let kind = first.filter(|kind| ids.iter().all(|id| id.kind == *kind));
        let kind = kind.map_or(String::new(), |kind| format!("'{kind}' "));
        if ids.is_empty() {
            output::print_text("No resources specified")?;
        }
        if done > 0 {
            let note = note(self.dry_run);
            let text = format!("Successfully deleted {done} {kind}resource(s){note}");
            output::print_text(&text)?;
        }
        if errors.is_empty() {
            return Ok(EX_OK);
        }
        let said = |error: &String| format!("failed to delete {kind}resource: {error}");
        let errors: Vec<String> = errors.iter().map(said).collect();
        Err(Failure::new(EX_NO, errors.join("\n")))
    }

    fn ids(&self, global: &Global) -> Result<(Vec<ResourceId>, Vec<String>), Failure> {
        let Some(kind) = &self.kind else {
            let mut resources = self.inputs.read(global, self.namespace.as_deref())?;
            // Endpoints first: what protects them goes after them.
            resources.reverse();
            let version = |r: &Resource| r.meta.version.clone();
            let versions = resources.iter().map(version).collect();
            return Ok((resources.into_iter().map(|r| r.id).collect(), versions));
        };
        let ids = named(kind, &self.names, self.namespace.as_deref())?;
        let versions = vec![String::new(); ids.len()];
        Ok((ids, versions))
    }

    fn one(&self, db: &mut Db, id: &ResourceId, version: &str) -> Result<(), Failure> {
        writable(id, "Delete")?;
        let Some(before) = db.get(id)? else {
            return match self.skip_not_exists {
                true => Ok(()),
                false => Err(refusal("resource does not exist", id)),
            };
        };
        if !version.is_empty() && version != before.revision.to_string() {
            return Err(refusal("update conflict", id));
        }
        if id.kind == Kind::Tier {
            check_tier(db, &id.name)?;
        }
        if self.dry_run {
            return Ok(());
        }
        if id.kind == Kind::Node {
            remove_dependents(db, &id.name)?;
        }
        let condition = Condition::Revision(before.revision);
        match db.write(&before.key, condition, Write::Delete)? {
            Some(_) => Ok(()),
            None => Err(refusal("update conflict", id)),
        }
    }
}

/// A tier with policies stays, and those that every cluster has.
fn check_tier(db: &mut Db, name: &str) -> Result<(), Failure> {
    let refused = |why: String| {
        let text = format!("operation delete is not supported on {name}: {why}");
        Err(Failure::new(EX_NO, text))
    };
    if CLUSTER_TIERS.iter().any(|tier| tier.0 == name) {
        return refused(format!("Cannot delete {name} tier"));
    }
    for kind in Kind::all().filter(|kind| is_policy(*kind)) {
        let found = db.list(kind, None)?;
        if found.iter().any(|p| p.document["spec"]["tier"] == name) {
            return refused("Cannot delete a non-empty tier".to_owned());
        }
    }
    Ok(())
}

/// What belongs to a node goes with it, as with Calico's client; addresses of its workloads stay assigned.
fn remove_dependents(db: &mut Db, node: &str) -> Result<(), Failure> {
    use Kind::*;
    for kind in [
        HostEndpoint,
        WorkloadEndpoint,
        BGPPeer,
        FelixConfiguration,
        BGPConfiguration,
    ] {
        for found in db.list(kind, None)? {
            let by_name = matches!(kind, FelixConfiguration | BGPConfiguration);
            let belongs = match by_name {
                true => found.document["metadata"]["name"] == format!("node.{node}").as_str(),
                false => found.document["spec"]["node"] == node,
            };
            if belongs {
                db.write(&found.key, Condition::Always, Write::Delete)?;
            }
        }
    }
    Ok(())
}
