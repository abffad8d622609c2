//! What the kernel tells about a set, apart from its members.

use super::wire::{self, cmd, data, find};
use crate::api::Family;
use crate::compile::SetKind;

/// What the kernel knows about a set, apart from its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// The kernel's name of its type.
    pub type_name: String,
    /// Its kind; nothing when it is of a type, or has options, that no set of ours has.
    pub kind: Option<SetKind>,
    /// Family of its members; ports have none.
    pub family: Option<Family>,
    /// How many members fit.
    pub capacity: u32,
    /// How many members it has, where the kernel tells (it does since 4.11).
    pub members: Option<u32>,
    /// How many rules and sets use it.
    pub references: u32,
}

impl Header {
    /// Whether members of this kind and family can be in it.
    pub fn holds(&self, kind: SetKind, family: Family) -> bool {
        self.kind == Some(kind) && (kind == SetKind::Ports || self.family == Some(family))
    }

    /// Whether a set of this kind and family can take its place by swap: the kernel compares types, not options.
    pub fn can_swap(&self, kind: SetKind, family: Family) -> bool {
        self.type_name == wire::type_name(kind)
            && (kind == SetKind::Ports || self.family == Some(family))
    }

    /// Whether both describe the same set. What an old kernel does not tell does not tell them apart.
    pub fn is_like(&self, other: &Header) -> bool {
        let members = self.members.zip(other.members);
        (self.kind, self.family, self.capacity) == (other.kind, other.family, other.capacity)
            && members.is_none_or(|(a, b)| a == b)
    }

    /// What a new set of ours is like.
    pub(super) fn of_new(
        name: &str,
        kind: SetKind,
        family: Family,
        capacity: u32,
        members: usize,
    ) -> Header {
        Header {
            name: name.to_owned(),
            type_name: wire::type_name(kind).to_owned(),
            kind: Some(kind),
            family: Some(family).filter(|_| kind != SetKind::Ports),
            capacity,
            members: u32::try_from(members).ok(),
            references: 0,
        }
    }

    /// Reads the header in one message of a list. Further messages of a long set have none.
    pub(super) fn parse(answer: &[u8]) -> Option<Header> {
        let kinds = [SetKind::Nets, SetKind::AddrPorts, SetKind::Ports];
        let type_name = wire::text(find(answer, cmd::TYPENAME)?);
        let options = find(answer, cmd::DATA).unwrap_or(&[]);
        let number = |kind| find(options, kind).and_then(wire::number);
        // A time limit, counters, comments or a part of the ports: not made by moat.
        let foreign = [data::TIMEOUT, data::CADT_FLAGS, data::NETMASK]
            .iter()
            .any(|k| find(options, *k).is_some());
        let kind = kinds
            .into_iter()
            .find(|k| wire::type_name(*k) == type_name && !foreign)
            .filter(|k| *k != SetKind::Ports || has_all_ports(options));
        let family = match find(answer, cmd::FAMILY).and_then(|v| v.first()) {
            Some(2) => Some(Family::V4),
            Some(10) => Some(Family::V6),
            _ => None,
        };
        Some(Header {
            name: wire::text(find(answer, cmd::SETNAME)?),
            type_name,
            kind,
            family,
            capacity: number(data::MAXELEM).unwrap_or(wire::ALL_PORTS),
            members: number(data::ELEMENTS),
            references: number(data::REFERENCES).unwrap_or(0),
        })
    }
}

fn has_all_ports(options: &[u8]) -> bool {
    let port = |kind| find(options, kind).and_then(wire::port);
    (port(data::PORT), port(data::PORT_TO)) == (Some(0), Some(u16::MAX))
}
