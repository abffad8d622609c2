//! Reads one file of a policy directory: who may have written it, whether it changed, and its bytes.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

use sha2::{Digest, Sha256};

use super::refusal;
use crate::api::Issue;

/// Largest file that is read, in bytes: as much as can be parsed.
pub const MAX_FILE_BYTES: u64 = crate::api::yaml::MAX_BYTES as u64;

/// A file emptied less than this ago may be half way through a rewrite in place.
const EMPTY_GRACE: Duration = Duration::from_secs(1);

/// In the place of the device of a file: the stamp is of a value in a datastore.
const NO_DEVICE: u64 = u64::MAX;

/// What tells one version of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    #[allow(
        clippy::unnecessary_cast,
        reason = "the field types differ between architectures"
    )]
    pub(super) fn of(stat: &Stat) -> Stamp {
        Stamp {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: stat.st_size as i64,
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }

    /// How many numbers make a stamp.
    pub const WORDS: usize = 7;

    /// The stamp as numbers, to be saved.
    pub fn to_words(&self) -> [u64; Self::WORDS] {
        let (m, c) = (self.modified, self.changed);
        let times = [m.0, m.1, c.0, c.1].map(|n| n as u64);
        let [m0, m1, c0, c1] = times;
        [self.device, self.inode, self.size as u64, m0, m1, c0, c1]
    }

    /// The stamp that was saved so.
    pub fn from_words(words: [u64; Self::WORDS]) -> Stamp {
        let [device, inode, size, m0, m1, c0, c1] = words;
        Stamp {
            device,
            inode,
            size: size as i64,
            modified: (m0 as i64, m1 as i64),
            changed: (c0 as i64, c1 as i64),
        }
    }

    /// The version of a value in a datastore. The revision alone does not tell it: a restored backup uses revisions again.
    pub fn of_value(revision: i64, value: &[u8]) -> Stamp {
        let hash = Sha256::digest(value);
        let word = |at: usize| {
            hash[at..]
                .first_chunk()
                .map_or(0, |b| i64::from_le_bytes(*b))
        };
        Stamp {
            device: NO_DEVICE,
            inode: revision as u64,
            size: value.len() as i64,
            modified: (word(0), word(8)),
            changed: (word(16), word(24)),
        }
    }

    /// The revision of a value in a datastore; none for a file.
    pub fn revision(&self) -> Option<u64> {
        (self.device == NO_DEVICE).then_some(self.inode)
    }

    fn age(&self, now: SystemTime) -> Option<Duration> {
        let modified = Duration::new(
            self.modified.0.try_into().ok()?,
            self.modified.1.try_into().ok()?,
        );
        now.duration_since(SystemTime::UNIX_EPOCH + modified).ok()
    }
}

/// Whose files are trusted besides root's.
#[derive(Clone, Copy, Debug)]
pub struct Trust {
    /// The uid the program runs as.
    pub uid: u32,
}

impl Trust {
    /// Trust in what the program itself wrote.
    pub fn own() -> Trust {
        Trust {
            uid: rustix::process::geteuid().as_raw(),
        }
    }

    /// Says why a file or directory may have been written by somebody without the right to, if so.
    pub fn doubt(self, stat: &Stat, path: &str) -> Option<Issue> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let sticky_dir = kind == FileType::Directory && stat.st_mode & 0o1000 != 0;
        if stat.st_uid != 0 && stat.st_uid != self.uid {
            let message = format!(
                "is owned by uid {}, not by root or uid {}",
                stat.st_uid, self.uid
            );
            return Some(refusal(
                path,
                message,
                &format!("check what is in it, then: chown root {path}"),
            ));
        }
        if stat.st_mode & 0o002 != 0 && !sticky_dir {
            let message = format!(
                "is writable by everyone (mode {:04o})",
                stat.st_mode & 0o7777
            );
            return Some(refusal(
                path,
                message,
                &format!("check what is in it, then: chmod o-w {path}"),
            ));
        }
        None
    }
}

/// The outcome of looking at a directory entry.
#[derive(Debug)]
pub enum Look {
    /// Nothing changed since the stamp that was given.
    Unchanged,
    /// The entry went away after it was listed.
    Gone,
    /// A new version and its bytes.
    Read(Stamp, Vec<u8>),
    /// A version that must not be used; it is the same until the stamp changes.
    Refused(Stamp, Issue),
    /// It could not be read this time; worth another try.
    Failed(Issue),
    /// Somebody is writing to it: to be read again soon.
    Busy(Issue),
}

/// Looks at the entry `name` of a directory and reads it if it differs from `known`.
/// `path` is the name it has in messages. Follows symbolic links and never blocks on a pipe or device.
pub fn look(dir: &OwnedFd, name: &str, path: &str, known: Option<Stamp>, trust: Trust) -> Look {
    let stat = match statat(dir, name, AtFlags::empty()) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return absent(dir, name, path),
        Err(e) => return failed(path, e),
    };
    let stamp = Stamp::of(&stat);
    if known == Some(stamp) {
        return Look::Unchanged;
    }
    if let Some(issue) = unfit(&stat, path, trust) {
        return Look::Refused(stamp, issue);
    }
    let just_emptied = stamp.size == 0
        && known.is_some_and(|k| k.size > 0)
        && stamp
            .age(SystemTime::now())
            .is_some_and(|age| age < EMPTY_GRACE);
    if just_emptied {
        return busy(path);
    }
    read(dir, name, path, trust)
}

/// What tells the version that is there now, if anything is.
pub fn stamp(dir: &OwnedFd, name: &str) -> Option<Stamp> {
    let stat = statat(dir, name, AtFlags::empty()).ok()?;
    Some(Stamp::of(&stat))
}

/// An entry that was listed and is not found: removed since, or a symbolic link to nothing.
fn absent(dir: &OwnedFd, name: &str, path: &str) -> Look {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Look::Gone,
        _ => Look::Failed(refusal(
            path,
            "is a symbolic link to a file that does not exist".to_owned(),
            "restore the target, or remove the link to remove what was read through it",
        )),
    }
}

fn read(dir: &OwnedFd, name: &str, path: &str, trust: Trust) -> Look {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let (file, before) =
        match openat(dir, name, flags, Mode::empty()).and_then(|f| fstat(&f).map(|s| (f, s))) {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return absent(dir, name, path),
            Err(e) => return failed(path, e),
        };
    // The checks again, on what was really opened.
    if let Some(issue) = unfit(&before, path, trust) {
        return Look::Refused(Stamp::of(&before), issue);
    }
    let mut file = File::from(file);
    let mut bytes = Vec::new();
    if let Err(e) = file
        .by_ref()
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
    {
        return failed(path, e);
    }
    match fstat(&file) {
        Ok(after) if Stamp::of(&after) == Stamp::of(&before) => {
            Look::Read(Stamp::of(&before), bytes)
        }
        Ok(_) => busy(path),
        Err(e) => failed(path, e),
    }
}

fn unfit(stat: &Stat, path: &str, trust: Trust) -> Option<Issue> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Some(refusal(
            path,
            "is not a regular file".to_owned(),
            "remove it or give it another ending",
        ));
    }
    if let Some(issue) = trust.doubt(stat, path) {
        return Some(issue);
    }
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    (size > MAX_FILE_BYTES).then(|| {
        let message = format!("has {size} bytes, at most {MAX_FILE_BYTES} are read");
        refusal(path, message, "split it into several files")
    })
}

fn failed(path: &str, error: impl Into<std::io::Error>) -> Look {
    let message = format!("cannot be read: {}", error.into());
    Look::Failed(refusal(
        path,
        message,
        "what was last read from it stays in force",
    ))
}

fn busy(path: &str) -> Look {
    Look::Busy(being_written(path))
}

/// Why a file was left alone.
pub fn being_written(path: &str) -> Issue {
    refusal(
        path,
        "is being written to".to_owned(),
        "what was last read from it stays in force until the writing ends",
    )
}
