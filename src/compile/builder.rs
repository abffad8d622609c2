//! Everything but the rules of policies: hooks, dispatch and the chains of endpoints. It is small, and built anew each time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::memo::Memo;
use super::ruleset::{KRule, Name, Ruleset, Table, TableRules, Target};
use super::tree::{Edits, Tree};
use super::{ALLOW_CHAIN, Marks, Options, PASS_CHAIN};
use crate::api::{Family, ResourceId};
use crate::calc::{HostPolicy, RuleLists};

/// The port trees of all tables.
pub(super) type Trees = BTreeMap<(Family, Table, Name), Tree>;

/// The rules of policies, by their ids.
pub(super) struct Lists<'a> {
    policy: &'a HostPolicy,
    /// By the address of the id, which tiers share with the policies: to compare a thousand names takes longer than all else.
    known: HashMap<usize, &'a Arc<RuleLists>>,
}

impl<'a> Lists<'a> {
    pub(super) fn new(policy: &'a HostPolicy) -> Lists<'a> {
        let address = |(id, lists): (&Arc<ResourceId>, _)| (Arc::as_ptr(id).addr(), lists);
        Lists {
            policy,
            known: policy.policies.iter().map(address).collect(),
        }
    }

    pub(super) fn get(&self, id: &Arc<ResourceId>) -> Option<&'a Arc<RuleLists>> {
        let known = self.known.get(&Arc::as_ptr(id).addr()).copied();
        known.or_else(|| self.policy.policies.get(id))
    }
}

/// State while one family is compiled.
pub(super) struct Builder<'a> {
    pub(super) policy: &'a HostPolicy,
    pub(super) lists: &'a Lists<'a>,
    pub(super) options: &'a Options,
    pub(super) marks: Marks,
    pub(super) family: Family,
    pub(super) table: Table,
    /// What is built.
    pub(super) frame: &'a mut Ruleset,
    pub(super) memo: &'a mut Memo,
    pub(super) trees: TreeState<'a>,
}

/// The trees before and after.
pub(super) struct TreeState<'a> {
    /// Those of the last time that are not in use yet.
    pub(super) old: &'a mut Trees,
    pub(super) new: &'a mut Trees,
    /// Changes of their chains.
    pub(super) edits: &'a mut BTreeMap<(Family, Table), Edits>,
    /// Trees of this family by the serial numbers of their policies: endpoints with the same policies share one.
    pub(super) shared: HashMap<(Table, Vec<u64>), Name>,
    /// How many more rules trees may hold; see `tiers`.
    pub(super) room: usize,
}

impl Builder<'_> {
    /// What a Deny becomes here: the kernel allows REJECT in the filter table only.
    pub(super) fn deny(&self) -> Target {
        if self.rejects() {
            Target::Reject
        } else {
            Target::Drop
        }
    }

    pub(super) fn rejects(&self) -> bool {
        self.options.reject && self.table == Table::Filter
    }

    /// What ends the filter table for an accepted packet.
    pub(super) fn accept(&self) -> Target {
        if self.options.filter_accept {
            Target::Accept
        } else {
            Target::Return
        }
    }

    pub(super) fn rules(&mut self) -> &mut TableRules {
        self.frame
            .tables
            .entry(self.family)
            .or_default()
            .entry(self.table)
            .or_default()
    }

    pub(super) fn has_chain(&mut self, name: &str) -> bool {
        self.rules().chains.contains_key(name)
    }

    pub(super) fn put_chain(&mut self, name: &str, rules: Vec<KRule>) {
        self.rules().chains.insert(name.into(), rules.into());
    }

    /// The two chains that rules go to in order to mark.
    pub(super) fn mark_chains(&mut self) {
        if self.has_chain(ALLOW_CHAIN) {
            return;
        }
        let Marks { accept, pass, .. } = self.marks;
        for (name, bit, note) in [
            (ALLOW_CHAIN, accept, "allowed"),
            (PASS_CHAIN, pass, "passed"),
        ] {
            let rule = KRule::new(vec![], Target::SetMark(bit, bit), note);
            self.put_chain(name, vec![rule]);
        }
    }
}
