//! `moatctl ipam show` and `moatctl node status`: what Calico's address management and its hosts keep in the datastore.

use std::net::IpAddr;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde_json::Value;

use super::db::Db;
use crate::api::Kind;
use crate::ctl::output::table;
use crate::ctl::{EX_NO, EX_OK, Global, Outcome, output};
use crate::etcd::keys::{self, status};

/// Commands about addresses.
#[derive(Debug, Subcommand)]
pub enum Ipam {
    /// Show how many addresses of each pool are in use, or who uses one
    Show(Show),
}

/// Command line of `ipam show`.
#[derive(Debug, Args)]
pub struct Show {
    /// Who uses this address
    #[arg(long)]
    ip: Option<IpAddr>,
    /// Also the blocks of each pool
    #[arg(long)]
    show_blocks: bool,
}

/// A block of addresses.
struct Block {
    net: IpNet,
    allocations: Vec<Option<usize>>,
    attributes: Vec<Value>,
}

impl Block {
    fn read(text: &[u8]) -> Option<Block> {
        let value: Value = serde_json::from_slice(text).ok()?;
        let allocations = value["allocations"].as_array()?.iter();
        let index = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
        Some(Block {
            net: value["cidr"].as_str()?.parse().ok()?,
            allocations: allocations.map(index).collect(),
            attributes: value["attributes"].as_array().cloned().unwrap_or_default(),
        })
    }

    fn used(&self) -> u128 {
        self.allocations.iter().flatten().count() as u128
    }
}

impl Ipam {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Outcome {
        let Ipam::Show(show) = self;
        let mut db = Db::open(global)?;
        let prefix = format!("{}assignment/", keys::IPAM);
        let found = db.scan(&prefix)?;
        let blocks: Vec<Block> = found
            .iter()
            .filter_map(|kv| Block::read(&kv.value))
            .collect();
        match show.ip {
            Some(ip) => one(ip, &blocks),
            None => {
                let pools = db.list(Kind::IPPool, None)?;
                let cidr = |value: &Value| value["spec"]["cidr"].as_str()?.parse().ok();
                let pools: Vec<IpNet> = pools.iter().filter_map(|p| cidr(&p.document)).collect();
                output::print_text(&pools_table(&pools, &blocks, show.show_blocks))?;
                Ok(EX_OK)
            }
        }
    }
}

fn one(ip: IpAddr, blocks: &[Block]) -> Outcome {
    let place = |block: &&Block| block.net.contains(&ip);
    let used = blocks.iter().find(place).and_then(|block| {
        let at = usize::try_from(number(ip) - number(block.net.network())).ok()?;
        block
            .allocations
            .get(at)
            .copied()
            .flatten()
            .map(|attribute| {
                &block.attributes[attribute.min(block.attributes.len().saturating_sub(1))..]
            })
    });
    let Some(attributes) = used else {
        output::print_text(&format!("{ip} is not assigned"))?;
        return Ok(EX_NO);
    };
    let mut text = format!("IP {ip} is in use");
    if let Some(attribute) = attributes.first() {
        text += &format!(
            "\nHandle: {}",
            attribute["handle_id"].as_str().unwrap_or_default()
        );
        for (name, value) in attribute["secondary"].as_object().into_iter().flatten() {
            text += &format!("\n  {name}: {}", value.as_str().unwrap_or_default());
        }
    }
    output::print_text(&text)?;
    Ok(EX_OK)
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn size(net: &IpNet) -> u128 {
    let bits = u32::from(net.max_prefix_len() - net.prefix_len());
    1u128.checked_shl(bits).unwrap_or(u128::MAX)
}

fn pools_table(pools: &[IpNet], blocks: &[Block], show_blocks: bool) -> String {
    let row = |group: &str, net: &IpNet, used: u128| {
        let total = size(net);
        // Per cent, whole.
        let part = |n: u128| (n as f64 / total as f64 * 100.0).round() as u64;
        let free = total - used;
        [
            group.to_owned(),
            net.to_string(),
            total.to_string(),
            format!("{used} ({}%)", part(used)),
            format!("{free} ({}%)", part(free)),
        ]
        .to_vec()
    };
    let mut rows = Vec::new();
    for pool in pools {
        let of_pool: Vec<&Block> = blocks
            .iter()
            .filter(|block| pool.contains(&block.net))
            .collect();
        rows.push(row(
            "IP Pool",
            pool,
            of_pool.iter().map(|block| block.used()).sum(),
        ));
        let shown = of_pool.iter().filter(|_| show_blocks);
        rows.extend(shown.map(|block| row("Block", &block.net, block.used())));
    }
    table(
        &["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE"],
        &rows,
    )
}

/// Commands about hosts.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// Show which hosts tell the datastore that they are alive
    Status,
}

impl Node {
    /// Runs the command; exit code 1 when a host is silent.
    pub fn run(&self, global: &Global) -> Outcome {
        let Node::Status = self;
        let mut db = Db::open(global)?;
        let found = db.scan(status::HOSTS)?;
        let reports = found.iter().filter_map(|kv| {
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            let (host, what) = key.strip_prefix(status::HOSTS)?.split_once('/')?;
            let value: Value = serde_json::from_slice(&kv.value).unwrap_or_default();
            Some((status::unescape(host), what.to_owned(), value))
        });
        let reports: Vec<(String, String, Value)> = reports.collect();
        let is_alive = |host: &str| {
            reports
                .iter()
                .any(|(h, what, _)| h == host && what == "status")
        };
        let last = reports
            .iter()
            .filter(|(_, what, _)| what == "last_reported_status");
        let rows: Vec<Vec<String>> = last
            .map(|(host, _, value)| {
                let state = if is_alive(host) { "alive" } else { "silent" };
                let time = value["time"].as_str().unwrap_or_default();
                let uptime = value["uptime"].as_f64().unwrap_or_default();
                vec![
                    host.clone(),
                    state.to_owned(),
                    ago(time),
                    format!("{uptime:.0}s"),
                ]
            })
            .collect();
        let is_silent = rows.iter().any(|row| row[1] == "silent");
        output::print_text(&table(&["NAME", "STATE", "LAST REPORT", "UPTIME"], &rows))?;
        Ok(if is_silent { EX_NO } else { EX_OK })
    }
}

fn ago(time: &str) -> String {
    let age = humantime::parse_rfc3339(time)
        .ok()
        .and_then(|at| SystemTime::now().duration_since(at).ok());
    age.map_or_else(|| time.to_owned(), |age| format!("{}s ago", age.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_and_blocks() {
        let text = br#"{"cidr":"192.168.1.0/26","allocations":[0,null,1],"unallocated":[1],"attributes":[{"handle_id":"a"},{"handle_id":"b"}]}"#;
        let blocks = [Block::read(text).unwrap()];
        let pools = [
            "192.168.0.0/16".parse().unwrap(),
            "fd00::/48".parse().unwrap(),
        ];
        let shown = pools_table(&pools, &blocks, true);
        let rows: Vec<Vec<&str>> = shown
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(
            rows[1],
            [
                "IP",
                "Pool",
                "192.168.0.0/16",
                "65536",
                "2",
                "(0%)",
                "65534",
                "(100%)"
            ]
        );
        assert_eq!(
            rows[2],
            ["Block", "192.168.1.0/26", "64", "2", "(3%)", "62", "(97%)"]
        );
        assert_eq!(rows.len(), 4);
        assert!(Block::read(b"{}").is_none());
    }
}
