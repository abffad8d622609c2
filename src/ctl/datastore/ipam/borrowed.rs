//! `moatctl ipam show --show-borrowed`.

use serde::Serialize;

use super::block::Block;
use crate::ctl::datastore::render::boxed;

const TITLES: [&str; 6] = [
    "IP",
    "BORROWING-NODE",
    "BLOCK",
    "BLOCK OWNER",
    "TYPE",
    "ALLOCATED-TO",
];

/// Addresses that another host than that of their block has.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    borrowed: Vec<Borrowed>,
    /// How many addresses do not say whose they are.
    unknown: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Borrowed {
    ip: String,
    borrowing_node: String,
    block: String,
    block_owner: String,
    #[serde(rename = "type")]
    kind: String,
    allocated_to: String,
}

impl Report {
    /// What is borrowed of these blocks.
    pub fn of(blocks: &[Block]) -> Report {
        let mut report = Report::default();
        for block in blocks {
            let owner = block.host().unwrap_or_default();
            for (ip, attributes) in block.uses() {
                let text = |name: &str| attributes["secondary"][name].as_str();
                let Some(node) = text("node") else {
                    report.unknown += 1;
                    continue;
                };
                if node == owner {
                    continue;
                }
                let (kind, user) = match text("pod") {
                    Some(pod) => {
                        let namespace = text("namespace").unwrap_or_default();
                        ("pod", format!("{namespace}/{pod}"))
                    }
                    None => (text("type").unwrap_or_default(), String::new()),
                };
                report.borrowed.push(Borrowed {
                    ip: ip.to_string(),
                    borrowing_node: node.to_owned(),
                    block: block.net.to_string(),
                    block_owner: owner.to_owned(),
                    kind: kind.to_owned(),
                    allocated_to: user,
                });
            }
        }
        report
    }

    /// For people.
    pub fn text(&self) -> String {
        let row = |b: &Borrowed| {
            let cells = [&b.ip, &b.borrowing_node, &b.block, &b.block_owner];
            let cells = cells.into_iter().chain([&b.kind, &b.allocated_to]);
            cells.cloned().collect()
        };
        let rows: Vec<Vec<String>> = self.borrowed.iter().map(row).collect();
        let table = boxed(&TITLES, &rows);
        match self.unknown {
            0 => table,
            n => format!(
                "{table}\n\nNote: found {n} IP allocations without an explicit node association. Unable to determine if they are borrowed."
            ),
        }
    }
}
