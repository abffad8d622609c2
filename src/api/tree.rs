//! Builds the trees of `yaml` from the events of the YAML crate, and counts what they cost.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, ScalarStyle, Span, Tag};

use super::issue::shorten;
use super::scalar::{Plain, Scalar};
use super::yaml::{
    Key, MAX_COPIED_BYTES, MAX_COPIED_NODES, MAX_DEPTH, MAX_NODES, Node, SyntaxError, Value,
};

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
pub(super) struct Builder {
    stack: Vec<Frame>,
    anchors: HashMap<usize, Anchored>,
    /// The finished documents.
    pub(super) done: Vec<Node>,
    nodes: usize,
    bytes: usize,
    copied_nodes: usize,
    copied_bytes: usize,
}

impl Builder {
    /// Takes the next event.
    pub(super) fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), SyntaxError> {
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
                format!("tag `{}` is not supported", shorten(&written(tag))),
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
        let name = shorten(&scalar.text);
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
    let refused = || format!("tag `{}` is not supported", shorten(&written(tag)));
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
        Err(format!("the value does not fit its tag `{}`", written(tag)))
    }
}

/// A tag as people write it: `!!int`, not with the address that the two marks stand for.
fn written(tag: &Tag) -> String {
    if tag.is_yaml_core_schema() {
        format!("!!{}", tag.suffix)
    } else {
        tag.to_string()
    }
}
