//! The iptables backend: rules through the restore tools, IP sets by netlink.
//!
//! Order of writes: new sets, filled → members whose coming or going closes → rules → members whose coming or going opens → old
//! chains → old sets. When only members change, new ones come first, so that no address is in a set neither as before nor as
//! after. Two sets, or a set and the rules, cannot change in one moment: see [`Effect`] for which goes first.

mod cleanup;
mod contest;
mod detect;
mod diff;
mod effect;
mod features;
mod refused;
mod render;
mod restore;
mod save;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use cleanup::{cleanup_all, plan_from_nothing, remove_rules};
pub use detect::{Backend, Choice, choose, would_choose};
pub use features::{Feature, check_features};

use super::command::{CommandError, Tools};
use super::ipset::{Effect, PlanError, SetError, SetFailures, SetPlan, SetTable};
use super::plan::{Applied, Plan, Refused};
use super::wanted::{Members, Wanted};
use super::{Dataplane, DataplaneError, existing};
use crate::api::Family;
use crate::compile::{Name, Ruleset};
use crate::config::Settings;
use contest::Contest;
use diff::{Before, FamilyEdit};
use refused::{Possible, Refusals};
use restore::Writer;
use save::{BUILT_IN, Saved, hook_of};

/// Tries of one apply, with a fresh look at the kernel each time.
const TRIES: u32 = 4;
/// Pause before the second try; doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// What is said when another program keeps putting its rules before ours.
const CONTEST: &str = "the place of moat's rules before all others";
const CONTESTED: &str =
    "another program keeps putting its rules there: they are put back every ten seconds";
/// How often in one try rules are searched for one that is refused.
const SEARCHES: u32 = 3;

/// One backend of the two.
#[derive(Debug)]
pub struct Iptables {
    writer: Writer,
    families: Vec<Family>,
    sets: SetTable,
    /// What the rules in the kernel are, when nothing has failed since that was known.
    known: Option<Arc<Ruleset>>,
    refusals: Refusals,
    contest: Contest,
    /// Whether a difference means that somebody changed what was right.
    is_verifying: bool,
    /// Fingerprints of all rules in the kernel, when they were last found to be right.
    digests: BTreeMap<Family, u64>,
}

/// The difference between what is there and what is wanted.
struct Difference {
    sets: SetPlan,
    /// What the rules are; nothing when they are what is wanted.
    rules: Option<Before>,
    failures: SetFailures,
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

impl Iptables {
    /// A driver for this backend. `min_capacity` is the least size given to sets.
    pub fn new(backend: Backend, min_capacity: usize) -> Iptables {
        Iptables::with_tools(backend, min_capacity, Tools::default())
    }

    /// A driver that uses these tools.
    pub fn with_tools(backend: Backend, min_capacity: usize, tools: Tools) -> Iptables {
        let mut families = vec![Family::V4];
        if ipv6_available() {
            families.push(Family::V6);
        }
        Iptables {
            writer: Writer { tools, backend },
            families,
            sets: SetTable::new(min_capacity),
            known: None,
            refusals: Refusals::default(),
            contest: Contest::default(),
            is_verifying: false,
            digests: BTreeMap::new(),
        }
    }

    fn try_apply(&mut self, wanted: &Wanted) -> Result<Applied, DataplaneError> {
        let difference = self.difference(wanted)?;
        let mut applied = Applied::default();
        let mut failures = difference.failures;
        let ruleset = &wanted.ruleset;
        let is_first =
            difference.rules.as_ref().is_some_and(is_untouched) && !ruleset.tables.is_empty();
        if is_first {
            existing::make_known();
        }
        let is_moving = difference.sets.changes_members();
        let effects = match difference.rules.as_ref().filter(|_| is_moving) {
            Some(Before::Known(old)) => Some(effect::of_sets(&[&**old, &**ruleset])),
            Some(Before::Found(_)) => Some(effect::of_sets(&[&**ruleset])),
            None => None,
        };
        let effect = effects
            .as_ref()
            .map(|effects| |name: &Name| *effects.get(name).unwrap_or(&Effect::Mixed));
        let effect = effect.as_ref().map(|e| e as &dyn Fn(&Name) -> Effect);
        let changed = self
            .sets
            .before_rules(&difference.sets, effect, &mut failures)?;
        applied.changed.add(changed);
        self.refusals.sets = failures.missing.clone();
        let mut kept_sets = None;
        if let Some(before) = difference.rules {
            let written = self.write_rules(ruleset, before, &mut applied)?;
            if is_first {
                existing::make_known();
            }
            // Of a chain that stays as it was found it is not known which sets it uses.
            kept_sets = Some((written.ruleset, !written.kept.is_empty()));
        }
        let is_kept = |name: &str| match &kept_sets {
            Some((ruleset, all)) => *all || ruleset.sets.contains_key(name),
            None => false,
        };
        let changed = self
            .sets
            .after_rules(&difference.sets, effect, is_kept, &mut failures)?;
        applied.changed.add(changed);
        for (name, reason) in failures.stale.iter().chain(&failures.missing) {
            let note = ruleset.sets.get(name).map_or(&**name, |spec| &*spec.note);
            applied.refused.insert(Refused::new(note, reason));
        }
        if failures.stale.is_empty() && failures.missing.is_empty() {
            self.sets.done(ruleset);
        }
        Ok(applied)
    }

    /// Looks at what is not known: rules of both families and sets side by side.
    fn difference(&mut self, wanted: &Wanted) -> Result<Difference, DataplaneError> {
        let ruleset = &wanted.ruleset;
        let known = self.known.clone();
        let must_read = known.is_none();
        let (writer, families) = (self.writer.clone(), self.families.clone());
        let (sets, saved) = std::thread::scope(|scope| {
            let families = families.into_iter().filter(|_| must_read);
            let readers: Vec<_> = families
                .map(|family| {
                    let writer = &writer;
                    let read = move || save::read(&writer.tools, writer.backend, family);
                    (family, scope.spawn(read))
                })
                .collect();
            let sets = self.sets.plan(wanted);
            let saved = readers.into_iter().map(|(family, reader)| {
                let saved = match reader.join() {
                    Ok(saved) => saved?,
                    Err(panic) => std::panic::resume_unwind(panic),
                };
                Ok((family, saved))
            });
            let saved: Result<BTreeMap<Family, Saved>, CommandError> = saved.collect();
            (sets, saved)
        });
        let mut failures = SetFailures::default();
        let sets = match sets {
            Err(PlanError::Kernel(error @ (SetError::Absent | SetError::Protocol(..)))) => {
                // A host without IP sets can still enforce what needs none.
                let names = wanted.ruleset.sets.keys();
                failures.missing = names.map(|n| (n.clone(), error.to_string())).collect();
                SetPlan::default()
            }
            other => other?,
        };
        let rules = match known {
            Some(known) if Arc::ptr_eq(&known, ruleset) || known == *ruleset => None,
            Some(known) => Some(Before::Known(known)),
            None => Some(Before::Found(saved?)),
        };
        if let Some(before) = rules.as_ref().filter(|_| self.is_verifying) {
            self.refuse_hidden(before)?;
        }
        Ok(Difference {
            sets,
            rules,
            failures,
        })
    }

    /// Writes rules, and what can be written of them when some are refused.
    fn write_rules(
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
                possible.refused.insert(Refused::new(CONTEST, CONTESTED));
            }
            if edits.is_empty() {
                self.note_digests(&before);
                self.finish(&possible, applied);
                return Ok(possible);
            }
            // Until everything below went well, what the kernel holds is unknown.
            self.known = None;
            self.digests.clear();
            let mut failed = self.writer.write(&edits);
            if failed.is_empty() {
                let held = self.writer.remove(&edits)?;
                for edit in edits.values().flatten() {
                    applied.changed.add(edit.changed);
                }
                if !held.is_empty() {
                    applied.changed.chains_removed -= held.len();
                    let held: Vec<String> = held.into_iter().collect();
                    tracing::warn!(
                        "old chains stay, because rules that are not moat's lead to them: {}",
                        held.join(", ")
                    );
                }
                self.finish(&possible, applied);
                return Ok(possible);
            }
            searches += 1;
            let saved = self.read_rules()?;
            let mut any = false;
            if searches <= SEARCHES && failed.values().all(CommandError::is_refusal) {
                for family in failed.keys() {
                    let (Some(edits), Some(there)) = (edits.get(family), saved.get(family)) else {
                        continue;
                    };
                    let refusals = &mut self.refusals;
                    any |= self.writer.find_refused(*family, edits, there, refusals)?;
                }
            }
            if !any && let Some((_, error)) = failed.pop_first() {
                return Err(error.into());
            }
            before = Before::Found(saved);
        }
    }

    /// Leaves jumps of ours where they are for now, if they were put back too often. Lost ones are always put back.
    fn is_contested(&mut self, edits: &mut BTreeMap<Family, FamilyEdit>) -> bool {
        let displaced: BTreeSet<String> = edits
            .values()
            .flatten()
            .flat_map(|edit| &edit.lines)
            .filter_map(|line| displaced_in(line))
            .map(str::to_owned)
            .collect();
        if displaced.is_empty() || self.contest.may_repair(Instant::now()) {
            return false;
        }
        let is_left = |line: &String| {
            let chain = displaced_in(line).or(hook_of(line).map(|(chain, _)| chain));
            !chain.is_some_and(|chain| displaced.contains(chain))
        };
        for edits in edits.values_mut() {
            edits.iter_mut().for_each(|edit| edit.lines.retain(is_left));
            edits.retain(|edit| !edit.lines.is_empty() || !edit.stale.is_empty());
        }
        edits.retain(|_, edits| !edits.is_empty());
        true
    }

    fn edits(&self, possible: &Possible, before: &Before) -> BTreeMap<Family, FamilyEdit> {
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

    fn read_rules(&self) -> Result<BTreeMap<Family, Saved>, CommandError> {
        let read = |family: &Family| {
            let saved = save::read(&self.writer.tools, self.writer.backend, *family)?;
            Ok((*family, saved))
        };
        self.families.iter().map(read).collect()
    }

    fn finish(&mut self, possible: &Possible, applied: &mut Applied) {
        // What was left as it was found cannot be compared without another look.
        self.known = possible.is_exact.then(|| possible.ruleset.clone());
        applied.refused.extend(possible.refused.iter().cloned());
    }

    /// Without an edit, what was read is right.
    fn note_digests(&mut self, before: &Before) {
        if let Before::Found(found) = before {
            let digests = found.iter().map(|(family, saved)| (*family, saved.digest));
            self.digests = digests.collect();
        }
    }

    fn refuse_hidden(&self, before: &Before) -> Result<(), DataplaneError> {
        let Before::Found(found) = before else {
            return Ok(());
        };
        match found.values().find_map(|saved| saved.hidden.first()) {
            Some(table) => Err(DataplaneError::Incompatible(table.name().to_owned())),
            None => Ok(()),
        }
    }

    fn apply_with_retries(&mut self, wanted: &Wanted) -> Result<Applied, DataplaneError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match self.try_apply(wanted) {
                Err(error) if !error.is_final() => {
                    tracing::debug!("apply failed, trying again: {error}");
                }
                other => return other,
            }
            self.known = None;
            std::thread::sleep(pause);
            pause *= 2;
        }
        self.try_apply(wanted)
    }
}

impl Dataplane for Iptables {
    fn name(&self) -> String {
        format!("iptables-{}", self.writer.backend)
    }

    fn configure(&mut self, settings: &Settings) {
        let capacity = settings.max_ipset_size as usize;
        self.sets.set_min_capacity(capacity);
    }

    fn apply(&mut self, wanted: &Wanted) -> Result<Applied, DataplaneError> {
        if matches!(wanted.members, Members::All(_)) {
            // What was refused may be possible by now.
            self.refusals = Refusals::default();
        }
        let result = self.apply_with_retries(wanted);
        if result.is_err() {
            self.distrust();
        }
        result
    }

    fn verify(&mut self, wanted: &Wanted) -> Result<Applied, DataplaneError> {
        self.distrust();
        self.is_verifying = true;
        let result = self.apply(wanted);
        self.is_verifying = false;
        result
    }

    fn distrust(&mut self) {
        self.known = None;
        self.digests.clear();
        self.sets.forget();
    }

    fn check(&mut self) -> Result<bool, DataplaneError> {
        if self.known.is_none() {
            return Ok(true);
        }
        match self.sets.differs() {
            // Nothing can have changed where there is nothing.
            Err(SetError::Absent | SetError::Protocol(..)) | Ok(false) => {}
            Ok(true) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        // nf_tables tells of every change of rules by itself.
        if self.writer.backend == Backend::Nft {
            return Ok(false);
        }
        for family in &self.families {
            let digest = save::digest(&self.writer.tools, self.writer.backend, *family)?;
            if self.digests.get(family) != Some(&digest) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn plan(&mut self, wanted: &Wanted) -> Result<Plan, DataplaneError> {
        let sets = self.sets.preview(wanted)?;
        let before = Before::Found(self.read_rules()?);
        self.refuse_hidden(&before)?;
        let possible = Refusals::default().possible(&wanted.ruleset, &before);
        Ok(cleanup::plan(&self.edits(&possible, &before), Some(&sets)))
    }

    fn cleanup(&mut self, dry_run: bool) -> Result<Plan, DataplaneError> {
        self.distrust();
        // Sets are shared by both backends: rules of the other one must not hold them.
        let before = Before::Found(self.read_rules()?);
        self.refuse_hidden(&before)?;
        let nothing = Refusals::default().possible(&Arc::default(), &before);
        let edits = self.edits(&nothing, &before);
        if !dry_run {
            if let Some((_, error)) = self.writer.write(&edits).pop_first() {
                return Err(error.into());
            }
            let held = self.writer.remove(&edits)?;
            if !held.is_empty() {
                return Err(DataplaneError::OldChains(held));
            }
        }
        Ok(cleanup::plan(&edits, None))
    }
}

/// Whether the kernel has IPv6 at all (`ipv6.disable=1` takes it away).
pub fn ipv6_available() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

/// The built-in chain from which a line takes a jump of ours, to put it elsewhere.
fn displaced_in(line: &str) -> Option<&str> {
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
