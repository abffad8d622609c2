//! Policies and tiers: their order, whom they select, and whether their rules are in force.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use slab::Slab;

use super::Calculator;
use super::effective::policy_selector;
use super::index::SelectorIndex;
use super::model::Category;
use super::rules::{self, Named};
use crate::api::{Kind, Policy, Resource, ResourceId, Tier};
use crate::selector::Selector;

/// Number of a policy while it exists.
pub type PolicyNumber = u32;

/// Position of a tier: real tiers by order and name, then pseudo-tiers that no Tier resource backs.
#[derive(Clone, Debug, PartialEq)]
pub struct TierPlace {
    exists: bool,
    order: f64,
    /// Its name.
    pub name: Arc<str>,
    /// Whether it ends in pass.
    pub default_pass: bool,
}

/// Position of a policy in the order of evaluation (facts 3.1).
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Of its tier.
    pub tier: TierPlace,
    order: f64,
    tie: Box<str>,
}

impl Place {
    /// The order of evaluation.
    pub fn compare(&self, other: &Place) -> Ordering {
        let (a, b) = (&self.tier, &other.tier);
        b.exists
            .cmp(&a.exists)
            .then(a.order.total_cmp(&b.order))
            .then_with(|| a.name.cmp(&b.name))
            .then(self.order.total_cmp(&other.order))
            .then_with(|| self.tie.cmp(&other.tie))
    }
}

/// Where a policy applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applies {
    /// Towards endpoints.
    pub ingress: bool,
    /// From endpoints.
    pub egress: bool,
    untracked: bool,
    pre_dnat: bool,
    forward: bool,
}

impl Applies {
    /// Whether it acts in a category (facts 3.2).
    pub fn acts_in(self, category: Category) -> bool {
        let plain = !self.untracked && !self.pre_dnat;
        match category {
            Category::Untracked => self.untracked,
            Category::PreDnat => self.pre_dnat,
            Category::Normal => plain,
            Category::Forward => plain && self.forward,
        }
    }
}

/// What is kept of a policy.
#[derive(Debug)]
pub struct Entry {
    /// Its id.
    pub id: Arc<ResourceId>,
    /// Its place in the order.
    pub place: Place,
    /// Where it applies.
    pub applies: Applies,
    /// Endpoints that it applies to.
    pub selector: Selector,
    /// Its rules; staged policies are not enforced and need none.
    pub rules: Option<Named>,
    /// Local endpoints that it selects; with none it is not in force.
    users: usize,
}

/// All policies, staged ones too.
#[derive(Debug, Default)]
pub struct Policies {
    numbers: BTreeMap<Arc<ResourceId>, PolicyNumber>,
    entries: Slab<Entry>,
    /// Selectors by policy.
    pub selectors: SelectorIndex,
}

impl Policies {
    /// A policy that exists.
    pub fn get(&self, number: PolicyNumber) -> &Entry {
        &self.entries[number as usize]
    }

    /// All policies by id.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.numbers.values().map(|number| self.get(*number))
    }
}

impl Calculator {
    /// A policy was created or changed.
    pub(super) fn upsert_policy(&mut self, resource: &Resource, policy: &Policy) {
        let known = self.policies.numbers.get_key_value(&resource.id);
        let known = known.map(|(id, number)| (id.clone(), *number));
        let id = known
            .as_ref()
            .map_or_else(|| Arc::new(resource.id.clone()), |k| k.0.clone());
        let is_enforced = matches!(id.kind, Kind::GlobalNetworkPolicy | Kind::NetworkPolicy);
        let entry = Entry {
            place: Place {
                tier: self.tier_place(&policy.tier),
                order: policy.order.unwrap_or(f64::INFINITY),
                // What Calico compares: not the same as one part after the other, because `/` sorts after `-` and `.`.
                tie: format!("{}/{}/{}", id.name, id.namespace, id.kind.name()).into(),
            },
            applies: Applies {
                ingress: policy.applies_ingress,
                egress: policy.applies_egress,
                untracked: policy.do_not_track,
                pre_dnat: policy.pre_dnat,
                forward: policy.apply_on_forward,
            },
            selector: policy_selector(&id, policy),
            rules: is_enforced
                .then(|| rules::policy_rules(&id, &resource.origin, policy, &mut self.sets)),
            users: 0,
            id,
        };
        match known {
            Some((_, number)) => self.replace_policy(number, entry),
            None => self.add_policy(entry),
        }
    }

    fn add_policy(&mut self, entry: Entry) {
        let (id, selector) = (entry.id.clone(), entry.selector.clone());
        let number = self.policies.entries.insert(entry) as PolicyNumber;
        self.policies.numbers.insert(id, number);
        let table = self.holders.table();
        self.policies.selectors.insert(table, number, &selector);
        self.rematch(number, Some(&selector));
    }

    fn replace_policy(&mut self, number: PolicyNumber, mut entry: Entry) {
        let slot = &mut self.policies.entries[number as usize];
        entry.users = slot.users;
        let mut old = std::mem::replace(slot, entry);
        self.replace_rules(number, old.rules.take());
        let new = &self.policies.entries[number as usize];
        if new.place != old.place || new.applies != old.applies {
            self.reorder(&BTreeSet::from([number]));
        }
        let selector = self.policies.get(number).selector.clone();
        if selector != old.selector {
            let table = self.holders.table();
            self.policies.selectors.insert(table, number, &selector);
            self.rematch(number, Some(&selector));
        }
    }

    /// Goes over from old rules to those of the entry. New sets are opened before old ones are closed: most are the same.
    fn replace_rules(&mut self, number: PolicyNumber, old: Option<Named>) {
        let entry = &mut self.policies.entries[number as usize];
        let (Some(old), Some(new)) = (old, entry.rules.as_mut()) else {
            return;
        };
        if old.lists == new.lists {
            // The same allocation as before tells everybody that nothing changed.
            new.lists = old.lists;
        } else if entry.users > 0 {
            let lists = new.lists.clone();
            for set in &new.sets {
                self.sets.acquire(*set, &mut self.holders, &mut self.live);
            }
            self.live.set_policy(&entry.id, Some(lists));
            for set in &old.sets {
                self.sets.release(*set, &mut self.holders, &mut self.live);
            }
        }
        for set in &old.sets {
            self.sets.unname(*set);
        }
    }

    /// A policy was deleted.
    pub(super) fn delete_policy(&mut self, id: &ResourceId) {
        let Some(number) = self.policies.numbers.get(id).copied() else {
            return;
        };
        self.rematch(number, None);
        self.policies.selectors.remove(self.holders.table(), number);
        self.policies.numbers.remove(id);
        let entry = self.policies.entries.remove(number as usize);
        for set in entry.rules.iter().flat_map(|rules| &rules.sets) {
            self.sets.unname(*set);
        }
    }

    /// Tells every local endpoint whether a policy selects it.
    fn rematch(&mut self, number: PolicyNumber, selector: Option<&Selector>) {
        let mut changed = Vec::new();
        for (id, local) in &mut self.locals {
            let holder = self.holders.get(local.holder);
            let labels = holder.map(|h| self.holders.labels(h));
            let is_match = selector
                .zip(labels)
                .is_some_and(|(selector, labels)| selector.matches(&labels));
            let place = local.selected.iter().position(|other| *other == number);
            match (place, is_match) {
                (None, true) => local.selected.push(number),
                (Some(place), false) => {
                    local.selected.remove(place);
                }
                _ => continue,
            }
            changed.push(is_match);
            self.unfinished.insert(id.clone());
        }
        changed
            .into_iter()
            .for_each(|is_match| self.use_policy(number, is_match));
    }

    /// One local endpoint more or less is selected by a policy. The first one puts its rules in force.
    pub(super) fn use_policy(&mut self, number: PolicyNumber, is_more: bool) {
        let entry = &mut self.policies.entries[number as usize];
        let before = entry.users;
        entry.users = if is_more { before + 1 } else { before - 1 };
        let Some(rules) = &entry.rules else { return };
        match (before, entry.users) {
            (0, _) => {
                for set in &rules.sets {
                    self.sets.acquire(*set, &mut self.holders, &mut self.live);
                }
                self.live.set_policy(&entry.id, Some(rules.lists.clone()));
            }
            (_, 0) => {
                self.live.set_policy(&entry.id, None);
                for set in &rules.sets {
                    self.sets.release(*set, &mut self.holders, &mut self.live);
                }
            }
            _ => {}
        }
    }

    /// A tier was created, changed or deleted.
    pub(super) fn set_tier(&mut self, name: &str, tier: Option<Tier>) {
        match tier {
            Some(tier) => self.tiers.insert(name.to_owned(), tier),
            None => self.tiers.remove(name),
        };
        let place = self.tier_place(name);
        let mut moved = BTreeSet::new();
        for (number, entry) in &mut self.policies.entries {
            if *entry.place.tier.name == *name && entry.place.tier != place {
                entry.place.tier = place.clone();
                moved.insert(number as PolicyNumber);
            }
        }
        self.reorder(&moved);
    }

    /// Some policies have another place or apply elsewhere.
    fn reorder(&mut self, moved: &BTreeSet<PolicyNumber>) {
        for (id, local) in &self.locals {
            if local.selected.iter().any(|number| moved.contains(number)) {
                self.unfinished.insert(id.clone());
            }
        }
    }

    /// The place of the tier that a policy names.
    fn tier_place(&self, name: &str) -> TierPlace {
        let tier = self.tiers.get(name).copied().or_else(|| predefined(name));
        TierPlace {
            exists: tier.is_some(),
            order: tier.map_or(0.0, |t| t.order),
            name: name.into(),
            default_pass: tier.is_some_and(|t| t.default_pass),
        }
    }
}

/// The tiers that exist without a resource (facts 1.8).
pub fn predefined(name: &str) -> Option<Tier> {
    let (order, default_pass) = match name {
        "default" => (1_000_000.0, false),
        "kube-admin" => (1_000.0, true),
        "kube-baseline" => (10_000_000.0, true),
        _ => return None,
    };
    Some(Tier {
        order,
        default_pass,
    })
}
