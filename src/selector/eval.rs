//! Whether a selector matches, without allocation (facts 2.3).

use std::collections::BTreeMap;

use super::node::{Node, Text};
use super::token::Op;

/// Anything that can be asked for the value of a label.
pub trait Labels {
    /// The value of the label `key`, `None` when it is absent.
    fn get(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn get(&self, key: &str) -> Option<&str> {
        BTreeMap::get(self, key).map(String::as_str)
    }
}

impl Node {
    pub(super) fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        match self {
            Node::All | Node::Global => true,
            Node::Has(label) => labels.get(label).is_some(),
            Node::Compare(label, op, value) => compare(labels.get(label), *op, value),
            Node::Set(label, positive, values) => contains(labels.get(label), values) == *positive,
            Node::Not(inner) => !inner.matches(labels),
            Node::And(nodes) => nodes.iter().all(|n| n.matches(labels)),
            Node::Or(nodes) => nodes.iter().any(|n| n.matches(labels)),
        }
    }
}

/// An absent label differs from every value.
fn compare(found: Option<&str>, op: Op, value: &str) -> bool {
    let Some(found) = found else {
        return op == Op::Ne;
    };
    match op {
        Op::Eq | Op::In => found == value,
        Op::Ne | Op::NotIn => found != value,
        Op::Contains => found.contains(value),
        Op::StartsWith => found.starts_with(value),
        Op::EndsWith => found.ends_with(value),
    }
}

fn contains(found: Option<&str>, values: &[Text]) -> bool {
    found.is_some_and(|found| values.binary_search_by(|v| (**v).cmp(found)).is_ok())
}
