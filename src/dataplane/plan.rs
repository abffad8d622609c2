//! What was found in the kernel, and the difference to what is wanted.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::api::Family;
use crate::compile::Member;

/// One rule as read back: who made it, and how to name it for deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRule {
    /// Our identity of the rule; `None` for rules that are not ours.
    pub id: Option<String>,
    /// The rule without its chain, as the tool prints it.
    pub text: String,
}

/// One table as read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundTable {
    /// Our chains with their rules.
    pub chains: BTreeMap<String, Vec<FoundRule>>,
    /// Built-in chains with all their rules.
    pub hooks: BTreeMap<String, Vec<FoundRule>>,
}

/// One of our sets as read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundSet {
    /// Type and family, as the tool prints them: `hash:net inet`.
    pub kind: String,
    /// How many members fit.
    pub capacity: usize,
    /// The members.
    pub members: BTreeSet<Member>,
}

/// What is in the kernel of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Tables by family and name.
    pub tables: BTreeMap<Family, BTreeMap<String, FoundTable>>,
    /// Sets by name.
    pub sets: BTreeMap<String, FoundSet>,
}

/// What changes in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// Chains created or changed.
    pub chains: usize,
    /// Rules added.
    pub rules_added: usize,
    /// Rules removed.
    pub rules_removed: usize,
    /// Sets created.
    pub sets_created: usize,
    /// Set members added or removed.
    pub members: usize,
    /// Chains removed.
    pub chains_removed: usize,
    /// Sets removed.
    pub sets_removed: usize,
}

/// Edits of one family: what the restore tool reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilyPlan {
    /// Chains, rules and jumps by table name.
    pub edits: BTreeMap<String, Vec<String>>,
    /// Chains to be removed afterwards by table name.
    pub removals: BTreeMap<String, Vec<String>>,
}

impl FamilyPlan {
    /// The input of the restore tool for edits.
    pub fn edit_text(&self) -> String {
        let text = |(table, lines): (&String, &Vec<String>)| {
            format!("*{table}\n{}\nCOMMIT\n", lines.join("\n"))
        };
        self.edits.iter().map(text).collect()
    }

    /// The input of the restore tool for removals.
    pub fn removal_text(&self) -> String {
        let text = |(table, chains): (&String, &Vec<String>)| {
            // Emptied first: chains of ours may refer to each other.
            let flush: String = chains.iter().map(|c| format!("-F {c}\n")).collect();
            let delete: String = chains.iter().map(|c| format!("-X {c}\n")).collect();
            format!("*{table}\n{flush}{delete}COMMIT\n")
        };
        self.removals.iter().map(text).collect()
    }
}

/// The difference between the ruleset wanted and the one found, in the order in which it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Sets created and filled before the rules change, as `ipset restore` reads them.
    pub set_lines: Vec<String>,
    /// Rules.
    pub families: BTreeMap<Family, FamilyPlan>,
    /// Sets destroyed after the rules changed.
    pub destroy: Vec<String>,
    /// Numbers.
    pub changed: Changed,
}

impl Plan {
    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.set_lines.is_empty() && self.families.is_empty() && self.destroy.is_empty()
    }

    /// Every line that would be given to a tool, prefixed by the tool's short name.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .set_lines
            .iter()
            .map(|l| format!("ipset: {l}"))
            .collect();
        let tool = |family: &Family| match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        for (family, plan) in &self.families {
            for (table, edits) in &plan.edits {
                lines.extend(
                    edits
                        .iter()
                        .map(|l| format!("{} -t {table}: {l}", tool(family))),
                );
            }
        }
        for (family, plan) in &self.families {
            for (table, chains) in &plan.removals {
                lines.extend(
                    chains
                        .iter()
                        .map(|c| format!("{} -t {table}: -X {c}", tool(family))),
                );
            }
        }
        lines.extend(self.destroy.iter().map(|s| format!("ipset: destroy {s}")));
        lines
    }
}
