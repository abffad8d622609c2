//! The iptables backend: rules through the restore tools, IP sets by netlink.
//!
//! Order of writes: new sets, filled → members whose coming or going closes → rules, without the old chains → members whose coming or
//! going opens → old sets. When only members change, new ones come first, so that no address is in a set neither as before nor as
//! after. Two sets, or a set and the rules, cannot change in one moment: see [`Effect`](super::ipset::Effect) for which goes first.

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
#[cfg(not(fuzzing))]
mod save;
#[cfg(fuzzing)]
pub mod save;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use cleanup::{cleanup_all, plan_from_nothing, remove_rules};
pub use detect::{Backend, Choice, choose, would_choose};
pub use features::{Feature, check_features, is_checked};
pub use save::CHAIN_PREFIX;

use super::command::Tools;
use super::ipset::{PlanError, SetError, SetFailures, SetPlan, SetTable};
use super::plan::{Applied, Plan};
use super::wanted::{Members, Wanted};
use super::{Dataplane, DataplaneError};
use crate::api::Family;
use crate::compile::Ruleset;
use crate::config::Settings;
use contest::Contest;
use diff::Before;
use refused::Refusals;
use restore::Writer;

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
        let ruleset = &wanted.ruleset;
        let Difference {
            mut sets,
            rules,
            mut failures,
        } = self.difference(wanted)?;
        let mut applied = Applied::default();
        if let Some(before) = rules.as_ref().filter(|_| sets.changes_members()) {
            let old = match before {
                Before::Known(old) => &**old,
                Before::Found(_) => ruleset,
            };
            sets.effects = Some(effect::of_sets(&[old, ruleset]));
        }
        let changed = self.sets.before_rules(&sets, &mut failures)?;
        applied.changed.add(changed);
        self.refusals.sets = failures.missing.clone();
        let written = match rules {
            Some(before) => Some(self.write_rules(ruleset, before, &mut applied)?),
            None => None,
        };
        let is_kept = |name: &str| written.as_ref().is_some_and(|w| w.may_need(name));
        let changed = self.sets.after_rules(&sets, is_kept, &mut failures)?;
        applied.changed.add(changed);
        failures.tell(ruleset, &mut applied.refused);
        if failures.is_empty() {
            self.sets.done(ruleset);
        }
        Ok(applied)
    }

    /// Looks at what is not known: rules of both families and sets side by side.
    fn difference(&mut self, wanted: &Wanted) -> Result<Difference, DataplaneError> {
        let known = self.known.clone();
        let unknown = match known {
            Some(_) => &[][..],
            None => &self.families,
        };
        let Writer { tools, backend } = &self.writer;
        let table = &mut self.sets;
        let (saved, sets) = save::read_all(tools, *backend, unknown, || table.plan(wanted));
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
            Some(known) if Arc::ptr_eq(&known, &wanted.ruleset) || known == wanted.ruleset => None,
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
        let mut result = self.try_apply(wanted);
        for _ in 1..TRIES {
            match &result {
                Err(error) if !error.is_final() => {
                    tracing::debug!("apply failed, trying again: {error}");
                }
                _ => return result,
            }
            self.known = None;
            std::thread::sleep(pause);
            pause *= 2;
            result = self.try_apply(wanted);
            if result.is_ok() {
                // Members may have been written, and counted, twice.
                self.sets.recount()?;
            }
        }
        result
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
                    empty::remove(self.writer.backend, *family, edit.table.name());
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
