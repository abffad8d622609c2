//! Keeping the snapshot up to date, on a thread of its own: the disk may be slow.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;

use super::chain;
use super::engine::DIR;
use super::run::Daemon;
use crate::store::members::{self, Members};
use crate::store::{Done, Meta};

/// Pause before a failed save is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// The cache for a quick start is written when nothing has been saved for so long.
const QUIET: Duration = Duration::from_secs(2);

/// What is saved and what is to be.
#[derive(Default)]
pub struct Saver {
    /// Generation that is in force.
    wanted: u64,
    /// Generation that the disk has.
    saved: Option<u64>,
    /// Whether that came from the sources themselves, not from the snapshot.
    is_fresh: bool,
    running: Option<(Saving, JoinHandle<Done>)>,
    /// Why there is no fresh snapshot, if there is none.
    problem: Option<String>,
    retry_at: Option<Instant>,
    /// When the cache for a quick start is to be written.
    cache_at: Option<Instant>,
}

/// What a save is of.
#[derive(Clone, Copy, Debug)]
pub struct Saving {
    generation: u64,
    is_fresh: bool,
}

impl Saver {
    /// This generation is in force and to be saved.
    pub fn want(&mut self, generation: u64) {
        self.wanted = generation;
    }

    fn saved(&mut self, saving: Saving) {
        self.saved = Some(saving.generation);
        self.is_fresh = saving.is_fresh;
        self.problem = None;
        self.retry_at = None;
        self.cache_at = Some(Instant::now() + QUIET);
    }

    /// The generation on the disk.
    pub fn on_disk(&self) -> Option<u64> {
        self.saved
    }

    /// Why there is no fresh snapshot, if there is none.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// When [`Daemon::save`] is to be called although nothing happened.
    pub fn due(&self) -> Option<Instant> {
        let due = self.retry_at.into_iter().chain(self.cache_at).min();
        due.filter(|_| self.running.is_none())
    }

    /// Whether a save would have something to do: something changed, or what the snapshot said was confirmed.
    fn is_due(&self, is_fresh: bool) -> bool {
        let is_old = self.saved != Some(self.wanted) || (is_fresh && !self.is_fresh);
        self.running.is_none() && is_old && self.retry_at.is_none_or(|at| at <= Instant::now())
    }

    /// Waits until a save ends; for ever, when there is none. Nothing is lost when the wait is cancelled.
    pub async fn ended(&mut self) -> (Saving, Option<Done>) {
        let Some((saving, job)) = &mut self.running else {
            return std::future::pending().await;
        };
        let (saving, done) = (*saving, job.await.ok());
        self.running = None;
        (saving, done)
    }
}

/// Now, since 1970.
fn seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| d.as_secs())
}

impl Daemon<'_> {
    /// Whether everything in force comes from the sources themselves.
    fn is_fresh(&self) -> bool {
        let store = self.parts.engine.store();
        let is_away =
            self.parts.source.away().next().is_some() || store.unconfirmed(DIR).next().is_some();
        !is_away && self.parts.datastore.degraded(store).is_none()
    }

    /// How old is what the disk has: since when nobody confirmed or changed it, over restarts.
    pub(super) fn snapshot_age(&self) -> Option<Duration> {
        let written = self.parts.engine.store().written()?;
        Some(Duration::from_secs(seconds().saturating_sub(written)))
    }

    /// Begins to save what is in force, if the disk does not have it.
    pub(super) fn save(&mut self) {
        if self.saver.cache_at.is_some_and(|at| at <= Instant::now()) {
            self.write_cache();
        }
        let is_current = self.kernel.generation == self.parts.generation;
        let is_fresh = self.is_fresh();
        if !self.saver.is_due(is_fresh) || !is_current || !self.parts.is_complete {
            return;
        }
        let generation = self.saver.wanted;
        let saving = Saving {
            generation,
            is_fresh,
        };
        // What is written anew without its source is as old as it was.
        let before = self.parts.engine.store().written();
        let written = before.filter(|_| !is_fresh).unwrap_or_else(seconds);
        let meta = Meta {
            node: self.parts.loaded.settings.felix_hostname.clone(),
            settings: serde_json::to_string(&self.parts.loaded).unwrap_or_default(),
            backend: Some(self.parts.choice.backend.to_string()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        match self
            .parts
            .engine
            .store_mut()
            .save(meta, generation, written)
        {
            Some(job) => {
                let job = tokio::task::spawn_blocking(move || job.run());
                self.saver.running = Some((saving, job));
            }
            None => self.saver.saved(saving),
        }
    }

    /// Writes the cache for a quick start, if the disk has what is in force.
    pub(super) fn write_cache(&mut self) {
        if self.saver.cache_at.take().is_none() {
            return;
        }
        let engine = &self.parts.engine;
        let Some(commit) = engine.store().commit() else {
            return;
        };
        let Some(documents) = engine.store().locate(&engine.essential()) else {
            return;
        };
        let members = Members {
            commit,
            dirs: self.parts.source.digests(),
            documents,
            sets: engine.policy().sets.clone(),
        };
        let written =
            tokio::task::block_in_place(|| members::write(&self.parts.state_dir, &members));
        if let Err(error) = written {
            tracing::debug!("the next start will be a slow one: {error}");
        }
    }

    /// Takes in how a save ended.
    pub(super) fn save_ended(&mut self, saving: Saving, done: Option<Done>) {
        let result = match done {
            Some(done) => {
                let saved = self.parts.engine.store_mut().saved(done);
                saved.map_err(|error| chain(&error))
            }
            None => Err("the thread that writes the snapshot has ended".to_owned()),
        };
        match result {
            Ok(()) => {
                self.saver.saved(saving);
            }
            Err(why) => {
                self.saver.problem = Some(format!(
                    "{why}: after a restart without the policy files an older policy is in force"
                ));
                self.saver.retry_at = Some(Instant::now() + RETRY);
            }
        }
        self.log_problems();
    }
}
