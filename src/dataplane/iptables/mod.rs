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
mod empty;
mod features;
mod refused;
mod render;
mod restore;
mod save;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use cleanup::{cleanup_all, plan_from_nothing, remove_rules};
pub use detect::{Backend, Choice, choose, would_choose};
pub use features::{Feature, check_features};

use super::command::{CommandError, Tools};
use super::ipset::{Effect, PlanError, SetError, SetFailures, SetPlan, SetTable};
use super::plan::{Applied, Plan};
use super::wanted::{Members, Wanted};
use super::{Dataplane, DataplaneError, existing};
use crate::api::Family;
use crate::compile::{Name, Ruleset};
use crate::config::Settings;
use contest::Contest;
use diff::Before;
use refused::Refusals;
use restore::Writer;
use save::Saved;

/// Tries of one apply, with a fresh look at the kernel each time.
const TRIES: u32 = 4;
/// Pause before the second try; doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

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
            applied.refused.insert(note.to_owned(), reason.clone());
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
            for (family, edits) in &edits {
                let changed = edits
                    .iter()
                    .filter(|e| !e.lines.is_empty() || !e.stale.is_empty());
                for edit in changed {
                    empty::remove(&self.writer, *family, edit.table.name());
                }
            }
        }
        Ok(cleanup::plan(&edits, None))
    }
}

/// Whether the kernel has IPv6 at all (`ipv6.disable=1` takes it away).
pub fn ipv6_available() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}
