//! Reading `iptables-save` and `ipset save`: only names and identities of ours are believed.
//!
//! `iptables-nft-save` prints native nft rules of others wrongly and still says success, so nothing of a foreign rule
//! is ever taken from its text but that it exists.

use std::collections::BTreeMap;

use super::render::identity;
use crate::api::{Protocol, net};
use crate::compile::Member;
use crate::dataplane::plan::{FoundRule, FoundSet, FoundTable};

/// Chains that the kernel makes.
const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// Starts the name of every chain of ours.
pub const CHAIN_PREFIX: &str = "moat-";

/// Tables by name.
pub fn parse_tables(text: &str) -> BTreeMap<String, FoundTable> {
    let mut tables = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            current = name.to_owned();
            tables.insert(current.clone(), FoundTable::default());
            continue;
        }
        let Some(table) = tables.get_mut(&current) else {
            continue;
        };
        if let Some(chain) = line.strip_prefix(':') {
            let name = chain.split(' ').next().unwrap_or_default();
            if name.starts_with(CHAIN_PREFIX) {
                table.chains.insert(name.to_owned(), Vec::new());
            }
        } else if let Some(rule) = line.strip_prefix("-A ") {
            add_rule(table, rule);
        }
    }
    tables
}

fn add_rule(table: &mut FoundTable, rule: &str) {
    let (chain, text) = rule.split_once(' ').unwrap_or((rule, ""));
    let found = FoundRule {
        id: identity(text),
        text: text.to_owned(),
    };
    if let Some(rules) = table.chains.get_mut(chain) {
        rules.push(found);
    } else if BUILT_IN.contains(&chain) {
        table.hooks.entry(chain.to_owned()).or_default().push(found);
    }
}

/// Those tables of ours that the tool says it cannot show. It ends with success all the same.
pub fn incompatible_tables(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .filter(|l| l.starts_with('#') && l.contains("is incompatible, use 'nft' tool"));
    let names = lines.filter_map(|l| l.split(['`', '\'']).nth(1));
    let ours = |name: &&str| crate::compile::Table::ALL.iter().any(|t| t.name() == *name);
    names.filter(ours).map(str::to_owned).collect()
}

/// The built-in chain and the rule of a line that adds a rule there.
pub fn hook_of(line: &str) -> Option<(&str, &str)> {
    let (command, rest) = line.split_once(' ')?;
    let (chain, rule) = rest.split_once(' ')?;
    if !BUILT_IN.contains(&chain) {
        return None;
    }
    match command {
        "-A" => Some((chain, rule)),
        "-I" => Some((chain, rule.split_once(' ')?.1)),
        _ => None,
    }
}

/// Sets of ours by name.
pub fn parse_sets(text: &str) -> BTreeMap<String, FoundSet> {
    let mut sets: BTreeMap<String, FoundSet> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("create"), Some(name), Some(kind)) if is_ours(name) => {
                let options: Vec<&str> = words.collect();
                let after = |key: &str| {
                    options
                        .iter()
                        .position(|o| *o == key)
                        .and_then(|at| options.get(at + 1))
                };
                let family = after("family").map_or(String::new(), |f| format!(" {f}"));
                let capacity = after("maxelem")
                    .and_then(|n| n.parse().ok())
                    .unwrap_or(usize::MAX);
                let set = FoundSet {
                    kind: format!("{kind}{family}"),
                    capacity,
                    ..FoundSet::default()
                };
                sets.insert(name.to_owned(), set);
            }
            (Some("add"), Some(name), Some(member)) => {
                if let (Some(set), Some(member)) = (sets.get_mut(name), parse_member(member)) {
                    set.members.insert(member);
                }
            }
            _ => {}
        }
    }
    sets
}

/// Whether a set name is one of ours.
pub fn is_ours(name: &str) -> bool {
    name.starts_with("moat4-") || name.starts_with("moat6-")
}

fn parse_member(text: &str) -> Option<Member> {
    if let Some((addr, port)) = text.split_once(',') {
        let (protocol, number) = port.split_once(':')?;
        let protocol = Protocol::parse_loose(protocol)?;
        return Some(Member::AddrPort(
            addr.parse().ok()?,
            protocol,
            number.parse().ok()?,
        ));
    }
    if let Ok(port) = text.parse::<u16>() {
        return Some(Member::Port(port));
    }
    net::parse_net(text).ok().map(Member::Net)
}
