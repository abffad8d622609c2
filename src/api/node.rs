//! A document as a tree that remembers where everything stands. Text is borrowed from the file where that is possible.

use std::borrow::Cow;

use super::scalar::{Plain, Scalar};

/// One node of a document with its 1-based position in the text; line 0 means that it is not known.
#[derive(Clone, Debug, PartialEq)]
pub struct Node<'a> {
    /// 1-based line of its first character.
    pub line: u32,
    /// 1-based column, in characters.
    pub col: u32,
    /// What it holds.
    pub value: Value<'a>,
}

/// What a [`Node`] holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Text, a number, a truth value or null.
    Scalar(Scalar<'a>),
    /// A list.
    Seq(Vec<Node<'a>>),
    /// A mapping, in the order of the text. Names are unique.
    Map(Vec<(Key<'a>, Node<'a>)>),
}

/// The name of an entry of a mapping, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// The name.
    pub name: Cow<'a, str>,
    /// 1-based line.
    pub line: u32,
    /// 1-based column.
    pub col: u32,
}

impl<'a> Node<'a> {
    /// A node whose position is not known.
    pub(super) fn nowhere(value: Value<'a>) -> Node<'a> {
        Node {
            line: 0,
            col: 0,
            value,
        }
    }

    /// Text that stands where this node stands.
    pub(super) fn text_here(&self, text: &'a str) -> Node<'a> {
        Node {
            line: self.line,
            col: self.col,
            value: Value::Scalar(Scalar::quoted(text)),
        }
    }

    /// The entries, when the node is a mapping.
    pub fn entries(&self) -> Option<&[(Key<'a>, Node<'a>)]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The items of a list; none when the node is no list.
    pub fn items(&self) -> &[Node<'a>] {
        match &self.value {
            Value::Seq(items) => items,
            _ => &[],
        }
    }

    /// The entry of that name, when the node is a mapping that has it.
    pub fn get(&self, name: &str) -> Option<&Node<'a>> {
        self.entries()?
            .iter()
            .find(|(key, _)| key.name == name)
            .map(|(_, node)| node)
    }

    /// The entry of that name, to be changed.
    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Node<'a>> {
        match &mut self.value {
            Value::Map(entries) => entries
                .iter_mut()
                .find(|(key, _)| key.name == name)
                .map(|(_, node)| node),
            _ => None,
        }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// Whether the node is a number written without quotes.
    pub fn is_number(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if matches!(scalar.plain(), Plain::Int(_) | Plain::Float(_)))
    }

    /// Whether the node is null or nothing at all (`key:`).
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.is_null())
    }
}
