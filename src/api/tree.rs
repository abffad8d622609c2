//! Builds the trees of `yaml` from the events of the YAML crate, and counts what they cost.
//!
//! The items of a list of resources leave it one by one, so that a large list never is a tree as a whole.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Marker, ScalarStyle, Span, Tag};

use super::issue::shorten;
use super::kind::ListOf;
use super::node::{Key, Node, Value};
use super::scalar::{Plain, Scalar};
use super::yaml::{
    LookAhead, MAX_COPIED_BYTES, MAX_COPIED_NODES, MAX_DEPTH, MAX_NODES, Piece, Place, Pos,
    SyntaxError,
};

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
    node: Node<'static>,
    key: Option<Key<'static>>,
    names: Names,
    anchor: usize,
    before: Cost,
}

/// A sequence whose items are given out as soon as they are complete.
struct Stream {
    /// What the items are of; `None` for a plain sequence of documents.
    list: Option<ListOf>,
    /// Where it stands.
    pos: Pos,
    /// How many frames are open around an item; none when there are no more items.
    depth: Option<usize>,
    /// How many items were given out.
    given: usize,
    /// The cost of what is around the items.
    around: Cost,
}

/// Builds trees from events.
pub(super) struct Builder<'t> {
    place: Place,
    look_ahead: Option<LookAhead<'t>>,
    stack: Vec<Frame>,
    stream: Option<Stream>,
    anchors: HashMap<usize, (Node<'static>, Cost)>,
    total: Cost,
    copied: Cost,
}

/// What an event completes.
type Step = Result<Option<Piece>, SyntaxError>;

impl<'t> Builder<'t> {
    /// A builder of whole documents for a text that stands at that place; with `look_ahead`, of lists in pieces.
    pub(super) fn new(place: Place, look_ahead: Option<LookAhead<'t>>) -> Builder<'t> {
        Builder {
            place,
            look_ahead,
            stack: Vec::new(),
            stream: None,
            anchors: HashMap::new(),
            total: Cost::default(),
            copied: Cost::default(),
        }
    }

    /// Takes the next event.
    pub(super) fn event(&mut self, event: Event<'_>, span: Span) -> Step {
        let pos = self.place.of(&span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = scalar(text.into_owned(), style, tag.as_deref(), span)
                    .map_err(|message| SyntaxError::new(pos, message))?;
                self.leaf(pos, scalar, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                container_tag(pos, tag.as_deref(), "seq")?;
                self.open(pos, Value::Seq(Vec::new()), anchor)?;
                self.begin_stream(&span.start);
                Ok(None)
            }
            Event::MappingStart(anchor, tag) => {
                container_tag(pos, tag.as_deref(), "map")?;
                self.open(pos, Value::Map(Vec::new()), anchor)?;
                Ok(None)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(frame) => {
                    self.end_stream();
                    self.close(frame.node, frame.anchor, frame.before)
                }
                None => Ok(None),
            },
            Event::Alias(anchor) => self.alias(pos, anchor),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                self.total = Cost::default();
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Streams the sequence just opened when it is the document, or the items of a list. One that an anchor holds stays.
    fn begin_stream(&mut self, marker: &Marker) {
        let Some(look_ahead) = &mut self.look_ahead else {
            return;
        };
        if self.stack.iter().any(|frame| frame.anchor != 0) {
            return;
        }
        let list = match &self.stack[..] {
            [_] => None,
            [root, _] if root.key.as_ref().is_some_and(|key| key.name == "items") => {
                let kind = match root.node.get("kind") {
                    Some(kind) => kind.text().and_then(ListOf::named),
                    None => look_ahead.kind(marker),
                };
                match kind {
                    Some(kind) => Some(kind),
                    None => return,
                }
            }
            _ => return,
        };
        self.stream = Some(Stream {
            list,
            pos: self.place.of(marker),
            depth: Some(self.stack.len()),
            given: 0,
            around: self.total,
        });
    }

    /// What comes behind a sequence that was streamed is no item of it.
    fn end_stream(&mut self) {
        let open = self.stack.len();
        if let Some(stream) = &mut self.stream
            && stream.depth.is_some_and(|depth| open < depth)
        {
            stream.depth = None;
        }
    }

    fn count(&mut self, pos: Pos, cost: Cost) -> Result<(), SyntaxError> {
        self.total.add(cost);
        if self.total.nodes > MAX_NODES {
            let message = format!("the document has more than {MAX_NODES} values");
            return Err(SyntaxError::new(pos, message).help("split it into several"));
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

    fn leaf(&mut self, pos: Pos, scalar: Scalar<'static>, anchor: usize) -> Step {
        let before = self.total;
        let bytes = scalar.text.len();
        self.count(pos, Cost { nodes: 1, bytes })?;
        self.close(node(pos, Value::Scalar(scalar)), anchor, before)
    }

    fn open(&mut self, pos: Pos, value: Value<'static>, anchor: usize) -> Result<(), SyntaxError> {
        if self.place.depth + self.stack.len() >= MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH} levels");
            return Err(SyntaxError::new(pos, message));
        }
        let before = self.total;
        self.count(pos, Cost { nodes: 1, bytes: 0 })?;
        self.stack.push(Frame {
            node: node(pos, value),
            key: None,
            names: Names::default(),
            anchor,
            before,
        });
        Ok(())
    }

    fn alias(&mut self, pos: Pos, anchor: usize) -> Step {
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
    fn close(&mut self, node: Node<'static>, anchor: usize, before: Cost) -> Step {
        if anchor != 0 {
            let cost = self.total.since(before);
            self.copy((node.line, node.col), cost)?;
            self.anchors.insert(anchor, (node.clone(), cost));
        }
        self.place(node)
    }

    fn place(&mut self, node: Node<'static>) -> Step {
        if let Some(stream) = &mut self.stream
            && stream.depth == Some(self.stack.len())
        {
            // Whether the items are bounded as a whole is for their receiver.
            self.total = stream.around;
            stream.given += 1;
            let (list, n) = (stream.list, stream.given - 1);
            return Ok(Some(Piece::Item { list, n, node }));
        }
        let Some(frame) = self.stack.last_mut() else {
            return self.document(node);
        };
        match &mut frame.node.value {
            Value::Seq(items) => items.push(node),
            Value::Map(entries) => match frame.key.take() {
                Some(key) => entries.push((key, node)),
                None => frame.key = Some(key(node, entries, &mut frame.names)?),
            },
            Value::Scalar(_) => {}
        }
        Ok(None)
    }

    /// A finished document, or what is left of it without its items.
    fn document(&mut self, node: Node<'static>) -> Step {
        if let Some(stream) = self.stream.take()
            && let Some(list) = stream.list
        {
            let kind = node.get("kind").and_then(Node::text);
            if kind.and_then(ListOf::named) != Some(list) {
                let message = "cannot be read before the kind of the list";
                let help = "put `kind` above `items`";
                return Err(SyntaxError::new(stream.pos, message).help(help));
            }
        }
        Ok((!node.is_null()).then_some(Piece::Document(node)))
    }
}

/// The names in a mapping, as far as they are needed beside its entries to find one that is given twice.
#[derive(Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    /// Up to so many names are compared one by one.
    const FEW: usize = 32;

    /// Whether the name is new; `entries` have those before it.
    pub(super) fn add(&mut self, name: &str, entries: &[(Key<'_>, Node<'_>)]) -> bool {
        if entries.len() < Names::FEW {
            return entries.iter().all(|(key, _)| key.name != name);
        }
        if self.0.is_empty() {
            self.0
                .extend(entries.iter().map(|(key, _)| key.name.to_string()));
        }
        self.0.insert(name.to_owned())
    }
}

fn node((line, col): Pos, value: Value<'static>) -> Node<'static> {
    Node { line, col, value }
}

/// A node that stands where a key must stand.
fn key(
    node: Node<'static>,
    entries: &[(Key<'static>, Node<'static>)],
    names: &mut Names,
) -> Result<Key<'static>, SyntaxError> {
    let (line, col) = (node.line, node.col);
    let error = |message: String| SyntaxError::new((line, col), message);
    let Value::Scalar(scalar) = node.value else {
        return Err(error("a key must be text, not a list or mapping".into()));
    };
    if scalar.is_plain && scalar.text == "<<" {
        let error = error("merge keys (`<<`) are not supported".into());
        return Err(error.help("write the fields out"));
    }
    if !names.add(&scalar.text, entries) {
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
) -> Result<Scalar<'static>, String> {
    let is_plain = style == ScalarStyle::Plain;
    let quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
    let quotes = if quoted { 2 } else { 0 };
    let exact = (quoted || is_plain)
        && span.start.line() == span.end.line()
        && span.len() == characters(&text) + quotes;
    let body = exact.then_some(u32::from(quoted));
    let scalar = Scalar {
        text: text.into(),
        is_plain,
        body,
    };
    match tag {
        Some(tag) => tagged(scalar, tag),
        None => Ok(scalar),
    }
}

fn characters(text: &str) -> usize {
    match text.is_ascii() {
        true => text.len(),
        false => text.chars().count(),
    }
}

/// A scalar whose tag says what it is, whether quoted or not.
fn tagged(mut scalar: Scalar<'static>, tag: &Tag) -> Result<Scalar<'static>, String> {
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
