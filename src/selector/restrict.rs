//! What a selector demands of single labels, so that an index can find candidates (facts 2.4).

use std::collections::{BTreeMap, BTreeSet};

use super::node::Node;
use super::token::Op;

/// What every label map that matches a selector has in common at one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restriction {
    /// The label exists.
    Present,
    /// The label does not exist.
    Absent,
    /// The label exists and has one of these values.
    OneOf(BTreeSet<String>),
}

/// Restrictions by label.
pub type Restrictions = BTreeMap<String, Restriction>;

/// The restrictions of a tree, or of its opposite; `None` when nothing can match.
pub(super) fn restrict(node: &Node, negated: bool) -> Option<Restrictions> {
    match node {
        Node::All | Node::Global => (!negated).then(Restrictions::new),
        Node::Has(label) if negated => Some(one(label, Restriction::Absent)),
        Node::Has(label) => Some(one(label, Restriction::Present)),
        Node::Compare(label, op, value) => Some(compare(label, *op, value, negated)),
        Node::Set(label, positive, values) => match (*positive != negated, values.is_empty()) {
            (true, true) => None,
            (true, false) => {
                let values = values.iter().map(|v| String::from(&**v)).collect();
                Some(one(label, Restriction::OneOf(values)))
            }
            (false, _) => Some(Restrictions::new()),
        },
        Node::Not(inner) => restrict(inner, !negated),
        Node::And(nodes) if negated => any(nodes, negated),
        Node::Or(nodes) if negated => all(nodes, negated),
        Node::And(nodes) => all(nodes, negated),
        Node::Or(nodes) => any(nodes, negated),
    }
}

fn one(label: &str, restriction: Restriction) -> Restrictions {
    Restrictions::from([(label.to_string(), restriction)])
}

fn compare(label: &str, op: Op, value: &str, negated: bool) -> Restrictions {
    let equal = match op {
        Op::Eq | Op::In => !negated,
        Op::Ne | Op::NotIn => negated,
        Op::Contains | Op::StartsWith | Op::EndsWith if negated => return Restrictions::new(),
        Op::Contains | Op::StartsWith | Op::EndsWith => return one(label, Restriction::Present),
    };
    if equal {
        one(
            label,
            Restriction::OneOf(BTreeSet::from([value.to_string()])),
        )
    } else {
        Restrictions::new()
    }
}

/// All of the nodes hold: their restrictions add up.
fn all(nodes: &[Node], negated: bool) -> Option<Restrictions> {
    let mut sum = Restrictions::new();
    for node in nodes {
        for (label, restriction) in restrict(node, negated)? {
            let both = match sum.remove(&label) {
                Some(other) => intersect(other, restriction)?,
                None => restriction,
            };
            sum.insert(label, both);
        }
    }
    Some(sum)
}

/// One of the nodes holds: only what all that can match have in common is left.
fn any(nodes: &[Node], negated: bool) -> Option<Restrictions> {
    nodes
        .iter()
        .filter_map(|n| restrict(n, negated))
        .reduce(|mut left, mut right| {
            left.retain(
                |label, kept| match right.remove(label).and_then(|r| unite(kept, r)) {
                    Some(both) => {
                        *kept = both;
                        true
                    }
                    None => false,
                },
            );
            left
        })
}

fn intersect(left: Restriction, right: Restriction) -> Option<Restriction> {
    use Restriction::{Absent, OneOf, Present};
    match (left, right) {
        (Absent, Absent) => Some(Absent),
        (Absent, _) | (_, Absent) => None,
        (Present, other) | (other, Present) => Some(other),
        (OneOf(left), OneOf(mut right)) => {
            right.retain(|v| left.contains(v));
            (!right.is_empty()).then_some(OneOf(right))
        }
    }
}

/// Takes the values out of `left`, which the caller replaces or drops.
fn unite(left: &mut Restriction, right: Restriction) -> Option<Restriction> {
    use Restriction::{Absent, OneOf, Present};
    match (left, right) {
        (Absent, Absent) => Some(Absent),
        (Absent, _) | (_, Absent) => None,
        (OneOf(left), OneOf(right)) => {
            let mut values = std::mem::take(left);
            values.extend(right);
            Some(OneOf(values))
        }
        _ => Some(Present),
    }
}
