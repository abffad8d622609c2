//! `moatctl delete`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use clap::Args;
use serde_json::Value;

use super::Inputs;
use super::change::{CLUSTER_TIERS, warn};
use super::db::Db;
use super::ipam::{TUNNELS, release_addresses, release_blocks};
use super::pool::retire;
use super::words::{named, note, refusal, said, writable};
use crate::api::{Kind, ResourceId};
use crate::ctl::progress::Progress;
use crate::ctl::{EX_NO, EX_OK, Failure, Global, Outcome};
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
        let mut progress = Progress::new("resources deleted", Some(ids.len()));
        for (id, version) in ids.iter().zip(&versions) {
            progress.done(done);
            match self.one(&mut db, id, version) {
                Ok(()) => done += 1,
                Err(failure) => errors.push(failure.message),
            }
        }
        drop(progress);
        let first = ids.first().map(|id| id.kind);
        let kind = first.filter(|kind| ids.iter().all(|id| id.kind == *kind));
        let kind = kind.map_or(String::new(), |kind| format!("'{kind}' "));
        if ids.is_empty() {
            said(global.output, "No resources specified")?;
        }
        if done > 0 {
            let note = note(self.dry_run);
            let text = format!("Successfully deleted {done} {kind}resource(s){note}");
            said(global.output, &text)?;
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
            let named = self.inputs.named(global, self.namespace.as_deref())?;
            return Ok(named.into_iter().unzip());
        };
        let ids = named(kind, &self.names, self.namespace.as_deref())?;
        let versions = vec![String::new(); ids.len()];
        Ok((ids, versions))
    }

    fn one(&self, db: &mut Db, id: &ResourceId, version: &str) -> Result<(), Failure> {
        writable(id, "Delete")?;
        let Some(before) = db.find(id)? else {
            if id.kind == Kind::Node && !self.dry_run {
                // What is left of one that somebody else deleted. Its endpoints stay: they may be those of a host that has
                // never been a Node, and without them it would be open.
                release_addresses_of(db, &id.name, &Value::Null)?;
            }
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
        let revision = match id.kind {
            Kind::Node => {
                release_addresses_of(db, &id.name, &before.document)?;
                remove_dependents(db, &id.name)?;
                Some(before.revision)
            }
            Kind::IPPool => retire(db, &before)?,
            _ => Some(before.revision),
        };
        let deleted = match revision {
            Some(revision) => {
                let condition = Condition::Revision(revision);
                db.write(&before.key, condition, Write::Delete)?
            }
            None => None,
        };
        deleted
            .map(|_| ())
            .ok_or_else(|| refusal("update conflict", id))
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

/// The addresses of a node's workloads and tunnels are given back, and its blocks are taken from it, before it goes (facts 1.12).
fn release_addresses_of(db: &mut Db, name: &str, node: &Value) -> Result<(), Failure> {
    let tunnels = TUNNELS.iter().filter_map(|place| node.pointer(place));
    let mut addresses: Vec<&Value> = tunnels.collect();
    let workloads = db.list(Kind::WorkloadEndpoint, None)?;
    let its_own = workloads
        .iter()
        .filter(|w| w.document["spec"]["node"] == name);
    let networks = its_own.filter_map(|w| w.document["spec"]["ipNetworks"].as_array());
    addresses.extend(networks.flatten());
    let address = |text: &&Value| text.as_str()?.split('/').next()?.parse().ok();
    let addresses: BTreeSet<IpAddr> = addresses.iter().filter_map(address).collect();
    release_addresses(db, |ip, used| {
        // Where it is known whose an address is, only its owner gives it back.
        let owner = &used["secondary"]["node"];
        addresses.contains(&ip) && (owner.is_null() || owner == name)
    })?;
    release_blocks(db, |block| name == block.host)
}

/// What belongs to a node goes with it, as with Calico's client.
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
