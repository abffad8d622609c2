//! The snapshot on disk: a journal of documents, of what is in which file, and of commits.
//!
//! One line `moat-snapshot 2 IDENTITY CRC32`, then records. What is behind the last whole commit does not count, so that a crash
//! at any moment leaves the state of some commit. Records are only ever appended; a journal with too much of the past in it is
//! replaced by a new one, `snapshot.new`, which takes its place by a rename. The one before is kept as `snapshot.prev`.

pub mod codec;
mod frame;
mod open;
mod record;
mod save;
mod scan;

pub use open::{CommitId, Opened, is_whole, open, open_at, open_trusted};
pub use record::{Commit, Meta, SavedFile, SavedObject};
pub use save::{Done, FileOut, Job, ObjectOut, Placed};
pub use scan::{Peek, Saved};

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::frame::{HEAD, Kind};

/// Largest journal, in bytes.
pub const MAX_BYTES: u64 = 2 << 30;
/// Largest record, in bytes: the largest document of the largest file, and some.
const MAX_RECORD: usize = 64 << 20;
/// The journal that counts.
const CURRENT: &str = "snapshot";
/// The one before.
const PREVIOUS: &str = "snapshot.prev";
/// One that is being written and has no commit yet.
const NEW: &str = "snapshot.new";
const MAGIC: &str = "moat-snapshot";
const FORMAT: &str = "2";

/// Where a record is: eight bytes, because there is one for each object in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    offset: u32,
    length: u32,
}

impl Spot {
    /// `None` if it cannot be in a journal.
    fn new(offset: u64, length: u64) -> Option<Spot> {
        let end = offset.checked_add(length)?;
        let spot = Spot {
            offset: u32::try_from(offset).ok()?,
            length: u32::try_from(length).ok()?,
        };
        (length > HEAD as u64 && end <= MAX_BYTES).then_some(spot)
    }

    fn offset(self) -> u64 {
        self.offset.into()
    }

    /// Appends it to other bytes.
    pub fn put(self, out: &mut Vec<u8>) {
        codec::put(out, self.offset());
        codec::put(out, self.length());
    }

    /// Takes what [`Spot::put`] put.
    pub fn take(take: &mut codec::Take<'_>) -> Option<Spot> {
        Spot::new(take.number()?, take.number()?)
    }

    /// Bytes that the record takes.
    pub fn length(self) -> u64 {
        self.length.into()
    }

    /// The first byte behind it.
    pub fn end(self) -> u64 {
        self.offset() + self.length()
    }
}

/// Why the journal could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file operation failed.
    #[error("cannot {what} {path}")]
    Io {
        /// The operation.
        what: &'static str,
        /// The file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// It would become too large to be read again.
    #[error(
        "the snapshot would have more than {MAX_BYTES} bytes, or an object more than {MAX_RECORD}"
    )]
    TooLarge,
    /// A document that was saved cannot be read any more.
    #[error("cannot copy a document of the snapshot")]
    Copy(#[from] ReadError),
}

/// Why a document cannot be had back from the journal.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The read failed.
    #[error("the snapshot cannot be read")]
    Io(#[from] io::Error),
    /// What is there is not what was written.
    #[error("the snapshot is damaged at byte {0}")]
    Damaged(u64),
    /// It was found damaged before.
    #[error("the snapshot was damaged")]
    Lost,
}

/// An open journal. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    file: File,
    identity: u64,
    tail: Mutex<Tail>,
}

#[derive(Debug)]
struct Tail {
    /// End of the last whole record.
    end: u64,
    /// Whether it is whole and has the name of the journal that counts: then it is worth keeping when another takes its place.
    published: bool,
    /// Whether it can be appended to.
    sound: bool,
}

impl Journal {
    /// An empty journal under the name of an unfinished one, in the place of any that is there.
    fn create(dir: &Path) -> Result<Journal, WriteError> {
        let path = dir.join(NEW);
        unless_missing(fs::remove_file(&path)).map_err(failed("remove the unfinished", &path))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("create", &path))?;
        let identity = rand_identity();
        let header = header(identity);
        file.write_all_at(header.as_bytes(), 0)
            .map_err(failed("write", &path))?;
        let tail = Tail {
            end: header.len() as u64,
            published: false,
            sound: true,
        };
        Ok(Journal::of(dir, file, identity, tail))
    }

    fn of(dir: &Path, file: File, identity: u64, tail: Tail) -> Journal {
        Journal(Arc::new(Inner {
            dir: dir.to_owned(),
            file,
            identity,
            tail: Mutex::new(tail),
        }))
    }

    /// A number that no other journal has.
    pub fn identity(&self) -> u64 {
        self.0.identity
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.tail().end
    }

    /// Whether it can be appended to; else the next save makes a new one.
    pub fn is_sound(&self) -> bool {
        self.tail().sound
    }

    /// The body of an object's record.
    ///
    /// # Errors
    /// It cannot be read, or is not what was written.
    pub fn document(&self, spot: Spot) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; spot.length as usize];
        self.0.file.read_exact_at(&mut bytes, spot.offset())?;
        self.check(spot, &bytes)?;
        bytes.drain(..=HEAD);
        Ok(bytes)
    }

    /// The body of an object's record in the bytes of the record.
    fn check<'a>(&self, spot: Spot, bytes: &'a [u8]) -> Result<&'a [u8], ReadError> {
        let opened = bytes.split_first_chunk().and_then(|(head, record)| {
            let (length, check) = frame::head(*head)?;
            (length == record.len()).then_some(())?;
            frame::open(self.0.identity, record, check)
        });
        match opened {
            Some((Kind::Object, body)) => Ok(body),
            _ => Err(ReadError::Damaged(spot.offset())),
        }
    }

    /// Appends documents without a commit; says where they are. Nothing is waited for but the write itself.
    ///
    /// # Errors
    /// Nothing was appended.
    pub fn spill(&self, documents: &[Arc<[u8]>]) -> Result<Vec<Spot>, WriteError> {
        let mut tail = self.tail();
        let mut buffer = Vec::new();
        let spots = documents.iter().map(|body| {
            frame::put(&mut buffer, tail.end, self.0.identity, Kind::Object, body)
                .ok_or(WriteError::TooLarge)
        });
        let spots = spots.collect::<Result<Vec<Spot>, _>>()?;
        self.append(&mut tail, &buffer)?;
        Ok(spots)
    }

    /// Writes at the end. What was written in part is taken back.
    fn append(&self, tail: &mut Tail, bytes: &[u8]) -> Result<(), WriteError> {
        let written = self.0.file.write_all_at(bytes, tail.end);
        if let Err(error) = written {
            self.cut(tail);
            return Err(self.failed("write")(error));
        }
        tail.end += bytes.len() as u64;
        Ok(())
    }

    /// Takes back what is behind the end.
    fn cut(&self, tail: &mut Tail) {
        tail.sound &= self.0.file.set_len(tail.end).is_ok();
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        // The tail is changed after what it tells of was done, so it is right even when a holder panicked.
        self.0.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> WriteError + use<> {
        failed(what, &self.0.dir.join(CURRENT))
    }
}

/// The first line.
fn header(identity: u64) -> String {
    let text = format!("{MAGIC} {FORMAT} {identity:016x}");
    format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()))
}

/// Bytes of the first line.
const HEADER: usize = MAGIC.len() + FORMAT.len() + 16 + 8 + 4;

/// The standard library seeds its hash maps with random numbers of the kernel.
fn rand_identity() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WriteError + use<> {
    let path = path.display().to_string();
    move |source| WriteError::Io { what, path, source }
}

fn unless_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
