//! What Calico's client refuses of a pool, because the addresses that hosts took already depend on it.

use ipnet::IpNet;
use serde_json::Value;

use super::db::Db;
use super::ipam::Block;
use crate::api::Kind;
use crate::ctl::{EX_NO, Failure};

const CIDR: &str = "IPPool.Spec.CIDR";
const BLOCK_SIZE: &str = "IPPool.Spec.BlockSize";

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
