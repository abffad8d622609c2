//! A source that follows etcd, where every key is a file of its own.
//!
//! What was known before stays in force whatever happens to etcd. A new list is compared with what is held: only what differs is told,
//! first what is there, then what is gone, and all of it at once. A list without any resource takes nothing away.

mod follow;
mod news;
mod pages;

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

pub use follow::Follower;
pub use news::{Item, News, Part, Value};

use super::{FileContent, FileUpdate, Stamp, refusal};
use crate::etcd::keys::{self, RESOURCES};
use crate::etcd::{Access, Moment};
use crate::store::Store;

/// Name of the source in the store.
pub const ETCD: &str = "etcd";
/// What stands before a key where files are named. Sorts after the absolute paths of files, so that those win.
pub const SCHEME: &str = "etcd:";
/// Bytes of differences of a list that are kept until it is complete; more than that are told earlier.
const MAX_PENDING: usize = 8 << 20;
/// More keys that do not matter are not counted, so that they cost no memory.
const MOST_IGNORED: usize = 100_000;
/// How long somebody has to fill an emptied datastore again.
const REFILL: Duration = Duration::from_secs(10);

/// What is known of etcd.
#[derive(Debug)]
pub struct EtcdSource {
    follower: Follower,
    access: Access,
    /// Whether everything that is held is from etcd itself, not from the snapshot.
    synced: bool,
    /// Where the list that is under way goes on; none when there is no list under way.
    listing: Option<Vec<u8>>,
    /// Differences of the list so far.
    pending: Vec<FileUpdate>,
    pending_bytes: usize,
    /// Paths that are held and not in the list.
    gone: Vec<String>,
    /// Resources in the list so far.
    listed: usize,
    /// Of those, the classes that it has any of.
    classes: BTreeSet<Class>,
    /// Hashes of the keys that hold nothing that matters to policy: each counts once, however often it is written.
    ignored: HashSet<u64>,
    moment: Moment,
    contact: Option<SystemTime>,
    endpoint: Option<String>,
    /// Why etcd cannot be followed.
    away: Option<String>,
    paused: bool,
    /// What the list had none of, although some are held.
    emptied: Option<&'static str>,
    warnings: Vec<String>,
    hasher: RandomState,
}

impl EtcdSource {
    /// Begins to follow; must be called within tokio's runtime.
    pub fn start(access: Access) -> EtcdSource {
        EtcdSource {
            follower: Follower::start(access.clone(), Duration::ZERO),
            access,
            synced: false,
            listing: None,
            pending: Vec::new(),
            pending_bytes: 0,
            gone: Vec::new(),
            listed: 0,
            classes: BTreeSet::new(),
            ignored: HashSet::new(),
            moment: Moment::default(),
            contact: None,
            endpoint: None,
            away: None,
            paused: false,
            emptied: None,
            warnings: Vec::new(),
            hasher: RandomState::new(),
        }
    }

    /// How etcd is reached.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Waits for news. Nothing is lost when the wait is cancelled.
    pub async fn next(&mut self) -> News {
        self.follower.next().await
    }

    /// News that are there already.
    pub fn try_next(&mut self) -> Option<News> {
        self.follower.try_next()
    }

    /// Whether a list is under way, so that what the store holds may be half old and half new.
    pub fn is_listing(&self) -> bool {
        self.listing.is_some()
    }

    /// Whether everything that is held is from etcd itself.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// The revision up to which everything is known, 0 if none is.
    pub fn revision(&self) -> i64 {
        self.moment.revision
    }

    /// When etcd last told something.
    pub fn contact(&self) -> Option<SystemTime> {
        self.contact
    }

    /// The endpoint in use.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// Keys below Calico's resources that hold nothing that matters to policy.
    pub fn ignored(&self) -> u64 {
        self.ignored.len() as u64
    }

    /// What is or will soon be wrong with certificates.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Why what is in force may be older than what is in etcd, if so.
    pub fn problem(&self) -> Option<String> {
        if let Some(why) = &self.away {
            return Some(format!("etcd cannot be followed: {why}"));
        }
        if self.paused {
            let text = "etcd is locked: datastoreReady is false in ClusterInformation/default (`moatctl datastore migrate unlock`)";
            return Some(text.to_owned());
        }
        if let Some(what) = self.emptied {
            return Some(format!(
                "etcd holds no {what} any more: it was wiped, or is not the one that was meant; what was known before stays until it holds some again"
            ));
        }
        (!self.synced).then(|| "etcd has not been read yet".to_owned())
    }

    /// Takes in news; what follows from them for the store.
    pub fn take(&mut self, news: News, store: &Store) -> Vec<FileUpdate> {
        let is_good = !matches!(news, News::Away(_) | News::Paused | News::Warnings(_));
        if is_good {
            self.contact = Some(SystemTime::now());
        }
        match news {
            News::Connected(endpoint) => {
                if self.away.take().is_some() {
                    tracing::info!("etcd: connected to {endpoint}");
                }
                self.paused = false;
                self.endpoint = Some(endpoint);
            }
            News::Away(why) => {
                self.void_list();
                self.endpoint = None;
                self.away = Some(why);
            }
            News::Paused => {
                self.void_list();
                self.away = None;
                self.paused = true;
            }
            News::Warnings(warnings) => self.warnings = warnings,
            News::Listing => {
                self.void_list();
                self.listing = Some(RESOURCES.into());
                self.listed = 0;
                self.classes.clear();
                self.ignored.clear();
            }
            News::Page(part) => return self.page(part, store),
            News::Listed(moment) => return self.finish(moment),
            News::Changes(items) => return self.changes(items),
            News::UpTo(revision) => self.moment.revision = revision,
        }
        Vec::new()
    }

    fn void_list(&mut self) {
        self.listing = None;
        self.pending.clear();
        self.pending_bytes = 0;
        self.gone.clear();
    }

    fn page(&mut self, part: Part, store: &Store) -> Vec<FileUpdate> {
        let Some(from) = self.listing.take() else {
            return Vec::new();
        };
        let end = part
            .end
            .clone()
            .unwrap_or_else(|| crate::etcd::prefix_end(RESOURCES.as_bytes()));
        let (first, behind) = (path(&from), path(&end));
        let mut held = store.held_between(ETCD, &first, &behind).peekable();
        for item in part.items {
            let path = path(&item.key);
            while let Some((gone, _)) = held.next_if(|(held, _)| **held < *path) {
                self.gone.push(gone.to_owned());
            }
            let known = held.next_if(|(held, _)| **held == *path);
            let Some(update) = self.update(path, item) else {
                // A kind that mattered to an earlier version.
                self.gone.extend(known.map(|(path, _)| path.to_owned()));
                continue;
            };
            self.listed += 1;
            self.classes.extend(class(&update.path));
            let stamp = match &update.content {
                FileContent::Value(_, stamp) => Some(*stamp),
                _ => None,
            };
            let is_known = known.is_some_and(|(_, known)| known.is_some() && known == stamp);
            let update = match is_known {
                true => FileUpdate {
                    content: FileContent::Unchanged,
                    ..update
                },
                false => update,
            };
            self.pend(update);
        }
        self.gone.extend(held.map(|(path, _)| path.to_owned()));
        self.listing = Some(end);
        match self.pending_bytes > MAX_PENDING {
            true => self.flush(),
            false => Vec::new(),
        }
    }

    fn pend(&mut self, update: FileUpdate) {
        let value = match &update.content {
            FileContent::Value(value, _) => value.len(),
            _ => 0,
        };
        self.pending_bytes += value + update.path.len() + size_of::<FileUpdate>();
        self.pending.push(update);
    }

    fn flush(&mut self) -> Vec<FileUpdate> {
        self.pending_bytes = 0;
        std::mem::take(&mut self.pending)
    }

    fn finish(&mut self, moment: Moment) -> Vec<FileUpdate> {
        let mut updates = self.flush();
        let gone = std::mem::take(&mut self.gone);
        self.listing = None;
        self.emptied = self.lost(&gone);
        if self.emptied.is_some() {
            return updates;
        }
        let before = self.moment;
        if before.cluster != 0 && before.cluster != moment.cluster {
            tracing::warn!("etcd: this is another cluster than before, whose policy is taken over");
        }
        if before.revision > moment.revision || before.term > moment.term {
            tracing::warn!(
                "etcd: revision {} after {}: it was restored from a backup, whose policy is taken over",
                moment.revision,
                before.revision
            );
        }
        self.moment = moment;
        self.synced = true;
        let (count, revision) = (self.listed, moment.revision);
        tracing::info!("etcd: {count} resources were read, as of revision {revision}");
        updates.extend(gone.into_iter().map(removed));
        updates
    }

    /// What a list has none of although some were held. Whoever wipes a datastore, or fills one anew, has not removed them one by one.
    fn lost(&self, gone: &[String]) -> Option<&'static str> {
        if self.listed == 0 && !gone.is_empty() {
            return Some("resource");
        }
        let is_lost = |(kind, _): &(Class, &str)| {
            !self.classes.contains(kind) && gone.iter().any(|path| class(path) == Some(*kind))
        };
        let classes = [(Class::Endpoint, "endpoint"), (Class::Policy, "policy")];
        classes.into_iter().find(is_lost).map(|(_, name)| name)
    }

    fn changes(&mut self, items: Vec<Item>) -> Vec<FileUpdate> {
        if self.emptied.is_some() && !items.is_empty() {
            // Somebody fills it again. Only a list can tell what will not come back, and only when it is full.
            self.follower = Follower::start(self.access.clone(), REFILL);
            return Vec::new();
        }
        let update = |item: Item| self.update(path(&item.key), item);
        items.into_iter().filter_map(update).collect()
    }

    /// None for keys that do not matter.
    fn update(&mut self, path: String, item: Item) -> Option<FileUpdate> {
        let key = std::str::from_utf8(&item.key).ok();
        if !key
            .and_then(keys::parse)
            .is_some_and(|id| keys::matters(id.kind))
        {
            if key != Some(keys::CLUSTER_INFORMATION) {
                let hash = self.hasher.hash_one(&item.key);
                match item.value {
                    Value::Gone => self.ignored.remove(&hash),
                    _ => self.ignored.len() < MOST_IGNORED && self.ignored.insert(hash),
                };
            }
            return None;
        }
        let content = match item.value {
            Value::Is(value) => {
                let stamp = Stamp::of_value(item.revision, &value);
                FileContent::Value(value, stamp)
            }
            Value::TooLarge => {
                let message = format!("is too large to be read (revision {})", item.revision);
                FileContent::Unreadable(refusal(&path, message, "write a smaller one"))
            }
            Value::Gone => FileContent::Removed,
        };
        Some(FileUpdate { path, content })
    }
}

/// What no datastore in use is without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Endpoint,
    Policy,
}

fn class(path: &str) -> Option<Class> {
    use crate::api::Kind::{GlobalNetworkPolicy, HostEndpoint, NetworkPolicy, WorkloadEndpoint};
    match keys::parse(path.strip_prefix(SCHEME)?)?.kind {
        HostEndpoint | WorkloadEndpoint => Some(Class::Endpoint),
        GlobalNetworkPolicy | NetworkPolicy => Some(Class::Policy),
        _ => None,
    }
}

fn path(key: &[u8]) -> String {
    format!("{SCHEME}{}", String::from_utf8_lossy(key))
}

fn removed(path: String) -> FileUpdate {
    FileUpdate {
        path,
        content: FileContent::Removed,
    }
}
