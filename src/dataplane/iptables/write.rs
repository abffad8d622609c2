//! Writing rules: what is known or found, the edits, and what to do when they are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::super::command::CommandError;
use super::super::plan::{Applied, Changed};
use super::super::{DataplaneError, existing};
use super::Iptables;
use super::diff::{self, Before, FamilyEdit};
use super::refused::Possible;
use super::restore::Writer;
use super::save::{self, BUILT_IN, Saved, hook_of};
use crate::api::Family;
use crate::compile::Ruleset;

/// How often in one try rules are searched for one that is refused.
const SEARCHES: u32 = 3;
/// What is said when another program keeps putting its rules before ours.
const CONTEST: &str = "the place of moat's rules before all others";
const CONTESTED: &str =
    "another program keeps putting its rules there: they are put back every ten seconds";

impl Iptables {
    /// Writes rules; the first ones of all make the kernel track connections.
    pub(super) fn write_rules(
        &mut self,
        wanted: &Arc<Ruleset>,
        before: Before,
        applied: &mut Applied,
    ) -> Result<Possible, DataplaneError> {
        if !is_untouched(&before) || wanted.tables.is_empty() {
            return self.write_possible(wanted, before, applied);
        }
        existing::make_known();
        let written = self.write_possible(wanted, before, applied)?;
        existing::make_known();
        Ok(written)
    }

    /// Writes rules, and what can be written of them when some are refused.
    fn write_possible(
        &mut self,
        wanted: &Arc<Ruleset>,
        mut before: Before,
        applied: &mut Applied,
    ) -> Result<Possible, DataplaneError> {
        let mut searches = 0;
        loop {
            let mut possible = self.refusals.possible(wanted, &before);
            let mut edits = self.edits(&possible, &before);
            if matches!(before, Before::Found(_)) && self.is_contested(&mut edits) {
                possible.is_exact = false;
                let refused = &mut possible.refused;
                refused.insert(CONTEST.to_owned(), CONTESTED.to_owned());
            }
            if edits.is_empty() {
                self.note_digests(&before);
                self.finish(&possible, applied);
                return Ok(possible);
            }
            // Until everything below went well, what the kernel holds is unknown.
            self.known = None;
            self.digests.clear();
            let failed = self.write_edits(&edits, &before, &mut applied.changed)?;
            if failed.is_empty() {
                self.finish(&possible, applied);
                return Ok(possible);
            }
            searches += 1;
            before = self.learn(failed, &edits, &before, searches)?;
        }
    }

    /// Where what the kernel holds is known, one process per family does all; whatever fails is looked for with care then.
    fn write_edits(
        &self,
        edits: &BTreeMap<Family, FamilyEdit>,
        before: &Before,
        changed: &mut Changed,
    ) -> Result<BTreeMap<Family, CommandError>, DataplaneError> {
        let is_known = matches!(before, Before::Known(_));
        let failed = match is_known {
            true => self.writer.write_and_remove(edits),
            false => self.writer.write(edits),
        };
        if !failed.is_empty() {
            return Ok(failed);
        }
        let held = match is_known {
            true => BTreeSet::new(),
            false => self.writer.remove(edits)?,
        };
        for edit in edits.values().flatten() {
            changed.add(edit.changed);
        }
        if !held.is_empty() {
            changed.chains_removed -= held.len();
            tracing::warn!("{}", DataplaneError::OldChains(held));
        }
        Ok(failed)
    }

    /// Looks again after a failure: what is there may not be what was known. If that was not the cause, rules are searched for
    /// those that are refused.
    fn learn(
        &mut self,
        mut failed: BTreeMap<Family, CommandError>,
        edits: &BTreeMap<Family, FamilyEdit>,
        before: &Before,
        searches: u32,
    ) -> Result<Before, DataplaneError> {
        let may_be_refused = failed.values().all(CommandError::is_refusal);
        let saved = match may_be_refused && searches <= SEARCHES {
            true => self.read_rules()?,
            false => BTreeMap::new(),
        };
        if matches!(before, Before::Known(_)) && !saved.is_empty() {
            return Ok(Before::Found(saved));
        }
        let mut any = false;
        for (family, there) in &saved {
            if let Some(edits) = edits.get(family).filter(|_| failed.contains_key(family)) {
                let refusals = &mut self.refusals;
                any |= self.writer.find_refused(*family, edits, there, refusals)?;
            }
        }
        match failed.pop_first().filter(|_| !any) {
            Some((_, error)) => Err(error.into()),
            None => Ok(Before::Found(saved)),
        }
    }

    /// Leaves jumps of ours where they are for now, if they were put back too often. Lost ones are always put back.
    fn is_contested(&mut self, edits: &mut BTreeMap<Family, FamilyEdit>) -> bool {
        let displaced: BTreeSet<String> = edits
            .values()
            .flatten()
            .flat_map(|edit| displaced_in(&edit.lines))
            .map(str::to_owned)
            .collect();
        if displaced.is_empty() || self.contest.may_repair(Instant::now()) {
            return false;
        }
        let is_left = |line: &String| {
            let chain = taken_from(line).or(hook_of(line).map(|(chain, _)| chain));
            !chain.is_some_and(|chain| displaced.contains(chain))
        };
        for edits in edits.values_mut() {
            edits.iter_mut().for_each(|edit| edit.lines.retain(is_left));
            edits.retain(|edit| !edit.lines.is_empty() || !edit.stale.is_empty());
        }
        edits.retain(|_, edits| !edits.is_empty());
        true
    }

    pub(super) fn edits(
        &self,
        possible: &Possible,
        before: &Before,
    ) -> BTreeMap<Family, FamilyEdit> {
        let mut all = BTreeMap::new();
        for family in &self.families {
            let mut edits = diff::edits(&possible.ruleset, before, &possible.kept, *family);
            edits.retain(|edit| !possible.closed.contains(&(*family, edit.table)));
            if let Before::Found(found) = before {
                let hidden = found.get(family).map(|saved| &saved.hidden);
                for edit in &mut edits {
                    if hidden.is_some_and(|hidden| hidden.contains(&edit.table)) {
                        self.keep_standing_hooks(*family, edit);
                    }
                    // What leads there from a chain that stays is not known.
                    if !possible.kept.is_empty() {
                        edit.stale.clear();
                        edit.changed.chains_removed = 0;
                    }
                }
            }
            edits.retain(|edit| !edit.lines.is_empty() || !edit.stale.is_empty());
            if !edits.is_empty() {
                all.insert(*family, edits);
            }
        }
        all
    }

    /// A table that native nft rules hide is taken for empty: its chains are then written anew in one transaction, which changes
    /// nothing for packets, and the host is not left open because of somebody else's rule. A rule can still be asked for: one
    /// that stands is not written a second time.
    fn keep_standing_hooks(&self, family: Family, edit: &mut diff::TableEdit) {
        let table = edit.table.name();
        edit.lines.retain(|line| {
            hook_of(line).is_none_or(|(chain, rule)| !self.stands(family, table, chain, rule))
        });
    }

    fn stands(&self, family: Family, table: &str, chain: &str, rule: &str) -> bool {
        let rule = words(rule);
        let mut args = vec!["--wait", "10", "-t", table, "-C", chain];
        args.extend(rule.iter().map(String::as_str));
        let tool = self.writer.backend.tool(family, "");
        // The tool gives up at the first rule it cannot show; ours stands before it or is put there.
        self.writer.tools.run(&tool, &args, String::new()).is_ok()
    }

    pub(super) fn read_rules(&self) -> Result<BTreeMap<Family, Saved>, CommandError> {
        let Writer { tools, backend } = &self.writer;
        save::read_all(tools, *backend, &self.families, || ()).0
    }

    fn finish(&mut self, possible: &Possible, applied: &mut Applied) {
        // What was left as it was found cannot be compared without another look.
        self.known = possible.is_exact.then(|| possible.ruleset.clone());
        for (object, reason) in &possible.refused {
            let said = applied.refused.entry(object.clone());
            said.or_insert_with(|| reason.clone());
        }
    }

    /// Without an edit, what was read is right.
    fn note_digests(&mut self, before: &Before) {
        if let Before::Found(found) = before {
            let digests = found.iter().map(|(family, saved)| (*family, saved.digest));
            self.digests = digests.collect();
        }
    }
}

/// Whether a kernel that was looked at has no chain of ours: nothing was enforced until now.
fn is_untouched(before: &Before) -> bool {
    match before {
        Before::Known(ruleset) => ruleset.tables.is_empty(),
        Before::Found(found) => found.values().all(|saved| {
            saved.hidden.is_empty() && saved.tables.values().all(|t| t.chains.is_empty())
        }),
    }
}

/// The built-in chains in which a jump of ours stands, but not where it shall.
fn displaced_in(lines: &[String]) -> impl Iterator<Item = &str> {
    let put_into = lines.iter().filter_map(|line| hook_of(line));
    let put_into: BTreeSet<&str> = put_into.map(|(chain, _)| chain).collect();
    let taken = lines.iter().filter_map(|line| taken_from(line));
    taken.filter(move |chain| put_into.contains(chain))
}

/// The built-in chain from which a line takes a rule.
fn taken_from(line: &str) -> Option<&str> {
    let chain = line.strip_prefix("-D ")?.split(' ').next()?;
    BUILT_IN.contains(&chain).then_some(chain)
}

/// The words of a rendered rule; those in quotes are one.
fn words(rule: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (n, part) in rule.split('"').enumerate() {
        if n % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}
