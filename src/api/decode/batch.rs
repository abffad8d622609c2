//! The resources of one text, one after the other.
//!
//! Every document and every list item of JSON is first read without positions, and counts when nothing at all is to be
//! said about it. Any other is read again by the YAML parser, for the sake of positions.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use serde_json::value::RawValue;

use super::at::{At, Fields, Message, Sink};
use super::sink::Mark;
use super::{envelope, resource};
use crate::api::cursor::Cursor;
use crate::api::issue::Severity;
use crate::api::json::{self, Documents, Next};
use crate::api::kind::ListOf;
use crate::api::node::{Key, Node, Value};
use crate::api::scalar::Scalar;
use crate::api::text;
use crate::api::types::{Origin, Resource, ResourceId};
use crate::api::yaml::{self, Piece, Place, SyntaxError};

/// Stands for the list around an item that was read alone.
static AROUND: Node<'static> = Node {
    line: 0,
    col: 0,
    value: Value::Seq(Vec::new()),
};

/// Decodes the pieces of one text.
pub struct Batch<'a> {
    file: Arc<str>,
    sink: &'a Sink,
    /// For what is read without positions.
    trial: &'a Sink,
    each: &'a mut dyn FnMut(Resource),
    seen: Seen,
    given: usize,
    /// How many resources and issues there were behind the last complete document.
    complete: (usize, Mark),
}

impl<'a> Batch<'a> {
    /// A batch of that file: resources go to `each`, issues to `sink`; `trial` is for its own use.
    pub fn new(
        file: &str,
        sink: &'a Sink,
        trial: &'a Sink,
        each: &'a mut dyn FnMut(Resource),
    ) -> Batch<'a> {
        Batch {
            file: file.into(),
            sink,
            trial,
            each,
            seen: Seen::default(),
            given: 0,
            complete: Default::default(),
        }
    }

    /// Reads the text, up to the first thing that is no document.
    pub fn read(&mut self, bytes: &[u8]) {
        let result = text::decode(bytes).and_then(|text| match Documents::of(text) {
            Some(documents) => self.json(documents),
            None => self.yaml(text, Place::top(text)),
        });
        self.end(result);
    }

    /// The same without the short way for JSON.
    pub fn read_as_yaml(&mut self, bytes: &[u8]) {
        let result = text::decode(bytes).and_then(|text| self.yaml(text, Place::top(text)));
        self.end(result);
    }

    fn end(&mut self, result: Result<(), SyntaxError>) {
        if let Err(e) = result {
            self.sink.rewind(self.complete.1);
            let text = Message::with(e.message, e.help);
            self.sink
                .report(Severity::Error, (e.line, e.col), String::new(), None, text);
        }
    }

    /// How many of the resources given out come from complete documents.
    pub fn valid(&self) -> usize {
        self.complete.0
    }

    fn complete(&mut self) {
        self.complete = (self.given, self.sink.mark());
    }

    fn yaml(&mut self, text: &str, place: Place) -> Result<(), SyntaxError> {
        yaml::read(text, place, true, &mut |piece| {
            match piece {
                Piece::Item { list, n, node } => self.item(list, n, node),
                Piece::Document(node) => {
                    self.document(&At::root(&node, self.sink), true);
                    self.complete();
                }
            }
            Ok(())
        })
    }

    fn json(&mut self, documents: Documents<'_>) -> Result<(), SyntaxError> {
        for next in documents {
            match next {
                Next::Json(document) => self.json_document(&document)?,
                Next::Broken(rest, error) if text::is_too_large_for_brackets(rest.text) => {
                    return Err(error);
                }
                Next::Yaml(rest) | Next::Broken(rest, _) => {
                    return self.yaml(rest.text, rest.place);
                }
            }
            self.complete();
        }
        Ok(())
    }

    fn json_document(&mut self, document: &json::Document<'_>) -> Result<(), SyntaxError> {
        let Some(parts) = json::parts(document) else {
            return self.yaml(document.text, document.place);
        };
        let head = parts.head;
        let list = list_of(&head);
        match parts.items {
            None if list.is_none() && self.plainly(&head) => Ok(()),
            Some(items) if list.is_some() || head.entries().is_none() => {
                let mut cursor = document.cursor;
                for (n, item) in items.iter().enumerate() {
                    self.json_item(&mut cursor, list, n, item.get())?;
                }
                match list {
                    Some(list) => self.json_head(document, &head, list, &items),
                    None => Ok(()),
                }
            }
            _ => self.yaml(document.text, document.place),
        }
    }

    /// A list without its items.
    fn json_head(
        &mut self,
        document: &json::Document<'_>,
        head: &Node<'_>,
        list: ListOf,
        items: &[&RawValue],
    ) -> Result<(), SyntaxError> {
        self.list(&At::root(head, self.trial), list);
        if self.is_good() {
            return Ok(());
        }
        let text = json::without(document.text, items);
        yaml::read(&text, document.place, false, &mut |piece| {
            if let Piece::Document(node) = piece {
                self.list(&At::root(&node, self.sink), list);
            }
            Ok(())
        })
    }

    fn json_item<'t>(
        &mut self,
        cursor: &mut Cursor<'t>,
        list: Option<ListOf>,
        n: usize,
        text: &'t str,
    ) -> Result<(), SyntaxError> {
        let depth = if list.is_some() { 2 } else { 1 };
        let mut before = *cursor;
        if let Some(mut node) = json::tree(text, depth, Some(cursor)) {
            complete_item(&mut node, list);
            if self.plainly(&node) {
                return Ok(());
            }
        }
        let start = before.position(json::offset(before.text(), text));
        if text == "null" {
            let node = Node {
                line: start.0,
                col: start.1,
                value: Value::Scalar(Scalar::bare(text)),
            };
            self.item(list, n, node);
            return Ok(());
        }
        let place = Place {
            start,
            depth,
            in_json: true,
        };
        yaml::read(text, place, false, &mut |piece| {
            if let Piece::Document(node) = piece {
                self.item(list, n, node);
            }
            Ok(())
        })
    }

    /// Takes a resource about which there is nothing to say; any other waits to be read with positions.
    fn plainly(&mut self, node: &Node<'_>) -> bool {
        let resource = resource(&At::root(node, self.trial), self.origin(node));
        match resource {
            Some(resource) if self.is_good() && self.seen.line(&resource.id).is_none() => {
                self.give(resource);
                true
            }
            _ => {
                self.is_good();
                false
            }
        }
    }

    /// Whether the trial that just ended found nothing.
    fn is_good(&self) -> bool {
        let is_good = self.trial.mark() == Mark::default();
        self.trial.rewind(Mark::default());
        is_good
    }

    /// A document or an item of a JSON array. Lists of resources are allowed where `lists` says so.
    fn document(&mut self, at: &At<'_>, lists: bool) {
        self.sink.about(None);
        match &at.node.value {
            Value::Seq(items) if lists => {
                for (n, item) in items.iter().enumerate() {
                    self.document(&at.item(n, item), false);
                }
            }
            Value::Map(_) => match list_of(at.node) {
                Some(list) => self.list(at, list),
                None => self.resource(at.node),
            },
            _ => {
                at.complain(Message::with(
                    "is not a resource",
                    "a resource is a mapping with apiVersion, kind, metadata and spec".to_owned(),
                ));
            }
        }
    }

    /// A list, or what is left of it, whose items may leave kind and version to it.
    fn list(&mut self, at: &At<'_>, list: ListOf) {
        let Some(fields) = Fields::of(at) else { return };
        fields.required("apiVersion", |at| match at.node.text() {
            Some("v1") if list == ListOf::Anything => Some(()),
            _ => envelope::api_version(at),
        });
        fields.get("kind");
        fields.get("metadata");
        if let Some(items) = fields.required_at("items") {
            for (n, item) in items.items().unwrap_or_default().iter().enumerate() {
                self.list_item(&items.item(n, item), list);
            }
        }
        self.sink.about(None);
        fields.finish();
    }

    /// An item of a list of resources, or of an array, that was read alone.
    fn item(&mut self, list: Option<ListOf>, n: usize, node: Node<'_>) {
        let around = At::root(&AROUND, self.sink);
        match list {
            Some(list) => self.list_item(&around.entry("items", &AROUND).item(n, &node), list),
            None => self.document(&around.item(n, &node), false),
        }
    }

    fn list_item(&mut self, at: &At<'_>, list: ListOf) {
        self.sink.about(None);
        if list_of(at.node).is_some() {
            at.complain("a list within a list is not supported");
            return;
        }
        match list {
            ListOf::Only(_) => {
                let mut node = at.node.clone();
                complete_item(&mut node, Some(list));
                self.resource(&node);
            }
            ListOf::Anything => self.resource(at.node),
        }
    }

    fn resource(&mut self, node: &Node<'_>) {
        let at = At::root(node, self.sink);
        let Some(resource) = resource(&at, self.origin(node)) else {
            return;
        };
        if let Some(line) = self.seen.line(&resource.id) {
            let help = "keep one of the two".to_owned();
            at.complain(Message::with(
                format!("is already defined at line {line}"),
                help,
            ));
            return;
        }
        self.give(resource);
    }

    fn give(&mut self, resource: Resource) {
        self.seen.add(&resource);
        self.given += 1;
        (self.each)(resource);
    }

    fn origin(&self, node: &Node<'_>) -> Origin {
        Origin {
            file: self.file.clone(),
            line: node.line,
        }
    }
}

fn list_of(node: &Node<'_>) -> Option<ListOf> {
    ListOf::named(node.get("kind")?.text()?)
}

/// Gives an item what it left to its list.
fn complete_item(item: &mut Node<'_>, list: Option<ListOf>) {
    let Some(ListOf::Only(kind)) = list else {
        return;
    };
    for (name, value) in [("kind", kind.name()), ("apiVersion", envelope::API_VERSION)] {
        let (line, col) = (item.line, item.col);
        let node = item.text_here(value);
        if let Value::Map(entries) = &mut item.value
            && entries.iter().all(|(key, _)| key.name != name)
        {
            let name = name.into();
            entries.insert(0, (Key { name, line, col }, node));
        }
    }
}

/// The lines of the resources so far, by two hashes of their ids: ids themselves would need far more memory.
#[derive(Default)]
struct Seen {
    hashers: [RandomState; 2],
    lines: HashMap<[u64; 2], u32>,
}

impl Seen {
    fn key(&self, id: &ResourceId) -> [u64; 2] {
        [0, 1].map(|n: usize| self.hashers[n].hash_one(id))
    }

    fn line(&self, id: &ResourceId) -> Option<u32> {
        self.lines.get(&self.key(id)).copied()
    }

    fn add(&mut self, resource: &Resource) {
        let key = self.key(&resource.id);
        self.lines.insert(key, resource.origin.line);
    }
}
