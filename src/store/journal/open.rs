//! Finding the journal that counts: the newest that can be read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fstat, open as open_file};
use rustix::io::Errno;

use super::codec::{self, Take};
use super::frame::Kind;
use super::record::{Commit, Meta};
use super::scan::{self, End, Saved, Step, Window};
use super::{
    CURRENT, FORMAT, HEADER, Journal, MAGIC, MAX_BYTES, NEW, PREVIOUS, Spot, Tail, WriteError,
    failed, header, unless_missing,
};

/// What a state directory holds.
#[derive(Debug)]
pub struct Opened {
    /// The state of the newest commit that can be read.
    pub saved: Option<Saved>,
    /// The journal it is in, or a new one; none if none can be made.
    pub journal: Option<Journal>,
    /// A message for each file that is there and cannot be used, or only in part.
    pub messages: Vec<String>,
}

/// Opens the journal of a state directory; makes an empty one, without a name yet, where there is none.
pub fn open(dir: &Path) -> Opened {
    let mut messages = Vec::new();
    for name in [CURRENT, PREVIOUS] {
        let path = dir.join(name);
        match load(dir, name, &mut messages) {
            Ok(Some((journal, saved))) => {
                return Opened {
                    saved: Some(saved),
                    journal: Some(journal),
                    messages,
                };
            }
            Ok(None) => {}
            Err(reason) => messages.push(format!("{} is skipped: {reason}", path.display())),
        }
    }
    // A failure shows at the first save, which tries again.
    let journal = Journal::create(dir).ok();
    Opened {
        saved: None,
        journal,
        messages,
    }
}

/// `None` if there is no such file.
fn load(
    dir: &Path,
    name: &str,
    messages: &mut Vec<String>,
) -> Result<Option<(Journal, Saved)>, String> {
    let path = dir.join(name);
    let Some((file, size, writable)) = open_trusted(&path)? else {
        return Ok(None);
    };
    let identity = read_header(&file)?;
    let read = scan::scan(&file, identity, size).map_err(|e| e.to_string())?;
    let (saved, end) = match read {
        (Some(saved), end) => (saved, end),
        (None, End::Clean) => return Err("nothing in it is complete".to_owned()),
        (None, End::Damaged(at)) => return Err(format!("it is damaged at byte {at}")),
    };
    let rest = size - saved.at.end();
    let what = match end {
        End::Damaged(at) => Some(format!("is damaged at byte {at}")),
        End::Clean if rest > 0 => Some(format!("ends with {rest} bytes of an unfinished save")),
        End::Clean => None,
    };
    if let Some(what) = what {
        messages.push(format!(
            "{} {what}: generation {}, which is complete before that, is used",
            path.display(),
            saved.commit.generation
        ));
    }
    // One that is not whole is left as it is and replaced by the next save.
    let whole = name == CURRENT && end == End::Clean;
    let mut tail = Tail {
        end: saved.at.end(),
        published: whole,
        sound: writable && whole,
    };
    if tail.sound && size > tail.end {
        tail.sound = file.set_len(tail.end).is_ok();
    }
    Ok(Some((Journal::of(dir, file, identity, tail), saved)))
}

/// What tells one commit from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitId {
    identity: u64,
    at: Spot,
    /// Generation of the host policy that was in force.
    pub generation: u64,
}

impl CommitId {
    /// The commit of a journal whose record is there.
    pub fn new(journal: &Journal, at: Spot, generation: u64) -> CommitId {
        CommitId {
            identity: journal.identity(),
            at,
            generation,
        }
    }

    /// Appends it to other bytes.
    pub fn put(self, out: &mut Vec<u8>) {
        codec::put(out, self.identity);
        self.at.put(out);
        codec::put(out, self.generation);
    }

    /// Takes what [`CommitId::put`] put.
    pub fn take(take: &mut Take<'_>) -> Option<CommitId> {
        Some(CommitId {
            identity: take.number()?,
            at: Spot::take(take)?,
            generation: take.number()?,
        })
    }
}

/// Whether every record of the journal that counts can be read.
pub fn is_whole(dir: &Path) -> bool {
    let whole = || -> Option<bool> {
        let (file, size, _) = open_trusted(&dir.join(CURRENT)).ok()??;
        let identity = read_header(&file).ok()?;
        let (_, end) = scan::scan(&file, identity, size).ok()?;
        Some(end == End::Clean)
    };
    whole().unwrap_or(false)
}

/// The journal that counts and its meta record, if its last commit is this one; what is before that is not read.
pub fn open_at(dir: &Path, commit: &CommitId) -> Option<(Journal, Meta)> {
    let (file, size, _) = open_trusted(&dir.join(CURRENT)).ok()??;
    let identity = read_header(&file).ok()?;
    if identity != commit.identity {
        return None;
    }
    let mut window = Window::new(&file);
    let mut found = None;
    let mut offset = commit.at.offset();
    while let Step::Record(spot) = scan::next(
        &mut window,
        identity,
        offset,
        size,
        &mut |kind, body, spot| {
            if kind == Kind::Commit {
                found = Some((Commit::decode(body)?, spot));
            }
            Some(())
        },
    )
    .ok()?
    {
        offset = spot.end();
    }
    let (last, at) = found?;
    if at != commit.at || last.generation != commit.generation {
        return None;
    }
    let meta = scan::meta(&mut window, identity, last.meta).ok()??;
    // Only to be read from.
    let tail = Tail {
        end: commit.at.end(),
        published: true,
        sound: false,
    };
    Some((Journal::of(dir, file, identity, tail), meta))
}

/// The first line of a journal of this format; its identity.
pub fn read_header(file: &File) -> Result<u64, String> {
    let strange = || "it does not begin as a snapshot does".to_owned();
    let mut bytes = [0; HEADER];
    file.read_exact_at(&mut bytes, 0).map_err(|_| strange())?;
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| strange())?;
    let mut fields = line.split(' ');
    if fields.next() != Some(MAGIC) {
        return Err(strange());
    }
    match fields.next() {
        Some(FORMAT) => {}
        Some(format) => {
            return Err(format!(
                "it has format {format:?}, this version of moat reads format {FORMAT}"
            ));
        }
        None => return Err(strange()),
    }
    let identity = fields.next().and_then(|f| u64::from_str_radix(f, 16).ok());
    let identity = identity.ok_or_else(strange)?;
    if header(identity).as_bytes() != bytes {
        return Err("its first line is damaged".to_owned());
    }
    Ok(identity)
}

/// A file that nobody but root or us can have written, its size, and whether it can be written to.
/// `None` if there is none.
pub fn open_trusted(path: &Path) -> Result<Option<(File, u64, bool)>, String> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let (file, writable) = match open_file(path, flags | OFlags::RDWR, Mode::empty()) {
        Ok(file) => (file, true),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err("it is a symbolic link".to_owned()),
        // Read-only, or not a regular file.
        Err(_) => match open_file(path, flags | OFlags::RDONLY, Mode::empty()) {
            Ok(file) => (file, false),
            Err(e) => return Err(io::Error::from(e).to_string()),
        },
    };
    let stat = fstat(&file).map_err(|e| io::Error::from(e).to_string())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err("it is not a regular file".to_owned());
    }
    if stat.st_mode & 0o002 != 0 {
        return Err("it is writable by everyone".to_owned());
    }
    if stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(format!("it is owned by uid {}", stat.st_uid));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if size > MAX_BYTES {
        return Err(format!("it has {size} bytes, at most {MAX_BYTES} are read"));
    }
    Ok(Some((File::from(file), size, writable)))
}

/// Gives the new journal the name of the one that counts; that one becomes the previous one if it is worth keeping.
pub fn publish(dir: &Path, keep: bool) -> Result<(), WriteError> {
    let (new, current, previous) = (dir.join(NEW), dir.join(CURRENT), dir.join(PREVIOUS));
    if keep {
        // By a second name, so that no moment is without a journal.
        unless_missing(std::fs::remove_file(&previous))
            .and_then(|()| unless_missing(std::fs::hard_link(&current, &previous)))
            .map_err(failed("keep", &current))?;
    }
    std::fs::rename(&new, &current).map_err(failed("rename", &new))?;
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(failed("flush", dir))
}
