//! A source of policy directories: reads the files that changed since the last scan.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::file::{Look, Stamp, Trust, being_written, look};
use super::list::{DirDigest, MAX_FILES, Name, Seen, digest, list, open_dir};
use super::{FileContent, FileUpdate, News, refusal};
use crate::api::Issue;

/// The files `*.yaml`, `*.yml` and `*.json` of some directories, not of their subdirectories.
#[derive(Debug)]
pub struct DirSource {
    dirs: Vec<PolicyDir>,
    /// Paths taken from a snapshot that no configured directory holds.
    strays: BTreeSet<String>,
    trust: Trust,
    /// Files that somebody is writing to.
    open: BTreeSet<(PathBuf, String)>,
    unsettled: bool,
}

/// Takes updates one after the other, so that no two files are in memory at once.
pub type Updates<'a> = dyn FnMut(FileUpdate) + 'a;

impl DirSource {
    /// A source of the files in `dirs`. Nothing is read before the first scan.
    pub fn new(dirs: Vec<PathBuf>) -> DirSource {
        let unique: BTreeSet<PathBuf> = dirs.into_iter().collect();
        DirSource {
            dirs: unique.into_iter().map(PolicyDir::new).collect(),
            strays: BTreeSet::new(),
            trust: Trust::own(),
            open: BTreeSet::new(),
            unsettled: false,
        }
    }

    /// Tells the source which files its reader already holds, from a snapshot, and in which version if it holds exactly that one.
    /// The next scan says of each whether it is that version still, and does not read it then. It
    /// reports those that are gone as removed where it can list the directory; so does it with files of directories no longer
    /// configured, once all that are configured can be listed.
    pub fn expect(&mut self, held: impl IntoIterator<Item = (String, Option<Stamp>)>) {
        for (path, stamp) in held {
            let known = stamp.map_or(Known::Nothing, Known::Held);
            let (parent, name) = (Path::new(&path).parent(), Path::new(&path).file_name());
            let dir = self
                .dirs
                .iter_mut()
                .find(|d| Some(d.path.as_path()) == parent);
            match dir.zip(name) {
                Some((dir, name)) => {
                    let name = name.to_string_lossy().into_owned();
                    dir.files.entry(name).or_insert(known);
                }
                None => drop(self.strays.insert(path)),
            }
        }
    }

    /// The next scan reads this file again, whatever its version.
    pub fn forget(&mut self, path: &str) {
        for dir in &mut self.dirs {
            let known = path
                .strip_prefix(&dir.prefix())
                .and_then(|name| dir.files.get_mut(name));
            if let Some(known) = known {
                *known = Known::Nothing;
            }
        }
    }

    /// The next scan leaves these files alone, as those of which somebody has written a part.
    pub fn set_open(&mut self, files: BTreeSet<(PathBuf, String)>) {
        self.open = files;
    }

    /// Reads what changed since the last scan: first what is there, sorted by path, then what is gone. Blocks on the disk.
    /// A directory that is missing or unreadable is one update, under its own path; its files then have none.
    pub fn scan(&mut self, updates: &mut Updates<'_>) {
        self.look(None, updates);
    }

    /// Reads what changed there. The cost is that of the files named, not of all there are.
    pub fn scan_for(&mut self, news: &News, updates: &mut Updates<'_>) {
        match news {
            News::Anywhere => self.look(None, updates),
            News::Files(files) => self.look(Some(files), updates),
        }
    }

    fn look(&mut self, files: Option<&BTreeSet<(PathBuf, String)>>, updates: &mut Updates<'_>) {
        let mut round = Round {
            trust: self.trust,
            open: &self.open,
            updates,
            gone: Vec::new(),
            busy: false,
        };
        for dir in &mut self.dirs {
            match files {
                None => dir.scan(&mut round),
                Some(files) => {
                    let named = files.iter().filter(|(path, _)| *path == dir.path);
                    let names: Vec<&str> = named.map(|(_, name)| &**name).collect();
                    if !names.is_empty() {
                        dir.scan_names(&names, &mut round);
                    }
                }
            }
        }
        let (gone, busy) = (round.gone, round.busy);
        self.unsettled = busy;
        gone.into_iter().map(removed).for_each(&mut *updates);
        // A mistyped directory must not take away what the right one held.
        if files.is_none() && self.away().next().is_none() {
            let strays = std::mem::take(&mut self.strays);
            strays.into_iter().map(removed).for_each(updates);
        }
    }

    /// The directories that the last scan could not list.
    pub fn away(&self) -> impl Iterator<Item = &Path> {
        let away = self.dirs.iter().filter(|d| d.is_away());
        away.map(|d| d.path.as_path())
    }

    /// Whether the last scan met a file that was being written to, so that another scan is due in about a second.
    pub fn unsettled(&self) -> bool {
        self.unsettled
    }

    /// Every directory, and what the versions of its files come to as the last scan saw them; none for one that is away.
    pub fn digests(&self) -> Vec<(String, Option<DirDigest>)> {
        let digest = |dir: &PolicyDir| {
            let stamps = dir
                .files
                .iter()
                .map(|(name, known)| (&**name, known.stamp()));
            (!dir.is_away()).then(|| digest(stamps))
        };
        let dirs = self.dirs.iter();
        dirs.map(|dir| (dir.path.display().to_string(), digest(dir)))
            .collect()
    }
}

/// One scan.
struct Round<'a, 'b> {
    trust: Trust,
    open: &'a BTreeSet<(PathBuf, String)>,
    updates: &'a mut Updates<'b>,
    gone: Vec<String>,
    /// Whether a file was being written to.
    busy: bool,
}

/// Which version of a file was delivered.
#[derive(Clone, Copy, Debug)]
enum Known {
    /// None; or the next scan must read it whatever it finds.
    Nothing,
    /// The reader holds this one from a snapshot.
    Held(Stamp),
    /// This one.
    Told(Stamp),
}

impl Known {
    fn stamp(self) -> Option<Stamp> {
        match self {
            Known::Nothing => None,
            Known::Held(stamp) | Known::Told(stamp) => Some(stamp),
        }
    }
}

#[derive(Debug)]
struct PolicyDir {
    path: PathBuf,
    /// The files delivered so far, by name.
    files: BTreeMap<String, Known>,
    seen: Seen,
}

impl PolicyDir {
    fn new(path: PathBuf) -> PolicyDir {
        PolicyDir {
            path,
            files: BTreeMap::new(),
            seen: Seen::Never,
        }
    }

    fn is_away(&self) -> bool {
        self.seen == Seen::Away
    }

    /// What comes before a file's name in its path.
    fn prefix(&self) -> String {
        self.path.join("").display().to_string()
    }

    fn scan(&mut self, round: &mut Round<'_, '_>) {
        let shown = self.path.display().to_string();
        let listing = match list(&self.path, &shown, round.trust) {
            Ok(listing) => listing,
            Err(issue) => {
                self.seen = Seen::Away;
                return (round.updates)(unreadable(shown, *issue));
            }
        };
        if self.is_away() {
            round.gone.push(shown);
        }
        self.seen = listing.seen;
        let (prefix, before) = (self.prefix(), std::mem::take(&mut self.files));
        for name in &listing.names {
            let known = before.get(&**name).copied();
            self.look(&listing.dir, &prefix, name, known, round);
        }
        let gone = before.keys().filter(|name| !self.files.contains_key(*name));
        round
            .gone
            .extend(gone.map(|name| format!("{prefix}{name}")));
    }

    /// Looks at some files only.
    fn scan_names(&mut self, names: &[&str], round: &mut Round<'_, '_>) {
        let Ok(dir) = open_dir(&self.path, &self.prefix(), round.trust) else {
            return self.scan(round);
        };
        // Another directory in the place of the one that was listed, or one that may hold too much.
        let new = names.iter().filter(|n| !self.files.contains_key(**n));
        if self.seen != dir.1 || self.files.len() + new.count() > MAX_FILES {
            return self.scan(round);
        }
        let prefix = self.prefix();
        for name in names {
            let known = self.files.remove(*name);
            self.look(
                &dir.0,
                &prefix,
                &Name::Text((*name).to_owned()),
                known,
                round,
            );
            if known.is_some() && !self.files.contains_key(*name) {
                round.gone.push(format!("{prefix}{name}"));
            }
        }
    }

    /// Looks at one file and tells what is new; notes it unless it is gone.
    fn look(
        &mut self,
        dir: &OwnedFd,
        prefix: &str,
        name: &Name,
        known: Option<Known>,
        round: &mut Round<'_, '_>,
    ) {
        let path = format!("{prefix}{}", &**name);
        let before = known.and_then(Known::stamp);
        let is_open = |name: &str| round.open.contains(&(self.path.clone(), name.to_owned()));
        let look = match name {
            Name::Text(name) if is_open(name) => Look::Busy(being_written(&path)),
            Name::Text(name) => look(dir, name, &path, before, round.trust),
            Name::NotUtf8(_) => Look::Failed(misnamed(&path)),
        };
        round.busy |= matches!(look, Look::Busy(_));
        let (stamp, content) = match look {
            Look::Gone => return,
            Look::Unchanged => {
                let told = before.map_or(Known::Nothing, Known::Told);
                self.files.insert((**name).to_owned(), told);
                if !matches!(known, Some(Known::Held(_))) {
                    return;
                }
                return (round.updates)(FileUpdate {
                    path,
                    content: FileContent::Unchanged,
                });
            }
            Look::Read(stamp, bytes) => (Some(stamp), FileContent::Text(bytes, Some(stamp))),
            Look::Refused(stamp, issue) => (Some(stamp), FileContent::Unreadable(issue)),
            Look::Failed(issue) => (None, FileContent::Unreadable(issue)),
            // The old stamp stays: it is what tells an emptied file from one that was always empty.
            Look::Busy(issue) => (before, FileContent::Unreadable(issue)),
        };
        let told = stamp.map_or(Known::Nothing, Known::Told);
        self.files.insert((**name).to_owned(), told);
        (round.updates)(FileUpdate { path, content });
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

#[cfg(test)]
mod tests;
