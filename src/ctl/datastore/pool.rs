//! Pools of addresses: what Calico's client refuses of them, because hosts took addresses of them already, and what it does before one goes.

use std::thread::sleep;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

use super::db::{Db, Stored};
use super::ipam::{Block, release_blocks};
use crate::api::Kind;
use crate::ctl::{EX_NO, Failure};
use crate::etcd::Condition;

const CIDR: &str = "IPPool.Spec.CIDR";
const BLOCK_SIZE: &str = "IPPool.Spec.BlockSize";
/// In which time hosts finish taking the addresses that they are about to take (facts 1.13).
const SETTLE: Duration = Duration::from_millis(500);

/// Refuses a document that is to be stored in the place of `before`, in calicoctl's words; other kinds pass.
pub fn check(db: &mut Db, new: &Value, before: Option<&Value>) -> Result<(), Failure> {
    if new["kind"] != Kind::IPPool.name() {
        return Ok(());
    }
    let wrong = match before {
        Some(before) => changed(&new["spec"], &before["spec"]),
        None => in_the_way(db, new)?,
    };
    let text = match &wrong[..] {
        [] => return Ok(()),
        [one] => format!("error with field {one}"),
        more => format!(
            "error with the following fields:\n-  {}",
            more.join("\n-  ")
        ),
    };
    Err(Failure::new(EX_NO, text))
}

/// Takes away the default that only newer clients know.
pub fn for_old_clients(stored: &mut Value, given: &Value) {
    const NEW: &str = "assignmentMode";
    if given["spec"][NEW].is_null()
        && let Some(spec) = stored["spec"].as_object_mut()
    {
        spec.shift_remove(NEW);
    }
}

/// Disables a pool and takes its blocks from the hosts, so that it can go; the revision that it has then, or none if somebody else
/// changed it meanwhile.
pub fn retire(db: &mut Db, pool: &Stored) -> Result<Option<i64>, Failure> {
    let spec = &pool.document["spec"];
    let mut revision = pool.revision;
    if spec["disabled"] != true {
        let condition = Condition::Revision(revision);
        let mut disabled = pool.document.clone();
        disabled["spec"]["disabled"] = true.into();
        if let Some(metadata) = disabled["metadata"].as_object_mut() {
            // Shown, never stored.
            metadata.shift_remove("resourceVersion");
        }
        let Some(now) = db.put(&pool.key, condition, &disabled)? else {
            return Ok(None);
        };
        revision = now;
    }
    if let Some(cidr) = net(spec) {
        sleep(SETTLE);
        release_blocks(db, |block| cidr.contains(&block.net.addr()))?;
    }
    Ok(Some(revision))
}

fn field(name: &str, value: &Value, why: &str) -> String {
    let value = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    format!("{name} = '{value}' ({why})")
}

fn changed(new: &Value, before: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    if net(new) != net(before) {
        wrong.push(field(CIDR, &new["cidr"], "IPPool CIDR cannot be modified"));
    }
    // Old clients stored none where it was the usual one.
    if !before["blockSize"].is_null() && new["blockSize"] != before["blockSize"] {
        let why = "IPPool BlockSize cannot be modified";
        wrong.push(field(BLOCK_SIZE, &new["blockSize"], why));
    }
    wrong
}

fn in_the_way(db: &mut Db, new: &Value) -> Result<Vec<String>, Failure> {
    let (name, spec) = (&new["metadata"]["name"], &new["spec"]);
    let name = name.as_str().unwrap_or_default();
    let Some(cidr) = net(spec) else {
        return Ok(Vec::new());
    };
    let overlaps = |other: &IpNet| cidr.contains(other) || other.contains(&cidr);
    let mut wrong = Vec::new();
    for pool in db.list(Kind::IPPool, None)? {
        let other = pool.document["metadata"]["name"]
            .as_str()
            .unwrap_or_default();
        let taken = net(&pool.document["spec"]).filter(overlaps);
        if let Some(taken) = taken {
            let why = format!("IPPool({name}) CIDR overlaps with IPPool({other}) CIDR {taken}");
            wrong.push(field(CIDR, &spec["cidr"], &why));
        }
    }
    let size = spec["blockSize"].as_u64();
    let is_other =
        |block: &Block| overlaps(&block.net) && Some(u64::from(block.net.prefix_len())) != size;
    if wrong.is_empty() && Block::all(db)?.iter().any(is_other) {
        let why =
            "IPPool blocksSize conflicts with existing allocations that use a different blockSize";
        wrong.push(field(BLOCK_SIZE, &spec["blockSize"], why));
    }
    Ok(wrong)
}

fn net(spec: &Value) -> Option<IpNet> {
    spec["cidr"].as_str()?.parse().ok()
}
