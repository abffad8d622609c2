//! Objects in memory: one small entry each, found by id.
//!
//! A hundred thousand remote endpoints are here, so an entry holds no more than what cannot be had from the document.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};

use hashbrown::HashTable;

use super::document::{Doc, Hash};
use crate::api::{Kind, ResourceId};

/// Kind, namespace and name: what ids are sorted by.
pub type Rank<'a> = (Kind, (&'a str, &'a str));

/// No entry, no file.
pub const NONE: u32 = u32::MAX;

/// One object of one file.
#[derive(Debug)]
pub struct Entry {
    /// Its document.
    pub doc: Doc,
    /// What its content is told by.
    pub hash: Hash,
    /// Namespace, a slash, name: neither has a slash. One allocation for both.
    name: Box<str>,
    /// Its line in the file.
    pub line: u32,
    /// Its file.
    pub file: u32,
    /// The entry of the same id that is in force when this one goes.
    next: u32,
    kind: Kind,
    /// Whether the draft of the file's new content has it.
    pub drafted: bool,
}

impl Entry {
    fn names(&self) -> (&str, &str) {
        self.name.split_once('/').unwrap_or(("", &self.name))
    }

    /// The id.
    pub fn id(&self) -> ResourceId {
        let (namespace, name) = self.names();
        ResourceId {
            kind: self.kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// What ids are sorted by.
    pub fn rank(&self) -> Rank<'_> {
        (self.kind, self.names())
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

/// The entries, and an index of those that are in force.
#[derive(Debug, Default)]
pub struct Table {
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// The first entry of each id: the one in force.
    index: HashTable<u32>,
    hasher: RandomState,
    /// Entries of ids that another entry has too, and that one is in force.
    losers: BTreeSet<u32>,
    /// Bytes of the journal that entries refer to.
    live: u64,
}

impl Table {
    /// A new entry, not yet part of any list.
    pub fn add(&mut self, id: &ResourceId, hash: Hash, doc: Doc, file: u32, line: u32) -> u32 {
        self.live += doc_bytes(&doc);
        let entry = Entry {
            doc,
            hash,
            name: format!("{}/{}", id.namespace, id.name).into_boxed_str(),
            line,
            file,
            next: NONE,
            kind: id.kind,
            drafted: false,
        };
        if let Some(free) = self.free.pop() {
            self.entries[free as usize] = entry;
            return free;
        }
        if self.entries.len() == self.entries.capacity() {
            // By an eighth: doubling would waste up to half of the largest thing there is.
            self.entries.reserve_exact(self.entries.len() / 8 + 64);
        }
        self.entries.push(entry);
        self.entries.len() as u32 - 1
    }

    /// Forgets an entry that is in no list.
    pub fn discard(&mut self, at: u32) {
        self.set_doc(at, Doc::Lost);
        let entry = &mut self.entries[at as usize];
        entry.name = Box::default();
        entry.file = NONE;
        self.free.push(at);
    }

    /// An entry.
    pub fn entry(&self, at: u32) -> &Entry {
        &self.entries[at as usize]
    }

    /// An entry, to be changed.
    pub fn entry_mut(&mut self, at: u32) -> &mut Entry {
        &mut self.entries[at as usize]
    }

    /// The document of an entry is elsewhere now.
    pub fn set_doc(&mut self, at: u32, doc: Doc) {
        self.live += doc_bytes(&doc);
        let before = std::mem::replace(&mut self.entries[at as usize].doc, doc);
        self.live -= doc_bytes(&before);
    }

    /// The entry in force.
    pub fn find(&self, id: &ResourceId) -> Option<u32> {
        let names = (&*id.namespace, &*id.name);
        self.lookup((id.kind, names))
    }

    fn lookup(&self, rank: Rank<'_>) -> Option<u32> {
        let same = |at: &u32| self.entries[*at as usize].rank() == rank;
        self.index.find(self.hash(rank), same).copied()
    }

    fn hash(&self, rank: Rank<'_>) -> u64 {
        hash_of(&self.hasher, rank)
    }

    /// All entries of the id, the one in force first.
    pub fn claims(&self, id: &ResourceId) -> impl Iterator<Item = u32> {
        self.chain(self.find(id))
    }

    fn chain(&self, first: Option<u32>) -> impl Iterator<Item = u32> {
        std::iter::successors(first, |at| {
            let next = self.entries[*at as usize].next;
            (next != NONE).then_some(next)
        })
    }

    /// Puts an entry behind those of its id for which `before` says so.
    pub fn link(&mut self, at: u32, before: impl Fn(&Entry) -> bool) {
        let first = self.lookup(self.entries[at as usize].rank());
        let previous = self.chain(first).take_while(|e| before(self.entry(*e)));
        match (first, previous.last()) {
            (None, _) => self.insert(at),
            (Some(first), None) => {
                self.entries[at as usize].next = first;
                self.losers.insert(first);
                self.head(first, at);
            }
            (_, Some(previous)) => {
                let next = std::mem::replace(&mut self.entries[previous as usize].next, at);
                self.entries[at as usize].next = next;
                self.losers.insert(at);
            }
        }
    }

    /// Takes an entry out of the list of its id.
    pub fn unlink(&mut self, at: u32) {
        let rank = self.entries[at as usize].rank();
        let hash = self.hash(rank);
        let first = self.lookup(rank);
        let next = std::mem::replace(&mut self.entries[at as usize].next, NONE);
        self.losers.remove(&at);
        if first == Some(at) {
            if next == NONE {
                if let Ok(slot) = self.index.find_entry(hash, |other| *other == at) {
                    slot.remove();
                }
            } else {
                self.losers.remove(&next);
                self.head(at, next);
            }
            return;
        }
        let before = self.chain(first).find(|e| self.entry(*e).next == at);
        if let Some(before) = before {
            self.entries[before as usize].next = next;
        }
    }

    fn insert(&mut self, at: u32) {
        let hash = self.hash(self.entries[at as usize].rank());
        let (entries, hasher) = (&self.entries, &self.hasher);
        let rehash = |at: &u32| hash_of(hasher, entries[*at as usize].rank());
        self.index.insert_unique(hash, at, rehash);
    }

    /// Another entry is the first of an id.
    fn head(&mut self, from: u32, to: u32) {
        let hash = self.hash(self.entries[to as usize].rank());
        if let Some(slot) = self.index.find_mut(hash, |other| *other == from) {
            *slot = to;
        }
    }

    /// Entries in force, in no order.
    pub fn heads(&self) -> impl Iterator<Item = u32> {
        self.index.iter().copied()
    }

    /// Entries that are not in force because another has their id.
    pub fn losers(&self) -> impl Iterator<Item = u32> {
        self.losers.iter().copied()
    }

    /// How many entries are in force.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes of the journal that are in use.
    pub fn live(&self) -> u64 {
        self.live
    }
}

fn hash_of(hasher: &RandomState, (kind, (namespace, name)): Rank<'_>) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write_u8(kind as u8);
    hasher.write(namespace.as_bytes());
    hasher.write_u8(b'/');
    hasher.write(name.as_bytes());
    hasher.finish()
}

fn doc_bytes(doc: &Doc) -> u64 {
    match doc {
        Doc::Disk(spot) => spot.length(),
        Doc::Memory(_) | Doc::Lost => 0,
    }
}
