//! The syntax tree of a selector and its canonical text.

use std::fmt::Write as _;

use super::token::Op;

/// A label's name or value.
pub(super) type Text = Box<str>;

/// One node. Two trees with the same canonical text are the same tree: see [`Node::negate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    All,
    Global,
    Has(Text),
    /// One of the operators that take a string.
    Compare(Text, Op, Text),
    /// `in` (true) or `not in` (false) a sorted list without duplicates.
    Set(Text, bool, Vec<Text>),
    Not(Box<Node>),
    /// Two or more.
    And(Vec<Node>),
    /// Two or more.
    Or(Vec<Node>),
}

impl Node {
    /// `label in {..}` or `label not in {..}`.
    pub(super) fn set(label: &str, positive: bool, mut values: Vec<Text>) -> Node {
        values.sort();
        values.dedup();
        Node::Set(label.into(), positive, values)
    }

    /// The opposite; a pair of negations cancels, as it does when the canonical text is parsed.
    pub(super) fn negate(self) -> Node {
        match self {
            Node::Not(inner) => *inner,
            other => Node::Not(Box::new(other)),
        }
    }

    /// A copy with every leaf replaced by what `leaf` returns for it, where it returns something.
    pub(super) fn map(&self, leaf: &impl Fn(&Node) -> Option<Node>) -> Node {
        let all = |nodes: &[Node]| nodes.iter().map(|n| n.map(leaf)).collect();
        match self {
            Node::Not(inner) => inner.map(leaf).negate(),
            Node::And(nodes) => Node::And(all(nodes)),
            Node::Or(nodes) => Node::Or(all(nodes)),
            other => leaf(other).unwrap_or_else(|| other.clone()),
        }
    }

    /// Whether any node of the tree is `global()`.
    pub(super) fn has_global(&self) -> bool {
        match self {
            Node::Global => true,
            Node::Not(inner) => inner.has_global(),
            Node::And(nodes) | Node::Or(nodes) => nodes.iter().any(Node::has_global),
            _ => false,
        }
    }

    /// Whether the tree is a single leaf that its restriction says completely.
    pub(super) fn is_plain(&self) -> bool {
        match self {
            Node::All | Node::Global | Node::Has(_) => true,
            Node::Compare(_, op, _) => *op == Op::Eq,
            Node::Set(_, positive, _) => *positive,
            Node::Not(_) | Node::And(_) | Node::Or(_) => false,
        }
    }

    /// The text of Calico's canonical form (facts 2.4).
    pub(super) fn canonical(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Node::All => out.push_str("all()"),
            Node::Global => out.push_str("global()"),
            Node::Has(label) => {
                // Writing to a String cannot fail.
                let _ = write!(out, "has({label})");
            }
            Node::Compare(label, op, value) => {
                let _ = write!(out, "{label} {} ", op.text());
                quote(value, out);
            }
            Node::Set(label, positive, values) => write_set(label, *positive, values, out),
            Node::Not(inner) => {
                out.push('!');
                inner.write(out);
            }
            Node::And(nodes) => write_list(nodes, " && ", out),
            Node::Or(nodes) => write_list(nodes, " || ", out),
        }
    }
}

impl Op {
    fn text(self) -> &'static str {
        match self {
            Op::Eq => "==",
            Op::Ne => "!=",
            Op::Contains => "contains",
            Op::StartsWith => "starts with",
            Op::EndsWith => "ends with",
            Op::In => "in",
            Op::NotIn => "not in",
        }
    }
}

fn write_list(nodes: &[Node], separator: &str, out: &mut String) {
    out.push('(');
    for (index, node) in nodes.iter().enumerate() {
        if index > 0 {
            out.push_str(separator);
        }
        node.write(out);
    }
    out.push(')');
}

fn write_set(label: &str, positive: bool, values: &[Text], out: &mut String) {
    let op = if positive { Op::In } else { Op::NotIn };
    let _ = write!(out, "{label} {} {{", op.text());
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        quote(value, out);
    }
    out.push('}');
}

fn quote(value: &str, out: &mut String) {
    let mark = if value.contains('"') { '\'' } else { '"' };
    out.push(mark);
    out.push_str(value);
    out.push(mark);
}
