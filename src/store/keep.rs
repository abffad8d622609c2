//! Saving the view: documents go to the journal in the background of large loads, everything that changed at each save.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::document::Doc;
use super::journal::{
    CommitId, Done, FileOut, Job, Journal, Meta, ObjectOut, Saved, Spot, WriteError,
};
use super::{FileKey, Store, unreadable};

/// Bytes of unwritten documents that stay in memory until the next save.
const SPILL: usize = 256 << 10;
/// A journal smaller than this is never rewritten for what is out of date in it.
const MIN_REWRITE: u64 = 4 << 20;

/// What the store knows of its journal.
#[derive(Debug, Default)]
pub(super) struct Disk {
    dir: Option<PathBuf>,
    journal: Option<Journal>,
    /// Files whose content differs from what the journal says of them.
    dirty: BTreeSet<FileKey>,
    /// Entries with documents that are in memory only, since the last spill.
    unwritten: Vec<u32>,
    unwritten_bytes: usize,
    /// Whether the last try to write failed, so that documents stay in memory until a save succeeds.
    is_failing: bool,
    /// A save that is under way, and whether it makes a new journal.
    saving: Option<bool>,
    /// The next save makes a new journal, because the one in use has no room.
    is_full: bool,
    last: Option<Last>,
}

/// The last commit.
#[derive(Debug)]
struct Last {
    id: CommitId,
    /// Seconds since 1970.
    written: u64,
    meta: Meta,
    meta_at: Spot,
}

impl Disk {
    pub(super) fn new(dir: PathBuf, journal: Option<Journal>) -> Disk {
        Disk {
            dir: Some(dir),
            journal,
            ..Disk::default()
        }
    }

    /// Notes the commit that the journal was opened with.
    pub(super) fn opened(&mut self, saved: Option<&Saved>) {
        let Some((saved, journal)) = saved.zip(self.journal.as_ref()) else {
            return;
        };
        self.last = Some(Last {
            id: CommitId::new(journal, saved.at, saved.commit.generation),
            written: saved.commit.written,
            meta: saved.meta.clone(),
            meta_at: saved.commit.meta,
        });
    }

    pub(super) fn journal(&self) -> Option<Journal> {
        self.journal.clone()
    }

    pub(super) fn dirty(&mut self, key: &FileKey) {
        self.dirty.insert(key.clone());
    }

    pub(super) fn clean(&mut self, key: &FileKey) {
        self.dirty.remove(key);
    }

    /// The next save makes a new journal.
    #[cfg(test)]
    pub(super) fn rewrite_next(&mut self) {
        self.is_full = true;
    }

    /// The journal, if documents may be appended to it now.
    fn spillable(&self) -> Option<&Journal> {
        let free = !self.is_failing && !self.is_full && self.saving != Some(true);
        self.journal.as_ref().filter(|j| free && j.is_sound())
    }
}

impl Store {
    /// Notes an entry whose document is only in memory; writes such documents when they are many.
    pub(super) fn unwritten(&mut self, at: u32) {
        let Doc::Memory(body) = &self.table.entry(at).doc else {
            return;
        };
        self.disk.unwritten_bytes += body.len();
        self.disk.unwritten.push(at);
        if self.disk.unwritten_bytes < SPILL {
            return;
        }
        let mut entries = std::mem::take(&mut self.disk.unwritten);
        self.disk.unwritten_bytes = 0;
        entries.sort_unstable();
        entries.dedup();
        let document = |at: &u32| match &self.table.entry(*at).doc {
            Doc::Memory(body) => Some((*at, body.clone())),
            _ => None,
        };
        let (entries, documents): (Vec<_>, Vec<_>) = entries.iter().filter_map(document).unzip();
        let Some(journal) = self.disk.spillable() else {
            return;
        };
        match journal.spill(&documents) {
            Ok(spots) => {
                for (at, spot) in entries.into_iter().zip(spots) {
                    self.table.set_doc(at, Doc::Disk(spot));
                }
            }
            // The next save tells why.
            Err(_) => self.disk.is_failing = true,
        }
    }

    /// What is to be written so that the disk has this view, or none if there is nothing or a save is under way.
    /// [`Job::run`] may run on another thread while the view changes; then [`Store::saved`] must be told.
    pub fn save(&mut self, meta: Meta, generation: u64, written: u64) -> Option<Job> {
        let dir = self.disk.dir.clone()?;
        let last = self.disk.last.as_ref();
        let same_meta = last.filter(|last| last.meta == meta);
        let same = same_meta
            .is_some_and(|last| last.id.generation == generation && last.written == written);
        if self.disk.saving.is_some() || (same && self.disk.dirty.is_empty()) {
            return None;
        }
        let rewrite = self.is_rewrite_due();
        let meta_at = same_meta.map(|last| last.meta_at).filter(|_| !rewrite);
        let dirty = std::mem::take(&mut self.disk.dirty);
        let is_held = |key: &&FileKey| self.held(key).is_some();
        let removed = dirty.iter().filter(|key| !is_held(key));
        let removed = removed
            .map(|key| (key.source.clone(), key.path.clone()))
            .collect();
        let files = match rewrite {
            true => self.by_key.keys().filter_map(|key| self.out(key)).collect(),
            false => dirty.iter().filter_map(|key| self.out(key)).collect(),
        };
        self.disk.saving = Some(rewrite);
        Some(Job {
            dir,
            journal: self.disk.journal(),
            rewrite,
            files,
            removed,
            meta,
            meta_at,
            generation,
            written,
        })
    }

    /// Takes in what a save did.
    ///
    /// # Errors
    /// It failed; everything it was about is saved with the next one.
    pub fn saved(&mut self, done: Done) -> Result<(), WriteError> {
        self.disk.saving = None;
        let job = done.job;
        let (commit, at) = match done.result {
            Ok(commit) => commit,
            Err(error) => {
                let files = job.files.into_iter().map(|f| (f.source, f.path));
                for (source, path) in files.chain(job.removed) {
                    self.disk.dirty(&FileKey { path, source });
                }
                self.disk.is_failing = true;
                self.disk.is_full = matches!(error, WriteError::TooLarge) && !job.rewrite;
                return Err(error);
            }
        };
        for at in done.lost {
            self.lose(at);
        }
        for placed in done.placed {
            if self.table.entry(placed.entry).doc.is(&placed.doc) {
                self.table.set_doc(placed.entry, Doc::Disk(placed.spot));
            }
        }
        if done.journal.is_some() {
            self.disk.journal = done.journal;
        }
        self.disk.is_failing = false;
        self.disk.is_full = false;
        self.disk.last = self.disk.journal.as_ref().map(|journal| Last {
            id: CommitId::new(journal, at, commit.generation),
            written: commit.written,
            meta: job.meta,
            meta_at: commit.meta,
        });
        Ok(())
    }

    /// The commit that the disk has, if it is of exactly this view.
    pub fn commit(&self) -> Option<CommitId> {
        let last = self.disk.last.as_ref();
        let same = self.disk.dirty.is_empty() && self.disk.saving.is_none();
        last.map(|last| last.id).filter(|_| same)
    }

    /// When what the disk has came from its sources, in seconds since 1970; none without a commit.
    pub fn written(&self) -> Option<u64> {
        self.disk.last.as_ref().map(|last| last.written)
    }

    /// Paths of files to be read again, because documents of theirs are lost.
    pub fn lost(&self, source: &str) -> Vec<String> {
        let files = self.by_key.iter().filter(|(key, _)| &*key.source == source);
        let is_lost = |at: &u32| matches!(self.table.entry(*at).doc, Doc::Lost);
        let held = |at: &u32| self.files[*at as usize].held.iter().flatten();
        let lost = files.filter(|(_, at)| held(at).any(is_lost));
        lost.map(|(key, _)| key.path.to_string()).collect()
    }

    /// The document of an entry could not be copied to the new journal.
    fn lose(&mut self, at: u32) {
        let entry = self.table.entry(at);
        let Some(file) = self.files.get_mut(entry.file as usize) else {
            return;
        };
        file.stamp = None;
        let key = file.key.clone();
        let error = super::ReadError::Lost;
        let issue = unreadable(&key, entry.line, Some(entry.id()), &error);
        self.issues.entry(key).or_default().push(issue);
        self.table.set_doc(at, Doc::Lost);
    }

    /// A journal with more of the past in it than of the present is written anew.
    fn is_rewrite_due(&self) -> bool {
        let Some(journal) = &self.disk.journal else {
            return true;
        };
        let lists = 8 * self.table.len() as u64 + 256 * self.by_key.len() as u64;
        let live = self.table.live() + lists;
        self.disk.is_full || !journal.is_sound() || journal.size() > 2 * live + MIN_REWRITE
    }

    fn held(&self, key: &FileKey) -> Option<&[u32]> {
        let at = self.by_key.get(key)?;
        self.files[*at as usize].held.as_deref()
    }

    /// A file as a save needs it.
    fn out(&self, key: &FileKey) -> Option<FileOut> {
        let at = self.by_key.get(key)?;
        let object = |at: &u32| {
            let entry = self.table.entry(*at);
            ObjectOut {
                entry: *at,
                doc: entry.doc.clone(),
                line: entry.line,
            }
        };
        Some(FileOut {
            source: key.source.clone(),
            path: key.path.clone(),
            stamp: self.files[*at as usize].stamp,
            objects: self.held(key)?.iter().map(object).collect(),
        })
    }
}
