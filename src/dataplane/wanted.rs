//! What is handed over to the dataplane: the ruleset, and the members of its sets or what changed in them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::content::{Content, PolicySets, difference};
use crate::calc::{HostChanges, HostPolicy, SetId};
use crate::compile::{Member, Name, Ruleset, SetSpec};

/// What the kernel shall hold.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Chains, rules, and which sets there are.
    pub ruleset: Arc<Ruleset>,
    /// Members of the sets.
    pub members: Members,
}

/// Members of the sets of a ruleset.
#[derive(Clone, Debug)]
pub enum Members {
    /// All of them: what the kernel holds is read and compared.
    All(PolicySets),
    /// What changed since the last time: what the kernel holds is known, if the last time went well.
    Changed(BTreeMap<Name, Update>),
}

/// What happens to one set of the kernel.
#[derive(Clone, Debug)]
pub enum Update {
    /// It may hold anything, or not be there: these are its members.
    Whole(Content),
    /// Few members change.
    Few {
        /// Members that it did not have.
        added: Vec<Member>,
        /// Members that it had.
        removed: Vec<Member>,
    },
}

impl Wanted {
    /// The ruleset and the policy that it was compiled from, all of it.
    pub fn whole(ruleset: Arc<Ruleset>, policy: &HostPolicy) -> Wanted {
        Wanted {
            ruleset,
            members: Members::All(policy.sets.clone()),
        }
    }

    /// No rules and no sets.
    pub fn nothing() -> Wanted {
        Wanted {
            ruleset: Arc::default(),
            members: Members::All(PolicySets::new()),
        }
    }
}

/// Remembers the ruleset that was handed over last, so that only the difference is handed over next.
#[derive(Debug, Default)]
pub struct Handover {
    ruleset: Arc<Ruleset>,
    /// The kernel's sets that have members of a set of the policy.
    users: BTreeMap<SetId, Vec<Name>>,
}

impl Handover {
    /// Everything. Needed at first and after every failure.
    pub fn whole(&mut self, ruleset: &Arc<Ruleset>, policy: &HostPolicy) -> Wanted {
        self.follow(ruleset);
        Wanted::whole(ruleset.clone(), policy)
    }

    /// The difference to what was handed over before: `changes` are those of the policy since then. Costs in proportion to
    /// them, and to the number of sets when the ruleset is another one.
    pub fn changed(
        &mut self,
        ruleset: &Arc<Ruleset>,
        policy: &HostPolicy,
        changes: &HostChanges,
    ) -> Wanted {
        let mut updates = BTreeMap::new();
        let whole = |spec: &Arc<SetSpec>| Update::Whole(Content::new(spec, &policy.sets));
        if !Arc::ptr_eq(&self.ruleset, ruleset) {
            for (name, spec) in &ruleset.sets {
                let before = self.ruleset.sets.get(name);
                if !before.is_some_and(|b| Arc::ptr_eq(b, spec) || b == spec) {
                    updates.insert(name.clone(), whole(spec));
                }
            }
            self.follow(ruleset);
        }
        let touched: BTreeSet<&Name> = changes
            .sets
            .keys()
            .filter_map(|id| self.users.get(id))
            .flatten()
            .collect();
        for name in touched {
            if let Some(spec) = ruleset.sets.get(name)
                && !updates.contains_key(name)
            {
                let update = match difference(spec, &policy.sets, &changes.sets) {
                    Some((added, removed)) => Update::Few { added, removed },
                    None => whole(spec),
                };
                updates.insert(name.clone(), update);
            }
        }
        Wanted {
            ruleset: ruleset.clone(),
            members: Members::Changed(updates),
        }
    }

    fn follow(&mut self, ruleset: &Arc<Ruleset>) {
        if Arc::ptr_eq(&self.ruleset, ruleset) {
            return;
        }
        self.ruleset = ruleset.clone();
        self.users.clear();
        for (name, spec) in &ruleset.sets {
            for id in spec.selectors().unwrap_or_default() {
                let users = self.users.entry(id.clone()).or_default();
                users.push(name.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
