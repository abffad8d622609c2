//! JSON to trees at the speed of its library, with the positions of mappings only.
//!
//! Only what is ordinary is read here: unique names, integers of 64 bits, nothing too deep or too large. Whatever more is to
//! be said of a text is said by the YAML parser, which knows where everything stands; JSON is YAML as well.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::value::RawValue;

use super::cursor::Cursor;
use super::node::{Key, Node, Value};
use super::scalar::Scalar;
use super::tree::Names;
use super::yaml::{MAX_DEPTH, MAX_NODES, Place, SyntaxError};

/// A document of a text.
pub(super) struct Document<'a> {
    /// Its text.
    pub(super) text: &'a str,
    /// Where it stands.
    pub(super) place: Place,
    /// Where it begins, to find the positions of what is in it.
    pub(super) cursor: Cursor<'a>,
}

/// The documents of a text, as long as they are JSON.
pub(super) struct Documents<'a> {
    cursor: Cursor<'a>,
    /// Where the next one begins: with what separates it from the one before, and itself.
    next: Option<(usize, usize)>,
}

impl<'a> Documents<'a> {
    /// The documents of a text; `None` if it is no JSON.
    pub(super) fn of(text: &'a str) -> Option<Documents<'a>> {
        let start = text.len() - text.trim_start_matches(BLANKS).len();
        // The YAML parser ends a line at a carriage return alone, so that its lines would be others.
        let lines = |(at, _)| text[at..].starts_with("\r\n");
        let is_json = begins_json(&text[start..]) && text.match_indices('\r').all(lines);
        is_json.then_some(Documents {
            cursor: Cursor::new(text),
            next: Some((0, start)),
        })
    }

    /// The part of the text between two places, of which the first is not before any that was asked for.
    fn document(&mut self, start: usize, end: usize) -> Document<'a> {
        let place = Place {
            start: self.cursor.position(start),
            depth: 0,
            in_json: true,
        };
        Document {
            text: &self.cursor.text()[start..end],
            place,
            cursor: self.cursor,
        }
    }

    /// What the library found in the text from that place on.
    fn syntax_error(&mut self, start: usize, error: &serde_json::Error) -> SyntaxError {
        let text = self.cursor.text();
        let lines = text[start..].split_inclusive('\n');
        let before: usize = lines.take(error.line() - 1).map(str::len).sum();
        let mut at = (start + before + error.column().saturating_sub(1)).min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let said = error.to_string();
        let said = said.split(" at line ").next().unwrap_or_default();
        let help = "a document of that size must be JSON, or YAML without brackets around it";
        SyntaxError::new(self.cursor.position(at), format!("is not JSON: {said}")).help(help)
    }
}

/// What stands next in a text.
pub(super) enum Next<'a> {
    /// A document in JSON.
    Json(Document<'a>),
    /// All the rest, which begins with a document that is no JSON.
    Yaml(Document<'a>),
    /// All the rest, which looks like JSON, and why it is none.
    Broken(Document<'a>, SyntaxError),
}

impl<'a> Iterator for Documents<'a> {
    type Item = Next<'a>;

    fn next(&mut self) -> Option<Next<'a>> {
        let (from, start) = self.next.take()?;
        let rest = self.document(from, self.cursor.text().len());
        let text = &self.cursor.text()[start..];
        if !begins_json(text) {
            return Some(Next::Yaml(rest));
        }
        let mut values = Deserializer::from_str(text).into_iter::<&RawValue>();
        let value = match values.next()? {
            Ok(value) => value.get(),
            Err(e) => return Some(Next::Broken(rest, self.syntax_error(start, &e))),
        };
        let end = values.byte_offset();
        match behind(&text[end..]) {
            Behind::Nothing => {}
            Behind::Document { from, start: next } => {
                self.next = Some((start + end + from, start + end + next));
            }
            Behind::Other => {
                let error = serde_json::from_str::<IgnoredAny>(text).err()?;
                return Some(Next::Broken(rest, self.syntax_error(start, &error)));
            }
        }
        Some(Next::Json(self.document(start, start + value.len())))
    }
}

const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

fn begins_json(text: &str) -> bool {
    text.starts_with(['{', '['])
}

/// What follows a document.
enum Behind {
    Nothing,
    /// A document and the line before it.
    Document {
        from: usize,
        start: usize,
    },
    Other,
}

/// Documents are separated by a line `---`, as in YAML.
fn behind(text: &str) -> Behind {
    let line = text.trim_start_matches(BLANKS);
    if line.is_empty() {
        return Behind::Nothing;
    }
    let is_new_line = text[..text.len() - line.len()].ends_with('\n');
    let Some(rest) = line.strip_prefix("---").filter(|_| is_new_line) else {
        return Behind::Other;
    };
    let next = rest.trim_start_matches(BLANKS);
    match next {
        "" => Behind::Nothing,
        // Else the line itself may be part of a document.
        _ if rest.starts_with(BLANKS) => Behind::Document {
            from: text.len() - line.len(),
            start: text.len() - next.len(),
        },
        _ => Behind::Other,
    }
}

/// What was read of a document.
pub(super) struct Parts<'a> {
    /// The tree, without the documents of an array and without the `items` of a mapping, when they are an array.
    pub(super) head: Node<'a>,
    /// Those.
    pub(super) items: Option<Vec<&'a RawValue>>,
}

/// Reads a document, but not yet what is in an array of documents or in a list of resources. `None` if it is out of the ordinary.
pub(super) fn parts<'a>(document: &Document<'a>) -> Option<Parts<'a>> {
    let mut cursor = document.cursor;
    let mut context = Context::new(Some(&mut cursor));
    let head = context.read(document.text, 0, Collect::Root)?;
    let items = context.items;
    Some(Parts { head, items })
}

/// Reads a value as a tree; `None` if it is out of the ordinary. With a cursor, mappings get positions.
pub(super) fn tree<'a>(
    text: &'a str,
    depth: usize,
    cursor: Option<&mut Cursor<'a>>,
) -> Option<Node<'a>> {
    Context::new(cursor).read(text, depth, Collect::Nothing)
}

struct Context<'c, 'a> {
    cursor: Option<&'c mut Cursor<'a>>,
    nodes: usize,
    is_ordinary: bool,
    items: Option<Vec<&'a RawValue>>,
}

impl<'c, 'a> Context<'c, 'a> {
    fn new(cursor: Option<&'c mut Cursor<'a>>) -> Context<'c, 'a> {
        Context {
            cursor,
            nodes: 0,
            is_ordinary: true,
            items: None,
        }
    }

    fn read(&mut self, text: &'a str, depth: usize, collect: Collect) -> Option<Node<'a>> {
        let tree = Tree {
            context: self,
            depth,
            collect,
        };
        let mut deserializer = Deserializer::from_str(text);
        let node = tree.deserialize(&mut deserializer).ok()?;
        let is_whole = deserializer.end().is_ok();
        (is_whole && self.is_ordinary).then_some(node)
    }

    fn count(&mut self) {
        self.nodes += 1;
        self.is_ordinary &= self.nodes <= MAX_NODES;
    }

    /// The position of the mapping whose first name this is.
    fn position(&mut self, first: &str) -> (u32, u32) {
        let Some(cursor) = &mut self.cursor else {
            return (0, 0);
        };
        let text = cursor.text();
        let before = &text[..offset(text, first)];
        let brace = before.trim_end_matches('"').trim_end_matches(BLANKS).len();
        cursor.position(brace.saturating_sub(1))
    }
}

/// The text of a list without its items, where everything else stands as it did.
pub(super) fn without(text: &str, items: &[&RawValue]) -> String {
    let (Some(first), Some(last)) = (items.first(), items.last()) else {
        return text.to_owned();
    };
    let (before, rest) = text.split_at(offset(text, first.get()));
    let (between, after) = rest.split_at(offset(rest, last.get()) + last.get().len());
    let lines = between.matches('\n').count();
    let last_line = between.rsplit('\n').next().unwrap_or_default();
    let blanks = " ".repeat(last_line.chars().count());
    format!("{before}{}{blanks}{after}", "\n".repeat(lines))
}

/// Where a part of a text begins in it.
pub(super) fn offset(text: &str, part: &str) -> usize {
    (part.as_ptr() as usize)
        .saturating_sub(text.as_ptr() as usize)
        .min(text.len())
}

/// Which array is not read but taken apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Collect {
    Nothing,
    /// The value, or the `items` of it.
    Root,
    /// The value.
    Items,
}

/// Reads one value.
struct Tree<'x, 'c, 'a> {
    context: &'x mut Context<'c, 'a>,
    depth: usize,
    collect: Collect,
}

impl<'c, 'a> Tree<'_, 'c, 'a> {
    fn scalar<E>(self, scalar: Scalar<'a>) -> Result<Node<'a>, E> {
        self.context.count();
        Ok(Node::nowhere(Value::Scalar(scalar)))
    }

    fn open(&mut self) {
        self.context.count();
        self.context.is_ordinary &= self.depth < MAX_DEPTH;
    }

    fn child(&mut self, collect: Collect) -> Tree<'_, 'c, 'a> {
        Tree {
            context: &mut *self.context,
            depth: self.depth + 1,
            collect,
        }
    }
}

impl<'a> DeserializeSeed<'a> for Tree<'_, '_, 'a> {
    type Value = Node<'a>;

    fn deserialize<D: serde::Deserializer<'a>>(
        self,
        deserializer: D,
    ) -> Result<Node<'a>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Tree<'_, '_, 'a> {
    type Value = Node<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Node<'a>, E> {
        self.scalar(Scalar::bare("null"))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node<'a>, E> {
        self.scalar(Scalar::bare(if value { "true" } else { "false" }))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node<'a>, E> {
        self.scalar(Scalar::bare(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node<'a>, E> {
        self.scalar(Scalar::bare(value.to_string()))
    }

    /// Also an integer of more than 64 bits. As it is written is known only to the other parser.
    fn visit_f64<E>(self, _: f64) -> Result<Node<'a>, E> {
        self.context.is_ordinary = false;
        self.scalar(Scalar::bare("0"))
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Node<'a>, E> {
        self.scalar(Scalar::quoted(text))
    }

    /// Text with escapes.
    fn visit_str<E>(self, text: &str) -> Result<Node<'a>, E> {
        self.scalar(Scalar::quoted(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut seq: A) -> Result<Node<'a>, A::Error> {
        self.open();
        let mut items = Vec::new();
        if self.collect == Collect::Nothing {
            while self.context.is_ordinary
                && let Some(item) = seq.next_element_seed(self.child(Collect::Nothing))?
            {
                items.push(item);
            }
        } else {
            let collected = self.context.items.get_or_insert_default();
            while let Some(item) = seq.next_element()? {
                collected.push(item);
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Node::nowhere(Value::Seq(items)))
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<Node<'a>, A::Error> {
        self.open();
        let mut node = Node::nowhere(Value::Seq(Vec::new()));
        let mut names = Names::default();
        let mut entries: Vec<(Key<'a>, Node<'a>)> = Vec::new();
        while self.context.is_ordinary
            && let Some(name) = map.next_key_seed(Name)?
        {
            let Some(name) = name.filter(|name| names.add(name, &entries)) else {
                self.context.is_ordinary = false;
                map.next_value::<IgnoredAny>()?;
                break;
            };
            self.context.count();
            if entries.is_empty() {
                (node.line, node.col) = self.context.position(name);
            }
            let collect = match self.collect {
                Collect::Root if name == "items" => Collect::Items,
                _ => Collect::Nothing,
            };
            let key = Key {
                name: name.into(),
                line: 0,
                col: 0,
            };
            entries.push((key, map.next_value_seed(self.child(collect))?));
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        node.value = Value::Map(entries);
        Ok(node)
    }
}

/// The name of an entry; `None` if it has escapes.
struct Name;

impl<'a> DeserializeSeed<'a> for Name {
    type Value = Option<&'a str>;

    fn deserialize<D: serde::Deserializer<'a>>(
        self,
        deserializer: D,
    ) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for Name {
    type Value = Option<&'a str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'a str) -> Result<Self::Value, E> {
        Ok(Some(name))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
}
