//! The chains of the legacy tools, from what their save programs print.

use super::super::command::Tools;
use super::super::iptables::Backend;
use super::{Chain, Hook, Step};
use crate::api::Family;

/// All chains of both families.
pub fn chains() -> Vec<Chain> {
    let mut chains = Vec::new();
    for (family, name) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
        let mut reader = Reader {
            family: name,
            table: String::new(),
            chains: Vec::new(),
        };
        let tool = Backend::Legacy.tool(family, "save");
        let read = Tools::default().read(&tool, &[], String::new(), |line| {
            reader.line(line);
            true
        });
        match read {
            Ok(()) => chains.append(&mut reader.chains),
            Err(error) => tracing::debug!("{tool}: {error}"),
        }
    }
    chains
}

/// Takes the lines of one save program.
pub(super) struct Reader {
    pub(super) family: &'static str,
    pub(super) table: String,
    pub(super) chains: Vec<Chain>,
}

impl Reader {
    pub(super) fn line(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        match (line.chars().next(), words.next()) {
            (Some('*'), Some(table)) => self.table = table[1..].to_owned(),
            (Some(':'), Some(chain)) => self.declare(&chain[1..], words.next() == Some("DROP")),
            (Some('-'), Some("-A")) => {
                let Some(name) = words.next() else { return };
                let step = words
                    .skip_while(|word| !matches!(*word, "-j" | "-g"))
                    .nth(1)
                    .map_or(Step::None, |target| self.step(target));
                let table = &self.table;
                let of_table = |c: &&mut Chain| c.table == *table && c.name == name;
                if let Some(chain) = self.chains.iter_mut().find(of_table) {
                    chain.push(step);
                }
            }
            _ => {}
        }
    }

    fn declare(&mut self, name: &str, denies_at_end: bool) {
        let hook = Hook::from_chain(name).map(|hook| (hook, priority(&self.table)));
        self.chains.push(Chain {
            tool: "legacy",
            family: self.family,
            table: self.table.clone(),
            name: name.to_owned(),
            hook,
            denies_at_end,
            steps: Vec::new(),
        });
    }

    /// A target is one of the kernel's, or a chain of the table.
    fn step(&self, target: &str) -> Step {
        let is_chain = self
            .chains
            .iter()
            .any(|c| c.table == self.table && c.name == target);
        match Step::of_target(target) {
            Some(step) => step,
            None if is_chain => Step::Jump(target.to_owned()),
            None => Step::None,
        }
    }
}

/// `NF_IP_PRI_*`.
fn priority(table: &str) -> i32 {
    match table {
        "raw" => -300,
        "mangle" => -150,
        "nat" => -100,
        "security" => 50,
        _ => 0,
    }
}
