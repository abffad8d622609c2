//! Saving: what changed goes to the end of the journal, or everything into a new one. Runs on any thread.

use std::path::PathBuf;
use std::sync::Arc;

use super::frame::{self, Kind};
use super::record::{self, Commit, Meta, SavedFile, SavedObject};
use super::{Journal, NEW, ReadError, Spot, Tail, WriteError, open};
use crate::source::Stamp;
use crate::store::document::Doc;

/// Bytes that are written at once.
const BATCH: usize = 256 << 10;

/// Everything that one save needs, apart from the store, which goes on.
#[derive(Debug)]
pub struct Job {
    /// The state directory.
    pub dir: PathBuf,
    /// The journal in use.
    pub journal: Option<Journal>,
    /// Whether everything goes to a new journal; then `files` are all.
    pub rewrite: bool,
    /// Files whose content is to be saved.
    pub files: Vec<FileOut>,
    /// Source and path of files that are no more.
    pub removed: Vec<(Arc<str>, Arc<str>)>,
    /// How the state was come by.
    pub meta: Meta,
    /// Where the journal has that already.
    pub meta_at: Option<Spot>,
    /// Generation of the host policy in force.
    pub generation: u64,
    /// The time, in seconds since 1970.
    pub written: u64,
}

/// A file to be saved.
#[derive(Debug)]
pub struct FileOut {
    /// Name of its source.
    pub source: Arc<str>,
    /// Its path.
    pub path: Arc<str>,
    /// See [`SavedFile::stamp`].
    pub stamp: Option<Stamp>,
    /// Its objects in order.
    pub objects: Vec<ObjectOut>,
}

/// An object to be saved.
#[derive(Debug)]
pub struct ObjectOut {
    /// Its entry in the store.
    pub entry: u32,
    /// Its document.
    pub doc: Doc,
    /// Its line.
    pub line: u32,
}

/// A document that has a place now.
#[derive(Debug)]
pub struct Placed {
    /// The entry in the store it was taken from.
    pub entry: u32,
    /// What the entry held.
    pub doc: Doc,
    /// Where it is now.
    pub spot: Spot,
}

/// What a save did.
#[derive(Debug)]
pub struct Done {
    /// The commit and where it is, or why there is none.
    pub result: Result<(Commit, Spot), WriteError>,
    /// The journal from now on, if it is another one.
    pub journal: Option<Journal>,
    /// Documents that are in the journal now.
    pub placed: Vec<Placed>,
    /// Entries whose documents could not be read, so that they are not in the new journal.
    pub lost: Vec<u32>,
    /// The job, for what it was about.
    pub job: Job,
}

impl Job {
    /// Writes and waits until it is on the disk. A failure leaves the journal as it was.
    pub fn run(self) -> Done {
        let mut done = Done {
            result: Err(WriteError::TooLarge),
            journal: None,
            placed: Vec::new(),
            lost: Vec::new(),
            job: self,
        };
        done.result = done.write();
        if done.result.is_err() {
            done.placed.clear();
            done.lost.clear();
            done.journal = None;
            if done.job.rewrite {
                // The space is better used by others until the next try.
                let _ = std::fs::remove_file(done.job.dir.join(NEW));
            }
        }
        done
    }
}

impl Done {
    fn write(&mut self) -> Result<(Commit, Spot), WriteError> {
        let old = self.job.journal.clone();
        let (journal, keep) = match old {
            Some(journal) if !self.job.rewrite => (journal, false),
            old => {
                let keep = old.is_some_and(|old| old.tail().published);
                (Journal::create(&self.job.dir)?, keep)
            }
        };
        let commit = {
            let mut tail = journal.tail();
            let begin = tail.end;
            let written = self.records(&journal, &mut tail);
            if written.is_err() {
                tail.end = begin;
                journal.cut(&mut tail);
            }
            written?
        };
        if let Err(error) = journal.0.file.sync_data() {
            // What the kernel could not write it has forgotten: nothing behind the last commit can be relied on.
            journal.tail().sound = false;
            return Err(journal.failed("flush")(error));
        }
        if !journal.tail().published {
            open::publish(&self.job.dir, keep)?;
            journal.tail().published = true;
        }
        if self.job.rewrite {
            self.journal = Some(journal);
        }
        Ok(commit)
    }

    fn records(
        &mut self,
        journal: &Journal,
        tail: &mut Tail,
    ) -> Result<(Commit, Spot), WriteError> {
        let mut out = Out {
            journal,
            tail,
            buffer: Vec::new(),
        };
        for n in 0..self.job.files.len() {
            self.file(n, &mut out)?;
        }
        for (source, path) in &self.job.removed {
            out.put(Kind::Removed, &record::encode_name(source, path))?;
        }
        let meta = match self.job.meta_at {
            Some(spot) => spot,
            None => out.put(Kind::Meta, &self.job.meta.encode())?,
        };
        let commit = Commit {
            generation: self.job.generation,
            written: self.job.written,
            meta,
        };
        let at = out.put(Kind::Commit, &commit.encode())?;
        out.flush()?;
        Ok((commit, at))
    }

    fn file(&mut self, n: usize, out: &mut Out<'_>) -> Result<(), WriteError> {
        let file = &self.job.files[n];
        let mut saved = SavedFile {
            source: file.source.to_string(),
            path: file.path.to_string(),
            stamp: file.stamp,
            objects: Vec::with_capacity(file.objects.len()),
        };
        for object in &file.objects {
            let spot = match &object.doc {
                Doc::Disk(spot) if !self.job.rewrite => *spot,
                doc => match doc.body(self.job.journal.as_ref()) {
                    Ok(body) => {
                        let spot = out.put(Kind::Object, &body)?;
                        self.placed.push(Placed {
                            entry: object.entry,
                            doc: doc.clone(),
                            spot,
                        });
                        spot
                    }
                    Err(ReadError::Damaged(_) | ReadError::Lost) => {
                        // The file is to be read again: only there the document may still be.
                        saved.stamp = None;
                        self.lost.push(object.entry);
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                },
            };
            let line = object.line;
            saved.objects.push(SavedObject { spot, line });
        }
        out.put(Kind::File, &saved.encode())?;
        Ok(())
    }
}

/// Records on their way to the end of a journal.
struct Out<'a> {
    journal: &'a Journal,
    tail: &'a mut Tail,
    buffer: Vec<u8>,
}

impl Out<'_> {
    fn put(&mut self, kind: Kind, body: &[u8]) -> Result<Spot, WriteError> {
        if self.buffer.len() >= BATCH {
            self.flush()?;
        }
        let identity = self.journal.identity();
        frame::put(&mut self.buffer, self.tail.end, identity, kind, body)
            .ok_or(WriteError::TooLarge)
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        self.journal.append(self.tail, &self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}
