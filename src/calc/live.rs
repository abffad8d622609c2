//! The host policy that is changed in place, and what changed in it.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use super::changes::{HostChanges, SetChange};
use super::ipset::{IpSet, Member, SetId};
use super::model::{HostEp, HostPolicy, Options, RuleLists, WorkloadEp};
use crate::api::ResourceId;

/// Below this many differences a set is never read whole instead.
const FEW_CHANGES: usize = 256;

/// Every change of the host policy goes through here, so that none is left out of the changes.
#[derive(Debug)]
pub struct Live {
    policy: HostPolicy,
    changes: HostChanges,
}

impl Live {
    /// A host policy without endpoints.
    pub fn new(node: String, options: Options) -> Live {
        let policy = HostPolicy {
            node,
            endpoints: BTreeMap::new(),
            workloads: BTreeMap::new(),
            policies: BTreeMap::new(),
            profiles: BTreeMap::new(),
            sets: BTreeMap::new(),
            options,
        };
        Live {
            policy,
            changes: HostChanges::default(),
        }
    }

    /// The host policy.
    pub fn policy(&self) -> &HostPolicy {
        &self.policy
    }

    /// What changed since the last time.
    pub fn take_changes(&mut self) -> HostChanges {
        mem::take(&mut self.changes)
    }

    /// Other settings.
    pub fn set_options(&mut self, options: Options) {
        self.changes.options |= self.policy.options != options;
        self.policy.options = options;
    }

    /// The rules of a policy; `None` when it selects no endpoint any more.
    pub fn set_policy(&mut self, id: &Arc<ResourceId>, lists: Option<Arc<RuleLists>>) {
        match lists {
            Some(lists) => self.policy.policies.insert(id.clone(), lists),
            None => self.policy.policies.remove(id),
        };
        self.changes.policies.insert((**id).clone());
    }

    /// The rules of a profile; `None` when no endpoint uses it any more.
    pub fn set_profile(&mut self, name: &str, lists: Option<Arc<RuleLists>>) {
        match lists {
            Some(lists) => self.policy.profiles.insert(name.to_owned(), lists),
            None => self.policy.profiles.remove(name),
        };
        self.changes.profiles.insert(name.to_owned());
    }

    /// All host endpoints by name.
    pub fn set_endpoints(&mut self, new: BTreeMap<String, Arc<HostEp>>) {
        let old = mem::replace(&mut self.policy.endpoints, new);
        let new = &self.policy.endpoints;
        self.changes.endpoints.extend(differing(&old, new));
    }

    /// All workloads by interface.
    pub fn set_workloads(&mut self, new: BTreeMap<String, Arc<WorkloadEp>>) {
        let old = mem::replace(&mut self.policy.workloads, new);
        let new = &self.policy.workloads;
        self.changes.workloads.extend(differing(&old, new));
    }

    /// An IP set comes into use.
    pub fn open_set(&mut self, id: &SetId, members: Arc<IpSet>) {
        self.policy.sets.insert(id.clone(), members);
        self.note(id, SetChange::New);
    }

    /// An IP set is no longer in use.
    pub fn close_set(&mut self, id: &SetId) {
        self.policy.sets.remove(id);
        self.note(id, SetChange::Gone);
    }

    /// An IP set in use gets other members.
    pub fn replace_set(&mut self, id: &SetId, members: Arc<IpSet>) {
        let Some(set) = self.policy.sets.get_mut(id) else {
            return;
        };
        let old = mem::replace(set, members);
        let new = set.clone();
        let change = difference(&old, &new);
        if change.size() > 0 {
            self.note(id, change);
            self.collapse(id, new.len());
        }
    }

    /// Adds a member to a set in use; false when it was there.
    pub fn add_member(&mut self, id: &SetId, member: Member) -> bool {
        self.change_member(id, member, true)
    }

    /// Takes a member out of a set in use.
    pub fn remove_member(&mut self, id: &SetId, member: Member) {
        self.change_member(id, member, false);
    }

    fn change_member(&mut self, id: &SetId, member: Member, is_added: bool) -> bool {
        let Some(set) = self.policy.sets.get_mut(id) else {
            return false;
        };
        // Nobody else holds a set for long, so this changes it in place.
        let set = Arc::make_mut(set);
        let changed = if is_added {
            set.insert(member)
        } else {
            set.remove(member)
        };
        if !changed {
            return false;
        }
        let len = set.len();
        let change = match self.changes.sets.get_mut(id) {
            Some(change) => change,
            None => self.changes.sets.entry(id.clone()).or_insert(no_change()),
        };
        if is_added {
            change.add(member);
        } else {
            change.remove(member);
        }
        self.collapse(id, len);
        true
    }

    /// Adds to what is known of a set's changes.
    fn note(&mut self, id: &SetId, change: SetChange) {
        let sum = match self.changes.sets.remove(id) {
            Some(before) => before.then(change),
            None => Some(change),
        };
        if let Some(sum) = sum {
            self.changes.sets.insert(id.clone(), sum);
        }
    }

    /// Keeps the list of differences smaller than the set, and leaves none that says nothing.
    fn collapse(&mut self, id: &SetId, len: usize) {
        let Some(change @ SetChange::Members { .. }) = self.changes.sets.get_mut(id) else {
            return;
        };
        let size = change.size();
        if size > len.max(FEW_CHANGES) {
            *change = SetChange::Replaced;
        } else if size == 0 {
            self.changes.sets.remove(id);
        }
    }
}

fn no_change() -> SetChange {
    SetChange::Members {
        added: Default::default(),
        removed: Default::default(),
    }
}

/// What makes one set of the other.
fn difference(old: &IpSet, new: &IpSet) -> SetChange {
    let mut change = no_change();
    if old != new {
        let gone = old.members().filter(|m| !new.has(*m));
        gone.for_each(|m| change.remove(m));
        let fresh = new.members().filter(|m| !old.has(*m));
        fresh.for_each(|m| change.add(m));
    }
    change
}

/// The keys whose values differ. Values that nobody touched are the same allocation.
fn differing<T: PartialEq>(
    old: &BTreeMap<String, Arc<T>>,
    new: &BTreeMap<String, Arc<T>>,
) -> Vec<String> {
    let same = |a: &Arc<T>, b: &Arc<T>| Arc::ptr_eq(a, b) || a == b;
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let other = new
        .iter()
        .filter(|(key, value)| old.get(*key).is_none_or(|before| !same(before, value)));
    gone.chain(other.map(|(key, _)| key)).cloned().collect()
}
