//! Writing rules through the restore tools: one transaction per table, both families side by side; and finding out which rule
//! of a refused transaction is to blame.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::super::command::{CommandError, Tools};
use super::detect::Backend;
use super::diff::{FamilyEdit, TableEdit};
use super::refused::Refusals;
use super::render::identity_inside;
use super::save::{CHAIN_PREFIX, Saved, hook_of};
use crate::api::Family;
use crate::compile::Table;

/// Seconds that a tool waits for the lock of the legacy backend.
const LOCK_WAIT: &str = "10";
/// Where rules are tried out. No rule leads there, so no packet sees them.
const PROBE_CHAIN: &str = "moat-probe";
/// How often the rules of one refused table are tried in part.
const PROBES: usize = 40;
/// How many old chains are removed one by one, when they cannot be removed together.
const SINGLES: usize = 64;

/// A backend's restore tools.
#[derive(Clone, Debug)]
pub struct Writer {
    /// Where the tools are.
    pub tools: Tools,
    /// Which of them.
    pub backend: Backend,
}

impl Writer {
    /// Writes the edits of all families; what one of them refuses does not keep the other one unprotected.
    pub fn write(&self, edits: &BTreeMap<Family, FamilyEdit>) -> BTreeMap<Family, CommandError> {
        self.all(edits, |family, edits| {
            self.restore(family, edit_text(edits, false))
        })
    }

    /// The same, and removes old chains in the same transactions: with nf_tables each of them waits for a grace period of the
    /// kernel. After a failure nobody knows how far it came.
    pub fn write_and_remove(
        &self,
        edits: &BTreeMap<Family, FamilyEdit>,
    ) -> BTreeMap<Family, CommandError> {
        self.all(edits, |family, edits| {
            self.restore(family, edit_text(edits, true))
        })
    }

    /// Removes old chains; returns what could not be removed, because rules that are not ours lead there.
    ///
    /// # Errors
    /// The tool does not work.
    pub fn remove(
        &self,
        edits: &BTreeMap<Family, FamilyEdit>,
    ) -> Result<BTreeSet<String>, CommandError> {
        let failed = self.all(edits, |family, edits| {
            self.restore(family, removal_text(edits))
        });
        let mut held = BTreeSet::new();
        for (family, error) in failed {
            if !error.is_refusal() {
                return Err(error);
            }
            let edits = edits.get(&family).into_iter().flatten();
            let chains = edits.flat_map(|e| e.stale.iter().map(|c| (e.table, c)));
            for (n, (table, chain)) in chains.enumerate() {
                let mut text = String::new();
                transaction(&mut text, table, &[], std::slice::from_ref(chain));
                if n >= SINGLES || self.restore(family, text).is_err() {
                    held.insert(chain.clone());
                }
            }
        }
        Ok(held)
    }

    /// A job for each family, side by side.
    fn all(
        &self,
        edits: &BTreeMap<Family, FamilyEdit>,
        job: impl Fn(Family, &FamilyEdit) -> Result<(), CommandError> + Sync,
    ) -> BTreeMap<Family, CommandError> {
        let run = |(family, edits): (&Family, &FamilyEdit)| {
            let error = job(*family, edits).err()?;
            Some((*family, error))
        };
        if edits.len() < 2 {
            return edits.iter().filter_map(run).collect();
        }
        std::thread::scope(|scope| {
            let run = &run;
            let jobs: Vec<_> = edits
                .iter()
                .map(|one| scope.spawn(move || run(one)))
                .collect();
            let results = jobs.into_iter().map(|job| match job.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            results.flatten().collect()
        })
    }

    fn restore(&self, family: Family, text: String) -> Result<(), CommandError> {
        if text.is_empty() {
            return Ok(());
        }
        let tool = self.backend.tool(family, "restore");
        let args = ["--noflush", "--wait", LOCK_WAIT];
        self.tools.run(&tool, &args, text)
    }

    /// Finds the rules of these edits that are refused, by trying them out in a chain of their own; says whether there are any.
    ///
    /// # Errors
    /// The tool does not work.
    pub fn find_refused(
        &self,
        family: Family,
        edits: &FamilyEdit,
        there: &Saved,
        refusals: &mut Refusals,
    ) -> Result<bool, CommandError> {
        let mut any = false;
        for edit in edits {
            let mut probe = Probe {
                writer: self,
                family,
                table: edit.table,
                there,
                left: PROBES,
            };
            if let Some(reason) = probe.try_rules(&[])? {
                // Without this one nothing is enforced: that is a failure.
                if edit.table != Table::Filter {
                    refusals.tables.insert((family, edit.table), reason);
                    any = true;
                }
                continue;
            }
            let rules: Vec<&str> = edit.lines.iter().filter_map(|l| rule_of(l)).collect();
            any |= probe.bisect(&rules, refusals)?;
        }
        Ok(any)
    }
}

/// Tries out rules of one table.
struct Probe<'a> {
    writer: &'a Writer,
    family: Family,
    table: Table,
    there: &'a Saved,
    left: usize,
}

impl Probe<'_> {
    /// Halves what is refused until single rules are left, or there were too many tries.
    fn bisect(&mut self, rules: &[&str], refusals: &mut Refusals) -> Result<bool, CommandError> {
        if rules.is_empty() {
            return Ok(false);
        }
        let Some(reason) = self.try_rules(rules)? else {
            return Ok(false);
        };
        if rules.len() == 1 || self.left == 0 {
            for id in rules.iter().filter_map(|rule| identity_inside(rule)) {
                let place = (self.family, self.table, id);
                refusals.rules.insert(place, reason.clone());
            }
            return Ok(true);
        }
        let (first, second) = rules.split_at(rules.len() / 2);
        Ok(self.bisect(first, refusals)? | self.bisect(second, refusals)?)
    }

    /// Why these rules are refused, if they are.
    fn try_rules(&mut self, rules: &[&str]) -> Result<Option<String>, CommandError> {
        self.left = self.left.saturating_sub(1);
        let there = self.there.tables.get(&self.table);
        let is_missing = |c: &&str| !there.is_some_and(|t| t.chains.contains_key(*c));
        let targets = rules.iter().filter_map(|rule| target_of(rule));
        let mut chains: BTreeSet<&str> = targets.filter(is_missing).collect();
        chains.insert(PROBE_CHAIN);
        let heads = chains.iter().map(|chain| format!(":{chain} - [0:0]"));
        let tried = rules.iter().map(|rule| format!("-A {PROBE_CHAIN} {rule}"));
        let lines: Vec<String> = heads.chain(tried).collect();
        let chains: Vec<String> = chains.into_iter().map(str::to_owned).collect();
        let mut text = String::new();
        transaction(&mut text, self.table, &lines, &[]);
        transaction(&mut text, self.table, &[], &chains);
        match self.writer.restore(self.family, text) {
            Ok(()) => Ok(None),
            Err(error) if error.is_refusal() => Ok(Some(error.words())),
            Err(error) => Err(error),
        }
    }
}

/// The edits as one text: with ten thousand rules it is long, and nothing of it is copied a second time.
fn edit_text(edits: &[TableEdit], and_removal: bool) -> String {
    let mut text = String::new();
    for edit in edits {
        let stale = if and_removal { &edit.stale[..] } else { &[] };
        transaction(&mut text, edit.table, &edit.lines, stale);
    }
    text
}

fn removal_text(edits: &[TableEdit]) -> String {
    let mut text = String::new();
    for edit in edits {
        transaction(&mut text, edit.table, &[], &edit.stale);
    }
    text
}

/// Chains to be removed are emptied first: those of ours may refer to each other.
fn transaction(text: &mut String, table: Table, lines: &[String], stale: &[String]) {
    if lines.is_empty() && stale.is_empty() {
        return;
    }
    let _ = writeln!(text, "*{}", table.name());
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    for command in ["-F", "-X"] {
        for chain in stale {
            let _ = writeln!(text, "{command} {chain}");
        }
    }
    text.push_str("COMMIT\n");
}

/// The rule of a line that adds one to a chain of ours.
fn rule_of(line: &str) -> Option<&str> {
    if hook_of(line).is_some() {
        return None;
    }
    let (command, rest) = line.split_once(' ')?;
    let rule = rest.split_once(' ').map(|(_, rule)| rule);
    match command {
        "-A" => rule,
        "-I" => Some(rule?.split_once(' ')?.1),
        _ => None,
    }
}

/// The chain of ours that a rule leads to.
fn target_of(rule: &str) -> Option<&str> {
    let (_, target) = rule.rsplit_once(' ')?;
    target.starts_with(CHAIN_PREFIX).then_some(target)
}
