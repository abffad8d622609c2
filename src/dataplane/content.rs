//! Members of the kernel's sets, without a second copy of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::api::Family;
use crate::calc::{IpSet, Member as Listed, SetChange, SetId};
use crate::compile::{Member, SetContent, SetSpec, storable};

/// The sets of a host policy.
pub type PolicySets = BTreeMap<SetId, Arc<IpSet>>;

/// The members that one set of the kernel shall have.
#[derive(Clone, Debug)]
pub enum Content {
    /// Those that never change.
    Constant(Arc<BTreeSet<Member>>),
    /// Those of one set of the host policy in this family.
    Set(Arc<IpSet>, Family),
    /// Those of several together, in order.
    Union(Arc<[Member]>),
}

impl Content {
    /// The content of a set. A set that the host policy does not have is empty.
    pub fn new(spec: &Arc<SetSpec>, sets: &PolicySets) -> Content {
        let ids = match &spec.content {
            SetContent::Constant(members) => return Content::Constant(members.clone()),
            SetContent::Policy(ids) => ids,
        };
        let parts: Vec<&Arc<IpSet>> = ids.iter().filter_map(|id| sets.get(id)).collect();
        if let [one] = parts.as_slice() {
            return Content::Set(Arc::clone(one), spec.family);
        }
        let all = parts.iter().flat_map(|part| members(part, spec.family));
        let mut all: Vec<Member> = all.collect();
        all.sort_unstable();
        all.dedup();
        Content::Union(all.into())
    }

    /// Whether this is a member.
    pub fn contains(&self, member: &Member) -> bool {
        match self {
            Content::Constant(members) => members.contains(member),
            Content::Set(set, _) => holds(set, member),
            Content::Union(members) => members.binary_search(member).is_ok(),
        }
    }

    /// Every member, once.
    pub fn iter(&self) -> Box<dyn Iterator<Item = Member> + '_> {
        match self {
            Content::Constant(members) => Box::new(members.iter().copied()),
            Content::Set(set, family) => members(set, *family),
            Content::Union(members) => Box::new(members.iter().copied()),
        }
    }

    /// Number of members.
    pub fn count(&self) -> usize {
        match self {
            Content::Union(members) => members.len(),
            _ => self.iter().count(),
        }
    }
}

/// The members of a set of the host policy in one family, each once, as the kernel keeps them.
fn members(set: &IpSet, family: Family) -> Box<dyn Iterator<Item = Member> + '_> {
    match set {
        IpSet::Nets(nets) => {
            let own = nets.iter().filter(move |n| Family::of_net(n) == family);
            // A half of everything may also be a member of its own.
            let is_extra = move |whole: &IpNet, one: &IpNet| one == whole || !nets.contains(one);
            Box::new(own.flat_map(move |net| {
                let stored = stored(*net).filter(move |one| is_extra(net, one));
                stored.map(Member::Net)
            }))
        }
        IpSet::Ports(ports) => {
            let own = ports.iter().filter(move |(a, ..)| Family::of(*a) == family);
            Box::new(own.map(|(a, p, n)| Member::AddrPort(*a, *p, *n)))
        }
    }
}

/// How the kernel keeps a prefix: itself, or two halves.
fn stored(net: IpNet) -> impl Iterator<Item = IpNet> {
    let halves = match net.prefix_len() {
        0 => storable(net),
        _ => Vec::new(),
    };
    let itself = (net.prefix_len() > 0).then_some(net);
    itself.into_iter().chain(halves)
}

/// Whether a set of the host policy has a member that the kernel keeps so.
fn holds(set: &IpSet, member: &Member) -> bool {
    origins(*member).any(|m| has(set, &m))
}

fn has(set: &IpSet, member: &Listed) -> bool {
    match (set, member) {
        (IpSet::Nets(nets), Listed::Net(net)) => nets.contains(net),
        (IpSet::Ports(ports), Listed::Port(addr, protocol, port)) => {
            ports.contains(&(*addr, *protocol, *port))
        }
        _ => false,
    }
}

/// The members of the host policy that the kernel may keep as this: itself, and everything for a half.
fn origins(member: Member) -> impl Iterator<Item = Listed> {
    let (itself, whole) = match member {
        Member::Net(net) if net.prefix_len() == 1 => {
            (Some(Listed::Net(net)), Some(Listed::Net(everything(net))))
        }
        Member::Net(net) => (Some(Listed::Net(net)), None),
        Member::AddrPort(addr, protocol, port) => (Some(Listed::Port(addr, protocol, port)), None),
        Member::Port(_) => (None, None),
    };
    itself.into_iter().chain(whole)
}

fn everything(net: IpNet) -> IpNet {
    let addr: IpAddr = match net {
        IpNet::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpNet::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    IpNet::new_assert(addr, 0)
}

/// How the kernel keeps a member of the host policy in a set of this family: not at all, as it is, or as two halves.
fn kept(member: Listed, family: Family) -> impl Iterator<Item = Member> {
    let (net, port) = match member {
        Listed::Net(net) if Family::of_net(&net) == family => (Some(net), None),
        Listed::Port(addr, protocol, port) if Family::of(addr) == family => {
            (None, Some(Member::AddrPort(addr, protocol, port)))
        }
        _ => (None, None),
    };
    let nets = net.into_iter().flat_map(stored).map(Member::Net);
    nets.chain(port)
}

/// Members that a set of the kernel did not have and has now, and the other way round; nothing when the changes do not list
/// them. What one part loses another one may still have.
pub fn difference(
    spec: &SetSpec,
    sets: &PolicySets,
    changes: &BTreeMap<SetId, SetChange>,
) -> Option<(Vec<Member>, Vec<Member>)> {
    let ids = spec.selectors()?;
    let mut touched = BTreeSet::new();
    for change in ids.iter().filter_map(|id| changes.get(id)) {
        let SetChange::Members { added, removed } = change else {
            return None;
        };
        let all = added.iter().chain(removed);
        touched.extend(all.flat_map(|m| kept(*m, spec.family)));
    }
    let now = |m: &Listed| ids.iter().any(|id| sets.get(id).is_some_and(|s| has(s, m)));
    let before = |m: &Listed| ids.iter().any(|id| had(sets.get(id), changes.get(id), m));
    let (mut more, mut less) = (Vec::new(), Vec::new());
    for member in touched {
        match (
            origins(member).any(|m| before(&m)),
            origins(member).any(|m| now(&m)),
        ) {
            (false, true) => more.push(member),
            (true, false) => less.push(member),
            _ => {}
        }
    }
    Some((more, less))
}

/// Whether a set had a member before it changed.
fn had(set: Option<&Arc<IpSet>>, change: Option<&SetChange>, member: &Listed) -> bool {
    let has = set.is_some_and(|s| has(s, member));
    match change {
        Some(SetChange::Members { added, removed }) => {
            removed.contains(member) || (has && !added.contains(member))
        }
        _ => has,
    }
}

#[cfg(test)]
mod tests;
