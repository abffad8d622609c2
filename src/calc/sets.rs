//! IP sets: who asks for them, and which addresses and ports their selectors stand for.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use slab::Slab;

use super::holders::{Holder, Holders};
use super::index::SelectorIndex;
use super::ipset::{IpSet, Member, SetId};
use super::live::Live;
use crate::api::EndpointPort;
use crate::selector::Selector;

/// Number of a set that rules name, whether it is in use on this host or not.
pub type SetNumber = u32;

#[derive(Debug)]
struct Set {
    id: SetId,
    selector: Selector,
    /// Rule lists that name it.
    named: u32,
    /// Rule lists that name it and are in force; without any it has no members.
    users: u32,
    /// Further holders of members that several holders contribute.
    repeated: BTreeMap<Member, u32>,
    /// What the holders say, as long as the set has assumed members instead.
    hidden: Option<IpSet>,
}

/// All sets that rules name.
#[derive(Debug, Default)]
pub struct Sets {
    by_id: BTreeMap<SetId, SetNumber>,
    sets: Slab<Set>,
    /// Selectors of the sets in use.
    selectors: SelectorIndex,
    /// Members to go by until the holders are known.
    assumed: Option<BTreeMap<SetId, Arc<IpSet>>>,
}

impl Sets {
    /// The number of a set, which one more rule list names.
    pub fn name(&mut self, id: SetId, selector: &Selector) -> SetNumber {
        if let Some(number) = self.by_id.get(&id) {
            self.sets[*number as usize].named += 1;
            return *number;
        }
        let number = self.sets.insert(Set {
            id: id.clone(),
            selector: selector.clone(),
            named: 1,
            users: 0,
            repeated: BTreeMap::new(),
            hidden: None,
        }) as SetNumber;
        self.by_id.insert(id, number);
        number
    }

    /// One rule list less names the set, which is not in force.
    pub fn unname(&mut self, number: SetNumber) {
        let set = &mut self.sets[number as usize];
        set.named -= 1;
        if set.named == 0 {
            let set = self.sets.remove(number as usize);
            self.by_id.remove(&set.id);
        }
    }

    /// The id of a set, whose text all users share.
    pub fn id(&self, number: SetNumber) -> &SetId {
        &self.sets[number as usize].id
    }

    /// The selector of a set.
    pub fn selector(&self, number: SetNumber) -> &Selector {
        &self.sets[number as usize].selector
    }

    /// The number of a set that rules name.
    pub fn find(&self, id: &SetId) -> Option<SetNumber> {
        self.by_id.get(id).copied()
    }

    /// One more rule list in force uses the set.
    pub fn acquire(&mut self, number: SetNumber, holders: &mut Holders, live: &mut Live) {
        let set = &mut self.sets[number as usize];
        set.users += 1;
        if set.users > 1 {
            return;
        }
        self.selectors
            .insert(holders.table(), number, &set.selector);
        let mut real = IpSet::empty(&set.id);
        for holder in holders.matching(&set.selector) {
            for member in members(&set.id, holder, holders) {
                if !real.insert(member) {
                    *set.repeated.entry(member).or_insert(0) += 1;
                }
            }
        }
        match self.assumed.as_ref().and_then(|sets| sets.get(&set.id)) {
            Some(assumed) => {
                live.open_set(&set.id, assumed.clone());
                set.hidden = Some(real);
            }
            None => live.open_set(&set.id, Arc::new(real)),
        }
    }

    /// One rule list in force less uses the set; the last one ends it.
    pub fn release(&mut self, number: SetNumber, holders: &mut Holders, live: &mut Live) {
        let set = &mut self.sets[number as usize];
        set.users -= 1;
        if set.users > 0 {
            return;
        }
        set.repeated.clear();
        set.hidden = None;
        live.close_set(&set.id);
        self.selectors.remove(holders.table(), number);
    }

    /// A holder becomes another one, appears or disappears.
    pub fn move_holder(
        &mut self,
        old: Option<&Holder>,
        new: Option<&Holder>,
        holders: &Holders,
        live: &mut Live,
    ) {
        let matching = |holder: Option<&Holder>| {
            holder.map_or(Vec::new(), |h| self.selectors.matching(&holders.labels(h)))
        };
        let (before, after) = (matching(old), matching(new));
        let is_moved = match (old, new) {
            (Some(old), Some(new)) => !old.contributes_like(new),
            _ => true,
        };
        let mut touched: Vec<SetNumber> = before.iter().chain(&after).copied().collect();
        touched.sort_unstable();
        touched.dedup();
        for number in touched {
            let was = before.binary_search(&number).is_ok();
            let is = after.binary_search(&number).is_ok();
            if is_moved || was != is {
                let set = &mut self.sets[number as usize];
                let gone = sorted_members(&set.id, old.filter(|_| was), holders);
                let fresh = sorted_members(&set.id, new.filter(|_| is), holders);
                set.exchange(gone, fresh, live);
            }
        }
    }

    /// Takes these as the members of their sets until [`Sets::settle`], whatever the holders say.
    pub fn assume(&mut self, assumed: BTreeMap<SetId, IpSet>, live: &mut Live) {
        let assumed = assumed.into_iter().map(|(id, set)| (id, Arc::new(set)));
        let assumed: BTreeMap<SetId, Arc<IpSet>> = assumed.collect();
        for (id, members) in &assumed {
            let Some(number) = self.by_id.get(id) else {
                continue;
            };
            let set = &mut self.sets[*number as usize];
            if let Some(real) = live.policy().sets.get(id) {
                set.hidden.get_or_insert_with(|| (**real).clone());
                live.replace_set(id, members.clone());
            }
        }
        self.assumed = Some(assumed);
    }

    /// How many sets are named.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Whether any members may be assumed ones.
    pub fn is_assumed(&self) -> bool {
        self.assumed.is_some()
    }

    /// From now on the holders decide.
    pub fn settle(&mut self, live: &mut Live) {
        self.assumed = None;
        for (_, set) in &mut self.sets {
            if let Some(real) = set.hidden.take() {
                live.replace_set(&set.id, Arc::new(real));
            }
        }
    }
}

impl Set {
    /// One holder contributes other members than before; both lists are sorted.
    fn exchange(&mut self, mut gone: Vec<Member>, mut fresh: Vec<Member>, live: &mut Live) {
        cancel(&mut gone, &mut fresh);
        for member in fresh {
            let is_first = match &mut self.hidden {
                Some(real) => real.insert(member),
                None => live.add_member(&self.id, member),
            };
            if !is_first {
                *self.repeated.entry(member).or_insert(0) += 1;
            }
        }
        for member in gone {
            if let Some(others) = self.repeated.get_mut(&member) {
                *others -= 1;
                if *others == 0 {
                    self.repeated.remove(&member);
                }
            } else if let Some(real) = &mut self.hidden {
                real.remove(member);
            } else {
                live.remove_member(&self.id, member);
            }
        }
    }
}

/// Takes out of two sorted lists what both have, each as often as both have it.
fn cancel(left: &mut Vec<Member>, right: &mut Vec<Member>) {
    let mut kept = Vec::new();
    let mut others = right.drain(..).peekable();
    left.retain(|member| {
        while let Some(smaller) = others.next_if(|other| other < member) {
            kept.push(smaller);
        }
        others.next_if_eq(member).is_none()
    });
    kept.extend(others);
    *right = kept;
}

fn sorted_members(id: &SetId, holder: Option<&Holder>, holders: &Holders) -> Vec<Member> {
    let all = holder.into_iter().flat_map(|h| members(id, h, holders));
    let mut all: Vec<Member> = all.collect();
    all.sort_unstable();
    all
}

/// What a holder contributes to a set whose selector it matches.
fn members<'a>(
    id: &'a SetId,
    holder: &'a Holder,
    holders: &'a Holders,
) -> impl Iterator<Item = Member> + 'a {
    let (is_nets, ports) = match id {
        SetId::Selector(_) => (true, None),
        SetId::NamedPort { protocol, port, .. } => (false, Some((protocol, port))),
    };
    let nets = holder.nets().iter().filter(move |_| is_nets);
    let ports = ports.into_iter().flat_map(|(protocol, name)| {
        let ports = holders.ports(holder).iter();
        ports.filter(move |p| *p.name == **name && protocol.is_none_or(|x| x == p.protocol))
    });
    let on_all = move |port: &'a EndpointPort| {
        let member = |net: &IpNet| Member::Port(net.addr(), port.protocol, port.port);
        holder.nets().iter().map(member)
    };
    nets.map(|net| Member::Net(net.trunc()))
        .chain(ports.flat_map(on_all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_lists_share_cancels_as_often_as_both_have_it() {
        let list = |numbers: &[u8]| -> Vec<Member> {
            let net = |n: &u8| Member::Net(IpNet::from(std::net::IpAddr::from([10, 0, 0, *n])));
            numbers.iter().map(net).collect()
        };
        let (mut left, mut right) = (list(&[1, 2, 2, 3, 5]), list(&[2, 4, 5, 5, 6]));
        cancel(&mut left, &mut right);
        assert_eq!((left, right), (list(&[1, 2, 3]), list(&[4, 5, 6])));
    }
}
