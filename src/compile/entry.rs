//! Rules on their way to the leaves of a port tree.

use std::sync::Arc;

use super::memo::Written;
use super::ruleset::{End, KRule, Match};
use crate::api::{PortRange, Protocol};

/// Where in a tree a rule belongs, found once for each rule: there are many, all over the memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) protocol: Option<Protocol>,
    ports: Ports,
}

/// Destination ports of a rule.
#[derive(Clone, Copy, Debug)]
enum Ports {
    All,
    One(PortRange),
    /// Those of its match.
    Several,
}

/// One rule on its way to the leaves.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) rule: &'a KRule,
    pub(super) key: Key,
}

impl Key {
    /// Of a rule.
    pub(super) fn of(rule: &KRule) -> Key {
        Key {
            protocol: rule.matches.iter().find_map(|m| match m {
                Match::Protocol(protocol, false) => Some(*protocol),
                _ => None,
            }),
            ports: match port_match(rule) {
                None => Ports::All,
                Some([one]) => Ports::One(*one),
                Some(_) => Ports::Several,
            },
        }
    }
}

impl Entry<'_> {
    /// Its ports; none: all.
    pub(super) fn ports(&self) -> Option<&[PortRange]> {
        match &self.key.ports {
            Ports::All => None,
            Ports::One(one) => Some(std::slice::from_ref(one)),
            Ports::Several => port_match(self.rule),
        }
    }

    /// Whether it can match in the lane of a protocol.
    pub(super) fn is_of(&self, protocol: Protocol) -> bool {
        self.key.protocol.is_none_or(|p| p == protocol)
    }

    /// Whether it is about any of these ports.
    pub(super) fn meets(&self, ports: PortRange) -> bool {
        self.ports().is_none_or(|ranges| {
            ranges
                .iter()
                .any(|r| r.first <= ports.last && ports.first <= r.last)
        })
    }

    /// Whether it is about all of these ports.
    pub(super) fn covers(&self, ports: PortRange) -> bool {
        self.ports().is_none_or(|ranges| {
            ranges
                .iter()
                .any(|r| r.first <= ports.first && ports.last <= r.last)
        })
    }
}

/// The rules of policies, in order.
pub(super) fn entries(policies: &[Arc<Written>]) -> impl Iterator<Item = Entry<'_>> {
    policies.iter().flat_map(|written| {
        let rules = written.rules.iter().zip(&written.keys);
        rules.map(|(rule, key)| Entry { rule, key: *key })
    })
}

/// The ranges of a rule's match for destination ports.
fn port_match(rule: &KRule) -> Option<&[PortRange]> {
    rule.matches.iter().find_map(|m| match m {
        Match::Ports(End::Dst, ranges, false) => Some(&**ranges),
        _ => None,
    })
}

/// Whether they are the same policies with the same rules.
pub(super) fn same(a: &[Arc<Written>], b: &[Arc<Written>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

/// The rules in which two lists of policies differ, those of both: between what they begin with and what they end with alike,
/// so that all others are in both in the same order.
pub(super) fn touched<'a>(old: &'a [Arc<Written>], new: &'a [Arc<Written>]) -> Vec<Entry<'a>> {
    let (old, new) = differing(old, new, Arc::ptr_eq);
    let (old, new): (Vec<_>, Vec<_>) = (entries(old).collect(), entries(new).collect());
    let (old, new) = differing(&old, &new, |a, b| a.rule == b.rule);
    [old, new].concat()
}

/// Two lists without the beginning and the end that they share.
fn differing<'a, T>(
    old: &'a [T],
    new: &'a [T],
    same: impl Fn(&T, &T) -> bool,
) -> (&'a [T], &'a [T]) {
    let begin = old.iter().zip(new).take_while(|(a, b)| same(a, b)).count();
    let (old, new) = (&old[begin..], &new[begin..]);
    let pairs = old.iter().rev().zip(new.iter().rev());
    let end = pairs.take_while(|(a, b)| same(a, b)).count();
    (&old[..old.len() - end], &new[..new.len() - end])
}
