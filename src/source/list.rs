//! Opens and lists policy directories: which files are in them, and in which versions.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, Mode, OFlags, fstat, open};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::file::{self, Stamp, Trust};
use super::refusal;
use crate::api::Issue;

/// Most policy files that one directory may hold.
pub const MAX_FILES: usize = 10_000;

/// What [`super::DirSource::digests`] would tell after a scan of these directories, without reading any file.
pub fn survey(dirs: &[PathBuf]) -> Vec<(String, Option<DirDigest>)> {
    let dirs: BTreeSet<&PathBuf> = dirs.iter().collect();
    let one = |path: &Path| {
        let shown = path.display().to_string();
        let listing = list(path, &shown, Trust::own()).ok();
        let digest = listing.map(|listing| {
            let stamp = |name: &Name| match name {
                Name::Text(name) => file::stamp(&listing.dir, name),
                Name::NotUtf8(_) => None,
            };
            digest(listing.names.iter().map(|name| (&**name, stamp(name))))
        });
        (shown, digest)
    };
    dirs.into_iter().map(|path| one(path)).collect()
}

/// What the names and versions of a directory's files come to.
pub type DirDigest = [u8; 32];

pub(super) fn digest<'a>(files: impl Iterator<Item = (&'a str, Option<Stamp>)>) -> DirDigest {
    let mut hasher = Sha256::new();
    for (name, stamp) in files {
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name);
        for word in stamp.map(|s| s.to_words()).unwrap_or_default() {
            hasher.update(word.to_le_bytes());
        }
    }
    hasher.finalize().into()
}

/// Whether a directory could be listed, and which one it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Not looked at yet.
    Never,
    /// The last update told that the directory as a whole is away.
    Away,
    /// Its device and inode.
    There(u64, u64),
}

/// A file name; one that is not UTF-8 is only good for a message.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Text(String),
    NotUtf8(String),
}

impl std::ops::Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Name::Text(name) | Name::NotUtf8(name) => name,
        }
    }
}

/// A directory that is open, and its policy files.
pub(super) struct Listing {
    pub(super) dir: OwnedFd,
    pub(super) seen: Seen,
    /// Sorted.
    pub(super) names: Vec<Name>,
}

/// What is said of a directory that cannot be read.
fn no_directory(shown: &str) -> impl Fn(Errno) -> Box<Issue> {
    move |e| {
        let message = format!("cannot be read as a directory: {}", std::io::Error::from(e));
        let keeps =
            "what was last read from it stays in force; restore it, or remove it from the settings";
        Box::new(refusal(shown, message, keeps))
    }
}

/// Opens a directory. Later reads go through the open directory,
/// so that a scan sees one directory even when another is moved into its place meanwhile.
#[allow(
    clippy::unnecessary_cast,
    reason = "the field types differ between architectures"
)]
pub(super) fn open_dir(
    path: &Path,
    shown: &str,
    trust: Trust,
) -> Result<(OwnedFd, Seen), Box<Issue>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let dir = open(path, flags, Mode::empty()).map_err(no_directory(shown))?;
    let stat = fstat(&dir).map_err(no_directory(shown))?;
    if let Some(issue) = trust.doubt(&stat, shown) {
        return Err(Box::new(issue));
    }
    let seen = Seen::There(stat.st_dev as u64, stat.st_ino as u64);
    Ok((dir, seen))
}

/// Opens a directory and lists its policy files.
pub(super) fn list(path: &Path, shown: &str, trust: Trust) -> Result<Listing, Box<Issue>> {
    let (dir, seen) = open_dir(path, shown, trust)?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&dir).map_err(no_directory(shown))? {
        let entry = entry.map_err(no_directory(shown))?;
        let name = match entry.file_name().to_str() {
            Ok(name) => Name::Text(name.to_owned()),
            Err(_) => Name::NotUtf8(entry.file_name().to_string_lossy().into_owned()),
        };
        if is_policy_file(&name) {
            names.push(name);
        }
        if names.len() > MAX_FILES {
            let message = format!("holds more than {MAX_FILES} policy files");
            let help = "put several objects into one file";
            return Err(Box::new(refusal(shown, message, help)));
        }
    }
    names.sort_unstable();
    Ok(Listing { dir, seen, names })
}

/// Whether a name is one of ours: by its ending, which what editors and package managers leave behind
/// (`x.yaml~`, `x.yaml.swp`, `x.yaml.dpkg-old`) does not have; hidden files and `#x.yaml` are theirs too.
pub fn is_policy_file(name: &str) -> bool {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    !name.starts_with(['.', '#'])
        && ["yaml", "yml", "json"]
            .iter()
            .any(|e| ending.eq_ignore_ascii_case(e))
}
