//! A source of policy directories: reads the files that changed since the last scan.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, Mode, OFlags, fstat, open};

use super::file::{Look, Stamp, Trust, look};
use super::{FileContent, FileUpdate, refusal};
use crate::api::{self, Issue};

/// Most policy files that one directory may hold.
pub const MAX_FILES: usize = 10_000;

/// The files `*.yaml`, `*.yml` and `*.json` of some directories, not of their subdirectories.
#[derive(Debug)]
pub struct DirSource {
    dirs: Vec<PolicyDir>,
    /// Paths taken from a snapshot that no configured directory holds.
    strays: BTreeSet<String>,
    trust: Trust,
    unsettled: bool,
}

impl DirSource {
    /// A source of the files in `dirs`. Nothing is read before the first scan.
    pub fn new(dirs: Vec<PathBuf>) -> DirSource {
        let unique: BTreeSet<PathBuf> = dirs.into_iter().collect();
        DirSource {
            dirs: unique.into_iter().map(PolicyDir::new).collect(),
            strays: BTreeSet::new(),
            trust: Trust {
                uid: rustix::process::geteuid().as_raw(),
            },
            unsettled: false,
        }
    }

    /// Tells the source which files its reader already holds, from a snapshot. The next scan that can list
    /// the directory reports those that are gone as removed; so does it with files of directories no longer configured,
    /// once all that are configured can be listed.
    pub fn expect(&mut self, paths: impl IntoIterator<Item = String>) {
        for path in paths {
            let parent = Path::new(&path).parent();
            match self
                .dirs
                .iter_mut()
                .find(|d| Some(d.path.as_path()) == parent)
            {
                Some(dir) => drop(dir.files.entry(path).or_insert(None)),
                None => drop(self.strays.insert(path)),
            }
        }
    }

    /// Reads what changed since the last scan; sorted by path. Blocks on the disk.
    /// A directory that is missing or unreadable is one update, under its own path; its files then have none.
    pub fn scan(&mut self) -> Vec<FileUpdate> {
        let mut updates = Vec::new();
        self.unsettled = false;
        for dir in &mut self.dirs {
            self.unsettled |= dir.scan(self.trust, &mut updates);
        }
        // A mistyped directory must not take away what the right one held.
        if self.away().next().is_none() {
            let strays = std::mem::take(&mut self.strays);
            updates.extend(strays.into_iter().map(removed));
        }
        updates.sort_by(|a, b| a.path.cmp(&b.path));
        updates
    }

    /// The directories that the last scan could not list.
    pub fn away(&self) -> impl Iterator<Item = &Path> {
        let away = self.dirs.iter().filter(|d| d.away);
        away.map(|d| d.path.as_path())
    }

    /// Whether the last scan met a file that was being written to, so that another scan is due in about a second.
    pub fn unsettled(&self) -> bool {
        self.unsettled
    }
}

#[derive(Debug)]
struct PolicyDir {
    path: PathBuf,
    /// The files delivered so far, with the version delivered, or none if the next scan must read it whatever it finds.
    files: BTreeMap<String, Option<Stamp>>,
    /// Whether the last update told that the directory as a whole is away.
    away: bool,
}

impl PolicyDir {
    fn new(path: PathBuf) -> PolicyDir {
        PolicyDir {
            path,
            files: BTreeMap::new(),
            away: false,
        }
    }

    /// Returns whether a file was being written to.
    fn scan(&mut self, trust: Trust, updates: &mut Vec<FileUpdate>) -> bool {
        let dir_path = self.path.display().to_string();
        let (dir, names) = match list(&self.path, &dir_path, trust) {
            Ok(listing) => listing,
            Err(issue) => {
                self.away = true;
                updates.push(unreadable(dir_path, *issue));
                return false;
            }
        };
        if std::mem::take(&mut self.away) {
            updates.push(removed(dir_path));
        }
        let mut busy = false;
        let mut gone: BTreeSet<String> = self.files.keys().cloned().collect();
        for name in names {
            let path = self.path.join(&*name).display().to_string();
            let known = self.files.get(&path).copied().flatten();
            let seen = match name {
                Name::Text(name) => look(&dir, &name, &path, known, trust),
                Name::NotUtf8(_) => Look::Failed(misnamed(&path)),
            };
            busy |= matches!(seen, Look::Busy(_));
            if !matches!(seen, Look::Gone) {
                gone.remove(&path);
            }
            self.deliver(path, known, seen, updates);
        }
        for path in gone {
            self.files.remove(&path);
            updates.push(removed(path));
        }
        busy
    }

    fn deliver(
        &mut self,
        path: String,
        known: Option<Stamp>,
        seen: Look,
        updates: &mut Vec<FileUpdate>,
    ) {
        let (stamp, content) = match seen {
            Look::Unchanged | Look::Gone => return,
            Look::Read(stamp, bytes) => (
                Some(stamp),
                FileContent::Parsed(api::parse_bytes(&path, &bytes)),
            ),
            Look::Refused(stamp, issue) => (Some(stamp), FileContent::Unreadable(issue)),
            Look::Failed(issue) => (None, FileContent::Unreadable(issue)),
            // The old stamp stays: it is what tells an emptied file from one that was always empty.
            Look::Busy(issue) => (known, FileContent::Unreadable(issue)),
        };
        self.files.insert(path.clone(), stamp);
        updates.push(FileUpdate { path, content });
    }
}

/// A file name; one that is not UTF-8 is only good for a message.
enum Name {
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

fn misnamed(path: &str) -> Issue {
    refusal(path, "has a name that is not UTF-8".to_owned(), "rename it")
}

fn unreadable(path: String, issue: Issue) -> FileUpdate {
    FileUpdate {
        path,
        content: FileContent::Unreadable(issue),
    }
}

fn removed(path: String) -> FileUpdate {
    FileUpdate {
        path,
        content: FileContent::Removed,
    }
}

/// Opens a directory and lists its policy files. Later reads go through the open directory,
/// so that a scan sees one directory even when another is moved into its place meanwhile.
fn list(path: &Path, shown: &str, trust: Trust) -> Result<(OwnedFd, Vec<Name>), Box<Issue>> {
    let keeps =
        "what was last read from it stays in force; restore it, or remove it from the settings";
    let unreadable = |e| {
        let message = format!("cannot be read as a directory: {}", std::io::Error::from(e));
        Box::new(refusal(shown, message, keeps))
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let dir = open(path, flags, Mode::empty()).map_err(unreadable)?;
    if let Some(issue) = trust.doubt(&fstat(&dir).map_err(unreadable)?, shown) {
        return Err(Box::new(issue));
    }
    let mut names = Vec::new();
    for entry in Dir::read_from(&dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
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
    Ok((dir, names))
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

#[cfg(test)]
mod tests;
