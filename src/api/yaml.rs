//! Text to documents: YAML and JSON as trees that remember where everything stands.
//!
//! This is the only module that knows the YAML crate. Everything it builds is bounded, so that a hostile file
//! costs bounded time and memory: see the `MAX_` constants.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

pub use super::scalar::{Plain, Scalar};

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
    fn new(line: u32, col: u32, message: impl Into<String>) -> SyntaxError {
        SyntaxError {
            line,
            col,
            message: message.into(),
            help: None,
        }
    }

    fn help(mut self, help: &str) -> SyntaxError {
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
            Err(e) => Err(SyntaxError::new(
                e.marker().line() as u32,
                e.marker().col() as u32 + 1,
                e.info(),
            )),
        };
        if let Err(e) = step {
            return (builder.done, Some(e));
        }
    }
    (builder.done, None)
}

impl Node {
    /// The entries, when the node is a mapping.
    pub fn entries(&self) -> Option<&[(Key, Node)]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
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

/// A mapping or sequence that is still open.
struct Frame {
    node: Node,
    key: Option<Key>,
    names: HashSet<String>,
    anchor: usize,
    nodes_before: usize,
    bytes_before: usize,
}

/// What an anchor names.
struct Anchored {
    node: Node,
    nodes: usize,
    bytes: usize,
}

/// Builds trees from events and counts what they cost.
#[derive(Default)]
struct Builder {
    stack: Vec<Frame>,
    anchors: HashMap<usize, Anchored>,
    done: Vec<Node>,
    nodes: usize,
    bytes: usize,
    copied_nodes: usize,
    copied_bytes: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), SyntaxError> {
        let (line, col) = (span.start.line() as u32, span.start.col() as u32 + 1);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = scalar(text.into_owned(), style, tag.as_deref(), span)
                    .map_err(|message| SyntaxError::new(line, col, message))?;
                let before = (self.nodes, self.bytes);
                self.count(line, col, 1, scalar.text.len())?;
                let node = Node {
                    line,
                    col,
                    value: Value::Scalar(scalar),
                };
                self.close(node, anchor, before)
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(line, col, Value::Seq(Vec::new()), anchor, tag.as_deref())
            }
            Event::MappingStart(anchor, tag) => {
                self.open(line, col, Value::Map(Vec::new()), anchor, tag.as_deref())
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(frame) = self.stack.pop() else {
                    return Ok(());
                };
                self.close(
                    frame.node,
                    frame.anchor,
                    (frame.nodes_before, frame.bytes_before),
                )
            }
            Event::Alias(anchor) => self.alias(line, col, anchor),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn count(
        &mut self,
        line: u32,
        col: u32,
        nodes: usize,
        bytes: usize,
    ) -> Result<(), SyntaxError> {
        self.nodes += nodes;
        self.bytes += bytes;
        if self.nodes > MAX_NODES {
            return Err(SyntaxError::new(
                line,
                col,
                format!("the file has more than {MAX_NODES} values"),
            )
            .help("split it into several files"));
        }
        Ok(())
    }

    fn open(
        &mut self,
        line: u32,
        col: u32,
        value: Value,
        anchor: usize,
        tag: Option<&Tag>,
    ) -> Result<(), SyntaxError> {
        let suffix = if matches!(value, Value::Seq(_)) {
            "seq"
        } else {
            "map"
        };
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema() || tag.suffix != suffix) {
            return Err(SyntaxError::new(
                line,
                col,
                format!("tag `{tag}` is not supported"),
            ));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(SyntaxError::new(
                line,
                col,
                format!("nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        let (nodes_before, bytes_before) = (self.nodes, self.bytes);
        self.count(line, col, 1, 0)?;
        let node = Node { line, col, value };
        self.stack.push(Frame {
            node,
            key: None,
            names: HashSet::new(),
            anchor,
            nodes_before,
            bytes_before,
        });
        Ok(())
    }

    fn alias(&mut self, line: u32, col: u32, anchor: usize) -> Result<(), SyntaxError> {
        let Some(found) = self.anchors.get(&anchor) else {
            return Err(SyntaxError::new(
                line,
                col,
                "the alias refers to a value that contains it",
            ));
        };
        let (nodes, bytes) = (found.nodes, found.bytes);
        self.copied(line, col, nodes, bytes)?;
        self.count(line, col, nodes, bytes)?;
        let mut node = self.anchors[&anchor].node.clone();
        (node.line, node.col) = (line, col);
        self.place(node)
    }

    fn copied(
        &mut self,
        line: u32,
        col: u32,
        nodes: usize,
        bytes: usize,
    ) -> Result<(), SyntaxError> {
        self.copied_nodes += nodes;
        self.copied_bytes += bytes;
        if self.copied_nodes > MAX_COPIED_NODES || self.copied_bytes > MAX_COPIED_BYTES {
            let message =
                format!("anchors and aliases expand to more than {MAX_COPIED_NODES} values");
            return Err(SyntaxError::new(line, col, message)
                .help("write the values out, or split the file"));
        }
        Ok(())
    }

    /// Remembers a finished node under its anchor and puts it into its parent.
    fn close(
        &mut self,
        node: Node,
        anchor: usize,
        before: (usize, usize),
    ) -> Result<(), SyntaxError> {
        if anchor != 0 {
            let (nodes, bytes) = (self.nodes - before.0, self.bytes - before.1);
            self.copied(node.line, node.col, nodes, bytes)?;
            self.anchors.insert(
                anchor,
                Anchored {
                    node: node.clone(),
                    nodes,
                    bytes,
                },
            );
        }
        self.place(node)
    }

    fn place(&mut self, node: Node) -> Result<(), SyntaxError> {
        let Some(frame) = self.stack.last_mut() else {
            if !node.is_null() {
                self.done.push(node);
            }
            return Ok(());
        };
        match &mut frame.node.value {
            Value::Seq(items) => items.push(node),
            Value::Map(entries) => match frame.key.take() {
                Some(key) => entries.push((key, node)),
                None => frame.key = Some(key(node, &mut frame.names)?),
            },
            Value::Scalar(_) => {}
        }
        Ok(())
    }
}

fn key(node: Node, names: &mut HashSet<String>) -> Result<Key, SyntaxError> {
    let (line, col) = (node.line, node.col);
    let Value::Scalar(scalar) = node.value else {
        return Err(SyntaxError::new(
            line,
            col,
            "a mapping key must be text, not a list or mapping",
        ));
    };
    if scalar.is_plain && scalar.text == "<<" {
        return Err(
            SyntaxError::new(line, col, "merge keys (`<<`) are not supported")
                .help("write the fields out"),
        );
    }
    if !names.insert(scalar.text.clone()) {
        let name = super::issue::shorten(&scalar.text);
        return Err(SyntaxError::new(
            line,
            col,
            format!("key `{name}` is given twice in the same mapping"),
        )
        .help("keep one of the two"));
    }
    Ok(Key {
        name: scalar.text,
        line,
        col,
    })
}

fn scalar(
    text: String,
    style: ScalarStyle,
    tag: Option<&Tag>,
    span: Span,
) -> Result<Scalar, String> {
    let quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
    let quotes = if quoted { 2 } else { 0 };
    let exact = (quoted || style == ScalarStyle::Plain)
        && span.start.line() == span.end.line()
        && span.len() == text.chars().count() + quotes;
    let body = exact.then_some(u32::from(quoted));
    let mut scalar = Scalar {
        text,
        is_plain: style == ScalarStyle::Plain,
        body,
    };
    let Some(tag) = tag else { return Ok(scalar) };
    let refused = || format!("tag `{tag}` is not supported");
    if !tag.is_yaml_core_schema() {
        return Err(refused());
    }
    scalar.is_plain = tag.suffix != "str";
    let fits = match tag.suffix.as_str() {
        "str" => true,
        "int" => matches!(scalar.plain(), Plain::Int(_)),
        "float" => matches!(scalar.plain(), Plain::Int(_) | Plain::Float(_)),
        "bool" => matches!(scalar.plain(), Plain::Bool(_)),
        "null" => scalar.plain() == Plain::Null,
        _ => return Err(refused()),
    };
    if fits {
        Ok(scalar)
    } else {
        Err(format!("the value does not fit its tag `{tag}`"))
    }
}
