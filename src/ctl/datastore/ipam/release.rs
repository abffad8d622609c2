//! `moatctl ipam release`.

use std::net::IpAddr;

use clap::Args;
use serde_json::Value;

use super::block::Block;
use super::read;
use crate::ctl::datastore::db::Db;
use crate::ctl::{EX_NO, EX_OK, Failure, Global, Outcome, output};
use crate::etcd::{Condition, Write, keys};

/// Others may come before so often.
const TRIES: u32 = 5;

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
        let mut db = Db::open(global)?;
        for _ in 0..TRIES {
            let blocks = Block::all(&mut db)?;
            let found = blocks.iter().find(|block| block.attributes(ip).is_some());
            let Some((block, after)) = found.and_then(|b| Some((b, b.without(ip)?))) else {
                return Err(Failure::new(
                    EX_NO,
                    format!("IP address {ip} is not assigned"),
                ));
            };
            let condition = Condition::Revision(block.revision);
            let write = match block.used() == 1 && block.is_nobodys() {
                true => Write::Delete,
                false => put(&after),
            };
            if db.write(&block.key, condition, write)?.is_some() {
                let handle = block.attributes(ip).and_then(|a| a["handle_id"].as_str());
                if let Some(handle) = handle {
                    count_down(&mut db, handle, &block.net.to_string())?;
                }
                output::print_text(&format!("Successfully released IP address {ip}"))?;
                return Ok(EX_OK);
            }
        }
        Err(Failure::new(
            EX_NO,
            format!("update conflict: the block of {ip}"),
        ))
    }
}

fn put(value: &Value) -> Write {
    Write::Put {
        value: value.to_string().into_bytes(),
        lease: 0,
    }
}

/// The handle has one address less of that block; without any it goes.
fn count_down(db: &mut Db, handle: &str, net: &str) -> Result<(), Failure> {
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
            Some(count) if count > 1 => drop(blocks.insert(net.to_owned(), (count - 1).into())),
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
    Err(Failure::new(EX_NO, format!("update conflict: {key}")))
}
