//! A cursor into a document: a node, its path, and where to complain about it.

use std::cell::RefCell;
use std::fmt;

pub use super::sink::{Message, Sink};
use crate::api::issue::{Severity, did_you_mean, shorten};
use crate::api::yaml::{Key, Node, Plain, Value};

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

/// A node of a document, how it was reached, and the sink for what is wrong with it.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The node.
    pub node: &'a Node<'a>,
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
    /// Where to complain.
    pub sink: &'a Sink,
}

impl<'a> At<'a> {
    /// The root of a document.
    pub fn root(node: &'a Node<'a>, sink: &'a Sink) -> At<'a> {
        At {
            node,
            parent: None,
            step: Step::Root,
            sink,
        }
    }

    /// An item of a list.
    pub fn item<'b>(&'b self, index: usize, node: &'b Node<'b>) -> At<'b> {
        At {
            node,
            parent: Some(self),
            step: Step::Index(index),
            sink: self.sink,
        }
    }

    /// An entry of a mapping.
    pub fn entry<'b>(&'b self, key: &'b str, node: &'b Node<'b>) -> At<'b> {
        At {
            node,
            parent: Some(self),
            step: Step::Key(key),
            sink: self.sink,
        }
    }

    /// The node that holds this one.
    pub fn above(&self) -> Option<&'a At<'a>> {
        self.parent
    }

    /// The items of a list; anything else is an error.
    pub fn items(&self) -> Option<&'a [Node<'a>]> {
        match &self.node.value {
            Value::Seq(items) => Some(items),
            _ => self.wrong_type("a list"),
        }
    }

    /// Whether the node is an empty list. No complaints about anything else.
    pub fn is_empty_list(&self) -> bool {
        matches!(&self.node.value, Value::Seq(items) if items.is_empty())
    }

    /// The entries of a mapping; anything else is an error.
    pub fn entries(&self) -> Option<&'a [(Key<'a>, Node<'a>)]> {
        match &self.node.value {
            Value::Map(entries) => Some(entries),
            _ => self.wrong_type("a mapping"),
        }
    }

    /// Complains that the node is not of the type wanted. Always `None`, for use as a result.
    pub fn wrong_type<T>(&self, wanted: &str) -> Option<T> {
        let found = match &self.node.value {
            Value::Seq(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Scalar(scalar) => match scalar.plain() {
                Plain::Null => "nothing",
                Plain::Bool(_) => "a truth value",
                Plain::Int(_) => "a number",
                Plain::Float(_) => "a decimal number",
                Plain::Text => "text",
            },
        };
        self.error(format!("must be {wanted}, not {found}"))
    }

    /// Reports an error about this node.
    pub fn complain(&self, text: impl Into<Message>) {
        self.report(
            Severity::Error,
            (self.node.line, self.node.col),
            text.into(),
        );
    }

    /// Reports an error about the key of this node.
    pub fn complain_key(&self, key: &Key<'_>, text: impl Into<Message>) {
        let (pos, value) = ((key.line, key.col), Some(shorten(&key.name)));
        self.sink
            .report(Severity::Error, pos, self.to_string(), value, text.into());
    }

    /// Reports an error about this node. Always `None`, for use as a result.
    pub fn error<T>(&self, text: impl Into<Message>) -> Option<T> {
        self.complain(text);
        None
    }

    /// Reports an error at a place within this node's text, `offset` in characters.
    pub fn error_within<T>(&self, offset: usize, text: impl Into<Message>) -> Option<T> {
        let body = match &self.node.value {
            Value::Scalar(scalar) => scalar.body,
            _ => None,
        };
        let column = body.map_or(self.node.col, |body| self.node.col + body + offset as u32);
        self.report(Severity::Error, (self.node.line, column), text.into());
        None
    }

    /// Reports a warning about this node.
    pub fn warn(&self, text: impl Into<Message>) {
        self.report(
            Severity::Warning,
            (self.node.line, self.node.col),
            text.into(),
        );
    }

    fn report(&self, severity: Severity, pos: (u32, u32), text: Message) {
        let value = self
            .node
            .text()
            .filter(|text| !text.is_empty())
            .map(shorten);
        self.sink
            .report(severity, pos, self.to_string(), value, text);
    }
}

impl fmt::Display for At<'_> {
    /// The path: `spec.ingress[0].source.nets[1]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(parent) = self.parent else {
            return Ok(());
        };
        parent.fmt(f)?;
        match self.step {
            Step::Root => Ok(()),
            Step::Index(n) => write!(f, "[{n}]"),
            Step::Key(key) => {
                let dot = if matches!(parent.step, Step::Root) {
                    ""
                } else {
                    "."
                };
                let key = shorten(key);
                let plain = key
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                if !plain {
                    write!(f, "[\"{key}\"]")
                } else {
                    write!(f, "{dot}{key}")
                }
            }
        }
    }
}

/// The fields of a mapping. It remembers every field asked for, so that [`Fields::finish`] can name the others:
/// the known fields of a mapping are exactly those that are decoded.
#[derive(Debug)]
pub struct Fields<'a> {
    /// The mapping.
    pub at: At<'a>,
    entries: &'a [(Key<'a>, Node<'a>)],
    asked: RefCell<Vec<&'static str>>,
}

/// So many times what may be written today is taken from a datastore, where old clients of Calico stored more.
const STORED: usize = 16;

impl At<'_> {
    /// The most that there may be of something, where this is the most that may be written.
    pub fn most(&self, max: usize) -> usize {
        match self.sink.is_stored() {
            true => max * STORED,
            false => max,
        }
    }
}

impl<'a> Fields<'a> {
    /// The fields of that node; an error when it is no mapping.
    pub fn of(at: &At<'a>) -> Option<Fields<'a>> {
        let entries = at.entries()?;
        Some(Fields {
            at: *at,
            entries,
            asked: RefCell::default(),
        })
    }

    /// A field, unless it is absent or null.
    pub fn get(&self, name: &'static str) -> Option<At<'_>> {
        self.asked.borrow_mut().push(name);
        let (key, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        (!node.is_null()).then(|| self.at.entry(&key.name, node))
    }

    /// An optional field.
    pub fn opt<T>(&self, name: &'static str, read: impl FnOnce(&At<'_>) -> Option<T>) -> Option<T> {
        read(&self.get(name)?)
    }

    /// A field that must be there, unread.
    pub fn required_at(&self, name: &'static str) -> Option<At<'_>> {
        self.get(name).or_else(|| self.missing(name))
    }

    /// A field that must be there.
    pub fn required<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(&At<'_>) -> Option<T>,
    ) -> Option<T> {
        match self.get(name) {
            Some(at) => read(&at),
            None => self.missing(name),
        }
    }

    /// Reports an error about a field that is there.
    pub fn complain(&self, name: &'static str, text: impl Into<Message>) {
        if let Some(at) = self.get(name) {
            at.complain(text);
        }
    }

    /// Complains that a field is missing. Always `None`, for use as a result.
    pub fn missing<T>(&self, name: &'static str) -> Option<T> {
        self.missing_because(name, "is required");
        None
    }

    /// Complains that a field is missing, and says why it is needed. The position is that of the mapping.
    pub fn missing_because(&self, name: &'static str, why: &str) {
        let path = self.at.entry(name, self.at.node).to_string();
        let pos = (self.at.node.line, self.at.node.col);
        self.at
            .sink
            .report(Severity::Error, pos, path, None, why.into());
    }

    /// A list field of at most `max` items; absent means empty. Items with errors are left out.
    pub fn list<T>(
        &self,
        name: &'static str,
        max: usize,
        mut read: impl FnMut(&At<'_>) -> Option<T>,
    ) -> Vec<T> {
        let Some(at) = self.get(name) else {
            return Vec::new();
        };
        let Some(items) = at.items() else {
            return Vec::new();
        };
        let max = at.most(max);
        if items.len() > max {
            at.complain(format!(
                "has {} items, at most {max} are allowed",
                items.len()
            ));
            return Vec::new();
        }
        items
            .iter()
            .enumerate()
            .filter_map(|(n, node)| read(&at.item(n, node)))
            .collect()
    }

    /// Complains about every field that nobody asked for.
    pub fn finish(self) {
        self.finish_as(Severity::Error, None);
    }

    /// The same where a field that nobody knows changes nothing else: it is an error where a person wrote it, and told where a newer
    /// version may have stored it.
    pub fn finish_open(self) {
        match self.at.sink.is_stored() {
            true => self.finish_as(Severity::Warning, Some("it has no effect here")),
            false => self.finish(),
        }
    }

    fn finish_as(&self, severity: Severity, effect: Option<&str>) {
        let asked = self.asked.borrow();
        for (key, node) in self.entries {
            if asked.contains(&&*key.name) {
                continue;
            }
            if self.at.sink.is_full() {
                // Enough is enough: one counted error keeps the resource from being used.
                let pos = (key.line, key.col);
                let sink = self.at.sink;
                sink.report(severity, pos, String::new(), None, "".into());
                return;
            }
            let path = self.at.entry(&key.name, node).to_string();
            let help = did_you_mean(&key.name, asked.iter().copied());
            let unknown = format!("unknown field `{}`", shorten(&key.name));
            let says = effect.map_or(unknown.clone(), |effect| format!("{unknown}: {effect}"));
            let (pos, text) = ((key.line, key.col), Message::with(says, help));
            self.at.sink.report(severity, pos, path, None, text);
        }
    }
}
