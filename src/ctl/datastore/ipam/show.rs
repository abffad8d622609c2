//! `moatctl ipam show`.

use std::net::IpAddr;

use clap::Args;
use ipnet::IpNet;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::block::Block;
use super::{borrowed, config_key, read, usual};
use crate::api::Kind;
use crate::ctl::datastore::db::Db;
use crate::ctl::datastore::render;
use crate::ctl::datastore::render::boxed;
use crate::ctl::{EX_OK, Global, Outcome, output};

/// Command line of `ipam show`.
#[derive(Debug, Args)]
pub struct Show {
    /// Who uses this address
    #[arg(long)]
    ip: Option<IpAddr>,
    /// Also the blocks of each pool
    #[arg(long)]
    show_blocks: bool,
    /// Addresses that hosts took of blocks of others
    #[arg(long)]
    show_borrowed: bool,
    /// How hosts take addresses
    #[arg(long)]
    show_configuration: bool,
}

/// How many addresses of a pool or block are in use.
#[derive(Debug, Serialize)]
struct Usage {
    grouping: &'static str,
    cidr: IpNet,
    /// Not whole above 2^53.
    total: f64,
    used: usize,
    free: f64,
}

impl Show {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Outcome {
        let mut db = Db::open(global)?;
        let form = global.output;
        if self.show_configuration {
            let found = db.get_key(&config_key())?;
            let config = configuration(&found.map_or_else(usual, |kv| read(&kv.value)));
            output::print(form, &config, || configuration_table(&config))?;
            return Ok(EX_OK);
        }
        let blocks = Block::all(&mut db)?;
        match self.ip {
            None if self.show_borrowed => {
                let report = borrowed::Report::of(&blocks);
                output::print(form, &report, || report.text())?;
            }
            Some(ip) => {
                let attributes = blocks.iter().find_map(|block| block.attributes(ip));
                let of = attributes.map(|attributes| &attributes["secondary"]);
                let told = json!({"ip": ip, "inUse": of.is_some(), "attributes": of});
                output::print(form, &told, || one(ip, of))?;
            }
            None => {
                let pools = db.list(Kind::IPPool, None)?;
                let cidr = |value: &Value| value["spec"]["cidr"].as_str()?.parse().ok();
                let pools: Vec<IpNet> = pools.iter().filter_map(|p| cidr(&p.document)).collect();
                let usage = usage(&pools, &blocks, self.show_blocks);
                output::print(form, &usage, || usage_table(&usage))?;
            }
        }
        Ok(EX_OK)
    }
}

/// What is stored of the configuration, under the names that Calico shows.
fn configuration(config: &Value) -> Map<String, Value> {
    let shown = |(name, field, other): (&str, &str, Value)| {
        let value = config.get(field).filter(|value| !value.is_null());
        (name.to_owned(), value.cloned().unwrap_or(other))
    };
    [
        ("StrictAffinity", "strict_affinity", false.into()),
        ("AutoAllocateBlocks", "auto_allocate_blocks", false.into()),
        ("MaxBlocksPerHost", "maxBlocksPerHost", 0.into()),
    ]
    .map(shown)
    .into_iter()
    .collect()
}

fn configuration_table(config: &Map<String, Value>) -> String {
    let rows = config.iter().map(|(k, v)| vec![k.clone(), v.to_string()]);
    boxed(&["PROPERTY", "VALUE"], &rows.collect::<Vec<_>>())
}

fn one(ip: IpAddr, attributes: Option<&Value>) -> String {
    let Some(attributes) = attributes else {
        return format!("{ip} is not assigned");
    };
    let mut lines = vec![format!("IP {ip} is in use")];
    match attributes.as_object().filter(|map| !map.is_empty()) {
        Some(map) => {
            lines.push("Attributes:".to_owned());
            lines.extend(
                map.iter()
                    .map(|(name, value)| format!("  {name}: {}", render::plain(value))),
            );
        }
        None => lines.push("No attributes defined".to_owned()),
    }
    lines.join("\n")
}

fn usage(pools: &[IpNet], blocks: &[Block], show_blocks: bool) -> Vec<Usage> {
    let of = |grouping: &'static str, cidr: IpNet, used: usize| {
        let total = f64::from(cidr.max_prefix_len() - cidr.prefix_len()).exp2();
        Usage {
            grouping,
            cidr,
            total,
            used,
            free: total - used as f64,
        }
    };
    let of_block = |block: &Block| of("Block", block.net, block.used());
    let mut rows = Vec::new();
    for pool in pools {
        let inside = |block: &&Block| pool.contains(&block.net);
        let of_pool: Vec<&Block> = blocks.iter().filter(inside).collect();
        let used = of_pool.iter().map(|block| block.used()).sum();
        rows.push(of("IP Pool", *pool, used));
        let shown = of_pool.into_iter().filter(|_| show_blocks);
        rows.extend(shown.map(of_block));
    }
    let is_orphan = |block: &&Block| !pools.iter().any(|pool| pool.contains(&block.net));
    let orphans = blocks.iter().filter(is_orphan).filter(|_| show_blocks);
    rows.extend(orphans.map(of_block));
    rows
}

fn usage_table(usage: &[Usage]) -> String {
    let row = |usage: &Usage| {
        let part = |n: f64| format!("{} ({:.0}%)", five(n), 100.0 * n / usage.total);
        vec![
            usage.grouping.to_owned(),
            usage.cidr.to_string(),
            five(usage.total),
            part(usage.used as f64),
            part(usage.free),
        ]
    };
    boxed(
        &["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE"],
        &usage.iter().map(row).collect::<Vec<_>>(),
    )
}

/// Five digits at most: `65536`, `1.2089e+24`.
fn five(number: f64) -> String {
    if number < 99_999.5 {
        return number.to_string();
    }
    let text = format!("{number:.4e}");
    let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    format!("{digits}e+{power:0>2}")
}

#[cfg(test)]
mod tests {
    use super::five;

    #[test]
    fn five_digits() {
        for (number, text) in [
            (0.0, "0"),
            (65_536.0, "65536"),
            (1_048_576.0, "1.0486e+06"),
            (100_000.0, "1e+05"),
        ] {
            assert_eq!(five(number), text);
        }
        assert_eq!(five(80f64.exp2()), "1.2089e+24");
    }
}
