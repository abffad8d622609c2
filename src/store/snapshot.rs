//! The snapshot: the last good state on disk, for boot and for outages of a source.
//!
//! Two files in the state directory, the newest and the one before. Each is one line
//! `moat-snapshot VERSION LENGTH CRC32` and a JSON document of that many bytes. Whatever does not look exactly so is skipped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use serde::{Deserialize, Serialize};

use super::SavedStore;

/// Largest snapshot that is written or read, in bytes.
pub const MAX_BYTES: u64 = 1 << 30;

const VERSION: &str = "1";
const MAGIC: &str = "moat-snapshot";
/// Longest header line, with its end.
const MAX_HEADER: usize = 64;
const CURRENT: &str = "snapshot";
const PREVIOUS: &str = "snapshot.prev";
const NEW: &str = "snapshot.new";

/// A consistent state of the host's policy and how it was come by.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// Generation of the host policy that was in force.
    pub generation: u64,
    /// When it was written, in seconds since 1970.
    pub written: u64,
    /// Name of the node it was written for.
    pub node: String,
    /// The settings in effect.
    pub settings: serde_json::Value,
    /// All resources.
    pub store: SavedStore,
    /// The dataplane backend in use, if one was chosen.
    pub backend: Option<String>,
}

/// Why no snapshot was written.
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
    /// The state has no JSON form.
    #[error("cannot encode the snapshot")]
    Encode(#[from] serde_json::Error),
    /// It is too large to be read again.
    #[error("the snapshot would have {0} bytes, at most {MAX_BYTES} are possible")]
    TooLarge(u64),
}

/// Replaces the snapshot in `dir`; the old one becomes `snapshot.prev`. At every moment, also after a crash, at least
/// one complete snapshot is there, if one was there before. For one writer at a time.
///
/// # Errors
/// The operation that failed. The snapshots that were there are still readable.
pub fn write(dir: &Path, snapshot: &Snapshot) -> Result<(), WriteError> {
    let payload = serde_json::to_vec(snapshot)?;
    if payload.len() as u64 > MAX_BYTES - MAX_HEADER as u64 {
        return Err(WriteError::TooLarge(payload.len() as u64));
    }
    let (new, current, previous) = (dir.join(NEW), dir.join(CURRENT), dir.join(PREVIOUS));
    unless_missing(fs::remove_file(&new)).map_err(failed("remove the unfinished", &new))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(failed("create", &new))?;
    file.write_all(header(&payload).as_bytes())
        .and_then(|()| file.write_all(&payload))
        .and_then(|()| file.sync_all())
        .map_err(failed("write", &new))?;
    unless_missing(fs::rename(&current, &previous)).map_err(failed("rename", &current))?;
    fs::rename(&new, &current).map_err(failed("rename", &new))?;
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(failed("flush", dir))
}

fn header(payload: &[u8]) -> String {
    format!(
        "{MAGIC} {VERSION} {} {:08x}\n",
        payload.len(),
        crc32fast::hash(payload)
    )
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WriteError {
    let path = path.display().to_string();
    move |source| WriteError::Io { what, path, source }
}

fn unless_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The newest readable snapshot in `dir`, and a message for each file that is there and cannot be used.
pub fn read(dir: &Path) -> (Option<Snapshot>, Vec<String>) {
    let mut messages = Vec::new();
    for name in [CURRENT, PREVIOUS] {
        let path = dir.join(name);
        match read_file(&path) {
            Ok(Some(snapshot)) => return (Some(snapshot), messages),
            Ok(None) => {}
            Err(reason) => messages.push(format!("{} is skipped: {reason}", path.display())),
        }
    }
    (None, messages)
}

/// `None` if there is no such file.
fn read_file(path: &Path) -> Result<Option<Snapshot>, String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(rustix::io::Errno::LOOP) => return Err("it is a symbolic link".to_owned()),
        Err(e) => return Err(io::Error::from(e).to_string()),
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
    if u64::try_from(stat.st_size).is_ok_and(|size| size > MAX_BYTES) {
        return Err(format!(
            "it has {} bytes, at most {MAX_BYTES} are read",
            stat.st_size
        ));
    }
    let mut bytes = Vec::new();
    File::from(file)
        .take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    decode(&bytes).map(Some)
}

fn decode(bytes: &[u8]) -> Result<Snapshot, String> {
    let head = &bytes[..bytes.len().min(MAX_HEADER)];
    let end = head
        .iter()
        .position(|b| *b == b'\n')
        .ok_or("it does not begin as a snapshot does")?;
    let line =
        std::str::from_utf8(&head[..end]).map_err(|_| "it does not begin as a snapshot does")?;
    let payload = &bytes[end + 1..];
    let fields: Vec<&str> = line.split(' ').collect();
    let [MAGIC, version, length, _] = fields[..] else {
        return Err("it does not begin as a snapshot does".to_owned());
    };
    if version != VERSION {
        return Err(format!(
            "it has format {version:?}, this version of moat reads format {VERSION}"
        ));
    }
    if length.parse() != Ok(payload.len()) {
        return Err(format!(
            "it has {} bytes after its first line, which says {length:?}",
            payload.len()
        ));
    }
    if bytes[..=end] != *header(payload).as_bytes() {
        return Err("its checksum does not fit its content".to_owned());
    }
    serde_json::from_slice(payload).map_err(|e| format!("its content is not a snapshot's: {e}"))
}

#[cfg(test)]
mod tests;
