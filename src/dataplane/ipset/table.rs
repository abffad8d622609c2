//! The sets of moat: what the kernel holds of them, and the way to what it shall hold.
//!
//! Nothing but the number of members is remembered of a set. A set that rules use is never emptied: it changes by member, new
//! ones first, so that an address is at each moment in the set as it was or as it will be; or a new one takes its place by
//! swap. Two sets change one after the other, microseconds apart: an address that moves from one to the other is in both
//! for so long.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::content::Content;
use super::super::wanted::{Members, Update, Wanted};
use super::compare::{Difference, compare};
use super::edit::{How, SetEdit, SetPlan};
use super::{Header, IpSets, PlanError, SetError};
use crate::api::Family;
use crate::compile::{Name, Ruleset, SetSpec, set_prefix};

/// What our sets are, as far as it is known.
#[derive(Debug)]
pub struct SetTable {
    kernel: Option<IpSets>,
    /// By name; nothing before the first look and after a failure.
    pub(super) known: Option<BTreeMap<String, Header>>,
    /// The ruleset that they are in step with.
    in_step: Option<Arc<Ruleset>>,
    pub(super) min_capacity: usize,
    /// Sets of ours that rules of somebody else keep in the kernel.
    pub(super) held: BTreeSet<String>,
}

impl SetTable {
    /// Knows nothing yet.
    pub fn new(min_capacity: usize) -> SetTable {
        SetTable {
            kernel: None,
            known: None,
            in_step: None,
            min_capacity,
            held: BTreeSet::new(),
        }
    }

    /// The least size given to sets from now on.
    pub fn set_min_capacity(&mut self, members: usize) {
        self.min_capacity = members;
    }

    /// Forgets what the kernel holds.
    pub fn forget(&mut self) {
        self.known = None;
        self.kernel = None;
        self.in_step = None;
    }

    /// Works out the difference to what is wanted. With all members at hand the kernel is read, else it is known.
    ///
    /// # Errors
    /// The kernel cannot be asked, or what it holds is not known and not all members are at hand.
    pub fn plan(&mut self, wanted: &Wanted) -> Result<SetPlan, PlanError> {
        let ruleset = &wanted.ruleset;
        let mut plan = SetPlan::default();
        let last = self.in_step.take();
        let is_same = last.is_some_and(|last| Arc::ptr_eq(&last, ruleset));
        match &wanted.members {
            Members::All(policy) => {
                self.survey()?;
                for (name, spec) in &ruleset.sets {
                    let content = Content::new(spec, policy);
                    plan.edits.extend(self.plan_whole(name, spec, content)?);
                }
            }
            Members::Changed(updates) => {
                let known = self.known.as_ref().ok_or(PlanError::OutOfStep)?;
                let is_known = |n: &Name| known.contains_key(&**n) || updates.contains_key(n);
                if !is_same && !ruleset.sets.keys().all(is_known) {
                    return Err(PlanError::OutOfStep);
                }
                for (name, update) in updates {
                    if let Some(spec) = ruleset.sets.get(name) {
                        plan.edits.extend(self.plan_update(name, spec, update)?);
                    }
                }
                if is_same {
                    return Ok(plan);
                }
            }
        }
        let known = self.known.iter().flat_map(BTreeMap::keys);
        let gone = known.filter(|name| !ruleset.sets.contains_key(name.as_str()));
        plan.gone = gone.cloned().collect();
        Ok(plan)
    }

    /// Counts the members anew, after something may have been written twice.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn recount(&mut self) -> Result<(), SetError> {
        if self.known.is_none() {
            return Ok(());
        }
        for header in self.kernel()?.headers()? {
            if let Some(known) = self.known.as_mut().and_then(|k| k.get_mut(&header.name)) {
                known.members = header.members;
            }
        }
        Ok(())
    }

    /// The plan for this ruleset was carried out, and nothing was refused.
    pub fn done(&mut self, ruleset: &Arc<Ruleset>) {
        self.in_step = Some(ruleset.clone());
    }

    /// The difference to what is wanted, with a look of its own. Sets that could not be destroyed before are none.
    ///
    /// # Errors
    /// As [`SetTable::plan`].
    pub fn preview(&self, wanted: &Wanted) -> Result<SetPlan, PlanError> {
        let mut plan = SetTable::new(self.min_capacity).plan(wanted)?;
        plan.gone.retain(|name| !self.held.contains(name));
        Ok(plan)
    }

    /// Looks which sets of ours there are.
    fn survey(&mut self) -> Result<(), SetError> {
        self.known = None;
        let headers = self.kernel()?.headers()?;
        let ours = headers.into_iter().filter(|h| is_ours(&h.name));
        self.known = Some(ours.map(|h| (h.name.clone(), h)).collect());
        Ok(())
    }

    fn plan_update(
        &mut self,
        name: &Name,
        spec: &Arc<SetSpec>,
        update: &Update,
    ) -> Result<Option<SetEdit>, PlanError> {
        let how = match update {
            Update::Whole(content) => return Ok(self.plan_whole(name, spec, content.clone())?),
            Update::Few { added, removed } => How::Change(added.clone(), removed.clone()),
        };
        let header = self.known.as_ref().and_then(|k| k.get(&**name));
        match header.is_some_and(|h| h.holds(spec.kind, spec.family)) {
            true => Ok(SetEdit::new(name, spec, how)),
            false => Err(PlanError::OutOfStep),
        }
    }

    fn plan_whole(
        &mut self,
        name: &Name,
        spec: &Arc<SetSpec>,
        content: Content,
    ) -> Result<Option<SetEdit>, SetError> {
        let header = self.known.as_ref().and_then(|k| k.get(&**name)).cloned();
        let how = match header {
            None => How::Create(content),
            Some(h) if !h.holds(spec.kind, spec.family) => How::Rebuild(content),
            Some(h) if content.count() > h.capacity as usize => How::Rebuild(content),
            Some(h) => match compare(self.kernel()?, &h, spec.kind, &content)? {
                Difference::Everything => How::Rebuild(content),
                Difference::Members(added, removed) => How::Change(added, removed),
            },
        };
        Ok(SetEdit::new(name, spec, how))
    }

    pub(super) fn kernel(&mut self) -> Result<&mut IpSets, SetError> {
        if self.kernel.is_none() {
            self.kernel = Some(IpSets::open()?);
        }
        self.kernel.as_mut().ok_or(SetError::Absent)
    }

    /// Destroys every set of ours, and returns those that stay because rules use them. With `dry_run` only names them all.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn destroy_all(
        &mut self,
        dry_run: bool,
    ) -> Result<(Vec<String>, BTreeSet<String>), SetError> {
        self.survey()?;
        let names: Vec<String> = self
            .known
            .iter()
            .flatten()
            .map(|(n, _)| n.clone())
            .collect();
        if !dry_run {
            self.destroy(names.clone())?;
        }
        Ok((names, self.held.clone()))
    }

    /// Whether the kernel holds other sets than it is known to, by their headers.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn differs(&mut self) -> Result<bool, SetError> {
        let headers = self.kernel()?.headers()?;
        let Some(known) = &self.known else {
            return Ok(true);
        };
        let ours = headers.iter().filter(|h| is_ours(&h.name));
        let same = |h: &Header| known.get(&h.name).is_some_and(|k| k.is_like(h));
        Ok(ours.clone().count() != known.len() || !ours.clone().all(same))
    }
}

/// Whether a set name is one of ours.
pub fn is_ours(name: &str) -> bool {
    Family::ALL.iter().any(|f| name.starts_with(set_prefix(*f)))
}
