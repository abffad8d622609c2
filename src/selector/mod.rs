//! The label language: parse, print canonically, evaluate, restrictions for the index (facts 2).

mod error;
mod eval;
mod node;
mod parse;
mod restrict;
#[cfg(test)]
mod tests;
mod token;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha224};

pub use error::Error;
pub use eval::Labels;
use node::Node;
use parse::Limits;
pub use restrict::{Restriction, Restrictions};
use token::Op;

/// A parsed selector. Cheap to clone; two are equal when their canonical texts are.
#[derive(Clone)]
pub struct Selector(Arc<Inner>);

struct Inner {
    node: Node,
    canonical: Arc<str>,
}

impl Selector {
    /// Parses a selector as people write it; blank text means `all()`.
    ///
    /// # Errors
    /// The first offence against the grammar and where it is.
    pub fn parse(text: &str) -> Result<Selector, Error> {
        parse::parse(text, Limits::WRITTEN).map(Selector::from_node)
    }

    fn from_node(node: Node) -> Selector {
        let canonical = node.canonical().into();
        Selector(Arc::new(Inner { node, canonical }))
    }

    /// `all()`, which matches everything.
    pub fn all() -> Selector {
        Selector::from_node(Node::All)
    }

    /// `has(label)`. `label` must be a valid label name: it goes into the canonical text as it is.
    pub fn has(label: &str) -> Selector {
        debug_assert!(token::is_label(label), "{label:?}");
        Selector::from_node(Node::Has(label.into()))
    }

    /// `label == "value"`. A value with both kinds of quotes cannot be written in the language
    /// and is no valid label value; for it the result is `label in {}`, which never matches.
    pub fn eq(label: &str, value: &str) -> Selector {
        debug_assert!(token::is_label(label), "{label:?}");
        if is_writable(value) {
            Selector::from_node(Node::Compare(label.into(), Op::Eq, value.into()))
        } else {
            Selector::in_set(label, [])
        }
    }

    /// `label in {values}`. Values with both kinds of quotes are left out: see [`Selector::eq`].
    pub fn in_set(label: &str, values: impl IntoIterator<Item = String>) -> Selector {
        debug_assert!(token::is_label(label), "{label:?}");
        let values = values
            .into_iter()
            .filter(|v| is_writable(v))
            .map(Into::into)
            .collect();
        Selector::from_node(Node::set(label, true, values))
    }

    /// `(self && other)`. The operands stay as they are, as if each had stood in parentheses.
    pub fn and(&self, other: &Selector) -> Selector {
        Selector::from_node(Node::And(vec![self.0.node.clone(), other.0.node.clone()]))
    }

    /// `!self`; a pair of negations cancels.
    #[allow(
        clippy::should_implement_trait,
        reason = "takes a reference, as the other builders do"
    )]
    pub fn not(&self) -> Selector {
        Selector::from_node(self.0.node.clone().negate())
    }

    /// Puts `prefix` before every label name, as `pcns.` and `pcsa.` are (facts 2.6).
    pub fn prefix_labels(&self, prefix: &str) -> Selector {
        let name = |label: &str| format!("{prefix}{label}").into_boxed_str();
        Selector::from_node(self.0.node.map(&|leaf| match leaf {
            Node::Has(label) => Some(Node::Has(name(label))),
            Node::Compare(label, op, value) => Some(Node::Compare(name(label), *op, value.clone())),
            Node::Set(label, positive, values) => {
                Some(Node::Set(name(label), *positive, values.clone()))
            }
            _ => None,
        }))
    }

    /// Puts `with` in the place of every `all()`.
    pub fn replace_all(&self, with: &Selector) -> Selector {
        self.replace(&Node::All, with)
    }

    /// Puts `with` in the place of every `global()`.
    pub fn replace_global(&self, with: &Selector) -> Selector {
        self.replace(&Node::Global, with)
    }

    fn replace(&self, what: &Node, with: &Selector) -> Selector {
        Selector::from_node(
            self.0
                .node
                .map(&|leaf| (leaf == what).then(|| with.0.node.clone())),
        )
    }

    /// The canonical text (facts 2.4); parsing it gives this selector again.
    pub fn canonical(&self) -> &str {
        &self.0.canonical
    }

    /// The canonical text, shared with the selector.
    pub fn text(&self) -> Arc<str> {
        self.0.canonical.clone()
    }

    /// Calico's unique id: `s:` and the SHA-224 of the canonical text, 40 characters in all.
    pub fn uid(&self) -> String {
        let digest = Sha224::digest(format!("s:{}", self.canonical()));
        let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest);
        format!("s:{text}")
    }

    /// Whether this is exactly `all()`.
    pub fn is_all(&self) -> bool {
        self.0.node == Node::All
    }

    /// Whether this is exactly `global()`.
    pub fn is_global(&self) -> bool {
        self.0.node == Node::Global
    }

    /// Whether `global()` stands anywhere in it.
    pub fn has_global(&self) -> bool {
        self.0.node.has_global()
    }

    /// Whether it provably matches no labels at all, such as `a in {}` or `has(a) && !has(a)`.
    /// False does not promise that something can match.
    pub fn never_matches(&self) -> bool {
        restrict::restrict(&self.0.node, false).is_none()
    }

    /// Whether it is one plain positive term, so that whatever satisfies its only restriction, or anything where it has none,
    /// matches: `has(a)`, `a == "b"`, `a in {..}`, `all()`.
    pub fn is_plain(&self) -> bool {
        self.0.node.is_plain()
    }

    /// Whether an object with these labels is selected.
    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        self.0.node.matches(labels)
    }

    /// What is true of each label in every label map that matches; labels not listed may be
    /// anything. Empty for a selector that never matches: ask [`Selector::never_matches`] first.
    pub fn restrictions(&self) -> Restrictions {
        restrict::restrict(&self.0.node, false).unwrap_or_default()
    }
}

fn is_writable(value: &str) -> bool {
    !(value.contains('"') && value.contains('\''))
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.canonical())
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({})", self.canonical())
    }
}

impl FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Selector, Error> {
        Selector::parse(text)
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Selector) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.canonical() == other.canonical()
    }
}

impl Eq for Selector {}

impl PartialOrd for Selector {
    fn partial_cmp(&self, other: &Selector) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Selector {
    fn cmp(&self, other: &Selector) -> Ordering {
        self.canonical().cmp(other.canonical())
    }
}

impl Hash for Selector {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical().hash(state);
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.canonical())
    }
}

/// Reads canonical text of ours, which may be nested a little deeper than people may write.
impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Selector, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse::parse(&text, Limits::REWRITTEN)
            .map(Selector::from_node)
            .map_err(serde::de::Error::custom)
    }
}
