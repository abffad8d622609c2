//! From nothing to a daemon that knows what to enforce: settings, lock, snapshot, links, files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::args::Args;
use super::boot;
use super::datastore::Datastore;
use super::engine::{DIR, Engine, QuickStart};
use super::lock::{self, Lock, LockError};
use super::report::Degraded;
use super::run::START_EXTENSION;
use super::{EX_CANTCREAT, EX_CONFIG, EX_OSERR, EX_UNAVAILABLE, Failure, chain, notify, settings};
use crate::api::Spec;
use crate::config::{ConfigError, DatastoreType, Loaded, load_saved};
use crate::dataplane::iptables::{self, Choice, Iptables};
use crate::dataplane::links::LinkMonitor;
use crate::dataplane::{Applier, Dataplane};
use crate::source::{DirDigest, DirSource, News, Watcher, survey};
use crate::store::journal::{Saved, is_whole};
use crate::store::{Store, members};

const NO_LAST_GOOD: &str = "there are no last good settings to start with";

/// Everything the loop owns.
pub struct Parts {
    /// Settings in force.
    pub loaded: Loaded,
    /// What is wrong with the settings now, while last good ones are in force.
    pub settings_problem: Option<Degraded>,
    /// Keeps a second daemon away.
    pub _lock: Lock,
    /// Where the lock and the snapshot are as long as this daemon runs.
    pub state_dir: PathBuf,
    /// Interfaces and addresses.
    pub monitor: LinkMonitor,
    /// The policy directories.
    pub source: DirSource,
    /// Their changes.
    pub watcher: Watcher,
    /// The datastore, if one is configured.
    pub datastore: Datastore,
    /// Resources to ruleset.
    pub engine: Engine,
    /// The kernel.
    pub applier: Applier,
    /// Name of the dataplane.
    pub backend: String,
    /// Which backend, and why.
    pub choice: Choice,
    /// Generation of the snapshot, from which counting goes on.
    pub generation: u64,
    /// Whether everything is known; else only what the quick start needs.
    pub is_complete: bool,
}

/// Starts up to the point where the first host policy is known.
///
/// # Errors
/// What the operator must mend first.
pub async fn start(args: &Args) -> Result<Parts, Failure> {
    let fresh = settings::read_for_start(args).await;
    let (state_dir, lock) = claim_state_dir(args, &fresh)?;
    let quick = fresh
        .is_ok()
        .then(|| quick_start(args, &state_dir))
        .flatten();
    let opened = match &quick {
        Some(_) => Opened::Later,
        None => open_store(&state_dir),
    };
    let (loaded, settings_problem) = match &quick {
        Some(quick) => (quick.loaded.clone(), None),
        None => settings_or_last_good(fresh, opened.saved())?,
    };
    set_log_level(&loaded);
    let monitor = LinkMonitor::new().await;
    let monitor = monitor
        .map_err(|e| Failure::new(EX_OSERR, format!("cannot follow interfaces: {}", chain(&e))))?;
    let (choice, name, applier) = backend(&loaded, &state_dir)?;
    // Watching begins before reading, so that nothing falls between.
    let watcher = Watcher::new(loaded.settings.policy_dirs.clone());
    let source = DirSource::new(loaded.settings.policy_dirs.clone());
    let ipv6 = iptables::ipv6_available();
    let settings = loaded.settings.clone();
    let links = monitor.links().clone();
    let progress = Box::new(progress());
    let generation = quick.as_ref().map_or(0, |quick| quick.generation);
    let is_complete = quick.is_none();
    let (engine, snapshot) = match (quick, opened) {
        (Some(quick), _) => {
            let engine = Engine::quick(settings, links, ipv6, quick.start, progress);
            (engine, None)
        }
        (None, Opened::Now(store, saved)) => {
            let engine = Engine::new(settings, links, ipv6, *store, progress);
            (engine, saved)
        }
        (None, Opened::Later) => {
            let engine = Engine::new(settings, links, ipv6, Store::new(), progress);
            (engine, None)
        }
    };
    let mut parts = Parts {
        loaded,
        settings_problem,
        _lock: lock,
        state_dir,
        monitor,
        source,
        watcher,
        datastore: Datastore::default(),
        engine,
        applier,
        backend: name,
        choice,
        generation,
        is_complete,
    };
    if is_complete {
        let asked = parts.loaded.settings.iptables_backend;
        parts.first_look(args, snapshot);
        if parts.loaded.settings.iptables_backend != asked {
            // A FelixConfiguration among the files names another one.
            (parts.choice, parts.backend, parts.applier) =
                backend(&parts.loaded, &parts.state_dir)?;
        }
    }
    if is_complete {
        parts.configure_datastore();
    }
    parts.engine.calculate();
    Ok(parts)
}

/// The store, opened before anything is enforced, or after.
enum Opened {
    Now(Box<Store>, Option<Saved>),
    Later,
}

impl Opened {
    fn saved(&self) -> Option<&Saved> {
        match self {
            Opened::Now(_, saved) => saved.as_ref(),
            Opened::Later => None,
        }
    }
}

/// What a start needs to know to enforce before it has read everything.
struct Quick {
    loaded: Loaded,
    generation: u64,
    start: QuickStart,
}

/// Whether the last run left what a quick start needs, and nothing has changed since: the same version, host and files.
fn quick_start(args: &Args, state_dir: &Path) -> Option<Quick> {
    let quick = members::read(state_dir)?;
    let resources = quick.resources()?;
    let felix = resources.iter().filter_map(|r| match &r.spec {
        Spec::FelixConfiguration(felix) => Some((r.id.name.clone(), felix.clone())),
        _ => None,
    });
    let Ok(Ok(loaded)) = settings::read_settled(args, felix.collect()) else {
        return None;
    };
    if loaded.settings.felix_hostname != quick.meta.node {
        return None;
    }
    let now = survey(&loaded.settings.policy_dirs);
    let before = &quick.members.dirs;
    // A directory that is away takes nothing away.
    let fits =
        |(now, before): (&Dir, &Dir)| now.0 == before.0 && (now.1.is_none() || now == before);
    if now.len() != before.len() || !now.iter().zip(before).all(fits) {
        return None;
    }
    // What can be read from its source again makes good what is lost of the snapshot. What cannot would be missing as soon as
    // the rest is read, and the sets of those rules empty.
    let is_away = now.iter().any(|(_, digest)| digest.is_none());
    let needs_all = is_away || loaded.settings.datastore_type != DatastoreType::None;
    if needs_all && !is_whole(state_dir) {
        return None;
    }
    let sets = quick.members.sets.into_iter();
    Some(Quick {
        loaded,
        generation: quick.members.commit.generation,
        start: QuickStart {
            resources,
            sets: sets
                .map(|(id, set)| (id, Arc::unwrap_or_clone(set)))
                .collect(),
        },
    })
}

/// A policy directory, and what the versions of its files come to.
type Dir = (String, Option<DirDigest>);

impl Parts {
    /// Whether there is no policy only because what there may be cannot be read.
    pub fn is_blind(&self) -> bool {
        let is_away = self.source.away().next().is_some();
        self.is_complete
            && (self.engine.is_blind()
                || self.engine.store().is_empty() && is_away && boot::is_marked(&self.state_dir))
    }

    /// Reads all the rest, after a quick start.
    pub fn complete(&mut self) {
        if let Opened::Now(store, saved) = open_store(&self.state_dir) {
            // One that has delivered nothing yet: what the first one may have seen is not in this store.
            self.source = DirSource::new(self.loaded.settings.policy_dirs.clone());
            self.engine.complete(*store, saved, &mut self.source);
        }
        self.is_complete = true;
        self.configure_datastore();
    }

    fn first_look(&mut self, args: &Args, snapshot: Option<Saved>) {
        let node = &self.loaded.settings.felix_hostname;
        if let Some(snapshot) = snapshot {
            self.generation = snapshot.commit.generation;
            if snapshot.meta.node == *node {
                self.engine.seed(snapshot);
                self.expect_held();
            } else {
                tracing::warn!(
                    "the snapshot is of node {}, not {node}: its policy is not used",
                    snapshot.meta.node
                );
            }
        }
        self.engine.read(&mut self.source, &News::Anywhere);
        if self.settings_problem.is_none()
            && let Ok(Some(loaded)) = self.fresh_settings(args)
        {
            self.use_settings(loaded);
        }
    }

    /// Tells the source which files are held, so that it says which of them are gone.
    fn expect_held(&mut self) {
        let held = self.engine.store().stamps(DIR);
        let held = held.map(|(path, stamp)| (path.to_owned(), stamp));
        self.source.expect(held);
    }

    /// Loads the settings again, now with the FelixConfigurations in force; keeps the last good ones when that fails.
    /// Says whether other directories are to be scanned now.
    ///
    /// # Errors
    /// After how long to try again, because a file is being written.
    pub fn reload_settings(&mut self, args: &Args) -> Result<bool, Duration> {
        let Some(loaded) = self.fresh_settings(args)? else {
            return Ok(false);
        };
        let (old, new) = (&self.loaded.settings, &loaded.settings);
        if old.state_dir != new.state_dir
            || old.run_dir != new.run_dir
            || old.iptables_backend != new.iptables_backend
        {
            tracing::warn!(
                "stateDir, runDir and iptablesBackend take effect at the next start of moatd"
            );
        }
        let moved = old.policy_dirs != new.policy_dirs;
        self.use_settings(loaded);
        Ok(moved)
    }

    /// The settings as they are written now, or none if they are wrong, which is noted.
    fn fresh_settings(&mut self, args: &Args) -> Result<Option<Loaded>, Duration> {
        let loaded = settings::read_settled(args, self.engine.felix())?;
        self.settings_problem = loaded.as_ref().err().map(|errors| Degraded {
            reason: format!(
                "{}: the last good settings stay in force",
                settings::errors_text(errors)
            ),
            object: "settings".to_owned(),
            place: settings::errors_place(errors),
        });
        Ok(loaded.ok())
    }

    fn use_settings(&mut self, loaded: Loaded) {
        if loaded == self.loaded {
            return;
        }
        let (old, new) = (&self.loaded.settings, &loaded.settings);
        self.applier.configure(new.clone());
        if old.policy_dirs != new.policy_dirs {
            // Watching begins before reading, so that nothing falls between.
            self.watcher = Watcher::new(new.policy_dirs.clone());
            self.source = DirSource::new(new.policy_dirs.clone());
            self.expect_held();
        }
        self.engine.set_settings(loaded.settings.clone());
        self.loaded = loaded;
        if self.is_complete {
            self.configure_datastore();
        }
        set_log_level(&self.loaded);
    }
}

/// Tells systemd how far a long load has come, and that it goes on.
fn progress() -> impl FnMut(usize) + Send {
    let mut told = Instant::now();
    move |documents| {
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            notify::status(&format!("loading: {documents} documents"));
            notify::extend_timeout(START_EXTENSION);
        }
    }
}

/// The state directory, made if it is missing, and the lock in it. With wrong settings nothing is made.
fn claim_state_dir(
    args: &Args,
    fresh: &Result<Loaded, Vec<ConfigError>>,
) -> Result<(PathBuf, Lock), Failure> {
    let (state_dir, errors) = match fresh {
        Ok(loaded) => (loaded.settings.state_dir.clone(), None),
        Err(errors) => (settings::guess_state_dir(args), Some(errors)),
    };
    if errors.is_none() {
        std::fs::create_dir_all(&state_dir).map_err(|e| {
            let message = format!("cannot create {}: {e}", state_dir.display());
            Failure::new(EX_CANTCREAT, message)
        })?;
    }
    match lock::acquire(&state_dir) {
        Ok(lock) => Ok((state_dir, lock)),
        Err(error) => Err(not_locked(&error, errors)),
    }
}

/// The dataplane of the backend that the settings and the host call for.
fn backend(loaded: &Loaded, state_dir: &Path) -> Result<(Choice, String, Applier), Failure> {
    let choice = iptables::choose(loaded.settings.iptables_backend, state_dir)
        .map_err(|message| Failure::new(EX_UNAVAILABLE, message))?;
    let dataplane = Iptables::new(choice.backend, loaded.settings.max_ipset_size as usize);
    let name = dataplane.name();
    let applier = Applier::new(Box::new(dataplane))
        .map_err(|e| Failure::new(EX_OSERR, format!("cannot start a thread: {e}")))?;
    Ok((choice, name, applier))
}

fn set_log_level(loaded: &Loaded) {
    if let Err(error) = super::logging::set_level(loaded.settings.log_severity_screen) {
        tracing::warn!("{error}");
    }
}

/// Without a state directory there are no last good settings either: then the settings are what to mend.
fn not_locked(error: &LockError, settings: Option<&Vec<ConfigError>>) -> Failure {
    match (settings, error) {
        (None, _) => Failure::new(EX_CANTCREAT, chain(error)),
        (Some(errors), LockError::NoDirectory(_)) => {
            let errors = settings::errors_text(errors);
            Failure::new(EX_CONFIG, format!("{errors}; {NO_LAST_GOOD}"))
        }
        (Some(errors), _) => {
            let errors = settings::errors_text(errors);
            Failure::new(EX_CONFIG, format!("{errors}; {}", chain(error)))
        }
    }
}

fn open_store(state_dir: &Path) -> Opened {
    let (store, saved, messages) = Store::open(state_dir);
    for message in messages {
        tracing::warn!("{message}");
    }
    Opened::Now(Box::new(store), saved)
}

fn settings_or_last_good(
    fresh: Result<Loaded, Vec<ConfigError>>,
    snapshot: Option<&Saved>,
) -> Result<(Loaded, Option<Degraded>), Failure> {
    let (errors, place) = match fresh {
        Ok(loaded) => return Ok((loaded, None)),
        Err(errors) => (
            settings::errors_text(&errors),
            settings::errors_place(&errors),
        ),
    };
    let saved = snapshot.map(|s| load_saved(&s.meta.settings, &s.meta.node));
    let Some(Ok(loaded)) = saved else {
        return Err(Failure::new(EX_CONFIG, format!("{errors}; {NO_LAST_GOOD}")));
    };
    tracing::error!("{errors}; starting with the last good settings of the snapshot");
    let problem = Degraded {
        reason: format!("{errors}: the last good settings of the snapshot are in force"),
        object: "settings".to_owned(),
        place,
    };
    Ok((loaded, Some(problem)))
}
