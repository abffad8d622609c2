//! `moatctl ipam show`.

use std::net::IpAddr;

use clap::Args;
use ipnet::IpNet;
use serde_json::Value;

use super::block::Block;
use super::{borrowed, config_key, read, usual};
use crate::api::Kind;
use crate::ctl::datastore::db::Db;
use crate::ctl::datastore::render;
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

impl Show {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Outcome {
        let mut db = Db::open(global)?;
        let text = if self.show_configuration {
            let found = db.get_key(&config_key())?;
            configuration(&found.map_or_else(usual, |kv| read(&kv.value)))
        } else {
            let blocks = Block::all(&mut db)?;
            match self.ip {
                None if self.show_borrowed => borrowed::table(&blocks),
                Some(ip) => one(ip, &blocks),
                None => {
                    let pools = db.list(Kind::IPPool, None)?;
                    let cidr = |value: &Value| value["spec"]["cidr"].as_str()?.parse().ok();
                    let pools: Vec<IpNet> =
                        pools.iter().filter_map(|p| cidr(&p.document)).collect();
                    pools_table(&pools, &blocks, self.show_blocks)
                }
            }
        };
        output::print_text(&text)?;
        Ok(EX_OK)
    }
}

fn configuration(config: &Value) -> String {
    let row = |name: &str, field: &str, other: &str| {
        let value = config.get(field).filter(|value| !value.is_null());
        let value = value.map_or_else(|| other.to_owned(), Value::to_string);
        vec![name.to_owned(), value]
    };
    let rows = [
        row("StrictAffinity", "strict_affinity", "false"),
        row("AutoAllocateBlocks", "auto_allocate_blocks", "false"),
        row("MaxBlocksPerHost", "maxBlocksPerHost", "0"),
    ];
    boxed(&["PROPERTY", "VALUE"], &rows)
}

fn one(ip: IpAddr, blocks: &[Block]) -> String {
    let Some(attributes) = blocks.iter().find_map(|block| block.attributes(ip)) else {
        return format!("{ip} is not assigned");
    };
    let mut lines = vec![format!("IP {ip} is in use")];
    match attributes["secondary"]
        .as_object()
        .filter(|map| !map.is_empty())
    {
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

fn size(net: &IpNet) -> f64 {
    f64::from(net.max_prefix_len() - net.prefix_len()).exp2()
}

fn pools_table(pools: &[IpNet], blocks: &[Block], show_blocks: bool) -> String {
    let row = |group: &str, net: &IpNet, used: usize| {
        let (total, used) = (size(net), used as f64);
        let part = |n: f64| format!("{} ({:.0}%)", five(n), 100.0 * n / total);
        vec![
            group.to_owned(),
            net.to_string(),
            five(total),
            part(used),
            part(total - used),
        ]
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
    let is_orphan = |block: &&Block| !pools.iter().any(|pool| pool.contains(&block.net));
    let orphans = blocks.iter().filter(is_orphan).filter(|_| show_blocks);
    rows.extend(orphans.map(|block| row("Block", &block.net, block.used())));
    boxed(
        &["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE"],
        &rows,
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

/// A table with lines around it: titles in the middle, numbers to the right.
pub fn boxed(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |n: usize| {
        let cells = rows.iter().map(|row| row[n].len());
        cells.max().unwrap_or(0).max(header[n].len())
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let dashes: Vec<String> = widths.iter().map(|w| "-".repeat(w + 2)).collect();
    let line = format!("+{}+", dashes.join("+"));
    let titles: Vec<String> = header
        .iter()
        .zip(&widths)
        .map(|(t, w)| format!(" {t:^w$} ", w = *w))
        .collect();
    let cell = |(cell, w): (&String, &usize)| match cell.parse::<u64>() {
        Ok(_) => format!(" {cell:>w$} ", w = *w),
        Err(_) => format!(" {cell:<w$} ", w = *w),
    };
    let row = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(cell).collect();
        format!("|{}|", cells.join("|"))
    };
    let mut lines = vec![
        line.clone(),
        format!("|{}|", titles.join("|")),
        line.clone(),
    ];
    lines.extend(rows.iter().map(row));
    lines.push(line);
    lines.join("\n")
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
