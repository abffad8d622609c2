//! Writing the changes of sets, in an order that opens nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::content::Content;
use super::super::plan::Changed;
use super::edit::{Effect, How, SetEdit, SetFailures, SetPlan};
use super::table::SetTable;
use super::{Header, Reason, SetError, wire};
use crate::api::Family;
use crate::compile::{Member, SetKind, SetSpec, set_prefix};

/// Tries to destroy a set, and the pause after the first; it doubles. nf_tables lets go of the sets of removed rules in its
/// own time.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(20);

impl SetTable {
    /// The first half of a plan, before rules change: new sets, and what makes no packet pass that neither the old rules nor
    /// the new ones allow.
    ///
    /// # Errors
    /// The kernel cannot be asked any more. What it refuses is no error.
    pub fn before_rules(
        &mut self,
        plan: &SetPlan,
        failures: &mut SetFailures,
    ) -> Result<Changed, SetError> {
        let mut changed = Changed::default();
        for edit in &plan.edits {
            let effect = plan.effect(&edit.name).unwrap_or(Effect::Mixed);
            let result = match &edit.how {
                How::Create(content) => self.create(edit, content),
                How::Rebuild(content) => self.rebuild(edit, content),
                How::Change(added, removed) => match effect {
                    Effect::Opens => self.change(edit, &[], removed),
                    Effect::Closes => self.change(edit, added, &[]),
                    Effect::Mixed => self.change(edit, added, removed),
                },
            };
            self.note(edit, result, &mut changed, failures)?;
        }
        Ok(changed)
    }

    /// The second half of a plan, after rules changed: the other members, and sets without use but those in `kept`.
    ///
    /// # Errors
    /// The kernel cannot be asked any more. What it refuses is no error.
    pub fn after_rules(
        &mut self,
        plan: &SetPlan,
        kept: impl Fn(&str) -> bool,
        failures: &mut SetFailures,
    ) -> Result<Changed, SetError> {
        let mut changed = Changed::default();
        for edit in &plan.edits {
            let How::Change(added, removed) = &edit.how else {
                continue;
            };
            let result = match plan.effect(&edit.name) {
                Some(Effect::Opens) => self.change(edit, added, &[]),
                Some(Effect::Closes) => self.change(edit, &[], removed),
                _ => continue,
            };
            self.note(edit, result, &mut changed, failures)?;
        }
        let gone = plan.gone.iter().filter(|name| !kept(name));
        changed.sets_removed = self.destroy(gone.cloned().collect())?;
        Ok(changed)
    }

    /// Counts a success, remembers a refusal, and ends on anything else.
    fn note(
        &mut self,
        edit: &SetEdit,
        result: Result<Changed, SetError>,
        changed: &mut Changed,
        failures: &mut SetFailures,
    ) -> Result<(), SetError> {
        match result {
            Ok(more) => changed.add(more),
            Err(error) if error.is_general() => {
                self.forget();
                return Err(error);
            }
            Err(error) => {
                let is_there = !matches!(edit.how, How::Create(_)) && self.is_there(edit)?;
                let list = match is_there {
                    true => &mut failures.stale,
                    false => &mut failures.missing,
                };
                list.insert(edit.name.clone(), error.to_string());
                if let Some(known) = &mut self.known {
                    known.remove(&*edit.name);
                }
            }
        }
        Ok(())
    }

    fn is_there(&mut self, edit: &SetEdit) -> Result<bool, SetError> {
        let mut headers = self.kernel()?.headers()?.into_iter();
        // One of another type is none.
        let is_it = |h: Header| *h.name == *edit.name && h.holds(edit.spec.kind, edit.spec.family);
        Ok(headers.any(is_it))
    }

    fn create(&mut self, edit: &SetEdit, content: &Content) -> Result<Changed, SetError> {
        let header = self.fill(&edit.name, &edit.spec, content.count(), content.iter())?;
        let members = header.members.unwrap_or(0) as usize;
        self.remember(header);
        Ok(Changed {
            sets_created: 1,
            members,
            ..Changed::default()
        })
    }

    /// Makes a new set. One that cannot be filled is not left behind.
    fn fill(
        &mut self,
        name: &str,
        spec: &SetSpec,
        count: usize,
        members: impl Iterator<Item = Member>,
    ) -> Result<Header, SetError> {
        let (kind, family) = (spec.kind, spec.family);
        let capacity = self.capacity(kind, count);
        let kernel = self.kernel()?;
        kernel.create(name, kind, family, capacity, count)?;
        if let Err(error) = kernel.add(name, kind, members) {
            // Should this fail too, the next look finds it.
            let _ = kernel.destroy(name);
            return Err(error);
        }
        Ok(Header::of_new(name, kind, family, capacity, count))
    }

    /// Room to grow: a set that is full is built anew.
    fn capacity(&self, kind: SetKind, members: usize) -> u32 {
        if kind == SetKind::Ports {
            return wire::ALL_PORTS;
        }
        let members = self.min_capacity.max((members * 2).next_power_of_two());
        u32::try_from(members).unwrap_or(u32::MAX)
    }

    /// Builds a set beside the old one and swaps them, so that rules never see it half full.
    fn rebuild(&mut self, edit: &SetEdit, content: &Content) -> Result<Changed, SetError> {
        let known = self.known.as_ref().and_then(|k| k.get(&*edit.name));
        if known.is_some_and(|h| !h.can_swap(edit.spec.kind, edit.spec.family)) {
            // Not made by moat, whatever its name says; nobody can use it for what ours is for.
            let destroyed = self.kernel()?.destroy(&edit.name);
            destroyed.map_err(|error| match error.reason() {
                Some(Reason::InUse) => SetError::Refused {
                    action: "replace",
                    set: edit.name.to_string(),
                    member: None,
                    reason: Reason::OtherTypeInUse,
                },
                _ => error,
            })?;
            return self.create(edit, content);
        }
        self.take_place(edit, content.count(), content.iter())?;
        Ok(Changed {
            sets_created: 1,
            members: content.count(),
            ..Changed::default()
        })
    }

    fn take_place(
        &mut self,
        edit: &SetEdit,
        count: usize,
        members: impl Iterator<Item = Member>,
    ) -> Result<(), SetError> {
        let scratch = scratch_set(edit.spec.family);
        match self.kernel()?.destroy(&scratch) {
            Err(error) if error.reason() != Some(Reason::Missing) => return Err(error),
            _ => {}
        }
        let header = self.fill(&scratch, &edit.spec, count, members)?;
        let kernel = self.kernel()?;
        let swapped = kernel.swap(&scratch, &edit.name);
        kernel.destroy(&scratch)?;
        swapped?;
        self.remember(Header {
            name: edit.name.to_string(),
            ..header
        });
        Ok(())
    }

    fn remember(&mut self, header: Header) {
        if let Some(known) = &mut self.known {
            known.insert(header.name.clone(), header);
        }
    }

    /// Changes members. When the kernel refuses a new one, the set stays as it was.
    fn change(
        &mut self,
        edit: &SetEdit,
        added: &[Member],
        removed: &[Member],
    ) -> Result<Changed, SetError> {
        self.grow(edit, added.len())?;
        let (name, kind) = (&*edit.name, edit.spec.kind);
        let kernel = self.kernel()?;
        if let Err(error) = kernel.add(name, kind, added.iter().copied()) {
            if !error.is_general() {
                kernel.remove(name, kind, added.iter().copied())?;
            }
            return Err(error);
        }
        kernel.remove(name, kind, removed.iter().copied())?;
        let header = self.known.as_mut().and_then(|k| k.get_mut(name));
        if let Some(members) = header.and_then(|h| h.members.as_mut()) {
            let more = u32::try_from(added.len()).unwrap_or(u32::MAX);
            let less = u32::try_from(removed.len()).unwrap_or(u32::MAX);
            *members = members.saturating_add(more).saturating_sub(less);
        }
        Ok(Changed {
            members: added.len() + removed.len(),
            ..Changed::default()
        })
    }

    /// Puts a larger set in the place of one that would be full: with its members, twice as large.
    fn grow(&mut self, edit: &SetEdit, more: usize) -> Result<(), SetError> {
        let known = self.known.as_ref().and_then(|k| k.get(&*edit.name));
        let Some(header) = known.filter(|_| more > 0 && edit.spec.kind != SetKind::Ports) else {
            return Ok(());
        };
        let (told, room) = (header.members, header.capacity as usize);
        if told.is_some_and(|n| n as usize + more <= room) {
            return Ok(());
        }
        let mut members = Vec::new();
        let kernel = self.kernel()?;
        kernel.members(&edit.name, edit.spec.kind, |m| members.extend(m))?;
        // An old kernel does not tell how many there are, so it had to be asked.
        if members.len() + more <= room {
            return Ok(());
        }
        let present = members.len();
        self.take_place(edit, present + more, members.into_iter())?;
        let header = self.known.as_mut().and_then(|k| k.get_mut(&*edit.name));
        if let Some(header) = header {
            header.members = u32::try_from(present).ok();
        }
        Ok(())
    }

    /// Destroys sets and says how many are gone. Those that rules of somebody else hold are tried again the next time.
    pub(super) fn destroy(&mut self, mut names: Vec<String>) -> Result<usize, SetError> {
        let mut gone = 0;
        let mut pause = FIRST_PAUSE;
        for round in 0..TRIES {
            let mut stay = Vec::new();
            for name in names {
                match self.kernel()?.destroy(&name) {
                    Err(error) if error.is_general() => return Err(error),
                    Err(error) if error.reason() != Some(Reason::Missing) => stay.push(name),
                    _ => {
                        gone += 1;
                        self.known.as_mut().and_then(|k| k.remove(&name));
                    }
                }
            }
            names = stay;
            // Those that were held the last time are probably held still.
            if names.iter().all(|n| self.held.contains(n)) || round + 1 == TRIES {
                break;
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        let held: BTreeSet<String> = names.into_iter().collect();
        if !held.is_subset(&self.held) {
            tracing::warn!("rules that are not moat's hold old IP sets of moat: {held:?}");
        }
        self.held = held;
        Ok(gone)
    }
}

/// Where a set is built anew.
fn scratch_set(family: Family) -> String {
    format!("{}tmp", set_prefix(family))
}
