//! `moatctl ipam release`, and giving back what belonged to something that goes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use clap::Args;
use serde_json::Value;

use super::block::Block;
use super::{TRIES, conflict, put, read};
use crate::ctl::datastore::db::Db;
use crate::ctl::datastore::words::said;
use crate::ctl::{EX_NO, EX_OK, Failure, Global, Outcome};
use crate::etcd::{Condition, Write, keys};

/// Command line of `ipam release`.
#[derive(Debug, Args)]
pub struct Release {
    /// The address; nothing checks that nothing uses it
    #[arg(long, value_name = "ADDRESS")]
    ip: IpAddr,
}

impl Release {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Outcome {
        let ip = self.ip;
        if release(&mut Db::open(global)?, |used, _| used == ip)? == 0 {
            let text = format!("IP address {ip} is not assigned");
            return Err(Failure::new(EX_NO, text));
        }
        said(
            global.output,
            &format!("Successfully released IP address {ip}"),
        )?;
        Ok(EX_OK)
    }
}

/// Gives back the addresses that are wanted, which are asked for with their attributes; says how many those were.
pub fn release(db: &mut Db, wanted: impl Fn(IpAddr, &Value) -> bool) -> Result<usize, Failure> {
    let mut released = 0;
    for block in Block::all(db)? {
        released += release_of(db, block, &wanted)?;
    }
    Ok(released)
}

fn release_of(
    db: &mut Db,
    block: Block,
    wanted: &impl Fn(IpAddr, &Value) -> bool,
) -> Result<usize, Failure> {
    let key = block.key.clone();
    let mut now = Some(block);
    for _ in 0..TRIES {
        let Some(block) = now else { return Ok(0) };
        let uses = block.uses().filter(|(ip, used)| wanted(*ip, used));
        let uses: Vec<(IpAddr, &Value)> = uses.collect();
        if uses.is_empty() {
            return Ok(0);
        }
        let ips: Vec<IpAddr> = uses.iter().map(|(ip, _)| *ip).collect();
        let after = block.without(&ips);
        let is_empty = Block::new(String::new(), 0, after.clone()).is_none_or(|b| b.is_empty());
        let write = match is_empty && block.is_nobodys() {
            true => Write::Delete,
            false => put(&after),
        };
        if db
            .write(&key, Condition::Revision(block.revision), write)?
            .is_some()
        {
            let mut handles = BTreeMap::new();
            for handle in uses
                .iter()
                .filter_map(|(_, used)| used["handle_id"].as_str())
            {
                *handles.entry(handle).or_insert(0) += 1;
            }
            for (handle, count) in handles {
                count_down(db, handle, &block.net.to_string(), count)?;
            }
            return Ok(ips.len());
        }
        now = Block::get(db, &key)?;
    }
    Err(conflict(&key))
}

/// The handle has fewer addresses of that block; without any it goes.
fn count_down(db: &mut Db, handle: &str, net: &str, less: u64) -> Result<(), Failure> {
    let key = format!("{}handle/{handle}", keys::IPAM);
    for _ in 0..TRIES {
        let Some(found) = db.get_key(&key)? else {
            return Ok(());
        };
        let mut value = read(&found.value);
        let Some(blocks) = value["block"].as_object_mut() else {
            return Ok(());
        };
        match blocks.get(net).and_then(Value::as_u64) {
            Some(count) if count > less => {
                drop(blocks.insert(net.to_owned(), (count - less).into()));
            }
            _ => drop(blocks.shift_remove(net)),
        }
        let write = match blocks.is_empty() {
            true => Write::Delete,
            false => put(&value),
        };
        if db
            .write(&key, Condition::Revision(found.revision), write)?
            .is_some()
        {
            return Ok(());
        }
    }
    Err(conflict(&key))
}
