//! Text to documents: YAML as trees that remember where everything stands.
//!
//! This module and `tree`, which it drives, are the only ones that know the YAML crate. Everything it builds is bounded, so that a hostile file
//! costs bounded time and memory: see the `MAX_` constants.

use saphyr_parser::{Marker, Parser, ScanError};

use super::kind::ListOf;
pub use super::node::{Key, Node, Value};
pub use super::scalar::{Plain, Scalar};
use super::text;
use super::tree::Builder;

/// Largest accepted text, in bytes. A hundred thousand endpoints in one file have 20 to 60 MB.
pub const MAX_BYTES: usize = 64 << 20;
/// Deepest accepted nesting of mappings and sequences.
pub const MAX_DEPTH: usize = 64;
/// Most nodes (scalars, sequences, mappings, keys) in one document, or in one item of a list of resources; aliases expanded.
pub const MAX_NODES: usize = 2_000_000;
/// Most nodes that anchors may hold and aliases may copy, in one text.
pub const MAX_COPIED_NODES: usize = 100_000;
/// Most bytes of scalars that anchors may hold and aliases may copy, in one text.
pub const MAX_COPIED_BYTES: usize = 4 << 20;

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
    pub(super) fn new((line, col): Pos, message: impl Into<String>) -> SyntaxError {
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

/// 1-based line and column.
pub(super) type Pos = (u32, u32);

/// Where a text stands that is part of another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The position of its first character.
    pub(super) start: Pos,
    /// How many mappings and sequences it stands in.
    pub(super) depth: usize,
    /// Whether the whole begins as JSON does.
    pub(super) in_json: bool,
}

impl Place {
    /// The place of a whole file.
    pub(super) fn top(text: &str) -> Place {
        Place {
            start: (1, 1),
            depth: 0,
            in_json: text.trim_start().starts_with(['{', '[']),
        }
    }

    /// A position of the parser as a position in the whole.
    pub(super) fn of(&self, marker: &Marker) -> Pos {
        let (line, col) = self.start;
        match marker.line() as u32 {
            0 | 1 => (line, col + marker.col() as u32),
            more => (line + more - 1, marker.col() as u32 + 1),
        }
    }
}

/// What comes out of a text, one after the other.
pub(super) enum Piece {
    /// A document. If its items were given out before, it has none any more.
    Document(Node<'static>),
    /// An item of the document that is being read.
    Item {
        /// What the list is of; `None` for a plain sequence of documents.
        list: Option<ListOf>,
        /// Its number.
        n: usize,
        /// The item.
        node: Node<'static>,
    },
}

/// The documents of a text, up to the first error. Documents without content are left out.
pub fn documents(bytes: &[u8]) -> (Vec<Node<'static>>, Option<SyntaxError>) {
    let mut documents = Vec::new();
    let mut take = |piece| {
        if let Piece::Document(node) = piece {
            documents.push(node);
        }
        Ok(())
    };
    let result =
        text::decode(bytes).and_then(|text| read(text, Place::top(text), false, &mut take));
    (documents, result.err())
}

/// Receives the pieces of a text. An error ends the reading.
pub(super) type Receiver<'r> = dyn FnMut(Piece) -> Result<(), SyntaxError> + 'r;

/// Reads a text that stands at that place, and gives out its documents: whole, or with the items of lists one by one.
///
/// # Errors
/// The first thing that is no YAML, or that is too large. The document in which it stands is not given out, but
/// its items may have been.
pub(super) fn read(
    text: &str,
    place: Place,
    in_pieces: bool,
    receiver: &mut Receiver<'_>,
) -> Result<(), SyntaxError> {
    let text = text::for_yaml(text, place)?;
    let mut builder = Builder::new(place, in_pieces.then(|| LookAhead::new(&text)));
    let mut parser = Parser::new_from_str(&text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|e| grammar(&e, place))?;
        if let Some(piece) = builder.event(event, span)? {
            receiver(piece)?;
        }
    }
    Ok(())
}

/// Finds the kind of a list that stands behind its items, as in everything that kubectl prints.
pub(super) struct LookAhead<'t> {
    text: &'t str,
    /// The last marker asked for, as a number of characters and of bytes.
    chars: usize,
    bytes: usize,
}

impl<'t> LookAhead<'t> {
    fn new(text: &'t str) -> LookAhead<'t> {
        LookAhead {
            text,
            chars: 0,
            bytes: 0,
        }
    }

    /// The kind that a line below the marker gives at the margin, in the same document.
    pub(super) fn kind(&mut self, marker: &Marker) -> Option<ListOf> {
        let passed = marker.index().checked_sub(self.chars)?;
        let rest = self.text.get(self.bytes..)?;
        self.bytes += rest.char_indices().nth(passed).map_or(rest.len(), |c| c.0);
        self.chars += passed;
        let ends = |line: &&str| line.starts_with("---") || line.starts_with("...");
        let mut lines = self.text.get(self.bytes..)?.lines();
        let found = lines
            .by_ref()
            .take_while(|line| !ends(line))
            .find_map(|line| line.strip_prefix("kind:"))?;
        ListOf::named(found.trim().trim_matches(['"', '\'']))
    }
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

fn grammar(error: &ScanError, place: Place) -> SyntaxError {
    let pos = place.of(error.marker());
    let known = GRAMMAR.iter().find(|row| error.info().contains(row.0));
    match known {
        Some((_, message, Some(help))) => SyntaxError::new(pos, *message).help(help),
        Some((_, message, None)) => SyntaxError::new(pos, *message),
        None => SyntaxError::new(pos, error.info()),
    }
}
