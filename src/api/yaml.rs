//! Text to documents: YAML and JSON as trees that remember where everything stands.
//!
//! This module and `tree`, which it drives, are the only ones that know the YAML crate. Everything it builds is bounded, so that a hostile file
//! costs bounded time and memory: see the `MAX_` constants.

use saphyr_parser::{Parser, ScanError};

pub use super::scalar::{Plain, Scalar};
use super::tree::Builder;

/// Largest accepted text, in bytes.
pub const MAX_BYTES: usize = 16 << 20;
/// Deepest accepted nesting of mappings and sequences.
pub const MAX_DEPTH: usize = 64;
/// Most nodes (scalars, sequences, mappings, keys) in one text, aliases expanded.
pub const MAX_NODES: usize = 2_000_000;
/// Most nodes that anchors may hold and aliases may copy, in one text.
pub const MAX_COPIED_NODES: usize = 100_000;
/// Most bytes of scalars that anchors may hold and aliases may copy, in one text.
pub const MAX_COPIED_BYTES: usize = 4 << 20;

/// One node of a document with its 1-based position in the text; line 0 means that there is none (stored JSON).
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// 1-based line of its first character.
    pub line: u32,
    /// 1-based column, in characters.
    pub col: u32,
    /// What it holds.
    pub value: Value,
}

/// What a [`Node`] holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text, a number, a truth value or null.
    Scalar(Scalar),
    /// A list.
    Seq(Vec<Node>),
    /// A mapping, in the order of the text. Names are unique.
    Map(Vec<(Key, Node)>),
}

/// The name of an entry of a mapping, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The name.
    pub name: String,
    /// 1-based line.
    pub line: u32,
    /// 1-based column.
    pub col: u32,
}

/// Why a text is no document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// 1-based line.
    pub line: u32,
    /// 1-based column.
    pub col: u32,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl SyntaxError {
    pub(super) fn new((line, col): (u32, u32), message: impl Into<String>) -> SyntaxError {
        SyntaxError {
            line,
            col,
            message: message.into(),
            help: None,
        }
    }

    pub(super) fn help(mut self, help: &str) -> SyntaxError {
        self.help = Some(help.to_owned());
        self
    }
}

/// The documents of a text, up to the first error. Documents without content are left out.
pub fn documents(bytes: &[u8]) -> (Vec<Node>, Option<SyntaxError>) {
    let text = match super::text::decode(bytes) {
        Ok(text) => text,
        Err(e) => return (Vec::new(), Some(e)),
    };
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(&text);
    while let Some(event) = parser.next_event() {
        let step = match event {
            Ok((event, span)) => builder.event(event, span),
            Err(e) => Err(grammar(&e)),
        };
        if let Err(e) = step {
            return (builder.done, Some(e));
        }
    }
    (builder.done, None)
}

/// What the parser says, in words that do not need its source.
const GRAMMAR: [(&str, &str, Option<&str>); 10] = [
    (
        "illegal placement of ':'",
        "unexpected `:`",
        Some("is a `[`, `{` or quote before it closed?"),
    ),
    ("expected node content", "a value is missing here", None),
    ("recursion limit exceeded", "nested too deep", None),
    (
        "unknown anchor",
        "the alias refers to an anchor that is not defined before it",
        None,
    ),
    (
        "unexpected end of stream",
        "quoted text is never closed",
        Some("add the closing quote"),
    ),
    (
        "indentation in quoted scalar",
        "quoted text is not closed on this line",
        Some("add the closing quote"),
    ),
    (
        "mapping values are not allowed",
        "unexpected `: `",
        Some("put text that contains it in quotes"),
    ),
    (
        "tabs disallowed",
        "tabs are not allowed in indentation",
        Some("indent with blanks"),
    ),
    (
        "expected <document start>",
        "unexpected text behind the document",
        Some("separate documents by a line `---`"),
    ),
    (
        "find expected key",
        "is not indented like its neighbours, or no `key:`",
        Some("align it with the keys above"),
    ),
];

fn grammar(error: &ScanError) -> SyntaxError {
    let pos = (
        error.marker().line() as u32,
        error.marker().col() as u32 + 1,
    );
    let known = GRAMMAR.iter().find(|row| error.info().contains(row.0));
    match known {
        Some((_, message, Some(help))) => SyntaxError::new(pos, *message).help(help),
        Some((_, message, None)) => SyntaxError::new(pos, *message),
        None => SyntaxError::new(pos, error.info()),
    }
}

impl Node {
    /// The entries, when the node is a mapping.
    pub fn entries(&self) -> Option<&[(Key, Node)]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The items of a list; none when the node is no list.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::Seq(items) => items,
            _ => &[],
        }
    }

    /// The entry of that name, when the node is a mapping that has it.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.entries()?
            .iter()
            .find(|(key, _)| key.name == name)
            .map(|(_, node)| node)
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
        matches!(&self.value, Value::Scalar(scalar) if scalar.plain() == Plain::Null)
    }
}
