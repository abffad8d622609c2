//! New content of one file, object by object, without holding all of it.
//!
//! Where the file holds nothing yet, every object counts at once. Else nothing counts before the end: if the file has errors, the
//! draft is thrown away and the file keeps what it held.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::document::{self, Doc, Hash};
use super::{Change, FileKey, Sink, Store};
use crate::api::{Issue, Resource, ResourceId, Severity};
use crate::source::Stamp;

/// Changed resources that are kept for the end of the draft; the rest is decoded from their documents once more.
const MAX_TYPED: usize = 64;

/// An entry of the draft and its line.
type Item = (u32, u32);

/// The draft. Ends with [`Draft::finish`].
pub struct Draft<'s, 'k> {
    store: &'s mut Store,
    sink: &'s mut Sink<'k>,
    key: FileKey,
    file: u32,
    /// Whether the file held something before.
    held: bool,
    items: Vec<Item>,
    typed: Vec<(u32, Resource)>,
}

impl<'s, 'k> Draft<'s, 'k> {
    /// A draft without objects.
    pub fn new(store: &'s mut Store, key: FileKey, sink: &'s mut Sink<'k>) -> Draft<'s, 'k> {
        let file = store.file(&key);
        let held = store.files[file as usize].held.is_some();
        Draft {
            store,
            sink,
            key,
            file,
            held,
            items: Vec::new(),
            typed: Vec::new(),
        }
    }

    /// The next object of the file.
    pub fn push(&mut self, resource: Resource) {
        let body: Arc<[u8]> = document::encode(&resource).into();
        let hash = document::hash(&body);
        self.put(resource, hash, Doc::Memory(body));
    }

    /// The next object of the file, with its document. One with the id of an earlier one is left out: parsers report that.
    pub fn put(&mut self, resource: Resource, hash: Hash, doc: Doc) {
        let line = resource.origin.line;
        if let Some(at) = self.own(&resource.id) {
            let entry = self.store.table.entry_mut(at);
            if entry.drafted {
                return;
            }
            if entry.hash == hash {
                entry.drafted = true;
                self.items.push((at, line));
                if matches!(entry.doc, Doc::Lost) {
                    self.store.table.set_doc(at, doc);
                }
                return;
            }
        }
        let in_memory = matches!(doc, Doc::Memory(_));
        let at = self
            .store
            .table
            .add(&resource.id, hash, doc, self.file, line);
        self.store.table.entry_mut(at).drafted = true;
        self.items.push((at, line));
        if in_memory {
            self.store.unwritten(at);
        }
        if !self.held {
            self.link(at, Some(&resource));
        } else if self.typed.len() < MAX_TYPED {
            self.typed.push((at, resource));
        }
    }

    /// The end of the file, with what is wrong with it and the version it has.
    pub fn finish(mut self, issues: Vec<Issue>, stamp: Option<Stamp>) {
        let has_errors = issues.iter().any(|i| i.severity == Severity::Error);
        if has_errors && (self.held || self.items.is_empty()) {
            return self.abandon(issues);
        }
        if self.held {
            self.exchange();
        }
        let store = self.store;
        for (at, line) in &self.items {
            store.table.entry_mut(*at).drafted = false;
            let moved = std::mem::replace(&mut store.table.entry_mut(*at).line, *line) != *line;
            let id = moved.then(|| store.table.entry(*at).id());
            if let Some(id) = id.filter(|id| store.table.find(id) == Some(*at)) {
                store.tell(Change::Moved(&id), self.sink);
            }
        }
        let state = &mut store.files[self.file as usize];
        state.held = Some(self.items.iter().map(|(at, _)| *at).collect());
        state.stamp = stamp.filter(|_| issues.is_empty());
        store.outdated.remove(&self.key);
        store.unconfirmed.remove(&self.key);
        match has_errors {
            true => store.partial.insert(self.key.clone()),
            false => store.partial.remove(&self.key),
        };
        store.complain(&self.key, issues);
        store.disk.dirty(&self.key);
    }

    /// The entry of this file with that id.
    fn own(&self, id: &ResourceId) -> Option<u32> {
        let table = &self.store.table;
        table
            .claims(id)
            .find(|at| table.entry(*at).file == self.file)
    }

    /// Leaves the file as it was.
    fn abandon(self, issues: Vec<Issue>) {
        let store = self.store;
        for (at, _) in self.items {
            let entry = store.table.entry_mut(at);
            entry.drafted = false;
            let id = entry.id();
            if !store.table.claims(&id).any(|claim| claim == at) {
                store.table.discard(at);
            }
        }
        store.keep(&self.key, issues);
        if !self.held {
            store.by_key.remove(&self.key);
            store.free_files.push(self.file);
        }
    }

    /// Puts the draft in the place of what the file held.
    fn exchange(&mut self) {
        let before = self.store.files[self.file as usize].held.take();
        let mut doubles = BTreeSet::new();
        for n in 0..self.items.len() {
            let (at, line) = self.items[n];
            let id = self.store.table.entry(at).id();
            match self.own(&id) {
                Some(own) if own == at => {}
                // Two new ones of the same id.
                Some(own) if self.store.table.entry(own).drafted => {
                    doubles.insert(at);
                }
                Some(_) | None => {
                    self.store.table.entry_mut(at).line = line;
                    let typed = self.typed.iter().position(|(typed, _)| *typed == at);
                    let resource = typed.map(|n| self.typed.swap_remove(n).1);
                    self.link(at, resource.as_ref());
                }
            }
        }
        self.items.retain(|(at, _)| !doubles.contains(at));
        for at in doubles {
            self.store.table.discard(at);
        }
        for at in before.into_iter().flatten() {
            let entry = self.store.table.entry(at);
            if entry.file == self.file && !entry.drafted {
                self.store.withdraw(at, self.sink);
            }
        }
    }

    /// Brings a new entry into the view, in the place of an older one of the same file.
    fn link(&mut self, at: u32, resource: Option<&Resource>) {
        let store = &mut *self.store;
        let id = store.table.entry(at).id();
        let before = store
            .table
            .find(&id)
            .map(|first| store.table.entry(first).hash);
        let own = store
            .table
            .claims(&id)
            .find(|claim| store.table.entry(*claim).file == self.file);
        if let Some(own) = own {
            store.table.unlink(own);
            store.table.discard(own);
        }
        let (files, key) = (&store.files, &self.key);
        store
            .table
            .link(at, |entry| files[entry.file as usize].key < *key);
        if store.table.find(&id) != Some(at) {
            return;
        }
        let same = before == Some(store.table.entry(at).hash);
        match resource {
            _ if same => store.tell(Change::Moved(&id), self.sink),
            Some(resource) => store.tell(Change::Upserted(resource), self.sink),
            None => store.tell_decoded(at, self.sink),
        }
    }
}
