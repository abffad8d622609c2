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
            self.restore(family, edits.iter().map(edit_text).collect())
        })
    }

    /// The same, and removes old chains with the same process. After a failure nobody knows how far it came.
    pub fn write_and_remove(
        &self,
        edits: &BTreeMap<Family, FamilyEdit>,
    ) -> BTreeMap<Family, CommandError> {
        self.all(edits, |family, edits| {
            let removals = edits.iter().map(|e| removal_text(e.table, &e.stale));
            let texts = edits.iter().map(edit_text).chain(removals);
            self.restore(family, texts.collect())
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
            let texts = edits.iter().map(|e| removal_text(e.table, &e.stale));
            self.restore(family, texts.collect())
        });
        let mut held = BTreeSet::new();
        for (family, error) in failed {
            if !error.is_refusal() {
                return Err(error);
            }
            let edits = edits.get(&family).into_iter().flatten();
            let chains = edits.flat_map(|e| e.stale.iter().map(|c| (e.table, c)));
            for (n, (table, chain)) in chains.enumerate() {
                let one = std::slice::from_ref(chain);
                if n >= SINGLES || self.restore(family, removal_text(table, one)).is_err() {
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
        let table = self.table.name();
        let mut text = format!("*{table}\n");
        for chain in &chains {
            let _ = writeln!(text, ":{chain} - [0:0]");
        }
        for rule in rules {
            let _ = writeln!(text, "-A {PROBE_CHAIN} {rule}");
        }
        let chains: Vec<String> = chains.into_iter().map(str::to_owned).collect();
        let text = format!("{text}COMMIT\n{}", removal_text(self.table, &chains));
        match self.writer.restore(self.family, text) {
            Ok(()) => Ok(None),
            Err(error) if error.is_refusal() => Ok(Some(error.words())),
            Err(error) => Err(error),
        }
    }
}

fn edit_text(edit: &TableEdit) -> String {
    match edit.lines.as_slice() {
        [] => String::new(),
        lines => format!("*{}\n{}\nCOMMIT\n", edit.table.name(), lines.join("\n")),
    }
}

/// Emptied first: chains of ours may refer to each other.
fn removal_text(table: Table, chains: &[String]) -> String {
    if chains.is_empty() {
        return String::new();
    }
    let flush: String = chains.iter().map(|c| format!("-F {c}\n")).collect();
    let delete: String = chains.iter().map(|c| format!("-X {c}\n")).collect();
    format!("*{}\n{flush}{delete}COMMIT\n", table.name())
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
