//! Tells when something changed in a set of directories, by inotify.
//!
//! A directory is reached through names: its own in its parent, those of the parents, those of symbolic links on
//! the way. Each of these names is watched too, so that a directory created later, renamed into place or switched
//! by a link is followed. So are the names on the way of
//! symbolic links from inside a directory to policy files elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use tokio::time::{Instant, sleep_until};

use super::is_policy_file;
use super::walk::{linked_files, resolve};

/// A finished change (a file closed, renamed or deleted) is told this long after it, together with what else came in that time.
const SOON: Duration = Duration::from_millis(3);
/// While changes go on without end, each time is twice as long as the one before, up to this.
const MAX_SOON: Duration = Duration::from_millis(100);
/// A change that may still go on is told when nothing happened to the file for this long,
const QUIET: Duration = Duration::from_millis(100);
/// or this long after it when there is no quiet.
const PATIENCE: Duration = Duration::from_millis(500);
/// A file that is written to is open until the kernel tells that it was closed, and its first half would be another policy. So
/// long is waited for that: a file that was truncated by its name, or written by another host, is never closed here.
const OPEN: Duration = Duration::from_secs(10);
/// How often a change is assumed when the kernel cannot tell.
const POLL: Duration = Duration::from_secs(1);
/// Where something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Perhaps everywhere.
    Anywhere,
    /// Only these names in these directories (as they were configured).
    Files(BTreeSet<(PathBuf, String)>),
}

/// A thing that changed: a file in a directory, or all there is.
type Thing = Option<(PathBuf, String)>;

/// Watches directories; they need not exist.
pub struct Watcher {
    /// As configured, and absolute.
    dirs: Vec<(PathBuf, PathBuf)>,
    events: Option<EventStream<Vec<u8>>>,
    watches: Watches,
    problem: Option<String>,
    /// What changed and was not told, and when to tell.
    pending: BTreeMap<Thing, Due>,
    /// When was told last, and how long was waited for more.
    told: Option<(Instant, Duration)>,
    /// Names in the directories that were symbolic links when the watches were set.
    links: BTreeSet<(PathBuf, OsString)>,
    next_poll: Instant,
}

/// When to tell of a change.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    /// First event.
    first: Instant,
    is_finished: bool,
    /// It was written to and not closed since.
    is_open: bool,
}

/// What an event must be about to count, for each watch.
type Watches = BTreeMap<WatchDescriptor, Interest>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Interest {
    /// It is this policy directory (or these): every file counts.
    Directories(BTreeSet<PathBuf>),
    Names(BTreeSet<OsString>),
    /// Both a policy directory and on the way to another.
    Everything,
}

impl Watcher {
    /// Starts to watch. What changes from now on is told by [`Watcher::changed`]; so scan after this.
    pub fn new(dirs: Vec<PathBuf>) -> Watcher {
        let absolute = |dir: PathBuf| {
            let absolute = std::path::absolute(&dir).unwrap_or_else(|_| dir.clone());
            (dir, absolute)
        };
        let mut watcher = Watcher {
            dirs: dirs.into_iter().map(absolute).collect(),
            events: None,
            watches: Watches::new(),
            problem: None,
            pending: BTreeMap::new(),
            told: None,
            links: BTreeSet::new(),
            next_poll: Instant::now() + POLL,
        };
        watcher.rearm();
        watcher
    }

    /// Why changes are found by polling once a second instead of by notification, if they are.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Waits until something changed: a few milliseconds after a file was closed, renamed or deleted; a tenth of a second after the
    /// last sign of a change that may still go on. Nothing is lost when the wait is cancelled.
    pub async fn changed(&mut self) -> News {
        while self.due().is_none_or(|due| due > Instant::now()) {
            let due = self.due();
            tokio::select! {
                event = next_event(&mut self.events) => self.note(event),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
        let now = Instant::now();
        let polled = self.problem.is_some() && self.next_poll <= now;
        let due = |due: &Due| due.at <= now;
        let mut things: BTreeSet<Thing> = BTreeSet::new();
        if polled || self.pending.get(&None).is_some_and(due) {
            // A full look sees what is pending, too, but for what it must leave alone.
            self.pending.retain(|_, due| due.is_open && due.at > now);
            things.insert(None);
        }
        let told = self.pending.iter().filter(|(_, d)| due(d));
        things.extend(told.map(|(thing, _)| thing.clone()));
        self.pending.retain(|_, d| !due(d));
        self.told = Some((now, self.wait(now)));
        let files: Option<BTreeSet<(PathBuf, String)>> = things.into_iter().collect();
        match files {
            Some(files) if !files.iter().any(|file| self.is_link(file)) => News::Files(files),
            _ => {
                self.rearm();
                self.next_poll = Instant::now() + POLL;
                News::Anywhere
            }
        }
    }

    /// Whether a file is or was a link, whose target is to be watched, too, or no longer.
    fn is_link(&self, (dir, name): &(PathBuf, String)) -> bool {
        let is_link = |path: &Path| path.symlink_metadata().is_ok_and(|m| m.is_symlink());
        self.links.contains(&(dir.clone(), name.into())) || is_link(&dir.join(name))
    }

    /// When to tell, as far as is known.
    fn due(&self) -> Option<Instant> {
        let settled = self.pending.values().map(|due| due.at).min();
        let poll = self.problem.is_some().then_some(self.next_poll);
        settled.into_iter().chain(poll).min()
    }

    /// How long to wait for more after a finished change.
    fn wait(&self, now: Instant) -> Duration {
        match self.told {
            Some((at, wait)) if now.duration_since(at) < 4 * wait => (2 * wait).min(MAX_SOON),
            _ => SOON,
        }
    }

    fn note(&mut self, event: io::Result<EventOwned>) {
        match event {
            Ok(event) => {
                for thing in self.things(&event) {
                    self.pend(thing, event.mask);
                }
            }
            Err(e) => {
                self.events = None;
                self.watches.clear();
                self.fail(format!("file notification stopped: {e}"));
            }
        }
    }

    fn pend(&mut self, thing: Thing, mask: EventMask) {
        let now = Instant::now();
        let wait = self.wait(now);
        let due = self.pending.entry(thing).or_insert(Due {
            at: now + QUIET,
            first: now,
            is_finished: false,
            is_open: false,
        });
        let is_finished = is_finished(mask);
        due.is_open = !is_finished && (due.is_open || mask.contains(EventMask::MODIFY));
        if due.is_open {
            due.at = due.first + OPEN;
        } else if is_finished && !due.is_finished {
            due.at = now + wait;
        } else if !is_finished {
            // Also when it was finished once: it is being changed again.
            due.at = (now + QUIET).min(due.first + PATIENCE);
        }
        due.is_finished = is_finished;
    }

    /// The files that are open for writing now, as far as was told.
    pub fn open(&self) -> BTreeSet<(PathBuf, String)> {
        let open = self.pending.iter().filter(|(_, due)| due.is_open);
        open.filter_map(|(thing, _)| thing.clone()).collect()
    }

    /// What an event is about; nothing if it does not count.
    fn things(&self, event: &EventOwned) -> Vec<Thing> {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            return vec![None];
        }
        let of_itself = EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::UNMOUNT;
        match (self.watches.get(&event.wd), &event.name) {
            // A watch that is no longer ours; its last events may still be in the queue.
            (None, _) => Vec::new(),
            _ if event.mask.intersects(of_itself) => vec![None],
            (Some(Interest::Directories(dirs)), Some(name)) => match name.to_str() {
                Some(name) if is_policy_file(name) => dirs
                    .iter()
                    .map(|dir| Some((dir.clone(), name.to_owned())))
                    .collect(),
                Some(_) => Vec::new(),
                None => vec![None],
            },
            (Some(Interest::Names(names)), Some(name)) if !names.contains(name) => Vec::new(),
            _ => vec![None],
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
                self.links = before.links;
                return;
            }
        }
        self.fail("the policy directories are moving".to_owned());
    }

    fn plan(&self) -> Plan {
        let mut plan = Plan::default();
        for (configured, dir) in &self.dirs {
            let (steps, end) = resolve(dir);
            follow(&mut plan.interests, steps);
            for link in linked_files(&end) {
                // The link itself is a file of the directory.
                let steps = resolve(&end.join(&link)).0.into_iter();
                let own = (end.clone(), link.clone());
                follow(&mut plan.interests, steps.filter(|step| *step != own));
                plan.links.insert((configured.clone(), link));
            }
            let own = Interest::Directories([configured.clone()].into());
            match plan.interests.get_mut(&end) {
                Some(interest) => merge(interest, &own),
                None => drop(plan.interests.insert(end, own)),
            }
        }
        plan
    }

    fn arm(&mut self, plan: &Plan) -> Result<(), String> {
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
        for (path, interest) in &plan.interests {
            match kernel.add(path, mask()) {
                Ok(wd) => match wanted.get_mut(&wd) {
                    Some(known) => merge(known, interest),
                    None => drop(wanted.insert(wd, interest.clone())),
                },
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

/// What to watch, and for what.
#[derive(Default, PartialEq, Eq)]
struct Plan {
    interests: BTreeMap<PathBuf, Interest>,
    /// Policy files that are links: configured directory and name.
    links: BTreeSet<(PathBuf, OsString)>,
}

/// Adds names to be watched in their directories.
fn follow(
    plan: &mut BTreeMap<PathBuf, Interest>,
    steps: impl IntoIterator<Item = (PathBuf, OsString)>,
) {
    for (parent, name) in steps {
        let own = Interest::Names([name].into());
        match plan.get_mut(&parent) {
            Some(interest) => merge(interest, &own),
            None => drop(plan.insert(parent, own)),
        }
    }
}

/// Adds an interest to that which is known. A policy directory through which another is reached needs a full look at each event.
fn merge(known: &mut Interest, more: &Interest) {
    match (known, more) {
        (Interest::Names(known), Interest::Names(more)) => known.extend(more.iter().cloned()),
        (Interest::Directories(known), Interest::Directories(more)) => {
            known.extend(more.iter().cloned());
        }
        (known, _) => *known = Interest::Everything,
    }
}

/// Whether an event ends a change, so that nothing more is to be waited for.
fn is_finished(mask: EventMask) -> bool {
    let ends = EventMask::CLOSE_WRITE | EventMask::MOVED_TO | EventMask::MOVED_FROM;
    mask.intersects(ends | EventMask::DELETE | EventMask::Q_OVERFLOW)
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

fn hint(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::StorageFull => format!("{error} (raise the sysctl fs.inotify.max_user_watches)"),
        _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            format!("{error} (raise the sysctl fs.inotify.max_user_instances)")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
