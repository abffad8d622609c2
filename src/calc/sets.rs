//! Membership of IP sets: which addresses and ports the selectors in use stand for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::index::{LabelIndex, LabelMap, SelectorIndex};
use super::model::{IpSet, SetId};
use crate::api::{EndpointPort, Protocol, ResourceId};
use crate::selector::Selector;

/// Something with labels that contributes addresses: an endpoint or a network set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Labels after inheritance.
    pub labels: LabelMap,
    /// Prefixes (a /32 or /128 per endpoint address).
    pub nets: Vec<IpNet>,
    /// Named ports, each of which exists on every address.
    pub ports: Vec<EndpointPort>,
}

#[derive(Debug)]
struct ActiveSet {
    users: usize,
    nets: BTreeMap<IpNet, u32>,
    ports: BTreeMap<(IpAddr, Protocol, u16), u32>,
    /// The finished set, until a member changes.
    finished: Option<Arc<IpSet>>,
}

/// All holders of the store and the sets in use.
#[derive(Debug, Default)]
pub struct SetIndex {
    holders: BTreeMap<ResourceId, Holder>,
    by_label: LabelIndex<ResourceId>,
    selectors: SelectorIndex<SetId>,
    active: BTreeMap<SetId, ActiveSet>,
    member_of: BTreeMap<ResourceId, BTreeSet<SetId>>,
}

impl SetIndex {
    /// Adds, replaces or (with `None`) removes a holder and follows it in every set.
    pub fn set_holder(&mut self, id: &ResourceId, new: Option<Holder>) {
        let old = self.holders.remove(id);
        if old == new {
            if let Some(holder) = new {
                self.holders.insert(id.clone(), holder);
            }
            return;
        }
        let old_sets = self.member_of.remove(id).unwrap_or_default();
        if let Some(old) = &old {
            self.by_label.remove(id, &old.labels);
            for set in &old_sets {
                self.contribute(set, old, -1);
            }
        }
        let Some(new) = new else { return };
        let new_sets = self.selectors.matching(&new.labels);
        for set in &new_sets {
            self.contribute(set, &new, 1);
        }
        self.by_label.insert(id, &new.labels);
        if !new_sets.is_empty() {
            self.member_of.insert(id.clone(), new_sets);
        }
        self.holders.insert(id.clone(), new);
    }

    /// One more rule list uses the set.
    pub fn acquire(&mut self, set: &SetId, selector: &Selector) {
        if let Some(active) = self.active.get_mut(set) {
            active.users += 1;
            return;
        }
        let empty = ActiveSet {
            users: 1,
            nets: BTreeMap::new(),
            ports: BTreeMap::new(),
            finished: None,
        };
        self.active.insert(set.clone(), empty);
        self.selectors.insert(set.clone(), selector.clone());
        let ids = self
            .by_label
            .candidates(selector)
            .unwrap_or_else(|| self.holders.keys().cloned().collect());
        for id in ids {
            let holder = self.holders[&id].clone();
            if selector.matches(&holder.labels) {
                self.contribute(set, &holder, 1);
                self.member_of.entry(id).or_default().insert(set.clone());
            }
        }
    }

    /// One rule list less uses the set; the last one ends it.
    pub fn release(&mut self, set: &SetId, selector: &Selector) {
        let Some(active) = self.active.get_mut(set) else {
            return;
        };
        active.users -= 1;
        if active.users > 0 {
            return;
        }
        self.active.remove(set);
        self.selectors.remove(set);
        let ids = self
            .by_label
            .candidates(selector)
            .unwrap_or_else(|| self.holders.keys().cloned().collect());
        for id in ids {
            if let Some(sets) = self.member_of.get_mut(&id) {
                sets.remove(set);
            }
        }
    }

    /// The finished sets in use. Unchanged sets are the same `Arc` as before.
    pub fn finished(&mut self) -> BTreeMap<SetId, Arc<IpSet>> {
        let finish = |id: &SetId, set: &ActiveSet| match id {
            SetId::Selector(_) => IpSet::Nets(set.nets.keys().copied().collect()),
            SetId::NamedPort { .. } => IpSet::Ports(set.ports.keys().copied().collect()),
        };
        self.active
            .iter_mut()
            .map(|(id, set)| {
                if set.finished.is_none() {
                    set.finished = Some(Arc::new(finish(id, set)));
                }
                (id.clone(), set.finished.clone().expect("finished above"))
            })
            .collect()
    }

    fn contribute(&mut self, set: &SetId, holder: &Holder, delta: i32) {
        let Some(active) = self.active.get_mut(set) else {
            return;
        };
        let changed = match set {
            SetId::Selector(_) => {
                let mut changed = false;
                for net in &holder.nets {
                    changed |= count(&mut active.nets, net.trunc(), delta);
                }
                changed
            }
            SetId::NamedPort { protocol, port, .. } => {
                let mut changed = false;
                for p in holder
                    .ports
                    .iter()
                    .filter(|p| *p.name == **port && protocol.is_none_or(|x| x == p.protocol))
                {
                    for net in &holder.nets {
                        changed |=
                            count(&mut active.ports, (net.addr(), p.protocol, p.port), delta);
                    }
                }
                changed
            }
        };
        if changed {
            active.finished = None;
        }
    }
}

/// Counts a member up or down; says whether it appeared or disappeared.
fn count<M: Ord>(members: &mut BTreeMap<M, u32>, member: M, delta: i32) -> bool {
    if delta > 0 {
        let n = members.entry(member).or_insert(0);
        *n += 1;
        return *n == 1;
    }
    let Some(n) = members.get_mut(&member) else {
        return false;
    };
    *n -= 1;
    if *n == 0 {
        members.remove(&member);
        return true;
    }
    false
}
