//! Port trees: many rules told apart by protocol and destination port, so that a packet meets only those that may match it.
//!
//! A tree stands for one long chain. Its root leads by protocol, each node below by two more bits of the port, to leaves that
//! list, in the order of the policies, every rule that can match there. Everything in it is a `goto`, so that the end of
//! whatever chain a packet comes to returns to the caller of the root. Where it is split is fixed, not balanced: a changed
//! rule changes the leaves it is in, and nobody looks at the others. Two bits, because a way that is not taken costs a packet as much as one
//! that is: with four bits a packet meets more rules in all, with one bit too.

use std::sync::Arc;

use super::entry::{Entry, entries, same, touched};
use super::memo::Written;
use super::ruleset::{Chain, End, KRule, Match, Name, Target};
use super::union::Merger;
use crate::api::{PortRange, Protocol};

/// Children of a node, by digit of the port to the base of this.
const DIGITS: u16 = 4;
/// Bits of a digit.
const BITS: u32 = DIGITS.trailing_zeros();
/// Digits of a port.
const DEPTH: u32 = u16::BITS / BITS;
/// A node is split only while its children together hold at most so many times its rules: rules for many ports are copied.
const COPIES: usize = 2;
/// The protocols that a tree tells apart, and whether they have ports.
const LANES: [(Protocol, &str, bool); 5] = [
    (Protocol::TCP, "tcp", true),
    (Protocol::UDP, "udp", true),
    (Protocol::SCTP, "sctp", true),
    (Protocol::ICMP, "icmp", false),
    (Protocol::ICMPV6, "icmp6", false),
];

/// A change of the chains: the chain with this name is this one now, or gone.
pub(super) type Edits = Vec<(Name, Option<Chain>)>;

/// A tree and what it was made of.
#[derive(Debug)]
pub(super) struct Tree {
    policies: Vec<Arc<Written>>,
    root: Node,
}

/// A chain of the tree, and those below it in the order of their names.
#[derive(Debug)]
struct Node {
    name: Name,
    chain: Chain,
    children: Vec<Node>,
}

/// What the nodes of one protocol have in common.
struct Lane<'a> {
    protocol: Protocol,
    /// Of the chain at its top.
    name: &'a Name,
    /// The rules that are new or gone. Nodes that none of them is about stay as they are.
    touched: Vec<Entry<'a>>,
}

/// The ports of a node.
#[derive(Clone, Copy)]
struct Span {
    first: u16,
    depth: u32,
}

/// What all nodes of a tree need to know.
pub(super) struct Maker<'a> {
    /// A chain with more rules than this is split.
    pub(super) leaf: usize,
    pub(super) merger: Merger<'a>,
    /// What changes.
    pub(super) edits: &'a mut Edits,
}

impl Tree {
    /// The tree of these rules, in this order, made of the one that was there before.
    pub(super) fn update(
        old: Option<Tree>,
        name: &Name,
        policies: &[Arc<Written>],
        maker: &mut Maker<'_>,
    ) -> Tree {
        let (before, root) = match old {
            Some(old) if same(&old.policies, policies) => return old,
            Some(old) => (old.policies, Some(old.root)),
            None => (Vec::new(), None),
        };
        let touched = touched(&before, policies);
        let entries: Vec<Entry<'_>> = entries(policies).collect();
        let root = maker.root(root, name, &entries, &touched);
        Tree {
            policies: policies.to_vec(),
            root,
        }
    }

    /// Takes all chains of the tree away.
    pub(super) fn remove(self, edits: &mut Edits) {
        self.root.remove(edits);
    }
}

impl Node {
    fn remove(self, edits: &mut Edits) {
        edits.push((self.name, None));
        for child in self.children {
            child.remove(edits);
        }
    }
}

impl Maker<'_> {
    fn root(
        &mut self,
        old: Option<Node>,
        name: &Name,
        entries: &[Entry<'_>],
        touched: &[Entry<'_>],
    ) -> Node {
        let mut old = Old::new(old);
        let mut rules = Vec::new();
        let mut children = Vec::new();
        for (protocol, word, has_ports) in LANES {
            if !entries.iter().any(|e| e.key.protocol == Some(protocol)) {
                continue;
            }
            let of_lane = |e: &&Entry<'_>| e.is_of(protocol);
            let own: Vec<Entry<'_>> = entries.iter().filter(of_lane).copied().collect();
            let child_name: Name = format!("{name}-{word}").into();
            let lane = Lane {
                protocol,
                name: &child_name,
                touched: touched.iter().filter(of_lane).copied().collect(),
            };
            let before = old.take(&child_name);
            let span = if has_ports {
                Span { first: 0, depth: 0 }
            } else {
                Span::SINGLE
            };
            let matches = vec![Match::Protocol(protocol, false)];
            rules.push(way(matches, &child_name));
            children.push(self.node(before, child_name.clone(), &lane, span, &own));
        }
        let others: Vec<Entry<'_>> = entries
            .iter()
            .filter(|e| e.key.protocol.is_none_or(|p| !has_lane(p)))
            .copied()
            .collect();
        rules.extend(self.rules(&others));
        self.finish(old, name.clone(), rules, children)
    }

    fn node(
        &mut self,
        old: Option<Node>,
        name: Name,
        lane: &Lane<'_>,
        span: Span,
        entries: &[Entry<'_>],
    ) -> Node {
        let is_touched = || lane.touched.iter().any(|e| e.meets(span.range()));
        let mut old = match old {
            Some(old) if !is_touched() => return old,
            old => Old::new(old),
        };
        let Some(parts) = self.split(span, entries) else {
            let rules = self.rules(entries);
            return self.finish(old, name, rules, Vec::new());
        };
        let mut rules = Vec::new();
        let mut children = Vec::new();
        for (digit, part) in parts {
            let below = self.deepest(span, span.child(digit), &part);
            let child_name: Name = format!("{}-{}", lane.name, below.name()).into();
            let matches = vec![
                Match::Protocol(lane.protocol, false),
                Match::Ports(End::Dst, [below.range()].into(), false),
            ];
            rules.push(way(matches, &child_name));
            let before = old.take(&child_name);
            children.push(self.node(before, child_name, lane, below, &part));
        }
        let wide = entries.iter().filter(|e| e.covers(span.range()));
        rules.extend(self.rules(wide));
        self.finish(old, name, rules, children)
    }

    fn rules<'e>(&mut self, entries: impl IntoIterator<Item = &'e Entry<'e>>) -> Vec<KRule> {
        let rules = entries.into_iter().map(|e| e.rule.clone());
        self.merger.merge(rules.collect())
    }

    /// The part of a child of `span` that its rules are about, where there are rules about one part of it only: the way leads
    /// there at once. What is left out has the rules about all ports of `span`, which stand behind the ways.
    fn deepest<'a>(&self, span: Span, child: Span, entries: &[Entry<'a>]) -> Span {
        let mut at = child;
        let stays_narrow = |s: Span| {
            let narrow = entries.iter().filter(|e| !e.covers(span.range()));
            narrow.into_iter().all(|e| !e.covers(s.range()))
        };
        while at.depth < DEPTH && stays_narrow(at) {
            let narrow = entries.iter().filter(|e| !e.covers(span.range()));
            let mut digits = narrow.flat_map(|e| at.digits(e.ports().unwrap_or(&[])));
            let Some(first) = digits.next().filter(|first| digits.all(|d| d == *first)) else {
                break;
            };
            at = at.child(first);
        }
        at
    }

    /// The rules by next digit, where one of them is about less than all ports of the node; `None` where splitting gains nothing.
    fn split<'a>(&self, span: Span, entries: &[Entry<'a>]) -> Option<Vec<(u16, Vec<Entry<'a>>)>> {
        if span.depth == DEPTH || entries.len() <= self.leaf {
            return None;
        }
        let all = span.range();
        let mut parts: Vec<Vec<Entry<'_>>> = vec![Vec::new(); usize::from(DIGITS)];
        let mut narrow = [false; DIGITS as usize];
        for entry in entries {
            let covers = entry.covers(all);
            for digit in span.digits(entry.ports().unwrap_or(&[all])) {
                parts[usize::from(digit)].push(*entry);
                narrow[usize::from(digit)] |= !covers;
            }
        }
        let parts: Vec<(u16, Vec<Entry<'_>>)> = (0..DIGITS)
            .zip(parts)
            .filter(|(digit, _)| narrow[usize::from(*digit)])
            .collect();
        let copies: usize = parts.iter().map(|(_, part)| part.len()).sum();
        (!parts.is_empty() && copies <= COPIES * entries.len()).then_some(parts)
    }

    fn finish(&mut self, old: Old, name: Name, rules: Vec<KRule>, children: Vec<Node>) -> Node {
        let unchanged = old.chain.filter(|c| **c == *rules);
        let chain = unchanged.unwrap_or_else(|| {
            let chain: Chain = rules.into();
            self.edits.push((name.clone(), Some(chain.clone())));
            chain
        });
        for child in old.children {
            child.remove(self.edits);
        }
        Node {
            name,
            chain,
            children,
        }
    }
}

/// What a node was before.
struct Old {
    chain: Option<Chain>,
    /// Children that the new node has not taken over.
    children: Vec<Node>,
}

impl Old {
    fn new(node: Option<Node>) -> Old {
        let (chain, children) = match node {
            Some(node) => (Some(node.chain), node.children),
            None => (None, Vec::new()),
        };
        Old { chain, children }
    }

    fn take(&mut self, name: &str) -> Option<Node> {
        let at = self.children.iter().position(|c| *c.name == *name)?;
        Some(self.children.swap_remove(at))
    }
}

impl Span {
    /// One port, or traffic without ports: nothing to split.
    const SINGLE: Span = Span {
        first: 0,
        depth: DEPTH,
    };

    /// Bits of the port below the digits that are fixed.
    fn shift(self) -> u32 {
        BITS * (DEPTH - self.depth)
    }

    fn range(self) -> PortRange {
        let last = u32::from(self.first) + (1 << self.shift()) - 1;
        PortRange {
            first: self.first,
            last: u16::try_from(last).unwrap_or(u16::MAX),
        }
    }

    /// The digits in hexadecimal, with an odd one behind a dot.
    fn name(self) -> String {
        let nibbles = self.depth * BITS / 4;
        let mut name = String::new();
        if nibbles > 0 {
            let digits = self.first >> (16 - 4 * nibbles);
            name = format!("{digits:0width$x}", width = nibbles as usize);
        }
        if !(self.depth * BITS).is_multiple_of(4) {
            name += &format!(".{}", self.first >> self.shift() & (DIGITS - 1));
        }
        name
    }

    fn child(self, digit: u16) -> Span {
        let depth = self.depth + 1;
        Span {
            first: self.first | digit << (self.shift() - BITS),
            depth,
        }
    }

    /// The next digits of the ports of the node that lie in any of these ranges; each once, in order.
    fn digits(self, ranges: &[PortRange]) -> impl Iterator<Item = u16> {
        let own = self.range();
        let mut wanted = 0u32;
        for range in ranges {
            let (first, last) = (range.first.max(own.first), range.last.min(own.last));
            if first <= last {
                let digit = |port: u16| u32::from(port - own.first) >> (self.shift() - BITS);
                wanted |= (2 << digit(last)) - (1 << digit(first));
            }
        }
        (0..DIGITS).filter(move |d| wanted & (1 << d) != 0)
    }
}

fn way(matches: Vec<Match>, to: &Name) -> KRule {
    KRule::new(matches, Target::Goto(to.clone()), "")
}

fn has_lane(protocol: Protocol) -> bool {
    LANES.iter().any(|(p, ..)| *p == protocol)
}
