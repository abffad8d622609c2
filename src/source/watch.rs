//! Tells when something changed in a set of directories, by inotify.
//!
//! A directory is reached through names: its own in its parent, those of the parents, those of symbolic links on
//! the way. Each of these names is watched too, so that a directory created later, renamed into place or switched
//! by a link is followed. So are the names on the way of
//! symbolic links from inside a directory to policy files elsewhere.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use tokio::time::{Instant, sleep_until};

use super::dir::is_policy_file;

/// A change is told when nothing happened for this long after it,
const QUIET: Duration = Duration::from_millis(100);
/// or this long after it when there is no quiet.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often a change is assumed when the kernel cannot tell.
const POLL: Duration = Duration::from_secs(1);
/// More links than this on a path are a loop, as for the kernel.
const MAX_LINKS: usize = 40;

/// Watches directories; they need not exist.
pub struct Watcher {
    dirs: Vec<PathBuf>,
    events: Option<EventStream<Vec<u8>>>,
    watches: Watches,
    problem: Option<String>,
    /// First and last event not yet told.
    pending: Option<(Instant, Instant)>,
    next_poll: Instant,
}

/// What an event must be about to count, for each watch.
type Watches = BTreeMap<WatchDescriptor, Interest>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Interest {
    Everything,
    Names(BTreeSet<OsString>),
}

impl Watcher {
    /// Starts to watch. What changes from now on is told by [`Watcher::changed`]; so scan after this.
    pub fn new(dirs: Vec<PathBuf>) -> Watcher {
        let absolute = |dir: PathBuf| std::path::absolute(&dir).unwrap_or(dir);
        let mut watcher = Watcher {
            dirs: dirs.into_iter().map(absolute).collect(),
            events: None,
            watches: Watches::new(),
            problem: None,
            pending: None,
            next_poll: Instant::now() + POLL,
        };
        watcher.rearm();
        watcher
    }

    /// Why changes are found by polling once a second instead of by notification, if they are.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Waits until something changed and things are quiet again (100 ms, at most 500 ms after the first change).
    /// Nothing is lost when the wait is cancelled.
    pub async fn changed(&mut self) {
        while self.due().is_none_or(|due| due > Instant::now()) {
            let due = self.due();
            tokio::select! {
                event = next_event(&mut self.events) => self.note(event),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
        self.pending = None;
        self.rearm();
        self.next_poll = Instant::now() + POLL;
    }

    /// When to tell, as far as is known.
    fn due(&self) -> Option<Instant> {
        let settled = self
            .pending
            .map(|(first, last)| (last + QUIET).min(first + PATIENCE));
        let poll = self.problem.is_some().then_some(self.next_poll);
        settled.into_iter().chain(poll).min()
    }

    fn note(&mut self, event: io::Result<EventOwned>) {
        match event {
            Ok(event) if !self.is_relevant(&event) => {}
            Ok(_) => {
                let now = Instant::now();
                let first = self.pending.map_or(now, |(first, _)| first);
                self.pending = Some((first, now));
            }
            Err(e) => {
                self.events = None;
                self.watches.clear();
                self.fail(format!("file notification stopped: {e}"));
            }
        }
    }

    fn is_relevant(&self, event: &EventOwned) -> bool {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            return true;
        }
        match self.watches.get(&event.wd) {
            // A watch that is no longer ours; its last events may still be in the queue.
            None => false,
            Some(Interest::Everything) => true,
            Some(Interest::Names(names)) => {
                event.name.as_ref().is_none_or(|name| names.contains(name))
            }
        }
    }

    fn fail(&mut self, problem: String) {
        self.problem = Some(format!(
            "{problem}; looking for changes once a second instead"
        ));
    }

    /// Makes the watches fit the directories as they are now.
    fn rearm(&mut self) {
        self.problem = None;
        // A directory switched while its watches are set needs another round; one that never rests gets a poll.
        for _ in 0..4 {
            let before = self.plan();
            if let Err(problem) = self.arm(&before) {
                return self.fail(problem);
            }
            if self.plan() == before {
                return;
            }
        }
        self.fail("the policy directories are moving".to_owned());
    }

    fn plan(&self) -> BTreeMap<PathBuf, Interest> {
        let mut plan = BTreeMap::new();
        for dir in &self.dirs {
            let (steps, end) = resolve(dir);
            follow(&mut plan, steps);
            for link in linked_files(&end) {
                follow(&mut plan, resolve(&link).0);
            }
            plan.insert(end, Interest::Everything);
        }
        plan
    }

    fn arm(&mut self, plan: &BTreeMap<PathBuf, Interest>) -> Result<(), String> {
        if self.events.is_none() {
            let stream = Inotify::init().and_then(|i| i.into_event_stream(vec![0; 16 << 10]));
            self.events = Some(
                stream.map_err(|e| format!("file notification is not available: {}", hint(&e)))?,
            );
        }
        let Some(events) = &self.events else {
            return Ok(());
        };
        let mut kernel = events.watches();
        let mut wanted = Watches::new();
        let mut failure = None;
        for (path, interest) in plan {
            match kernel.add(path, mask()) {
                Ok(wd) => merge(&mut wanted, wd, interest),
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(e) => {
                    failure = Some(format!(
                        "{} cannot be watched: {}",
                        path.display(),
                        hint(&e)
                    ))
                }
            }
        }
        for (wd, _) in std::mem::take(&mut self.watches) {
            if !wanted.contains_key(&wd) {
                // Fails when the directory is gone, and the watch with it.
                let _ = kernel.remove(wd);
            }
        }
        self.watches = wanted;
        failure.map_or(Ok(()), Err)
    }
}

/// Adds names to be watched in their directories.
fn follow(plan: &mut BTreeMap<PathBuf, Interest>, steps: Vec<(PathBuf, OsString)>) {
    for (parent, name) in steps {
        let names = plan
            .entry(parent)
            .or_insert_with(|| Interest::Names(BTreeSet::new()));
        if let Interest::Names(names) = names {
            names.insert(name);
        }
    }
}

/// The policy files of a directory that are symbolic links; none when it cannot be listed, which the scan reports.
fn linked_files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let is_link = |e: &std::fs::DirEntry| {
        is_policy_file(&e.file_name().to_string_lossy())
            && e.file_type().is_ok_and(|t| t.is_symlink())
    };
    entries.filter(is_link).map(|e| e.path()).collect()
}

/// Never resolves without a stream.
async fn next_event(events: &mut Option<EventStream<Vec<u8>>>) -> io::Result<EventOwned> {
    match events {
        Some(stream) => stream
            .next()
            .await
            .unwrap_or_else(|| Err(ErrorKind::UnexpectedEof.into())),
        None => std::future::pending().await,
    }
}

/// One mask for all watches, because two paths may lead to the same directory, which has one watch.
fn mask() -> WatchMask {
    WatchMask::CREATE
        | WatchMask::MOVE
        | WatchMask::DELETE
        | WatchMask::MODIFY
        | WatchMask::CLOSE_WRITE
        | WatchMask::ATTRIB
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR
}

fn merge(watches: &mut Watches, wd: WatchDescriptor, interest: &Interest) {
    let known = watches.entry(wd).or_insert_with(|| interest.clone());
    match (known, interest) {
        (Interest::Names(known), Interest::Names(more)) => known.extend(more.iter().cloned()),
        (known, Interest::Everything) => *known = Interest::Everything,
        (Interest::Everything, _) => {}
    }
}

fn hint(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::StorageFull => format!("{error} (raise the sysctl fs.inotify.max_user_watches)"),
        _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            format!("{error} (raise the sysctl fs.inotify.max_user_instances)")
        }
        _ => error.to_string(),
    }
}

/// Walks an absolute path as the kernel would: the (directory, name) pairs it looks up, and where it ends.
/// Missing parts are taken for ordinary directories.
fn resolve(path: &Path) -> (Vec<(PathBuf, OsString)>, PathBuf) {
    let mut rest: VecDeque<OsString> = path.iter().map(OsStr::to_owned).collect();
    let mut at = PathBuf::from("/");
    let mut steps = Vec::new();
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => at = PathBuf::from("/"),
            Some(Component::ParentDir) => drop(at.pop()),
            Some(Component::Normal(_)) => {
                let next = at.join(&part);
                steps.push((at.clone(), part));
                match std::fs::read_link(&next) {
                    Ok(target) if links < MAX_LINKS => {
                        links += 1;
                        target
                            .iter()
                            .rev()
                            .for_each(|part| rest.push_front(part.to_owned()));
                    }
                    _ => at = next,
                }
            }
            _ => {}
        }
    }
    (steps, at)
}

#[cfg(test)]
mod tests;
