//! Follows etcd: lists, watches, comes back after whatever happens. A task of its own, which only tells.
//!
//! Whoever listens holds the task up while it is busy: then the answers of etcd wait in the connection, not in memory.

use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::news::{Item, News, Value, item};
use super::pages::{MOST, Pages};
use crate::etcd::keys::{self, CLUSTER_INFORMATION, RESOURCES};
use crate::etcd::{Access, Client, EtcdError, KeyValue, Moment, Version, prefix_end};

/// The first pause after all endpoints failed; doubles up to the longest. Some part of it is chance.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often a datastore that is not ready is asked whether it is.
const READY_PAUSE: Duration = Duration::from_secs(1);
/// How often the files with certificates are looked at.
const FILES_PAUSE: Duration = Duration::from_secs(5);
/// How long a connection with changed files may take.
const TRY_OUT: Duration = Duration::from_secs(3);
/// When files that could not be used are tried again, though they are the same.
const RETRY_PAUSE: Duration = Duration::from_secs(60);
/// The least number of keys that a list asks for at once.
const SMALLEST: i64 = 10;
/// News that wait to be taken.
const QUEUE: usize = 2;

/// The task, which ends when this is dropped.
#[derive(Debug)]
pub struct Follower {
    news: mpsc::Receiver<News>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Begins to follow after a delay; must be called within tokio's runtime.
    pub fn start(access: Access, delay: Duration) -> Follower {
        let (sender, news) = mpsc::channel(QUEUE);
        let follow = Follow {
            access,
            sender,
            position: None,
            last: None,
            turn: chance() % 1000,
            count: 1,
            most: MOST,
            failures: Vec::new(),
            pause: PAUSE,
            files: Vec::new(),
            refused: None,
            fresh: None,
            unusable: None,
            warned: Vec::new(),
        };
        Follower {
            news,
            task: tokio::spawn(async move {
                sleep(delay).await;
                follow.run().await;
            }),
        }
    }

    /// Waits for news. Nothing is lost when the wait is cancelled.
    pub async fn next(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            // Only when the runtime ends.
            None => std::future::pending().await,
        }
    }

    /// News that are there already.
    pub fn try_next(&mut self) -> Option<News> {
        self.news.try_recv().ok()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a session with an endpoint is over.
enum End {
    /// It failed.
    Failed(EtcdError),
    /// Another one is to begin at once: certificates changed, or the history is gone.
    Again,
    /// Nobody listens any more.
    Unheard,
}

impl From<EtcdError> for End {
    fn from(error: EtcdError) -> End {
        match error {
            EtcdError::Compacted => End::Again,
            error => End::Failed(error),
        }
    }
}

struct Follow {
    access: Access,
    sender: mpsc::Sender<News>,
    /// Up to where everything was told; none when a list is due.
    position: Option<Moment>,
    /// The newest value that was told, and its revision.
    last: Option<(Vec<u8>, i64)>,
    /// Which endpoint is next.
    turn: usize,
    /// How many endpoints there are.
    count: usize,
    /// Keys that a list asks for at once.
    most: i64,
    /// Why endpoints failed since one of them last served.
    failures: Vec<String>,
    pause: Duration,
    files: Vec<Version>,
    /// Files that could not be used, and when they are tried again.
    refused: Option<(Vec<Version>, Instant)>,
    /// A connection made with changed files, which is to take over.
    fresh: Option<Client>,
    /// Why changed files cannot be used, while a connection made with the old ones serves.
    unusable: Option<String>,
    warned: Vec<String>,
}

impl Follow {
    async fn run(mut self) {
        loop {
            let session = self.resolve_and_follow().await;
            let Err(end) = session;
            match end {
                End::Unheard => return,
                End::Again => self.failures.clear(),
                End::Failed(error) => {
                    self.failures.push(error.to_string());
                    self.turn += 1;
                    // One that fails is no news as long as another one serves.
                    if self.failures.len() < self.count {
                        continue;
                    }
                    let mut failures = std::mem::take(&mut self.failures);
                    failures.sort();
                    failures.dedup();
                    let why = failures.join("; ");
                    if self.tell(News::Away(why)).await.is_err() {
                        return;
                    }
                    self.rest().await;
                }
            }
        }
    }

    /// Hosts that lost the same etcd must not come back at the same moment.
    async fn rest(&mut self) {
        let whole = self.pause.as_millis() as usize;
        let wait = whole / 2 + chance() % (whole / 2 + 1);
        sleep(Duration::from_millis(wait as u64)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    async fn tell(&mut self, news: News) -> Result<(), End> {
        self.sender.send(news).await.map_err(|_| End::Unheard)
    }

    async fn resolve_and_follow(&mut self) -> Result<std::convert::Infallible, End> {
        let mut client = match self.fresh.take() {
            Some(client) => client,
            None => self.connect().await?,
        };
        self.wait_ready(&mut client).await?;
        if self.position.is_none() {
            self.list(&mut client).await?;
        }
        // Until now what etcd holds may be anything.
        self.tell(News::Connected(client.endpoint().to_owned()))
            .await?;
        self.pause = PAUSE;
        self.failures.clear();
        self.watch(&mut client).await
    }

    /// A connection to the endpoint whose turn it is, with files as they are now.
    async fn connect(&mut self) -> Result<Client, End> {
        self.files = self.access.versions();
        (self.unusable, self.refused) = (None, None);
        self.warn().await?;
        Ok(self.connect_now().await?)
    }

    async fn connect_now(&mut self) -> Result<Client, EtcdError> {
        let endpoints = self.access.resolve().await?;
        self.count = endpoints.len();
        let url = &endpoints[self.turn % endpoints.len()];
        Client::connect(&self.access, url).await
    }

    /// A connection over which etcd answered: with TLS 1.3 a client learns only then whether its certificate was taken.
    async fn try_out(&mut self) -> Result<Client, EtcdError> {
        let mut client = self.connect_now().await?;
        client.get(CLUSTER_INFORMATION.as_bytes()).await?;
        Ok(client)
    }

    async fn warn(&mut self) -> Result<(), End> {
        let mut warnings = self.access.warnings(SystemTime::now());
        warnings.extend(self.unusable.clone());
        if warnings != self.warned {
            self.warned.clone_from(&warnings);
            self.tell(News::Warnings(warnings)).await?;
        }
        Ok(())
    }

    /// Waits as long as `datastoreReady` is false, and notes when this is no continuation of what was followed before.
    async fn wait_ready(&mut self, client: &mut Client) -> Result<(), End> {
        loop {
            let (found, now) = client.get(CLUSTER_INFORMATION.as_bytes()).await?;
            let goes_on = |before: Moment| {
                // A restored backup begins with an earlier revision or an earlier term.
                before.cluster == now.cluster
                    && before.revision <= now.revision
                    && before.term <= now.term
            };
            self.position = self.position.filter(|before| goes_on(*before));
            if !self.is_same_history(client).await? {
                self.position = None;
            }
            if let Some(position) = &mut self.position {
                // A restored backup begins with the first term again.
                position.term = now.term;
            }
            if found.is_none_or(|found| is_ready(&found.value)) {
                return Ok(());
            }
            // What happens until it is ready is not to be known one by one.
            self.position = None;
            self.tell(News::Paused).await?;
            sleep(READY_PAUSE).await;
        }
    }

    /// Whether etcd knows the last change that was told here: after a backup was restored, other changes may have its revision.
    async fn is_same_history(&self, client: &mut Client) -> Result<bool, End> {
        let Some((key, revision)) = self.last.as_ref().filter(|_| self.position.is_some()) else {
            return Ok(true);
        };
        let end = [&key[..], b"\0"].concat();
        match client.first_key(key, &end, *revision).await {
            Ok(page) => Ok(page
                .items
                .first()
                .is_some_and(|kv| kv.revision == *revision)),
            // Its history does not reach back so far, so that it tells nothing.
            Err(EtcdError::Compacted) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Notes the newest of these values.
    fn note_last(&mut self, items: &[Item]) {
        let written = items
            .iter()
            .filter(|item| !matches!(item.value, Value::Gone));
        let Some(newest) = written.max_by_key(|item| item.revision) else {
            return;
        };
        if self
            .last
            .as_ref()
            .is_none_or(|(_, revision)| *revision < newest.revision)
        {
            self.last = Some((newest.key.clone(), newest.revision));
        }
    }

    async fn list(&mut self, client: &mut Client) -> Result<(), End> {
        self.tell(News::Listing).await?;
        self.last = None;
        let mut pages = Pages::new(RESOURCES.as_bytes(), self.most);
        loop {
            match pages.next(client).await {
                Ok(Some(part)) => {
                    self.note_last(&part.items);
                    self.tell(News::Page(part)).await?;
                }
                Ok(None) => break,
                Err(error) => {
                    // Over a slow network smaller parts arrive in time.
                    self.most = (self.most / 2).max(SMALLEST);
                    return Err(error.into());
                }
            }
        }
        self.most = MOST;
        let now = pages.moment();
        self.position = Some(now);
        self.tell(News::Listed(now)).await
    }

    async fn watch(&mut self, client: &mut Client) -> Result<std::convert::Infallible, End> {
        let end = prefix_end(RESOURCES.as_bytes());
        let from = self.position.map_or(0, |at| at.revision) + 1;
        let watch = client.watch(RESOURCES.as_bytes(), &end, from).await;
        let mut watch = watch.map_err(|error| self.lost(error))?;
        let mut look_at = Instant::now() + FILES_PAUSE;
        loop {
            tokio::select! {
                news = watch.next() => {
                    let news = news.map_err(|error| self.lost(error))?;
                    self.changed(news.changes, news.revision).await?;
                }
                () = sleep_until(look_at) => {
                    look_at = Instant::now() + FILES_PAUSE;
                    self.look_at_files().await?;
                }
            }
        }
    }

    /// Where the history is gone, or too large to read, a list is due.
    fn lost(&mut self, error: EtcdError) -> End {
        if matches!(error, EtcdError::Compacted | EtcdError::TooLarge { .. }) {
            self.position = None;
            return End::Again;
        }
        End::Failed(error)
    }

    async fn changed(
        &mut self,
        changes: Vec<(KeyValue, bool)>,
        revision: Option<i64>,
    ) -> Result<(), End> {
        let is_pause = |(kv, is_gone): &(KeyValue, bool)| {
            kv.key == CLUSTER_INFORMATION.as_bytes() && !is_gone && !is_ready(&kv.value)
        };
        let is_paused = changes.iter().any(is_pause);
        if !changes.is_empty() {
            let items: Vec<Item> = changes.into_iter().map(item).collect();
            self.note_last(&items);
            self.tell(News::Changes(items)).await?;
        }
        if let Some((revision, at)) = revision.zip(self.position.as_mut()) {
            at.revision = at.revision.max(revision);
            let revision = at.revision;
            self.tell(News::UpTo(revision)).await?;
        }
        match is_paused {
            true => Err(End::Again),
            false => Ok(()),
        }
    }

    /// When files changed and a connection can be made with them, it takes over. The old one serves until then.
    async fn look_at_files(&mut self) -> Result<(), End> {
        self.warn().await?;
        let versions = self.access.versions();
        let is_refused = |(refused, until): &(Vec<Version>, Instant)| {
            *refused == versions && Instant::now() < *until
        };
        if versions == self.files || self.refused.as_ref().is_some_and(is_refused) {
            return Ok(());
        }
        // The watch waits meanwhile.
        let tried = timeout(TRY_OUT, self.try_out()).await;
        let tried = tried.unwrap_or_else(|_| {
            let seconds = TRY_OUT.as_secs();
            Err(EtcdError::Local(format!(
                "no answer within {seconds} seconds"
            )))
        });
        match tried {
            Ok(client) => {
                (self.files, self.unusable, self.refused) = (versions, None, None);
                // This very connection, since the files may be others already.
                self.fresh = Some(client);
                self.warn().await?;
                Err(End::Again)
            }
            Err(error) => {
                self.refused = Some((versions, Instant::now() + RETRY_PAUSE));
                self.unusable = Some(format!(
                    "etcd: files with certificates or secrets changed, but cannot be used ({error}): the connection made with the old ones goes on"
                ));
                self.warn().await
            }
        }
    }
}

/// What cannot be read says nothing.
fn is_ready(value: &[u8]) -> bool {
    let document: Result<serde_json::Value, _> = serde_json::from_slice(value);
    document.map_or(true, |document| document["spec"]["datastoreReady"] != false)
}

/// Some number, another one in each process and call.
fn chance() -> usize {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(keys::RESOURCES) as usize
}
