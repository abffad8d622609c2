//! Everything that selectors can find: endpoints of all hosts and network sets, in as few bytes as it takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashMap;
use ipnet::IpNet;
use slab::Slab;

use super::facts::{self, Contribution};
use super::index::{Bucket, buckets};
use super::labels::{LabelId, LabelTable, LabelView};
use super::pool::{Pool, PoolId};
use super::posting::{HolderId, Posting};
use crate::api::{EndpointPort, Profile, Protocol, Resource, ResourceId};
use crate::selector::Selector;

/// Prefixes of a holder; nearly all have one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Nets {
    One(IpNet),
    Other(Box<[IpNet]>),
}

impl Nets {
    fn new(nets: &[IpNet]) -> Nets {
        match nets {
            [only] => Nets::One(*only),
            other => Nets::Other(other.into()),
        }
    }
}

/// Something with labels that contributes addresses: an endpoint or a network set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Own labels, then inherited ones.
    labels: Box<[LabelId]>,
    own: u32,
    /// The profiles it inherits labels from.
    parents: PoolId,
    /// Named ports, each of which exists on every address; none when there is no address.
    ports: PoolId,
    nets: Nets,
    is_endpoint: bool,
}

impl Holder {
    /// Its prefixes (a /32 or /128 per endpoint address).
    pub fn nets(&self) -> &[IpNet] {
        match &self.nets {
            Nets::One(net) => std::slice::from_ref(net),
            Nets::Other(nets) => nets,
        }
    }

    /// Whether the sets that match both get the same from them.
    pub fn contributes_like(&self, other: &Holder) -> bool {
        self.nets == other.nets && self.ports == other.ports
    }
}

/// All holders of the store, by number and by label.
#[derive(Debug, Default)]
pub struct Holders {
    by_id: HashMap<Box<str>, HolderId>,
    slots: Slab<Holder>,
    table: LabelTable,
    parents: Pool<[String]>,
    ports: Pool<[EndpointPort]>,
    profiles: BTreeMap<String, Arc<Profile>>,
    /// Who inherits from each profile, whether it exists or not.
    heirs: BTreeMap<String, Posting>,
}

/// The text under which a holder is known; shorter than its id.
fn key(id: &ResourceId) -> String {
    let short = char::from(b'A' + id.kind as u8);
    let mut key = String::with_capacity(id.namespace.len() + id.name.len() + 2);
    key.push(short);
    key.push_str(&id.namespace);
    key.push('/');
    key.push_str(&id.name);
    key
}

impl Holders {
    /// The labels.
    pub fn table(&mut self) -> &mut LabelTable {
        &mut self.table
    }

    /// The number of a holder.
    pub fn find(&self, id: &ResourceId) -> Option<HolderId> {
        self.by_id.get(key(id).as_str()).copied()
    }

    /// A holder by number.
    pub fn get(&self, id: HolderId) -> Option<&Holder> {
        self.slots.get(id as usize)
    }

    /// The labels of a holder.
    pub fn labels<'a>(&'a self, holder: &'a Holder) -> LabelView<'a> {
        let (own, inherited) = holder.labels.split_at(holder.own as usize);
        LabelView {
            table: &self.table,
            own,
            inherited,
        }
    }

    /// The named ports of a holder.
    pub fn ports(&self, holder: &Holder) -> &[EndpointPort] {
        self.ports.get(holder.ports)
    }

    /// What a resource is as a holder. It must be given to [`Holders::put`] or [`Holders::drop_holder`].
    pub fn make(&mut self, resource: &Resource) -> Holder {
        let Contribution { nets, ports } = facts::contribution(resource);
        let parents = facts::parents(resource);
        let own = facts::own_labels(resource);
        let mut labels: Vec<LabelId> = Vec::with_capacity(own.len());
        labels.extend(own.iter().map(|(name, value)| self.table.pin(name, value)));
        let own = labels.len();
        self.inherit(&parents, &mut labels);
        Holder {
            labels: labels.into_boxed_slice(),
            own: own as u32,
            parents: self.parents.acquire(&parents),
            ports: self
                .ports
                .acquire(if nets.is_empty() { &[] } else { ports }),
            nets: Nets::new(&nets),
            is_endpoint: facts::node(resource).is_some(),
        }
    }

    /// The same holder with the labels that its profiles have now.
    pub fn remake(&mut self, id: HolderId) -> Option<Holder> {
        let old = self.slots.get(id as usize)?.clone();
        let mut labels = old.labels[..old.own as usize].to_vec();
        labels.iter().for_each(|label| self.table.repin(*label));
        let parents = self.parents.get(old.parents).clone();
        self.inherit(&parents, &mut labels);
        self.parents.reacquire(old.parents);
        self.ports.reacquire(old.ports);
        Some(Holder {
            labels: labels.into_boxed_slice(),
            ..old
        })
    }

    /// Adds the labels of profiles to own ones: an own label wins, the first profile wins (facts 1.9).
    fn inherit(&mut self, parents: &[String], labels: &mut Vec<LabelId>) {
        let mut inherited: BTreeMap<&str, &str> = BTreeMap::new();
        for profile in parents.iter().filter_map(|name| self.profiles.get(name)) {
            for (name, value) in &profile.labels {
                inherited.entry(name).or_insert(value);
            }
        }
        let own = labels.len();
        for (name, value) in inherited {
            let is_own = labels[..own]
                .binary_search_by(|id| self.table.name(*id).cmp(name))
                .is_ok();
            if !is_own {
                labels.push(self.table.pin(name, value));
            }
        }
    }

    /// Gives up a holder that is not filed.
    pub fn drop_holder(&mut self, holder: Holder) {
        holder.labels.iter().for_each(|id| self.table.unpin(*id));
        self.parents.release(holder.parents);
        self.ports.release(holder.ports);
    }

    /// Files a new holder.
    pub fn add(&mut self, id: &ResourceId, holder: Holder) -> HolderId {
        let number = self.slots.vacant_key() as HolderId;
        for label in &holder.labels {
            self.table.file(*label, number);
        }
        for parent in self.parents.get(holder.parents).iter() {
            match self.heirs.get_mut(parent) {
                Some(heirs) => heirs.insert(number),
                None => {
                    let mut heirs = Posting::default();
                    heirs.insert(number);
                    self.heirs.insert(parent.clone(), heirs);
                }
            }
        }
        self.by_id.insert(key(id).into_boxed_str(), number);
        if self.slots.len() == self.slots.capacity() {
            // By an eighth: doubling would waste up to half of the largest thing there is.
            self.slots.reserve_exact(self.slots.len() / 8 + 64);
        }
        self.slots.insert(holder);
        number
    }

    /// Files a holder in the place of the one that has the number. Labels that stay are not touched.
    pub fn replace(&mut self, number: HolderId, holder: Holder) {
        let parents = self.parents.get(holder.parents).clone();
        let Some(slot) = self.slots.get_mut(number as usize) else {
            return;
        };
        let old = std::mem::replace(slot, holder);
        let new = slot.labels.clone();
        for label in old.labels.iter().filter(|label| !new.contains(label)) {
            self.table.unfile(*label, number);
        }
        for label in new.iter().filter(|label| !old.labels.contains(label)) {
            self.table.file(*label, number);
        }
        let old_parents = self.parents.get(old.parents).clone();
        if !Arc::ptr_eq(&old_parents, &parents) {
            self.disinherit(&old_parents, number);
            for parent in parents.iter() {
                self.heirs.entry(parent.clone()).or_default().insert(number);
            }
        }
        self.drop_holder(old);
    }

    /// Removes a holder.
    pub fn remove(&mut self, id: &ResourceId) {
        let Some(number) = self.by_id.remove(key(id).as_str()) else {
            return;
        };
        let holder = self.slots.remove(number as usize);
        for label in &holder.labels {
            self.table.unfile(*label, number);
        }
        let parents = self.parents.get(holder.parents).clone();
        self.disinherit(&parents, number);
        self.drop_holder(holder);
    }

    fn disinherit(&mut self, parents: &[String], number: HolderId) {
        for parent in parents {
            if let Some(heirs) = self.heirs.get_mut(parent) {
                heirs.remove(number);
                if heirs.is_empty() {
                    self.heirs.remove(parent);
                }
            }
        }
    }

    /// A profile appeared, changed or disappeared; the holders whose labels may change by it, which must be made again.
    pub fn set_profile(&mut self, name: &str, profile: Option<Arc<Profile>>) -> Vec<HolderId> {
        let old = match profile.clone() {
            Some(profile) => self.profiles.insert(name.to_owned(), profile),
            None => self.profiles.remove(name),
        };
        let labels = |profile: Option<Arc<Profile>>| profile.map(|p| p.labels.clone());
        if labels(old).unwrap_or_default() == labels(profile).unwrap_or_default() {
            return Vec::new();
        }
        let heirs = self.heirs.get(name);
        heirs.into_iter().flat_map(Posting::iter).collect()
    }

    /// The holders that a selector may match, each once.
    pub fn candidates<'a>(
        &'a self,
        selector: &Selector,
    ) -> Box<dyn Iterator<Item = (HolderId, &'a Holder)> + 'a> {
        let numbers = buckets(selector).into_iter().flat_map(|bucket| {
            let numbers: Box<dyn Iterator<Item = HolderId> + 'a> = match bucket {
                Bucket::Any => Box::new(self.slots.iter().map(|(number, _)| number as HolderId)),
                Bucket::Present(name) => Box::new(self.table.with_name(&name)),
                Bucket::Value(name, value) => Box::new(self.table.with_value(&name, &value)),
            };
            numbers
        });
        Box::new(numbers.map(|number| (number, &self.slots[number as usize])))
    }

    /// The holders that a selector matches.
    pub fn matching<'a>(&'a self, selector: &'a Selector) -> impl Iterator<Item = &'a Holder> + 'a {
        self.candidates(selector)
            .map(|(_, holder)| holder)
            .filter(|holder| selector.is_plain() || selector.matches(&self.labels(holder)))
    }

    /// Whether a selector matches anything; or any endpoint.
    pub fn any_match(&self, selector: &Selector, endpoints_only: bool) -> bool {
        self.matching(selector)
            .any(|holder| holder.is_endpoint || !endpoints_only)
    }

    /// How much of each thing is kept.
    #[cfg(test)]
    pub fn sizes(&self) -> [usize; 7] {
        let (keys, labels) = self.table.sizes();
        let pools = [self.parents.values().count(), self.ports.values().count()];
        let holders = [self.by_id.len(), self.slots.len(), self.heirs.len()];
        [
            keys, labels, pools[0], pools[1], holders[0], holders[1], holders[2],
        ]
    }

    /// Whether an endpoint with addresses has a port of this name and protocol.
    pub fn any_port(&self, name: &str, protocol: Option<Protocol>) -> bool {
        let mut ports = self.ports.values().flatten();
        ports.any(|port| port.name == name && protocol.is_none_or(|p| p == port.protocol))
    }
}
