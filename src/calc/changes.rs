//! What changed in the host policy between two looks at it, so that whoever carries it further does work in proportion.

use std::collections::{BTreeMap, BTreeSet};

use super::ipset::{Member, SetId};
use crate::api::ResourceId;

/// The net effect of everything since the last flush on one IP set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetChange {
    /// It was not in use before: read it whole.
    New,
    /// It is no longer in use.
    Gone,
    /// So much of it changed that the difference is not worth having: read it whole.
    Replaced,
    /// Neither list has a member of the other.
    Members {
        /// Members it did not have before.
        added: BTreeSet<Member>,
        /// Members it no longer has.
        removed: BTreeSet<Member>,
    },
}

/// What changed since the last flush. A name in a list appeared, changed or disappeared; the host policy says which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostChanges {
    /// Host endpoints by name.
    pub endpoints: BTreeSet<String>,
    /// Workloads by interface.
    pub workloads: BTreeSet<String>,
    /// Policies whose rules changed.
    pub policies: BTreeSet<ResourceId>,
    /// Profiles whose rules changed.
    pub profiles: BTreeSet<String>,
    /// Whether the settings in the host policy changed.
    pub options: bool,
    /// IP sets.
    pub sets: BTreeMap<SetId, SetChange>,
}

impl HostChanges {
    /// Whether nothing changed at all.
    pub fn is_empty(&self) -> bool {
        !self.touches_rules() && self.sets.is_empty()
    }

    /// Whether anything but members of IP sets changed, so that rules must be compiled again.
    pub fn touches_rules(&self) -> bool {
        let members_only =
            |change: &SetChange| matches!(change, SetChange::Members { .. } | SetChange::Replaced);
        self.options
            || !self.endpoints.is_empty()
            || !self.workloads.is_empty()
            || !self.policies.is_empty()
            || !self.profiles.is_empty()
            || !self.sets.values().all(members_only)
    }

    /// Adds what happened after, as if both had been flushed as one.
    pub fn extend(&mut self, later: HostChanges) {
        self.endpoints.extend(later.endpoints);
        self.workloads.extend(later.workloads);
        self.policies.extend(later.policies);
        self.profiles.extend(later.profiles);
        self.options |= later.options;
        for (id, change) in later.sets {
            let joined = match self.sets.remove(&id) {
                Some(before) => before.then(change),
                None => Some(change),
            };
            if let Some(joined) = joined {
                self.sets.insert(id, joined);
            }
        }
    }
}

impl SetChange {
    /// Both changes as one; `None` when the second undoes the first.
    pub(super) fn then(self, later: SetChange) -> Option<SetChange> {
        use SetChange::{Gone, Members, New, Replaced};
        match (self, later) {
            (New, Gone) => None,
            (New, _) => Some(New),
            (_, Gone) => Some(Gone),
            (Gone, _) | (Replaced, _) | (_, Replaced | New) => Some(Replaced),
            (
                Members { added, removed },
                Members {
                    added: new,
                    removed: old,
                },
            ) => {
                let mut sum = Members { added, removed };
                new.into_iter().for_each(|m| sum.add(m));
                old.into_iter().for_each(|m| sum.remove(m));
                (sum.size() > 0).then_some(sum)
            }
        }
    }

    /// A member appeared. It is no difference when it had disappeared before.
    pub(super) fn add(&mut self, member: Member) {
        if let SetChange::Members { added, removed } = self
            && !removed.remove(&member)
        {
            added.insert(member);
        }
    }

    /// A member disappeared.
    pub(super) fn remove(&mut self, member: Member) {
        if let SetChange::Members { added, removed } = self
            && !added.remove(&member)
        {
            removed.insert(member);
        }
    }

    /// Number of members that differ, as far as they are listed.
    pub(super) fn size(&self) -> usize {
        match self {
            SetChange::Members { added, removed } => added.len() + removed.len(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use ipnet::IpNet;

    use super::*;

    fn members(added: &[u8], removed: &[u8]) -> SetChange {
        let set = |list: &[u8]| {
            let net = |n: &u8| Member::Net(IpNet::from(IpAddr::from([10, 0, 0, *n])));
            list.iter().map(net).collect()
        };
        SetChange::Members {
            added: set(added),
            removed: set(removed),
        }
    }

    #[test]
    fn changes_in_a_row_are_one() {
        use SetChange::{Gone, New, Replaced};
        let some = || members(&[1], &[2]);
        for (first, second, both) in [
            (New, Gone, None),
            (New, some(), Some(New)),
            (Gone, New, Some(Replaced)),
            (some(), Gone, Some(Gone)),
            (Replaced, some(), Some(Replaced)),
            (some(), Replaced, Some(Replaced)),
            (some(), members(&[2], &[1]), None),
            (some(), members(&[3], &[1]), Some(members(&[3], &[2]))),
        ] {
            let shown = format!("{first:?} then {second:?}");
            assert_eq!(first.then(second), both, "{shown}");
        }
    }

    #[test]
    fn joined_changes_keep_no_entry_that_says_nothing() {
        let id = SetId::Selector("all()".into());
        let of = |change| HostChanges {
            sets: BTreeMap::from([(id.clone(), change)]),
            ..HostChanges::default()
        };
        let mut changes = of(members(&[1], &[]));
        assert!(!changes.touches_rules());
        changes.extend(of(members(&[], &[1])));
        assert!(changes.is_empty());
        changes.extend(of(SetChange::New));
        assert!(changes.touches_rules());
    }
}
