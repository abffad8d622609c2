//! `moatctl ipam`: what Calico's address management keeps in the datastore, and changes of it, in calicoctl's words.

mod affinity;
mod block;
mod borrowed;
mod check;
mod release;
mod show;

pub use affinity::release as release_blocks;
pub use block::Block;
pub use release::release as release_addresses;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::db::Db;
use super::words::said;
use crate::ctl::{EX_NO, EX_OK, Failure, Global, Outcome};
use crate::etcd::{Condition, Write, keys};

/// Where a Node has the addresses of its tunnels.
pub const TUNNELS: [&str; 5] = [
    "/spec/bgp/ipv4IPIPTunnelAddr",
    "/spec/ipv4VXLANTunnelAddr",
    "/spec/ipv6VXLANTunnelAddr",
    "/spec/wireguard/interfaceIPv4Address",
    "/spec/wireguard/interfaceIPv6Address",
];
/// Others may come before so often.
const TRIES: u32 = 5;

/// Commands about addresses.
#[derive(Debug, Subcommand)]
pub enum Ipam {
    /// Show how many addresses of each pool are in use, or who uses one
    Show(show::Show),
    /// Compare the addresses that are assigned with those that are in use
    Check(check::Check),
    /// Set how hosts take addresses
    Configure(Configure),
    /// Give an address back that nothing uses any more
    Release(release::Release),
}

/// Command line of `ipam configure`.
#[derive(Debug, Args)]
pub struct Configure {
    /// true: a host takes addresses of its own blocks alone
    #[arg(long, value_name = "true|false")]
    strictaffinity: String,
}

impl Ipam {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Outcome {
        match self {
            Ipam::Show(show) => show.run(global),
            Ipam::Check(check) => check.run(global),
            Ipam::Configure(configure) => configure.run(global),
            Ipam::Release(release) => release.run(global),
        }
    }
}

impl Configure {
    fn run(&self, global: &Global) -> Outcome {
        let strict = match self.strictaffinity.as_str() {
            "true" => true,
            "false" => false,
            _ => {
                let text = "invalid value. Use true or false to set strictaffinity";
                return Err(Failure::new(EX_NO, text));
            }
        };
        let mut db = Db::open(global)?;
        let key = config_key();
        let found = db.get_key(&key)?;
        let mut config = found.as_ref().map_or_else(usual, |kv| read(&kv.value));
        let condition = found.map_or(Condition::Absent, |kv| Condition::Revision(kv.revision));
        config["strict_affinity"] = strict.into();
        if !strict && let Some(config) = config.as_object_mut() {
            config.shift_remove("strict_affinity");
        }
        let written = db.write(&key, condition, put(&config))?;
        if written.is_none() {
            let text = "somebody else changed it meanwhile: try again";
            return Err(Failure::new(EX_NO, text));
        }
        let text = format!("Successfully set StrictAffinity to: {strict}");
        said(global.output, &text)?;
        Ok(EX_OK)
    }
}

fn config_key() -> String {
    format!("{}config", keys::IPAM)
}

/// What holds where nothing is stored.
fn usual() -> Value {
    json!({"strict_affinity": false, "auto_allocate_blocks": true})
}

fn read(value: &[u8]) -> Value {
    serde_json::from_slice(value).unwrap_or_default()
}

fn put(value: &Value) -> Write {
    Write::Put {
        value: value.to_string().into_bytes(),
        lease: 0,
    }
}

fn conflict(key: &str) -> Failure {
    Failure::new(
        EX_NO,
        format!("update conflict: others keep changing {key}: try again"),
    )
}
