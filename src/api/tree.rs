//! Builds the trees of `yaml` from the events of the YAML crate, and counts what they cost.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, ScalarStyle, Span, Tag};

use super::issue::shorten;
use super::scalar::{Plain, Scalar};
use super::yaml::{
    Key, MAX_COPIED_BYTES, MAX_COPIED_NODES, MAX_DEPTH, MAX_NODES, Node, SyntaxError, Value,
};

/// Line and column.
type Pos = (u32, u32);

/// What a part of a document costs.
#[derive(Clone, Copy, Default)]
struct Cost {
    nodes: usize,
    bytes: usize,
}

impl Cost {
    fn add(&mut self, other: Cost) {
        self.nodes += other.nodes;
        self.bytes += other.bytes;
    }

    fn since(self, before: Cost) -> Cost {
        Cost {
            nodes: self.nodes - before.nodes,
            bytes: self.bytes - before.bytes,
        }
    }
}

/// A mapping or sequence that is still open.
struct Frame {
    node: Node,
    key: Option<Key>,
    names: HashSet<String>,
    anchor: usize,
    before: Cost,
}

/// Builds trees from events.
#[derive(Default)]
pub(super) struct Builder {
    /// The finished documents.
    pub(super) done: Vec<Node>,
    stack: Vec<Frame>,
    anchors: HashMap<usize, (Node, Cost)>,
    total: Cost,
    copied: Cost,
}

impl Builder {
    /// Takes the next event.
    pub(super) fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), SyntaxError> {
        let pos = (span.start.line() as u32, span.start.col() as u32 + 1);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = scalar(text.into_owned(), style, tag.as_deref(), span)
                    .map_err(|message| SyntaxError::new(pos, message))?;
                self.leaf(pos, scalar, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                container_tag(pos, tag.as_deref(), "seq")?;
                self.open(pos, Value::Seq(Vec::new()), anchor)
            }
            Event::MappingStart(anchor, tag) => {
                container_tag(pos, tag.as_deref(), "map")?;
                self.open(pos, Value::Map(Vec::new()), anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(frame) => self.close(frame.node, frame.anchor, frame.before),
                None => Ok(()),
            },
            Event::Alias(anchor) => self.alias(pos, anchor),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, pos: Pos, cost: Cost) -> Result<(), SyntaxError> {
        self.total.add(cost);
        if self.total.nodes > MAX_NODES {
            let message = format!("the file has more than {MAX_NODES} values");
            return Err(SyntaxError::new(pos, message).help("split it into several files"));
        }
        Ok(())
    }

    fn copy(&mut self, pos: Pos, cost: Cost) -> Result<(), SyntaxError> {
        self.copied.add(cost);
        if self.copied.nodes > MAX_COPIED_NODES || self.copied.bytes > MAX_COPIED_BYTES {
            let message = format!(
                "anchors and aliases expand to more than {MAX_COPIED_NODES} values or {} MiB",
                MAX_COPIED_BYTES >> 20
            );
            return Err(SyntaxError::new(pos, message).help("write the values out"));
        }
        Ok(())
    }

    fn leaf(&mut self, pos: Pos, scalar: Scalar, anchor: usize) -> Result<(), SyntaxError> {
        let before = self.total;
        let bytes = scalar.text.len();
        self.count(pos, Cost { nodes: 1, bytes })?;
        self.close(node(pos, Value::Scalar(scalar)), anchor, before)
    }

    fn open(&mut self, pos: Pos, value: Value, anchor: usize) -> Result<(), SyntaxError> {
        if self.stack.len() >= MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH} levels");
            return Err(SyntaxError::new(pos, message));
        }
        let before = self.total;
        self.count(pos, Cost { nodes: 1, bytes: 0 })?;
        self.stack.push(Frame {
            node: node(pos, value),
            key: None,
            names: HashSet::new(),
            anchor,
            before,
        });
        Ok(())
    }

    fn alias(&mut self, pos: Pos, anchor: usize) -> Result<(), SyntaxError> {
        let Some((_, cost)) = self.anchors.get(&anchor) else {
            let message = "the alias refers to a value that contains it";
            return Err(SyntaxError::new(pos, message));
        };
        let cost = *cost;
        self.copy(pos, cost)?;
        self.count(pos, cost)?;
        let mut copy = self.anchors[&anchor].0.clone();
        (copy.line, copy.col) = pos;
        self.place(copy)
    }

    /// Remembers a finished node under its anchor and puts it into its parent.
    fn close(&mut self, node: Node, anchor: usize, before: Cost) -> Result<(), SyntaxError> {
        if anchor != 0 {
            let cost = self.total.since(before);
            self.copy((node.line, node.col), cost)?;
            self.anchors.insert(anchor, (node.clone(), cost));
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

fn node((line, col): Pos, value: Value) -> Node {
    Node { line, col, value }
}

/// A node that stands where a key must stand.
fn key(node: Node, names: &mut HashSet<String>) -> Result<Key, SyntaxError> {
    let (line, col) = (node.line, node.col);
    let error = |message: String| SyntaxError::new((line, col), message);
    let Value::Scalar(scalar) = node.value else {
        return Err(error("a key must be text, not a list or mapping".into()));
    };
    if scalar.is_plain && scalar.text == "<<" {
        let error = error("merge keys (`<<`) are not supported".into());
        return Err(error.help("write the fields out"));
    }
    if !names.insert(scalar.text.clone()) {
        let name = shorten(&scalar.text);
        let error = error(format!("key `{name}` is given twice in the same mapping"));
        return Err(error.help("keep one of the two"));
    }
    let name = scalar.text;
    Ok(Key { name, line, col })
}

fn scalar(
    text: String,
    style: ScalarStyle,
    tag: Option<&Tag>,
    span: Span,
) -> Result<Scalar, String> {
    let is_plain = style == ScalarStyle::Plain;
    let quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
    let quotes = if quoted { 2 } else { 0 };
    let exact = (quoted || is_plain)
        && span.start.line() == span.end.line()
        && span.len() == text.chars().count() + quotes;
    let body = exact.then_some(u32::from(quoted));
    let scalar = Scalar {
        text,
        is_plain,
        body,
    };
    match tag {
        Some(tag) => tagged(scalar, tag),
        None => Ok(scalar),
    }
}

/// A scalar whose tag says what it is, whether quoted or not.
fn tagged(mut scalar: Scalar, tag: &Tag) -> Result<Scalar, String> {
    scalar.is_plain = tag.suffix != "str";
    let plain = scalar.plain();
    let fits = match tag.suffix.as_str() {
        _ if !tag.is_yaml_core_schema() => return Err(unsupported(tag)),
        "str" => true,
        "int" => matches!(plain, Plain::Int(_)),
        "float" => matches!(plain, Plain::Int(_) | Plain::Float(_)),
        "bool" => matches!(plain, Plain::Bool(_)),
        "null" => plain == Plain::Null,
        _ => return Err(unsupported(tag)),
    };
    if fits {
        return Ok(scalar);
    }
    Err(format!("the value does not fit its tag `{}`", written(tag)))
}

/// Lists and mappings may say what they are, and nothing else.
fn container_tag(pos: Pos, tag: Option<&Tag>, suffix: &str) -> Result<(), SyntaxError> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() || tag.suffix != suffix => {
            Err(SyntaxError::new(pos, unsupported(tag)))
        }
        _ => Ok(()),
    }
}

fn unsupported(tag: &Tag) -> String {
    format!("tag `{}` is not supported", shorten(&written(tag)))
}

/// A tag as people write it: `!!int`, not with the address that the two marks stand for.
fn written(tag: &Tag) -> String {
    match tag.is_yaml_core_schema() {
        true => format!("!!{}", tag.suffix),
        false => tag.to_string(),
    }
}
