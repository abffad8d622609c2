//! The merged, validated view of all resources of all sources.
//!
//! Bad input never takes away what is in force: a file with an error keeps all it held when it was last good, and a
//! file that cannot be read is not one that is gone. An object in two files belongs to the one whose path sorts first.
//!
//! The view holds ids and documents, not resources: a resource is made when it is new or changed, handed on, and dropped; who
//! wants it later gets it from its document. Documents are in the snapshot's journal where it can be written, else in memory.

pub(crate) mod document;
mod draft;
pub mod journal;
mod keep;
pub mod members;
mod table;
mod view;

pub use journal::{Done, Job, Meta};

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::document::Doc;
use self::draft::Draft;
use self::journal::{Journal, Opened, ReadError, Saved, SavedFile};
use self::table::{Entry, Table};
use crate::api::{self, Issue, Resource, ResourceId, Severity};
use crate::source::{FileContent, FileUpdate, Stamp};

/// From so many keys and files with something wrong on, what is only a warning about a value of a datastore is not kept.
const MAX_WARNED: usize = 1000;

/// One difference of the view.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// A new resource, or one with new content.
    Upserted(&'a Resource),
    /// A resource at another place (file or line), which messages about it name; the content is the same.
    Moved(&'a ResourceId),
    /// A resource that is no more.
    Deleted(&'a ResourceId),
}

/// Takes differences as they are found. An object that goes from one file to another may go and come.
pub type Sink<'a> = dyn FnMut(Change<'_>) + 'a;

/// A file of a source. Ordered by path first: that decides which of two files owns an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileKey {
    path: Arc<str>,
    source: Arc<str>,
}

/// What a file holds.
#[derive(Debug)]
struct FileState {
    key: FileKey,
    /// The version of the file that is held exactly and without complaint.
    stamp: Option<Stamp>,
    /// Its entries in order; none if nothing usable was ever read from it.
    held: Option<Box<[u32]>>,
}

/// The view.
#[derive(Debug, Default)]
pub struct Store {
    table: Table,
    files: Vec<FileState>,
    free_files: Vec<u32>,
    sources: BTreeSet<Arc<str>>,
    by_key: BTreeMap<FileKey, u32>,
    /// What is wrong with each file as it is now, or was when the snapshot was taken up.
    issues: BTreeMap<FileKey, Vec<Issue>>,
    /// Files whose content in force is older than the file as it is now.
    outdated: BTreeSet<FileKey>,
    /// Files whose content comes from a snapshot that no source has confirmed yet.
    unconfirmed: BTreeSet<FileKey>,
    /// Files of which only a part was ever valid, so that the rest is not in force.
    partial: BTreeSet<FileKey>,
    revision: u64,
    disk: keep::Disk,
}

impl Store {
    /// An empty view that keeps everything in memory, at revision 0.
    pub fn new() -> Store {
        Store::default()
    }

    /// An empty view that keeps its documents in the journal of a state directory.
    pub fn with_journal(dir: PathBuf, journal: Option<Journal>) -> Store {
        Store {
            disk: keep::Disk::new(dir, journal),
            ..Store::default()
        }
    }

    /// Opens the snapshot of a state directory: a view without content that keeps its documents there, the state to seed it with,
    /// and messages about what cannot be used.
    pub fn open(dir: &Path) -> (Store, Option<Saved>, Vec<String>) {
        let Opened {
            saved,
            journal,
            messages,
        } = journal::open(dir);
        let mut store = Store::with_journal(dir.to_owned(), journal);
        store.disk.opened(saved.as_ref());
        (store, saved, messages)
    }

    /// Takes in what a source found: first what is there, then what is gone, so that an object that moved is never away.
    pub fn apply(&mut self, source: &str, mut updates: Vec<FileUpdate>, sink: &mut Sink<'_>) {
        updates.sort_by_key(|update| matches!(update.content, FileContent::Removed));
        for update in updates {
            self.take(source, update, sink);
        }
    }

    /// Takes in what a source found about one file.
    pub fn take(&mut self, source: &str, update: FileUpdate, sink: &mut Sink<'_>) {
        let key = self.key(source, &update.path);
        match update.content {
            FileContent::Removed => self.remove(&key, sink),
            FileContent::Unreadable(issue) => self.keep(&key, vec![issue]),
            FileContent::Unchanged => drop(self.unconfirmed.remove(&key)),
            FileContent::Value(value, stamp) => self.value(key, &value, stamp, sink),
            FileContent::Text(text, stamp) => {
                let path = key.path.clone();
                let mut draft = Draft::new(self, key, sink);
                let outcome = api::parse_each(&path, &text, &mut |resource| draft.push(resource));
                draft.cut(outcome.valid);
                draft.finish(outcome.issues, stamp);
            }
        }
    }

    /// Whether there may be more warnings than [`Store::problems`] has.
    pub fn is_warned_of_enough(&self) -> bool {
        self.issues.len() >= MAX_WARNED
    }

    /// Takes in the value of a key in a datastore, which holds one object.
    fn value(&mut self, key: FileKey, value: &[u8], stamp: Stamp, sink: &mut Sink<'_>) {
        let decoded = document::from_value(value, &key.path);
        match decoded {
            Ok((resource, mut issues)) => {
                // What a newer Calico adds to one endpoint it adds to a hundred thousand.
                if self.issues.len() >= MAX_WARNED {
                    issues.clear();
                }
                let mut draft = Draft::new(self, key, sink);
                draft.push(resource);
                draft.finish(issues, Some(stamp));
            }
            Err(mut issues) => {
                let mut all = issues.iter_mut();
                let first = all.find(|issue| issue.severity == Severity::Error);
                if let (Some(first), Some(revision)) = (first, stamp.revision()) {
                    first.message = format!("{} (revision {revision})", first.message);
                }
                self.keep(&key, issues);
            }
        }
    }

    /// Takes up what a snapshot saved, as the last good content of files that no source has delivered yet.
    /// Objects that the present rules no longer accept are left out and reported.
    pub fn seed(&mut self, saved: Saved, sink: &mut Sink<'_>) {
        // Another version may find something to complain about in files that have not changed.
        let same_version = saved.meta.version == env!("CARGO_PKG_VERSION");
        for file in saved.files {
            self.seed_file(file, same_version, sink);
        }
    }

    fn seed_file(&mut self, file: SavedFile, same_version: bool, sink: &mut Sink<'_>) {
        let key = self.key(&file.source, &file.path);
        if self.by_key.contains_key(&key) || self.issues.contains_key(&key) {
            return;
        }
        let Some(journal) = self.disk.journal() else {
            return;
        };
        let mut issues = Vec::new();
        let mut peek = journal.peek();
        let mut draft = Draft::new(self, key.clone(), sink);
        for object in file.objects {
            let body = match peek.document(object.spot) {
                Ok(body) => body,
                Err(error) => {
                    issues.push(unreadable(&key, object.line, None, &error));
                    continue;
                }
            };
            match document::decode(body, &key.path, object.line) {
                Ok(resource) => {
                    draft.put(resource, document::hash(body), Doc::Disk(object.spot));
                }
                Err(mut errors) => issues.append(&mut errors),
            }
        }
        let stamp = file.stamp.filter(|_| same_version);
        let whole = issues.is_empty();
        draft.finish(issues, stamp);
        if whole {
            self.disk.clean(&key);
        }
        if self.by_key.contains_key(&key) {
            self.unconfirmed.insert(key);
        }
    }

    /// Keeps what a file held, whatever that is, and notes what is wrong with it.
    fn keep(&mut self, key: &FileKey, issues: Vec<Issue>) {
        if let Some(at) = self.by_key.get(key) {
            let file = &mut self.files[*at as usize];
            if file.held.is_some() {
                self.outdated.insert(key.clone());
                if file.stamp.take().is_some() {
                    self.disk.dirty(key);
                }
            }
        }
        self.complain(key, issues);
    }

    fn complain(&mut self, key: &FileKey, issues: Vec<Issue>) {
        match issues.is_empty() {
            true => self.issues.remove(key),
            false => self.issues.insert(key.clone(), issues),
        };
    }

    fn remove(&mut self, key: &FileKey, sink: &mut Sink<'_>) {
        self.issues.remove(key);
        self.outdated.remove(key);
        self.unconfirmed.remove(key);
        self.partial.remove(key);
        let Some(at) = self.by_key.remove(key) else {
            return;
        };
        let held = self.files[at as usize].held.take().unwrap_or_default();
        for entry in held {
            self.withdraw(entry, sink);
        }
        self.free_files.push(at);
        self.disk.dirty(key);
    }

    /// Takes an entry out of the view.
    fn withdraw(&mut self, at: u32, sink: &mut Sink<'_>) {
        let id = self.table.entry(at).id();
        let was_first = self.table.find(&id) == Some(at);
        let hash = self.table.entry(at).hash;
        self.table.unlink(at);
        self.table.discard(at);
        match self.table.find(&id) {
            _ if !was_first => {}
            None => self.tell(Change::Deleted(&id), sink),
            Some(now) if self.table.entry(now).hash == hash => {
                self.tell(Change::Moved(&id), sink);
            }
            Some(now) => self.tell_decoded(now, sink),
        }
    }

    fn tell(&mut self, change: Change<'_>, sink: &mut Sink<'_>) {
        self.revision += 1;
        sink(change);
    }

    /// Tells of an entry that came into force. What cannot be read is reported, and what was in force before it stays.
    fn tell_decoded(&mut self, at: u32, sink: &mut Sink<'_>) {
        match self.resource(self.table.entry(at)) {
            Ok(resource) => self.tell(Change::Upserted(&resource), sink),
            Err(issue) => {
                let key = self.files[self.table.entry(at).file as usize].key.clone();
                self.issues.entry(key).or_default().push(*issue);
            }
        }
    }

    /// The resource of an entry.
    fn resource(&self, entry: &Entry) -> Result<Resource, Box<Issue>> {
        let key = &self.files[entry.file as usize].key;
        let broken = |error| Box::new(unreadable(key, entry.line, Some(entry.id()), &error));
        let body = entry
            .doc
            .body(self.disk.journal().as_ref())
            .map_err(broken)?;
        let decoded = document::decode(&body, &key.path, entry.line);
        decoded.map_err(|errors| {
            let first = errors.into_iter().next();
            first.map_or_else(|| broken(ReadError::Lost), Box::new)
        })
    }

    /// A file's key; the few names of sources are shared.
    fn key(&mut self, source: &str, path: &str) -> FileKey {
        let source = match self.sources.get(source) {
            Some(known) => known.clone(),
            None => {
                let new: Arc<str> = source.into();
                self.sources.insert(new.clone());
                new
            }
        };
        let path = path.into();
        FileKey { path, source }
    }

    /// The number of a file, which is made if it is not there.
    fn file(&mut self, key: &FileKey) -> u32 {
        if let Some(at) = self.by_key.get(key) {
            return *at;
        }
        let state = FileState {
            key: key.clone(),
            stamp: None,
            held: None,
        };
        let at = match self.free_files.pop() {
            Some(free) => {
                self.files[free as usize] = state;
                free
            }
            None => {
                table::reserve(&mut self.files);
                self.files.push(state);
                self.files.len() as u32 - 1
            }
        };
        self.by_key.insert(key.clone(), at);
        at
    }
}

/// A document that was saved and cannot be had back.
fn unreadable(key: &FileKey, line: u32, object: Option<ResourceId>, error: &ReadError) -> Issue {
    let why = match error {
        ReadError::Io(cause) => format!("{error}: {cause}"),
        ReadError::Damaged(_) | ReadError::Lost => error.to_string(),
    };
    let message = format!("the document is lost: {why}");
    let help = "write the file again; what was in force before stays until then";
    Issue {
        line,
        object,
        severity: Severity::Error,
        ..crate::source::refusal(&key.path, message, help)
    }
}

#[cfg(test)]
mod tests;
