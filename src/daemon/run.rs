//! The loop: events, calculate, plan, apply, report.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::args::Args;
use super::control::{self, Call};
use super::report::{ApplyReport, Degraded, State, now};
use super::start::{Parts, start};
use super::{EX_CANTCREAT, EX_OSERR, Failure, notify};
use crate::compile::Ruleset;
use crate::dataplane::iptables::Feature;
use crate::dataplane::{Dataplane, Plan, iptables};
use crate::store::snapshot::{self, Snapshot};

/// Pause before a failed apply is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// What a long first apply may take beyond the unit's start limit, granted anew for every try.
const START_EXTENSION: Duration = Duration::from_secs(120);
/// A directory that was being written to is looked at again after this.
const UNSETTLED: Duration = Duration::from_secs(1);
/// Timers that are off.
const NEVER: Duration = Duration::from_secs(86_400 * 365);

/// Serves until told to stop.
pub async fn run(args: &Args) -> Result<(), Failure> {
    let parts = start(args).await?;
    let run_dir = parts.loaded.settings.run_dir.clone();
    let served = control::serve(&run_dir);
    let (calls, socket) = served.map_err(|e| {
        Failure::new(
            EX_CANTCREAT,
            format!(
                "cannot serve the control socket in {}: {e}",
                run_dir.display()
            ),
        )
    })?;
    let mut signals = Signals::new()
        .map_err(|e| Failure::new(EX_OSERR, format!("cannot handle signals: {e}")))?;
    let mut daemon = Daemon::new(args, parts, socket);
    daemon.first_apply();
    daemon.events(calls, &mut signals).await;
    daemon.stop();
    Ok(())
}

struct Signals {
    reload: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            reload: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// What the loop owns.
pub(super) struct Daemon<'a> {
    pub(super) args: &'a Args,
    pub(super) parts: Parts,
    pub(super) socket: PathBuf,
    pub(super) ready: bool,
    pub(super) ruleset: Ruleset,
    pub(super) apply_error: Option<String>,
    pub(super) last_apply: Option<ApplyReport>,
    pub(super) verified_at: Option<String>,
    pub(super) snapshot: Option<(u64, Instant)>,
    pub(super) last_contact: String,
    pub(super) retry_at: Option<Instant>,
    pub(super) rescan_at: Option<Instant>,
    pub(super) verify_at: Instant,
    /// What this kernel or its tools lack.
    pub(super) missing: Vec<String>,
    /// Problems already logged, so that each is said once.
    pub(super) reported: Vec<Degraded>,
}

impl<'a> Daemon<'a> {
    fn new(args: &'a Args, parts: Parts, socket: PathBuf) -> Daemon<'a> {
        let ruleset = parts.engine.ruleset();
        Daemon {
            args,
            parts,
            socket,
            ready: false,
            ruleset,
            apply_error: None,
            last_apply: None,
            verified_at: None,
            snapshot: None,
            last_contact: now(),
            retry_at: None,
            rescan_at: None,
            verify_at: Instant::now() + NEVER,
            missing: Vec::new(),
            reported: Vec::new(),
        }
    }

    fn first_apply(&mut self) {
        notify::extend_timeout(START_EXTENSION);
        self.parts.generation += 1;
        self.apply();
        if self.apply_error.is_none() {
            // Rules of ours in the backend that is not in use would judge every packet a second time.
            let other = self.parts.choice.backend.other();
            match iptables::remove_rules(other) {
                Ok(plan) if plan.is_empty() => {}
                Ok(_) => tracing::info!(
                    "removed moat's rules from the {other} backend, which is not in use"
                ),
                Err(error) => {
                    tracing::warn!("cannot look for old rules in the {other} backend: {error}")
                }
            }
        }
        self.rescan_at = self
            .parts
            .source
            .unsettled()
            .then(|| Instant::now() + UNSETTLED);
        self.log_problems();
    }

    async fn events(&mut self, mut calls: mpsc::Receiver<Call>, signals: &mut Signals) {
        let watchdog = notify::watchdog_interval();
        let backend = self.parts.choice.backend;
        let mut features = tokio::task::spawn_blocking(move || iptables::check_features(backend));
        let mut features_known = false;
        let mut links_alive = true;
        loop {
            notify::watchdog();
            let timer = self.next_timer(watchdog);
            tokio::select! {
                _ = signals.terminate.recv() => return,
                _ = signals.interrupt.recv() => return,
                _ = signals.reload.recv() => self.reload(),
                () = self.parts.watcher.changed() => self.files_changed(),
                result = self.parts.monitor.changed(), if links_alive => match result {
                    Ok(()) => self.links_changed(),
                    Err(error) => {
                        links_alive = false;
                        tracing::error!("interfaces are no longer followed: {error}");
                    }
                },
                result = &mut features, if !features_known => {
                    features_known = true;
                    self.note_missing(result.unwrap_or_default());
                }
                call = calls.recv() => if let Some(call) = call { self.answer(call) },
                () = tokio::time::sleep_until(timer.into()) => self.timers(),
            }
        }
    }

    fn next_timer(&self, watchdog: Option<Duration>) -> Instant {
        let due = [
            self.retry_at,
            self.rescan_at,
            watchdog.map(|w| Instant::now() + w),
        ];
        due.into_iter().flatten().fold(self.verify_at, Instant::min)
    }

    fn timers(&mut self) {
        let time = Instant::now();
        if self.retry_at.is_some_and(|at| at <= time) {
            self.retry_at = None;
            self.apply();
        }
        if self.rescan_at.is_some_and(|at| at <= time) {
            self.rescan_at = None;
            self.files_changed();
        }
        if self.verify_at <= time {
            self.verify();
        }
    }

    fn note_missing(&mut self, features: Vec<Feature>) {
        for feature in features.iter().filter(|f| !f.works) {
            let text = format!(
                "{} does not work here, lost: {} ({})",
                feature.name, feature.lost, feature.message
            );
            tracing::warn!("{text}");
            self.missing.push(text);
        }
    }

    fn reload(&mut self) {
        notify::reloading();
        self.parts.reload_settings(self.args);
        self.scan();
        self.recalculate(true);
        notify::ready();
    }

    fn files_changed(&mut self) {
        let changed = self.scan();
        self.recalculate(changed);
    }

    /// Reads the directories; says whether a resource changed.
    fn scan(&mut self) -> bool {
        let updates = self.parts.source.scan();
        self.last_contact = now();
        self.rescan_at = self
            .parts
            .source
            .unsettled()
            .then(|| Instant::now() + UNSETTLED);
        let touched = self.parts.engine.update(updates);
        if touched.felix {
            self.parts.reload_settings(self.args);
        }
        touched.resources
    }

    fn links_changed(&mut self) {
        let links = self.parts.monitor.links().clone();
        self.parts.engine.set_links(links);
        self.recalculate(false);
    }

    fn recalculate(&mut self, resources_changed: bool) {
        let policy_changed = self.parts.engine.calculate();
        let ruleset = self.parts.engine.ruleset();
        if policy_changed || resources_changed || ruleset != self.ruleset {
            self.parts.generation += 1;
            self.ruleset = ruleset;
            self.apply();
        }
        self.log_problems();
    }

    fn apply(&mut self) {
        let begin = Instant::now();
        if !self.ready {
            notify::extend_timeout(START_EXTENSION);
        }
        let result = tokio::task::block_in_place(|| self.parts.dataplane.apply(&self.ruleset));
        match result {
            Ok(plan) => self.applied(&plan, begin),
            Err(error) => {
                let message = format!("cannot write the rules: {error}");
                if self.apply_error.as_ref() != Some(&message) {
                    tracing::error!(
                        "{message}; the rules in the kernel stay as they are, trying again"
                    );
                }
                self.apply_error = Some(message);
                self.retry_at = Some(Instant::now() + RETRY);
            }
        }
        self.tell_systemd();
    }

    fn applied(&mut self, plan: &Plan, begin: Instant) {
        if self.apply_error.take().is_some() {
            tracing::info!("the rules could be written again");
        }
        let generation = self.parts.generation;
        let milliseconds = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_apply = Some(ApplyReport {
            when: now(),
            milliseconds,
            changed: plan.changed,
        });
        self.verified_at = Some(now());
        self.schedule_verify();
        let endpoints =
            self.parts.engine.policy().endpoints.len() + self.parts.engine.policy().workloads.len();
        tracing::info!(
            generation,
            "policy in force: generation {generation}, {endpoints} endpoints, {} rules added, {} removed, {milliseconds} ms",
            plan.changed.rules_added,
            plan.changed.rules_removed
        );
        self.save();
        if !self.ready {
            self.ready = true;
            notify::ready();
        }
    }

    fn schedule_verify(&mut self) {
        let interval = self.parts.loaded.settings.iptables_refresh_interval;
        self.verify_at = Instant::now() + if interval.is_zero() { NEVER } else { interval };
    }

    /// Compares the kernel with what is wanted and repairs it.
    fn verify(&mut self) {
        self.schedule_verify();
        let read = tokio::task::block_in_place(|| {
            self.parts.dataplane.read()?;
            self.parts.dataplane.plan(&self.ruleset)
        });
        match read {
            Ok(plan) if plan.is_empty() => self.verified_at = Some(now()),
            Ok(plan) => {
                tracing::warn!(
                    "somebody changed moat's rules ({} lines differ): repairing",
                    plan.lines().len()
                );
                self.apply();
            }
            Err(error) => tracing::warn!("cannot compare the kernel with the policy: {error}"),
        }
    }

    fn save(&mut self) {
        if self
            .snapshot
            .is_some_and(|(generation, _)| generation == self.parts.generation)
        {
            return;
        }
        let written = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        let snapshot = Snapshot {
            generation: self.parts.generation,
            written,
            node: self.parts.loaded.settings.felix_hostname.clone(),
            settings: serde_json::to_value(&self.parts.loaded).unwrap_or_default(),
            store: self.parts.engine.store().saved(),
            backend: Some(self.parts.choice.backend.to_string()),
        };
        match snapshot::write(&self.parts.loaded.settings.state_dir, &snapshot) {
            Ok(()) => self.snapshot = Some((snapshot.generation, Instant::now())),
            Err(error) => tracing::warn!("cannot write the snapshot: {error}"),
        }
    }

    pub(super) fn degraded(&self) -> Vec<Degraded> {
        let mut degraded: Vec<Degraded> = self.parts.settings_problem.iter().cloned().collect();
        degraded.extend(self.apply_error.iter().map(|reason| Degraded {
            reason: reason.clone(),
            object: "kernel".to_owned(),
            place: self.parts.dataplane.name(),
        }));
        degraded.extend(self.parts.watcher.problem().map(|reason| Degraded {
            reason: reason.to_owned(),
            object: "policyDirs".to_owned(),
            place: String::new(),
        }));
        degraded.extend(self.parts.engine.degraded());
        degraded
    }

    pub(super) fn state(&self) -> State {
        match (self.ready, self.degraded().is_empty()) {
            (false, _) => State::Starting,
            (true, true) => State::Enforcing,
            (true, false) => State::Degraded,
        }
    }

    fn log_problems(&mut self) {
        let degraded = self.degraded();
        for problem in degraded.iter().filter(|p| !self.reported.contains(p)) {
            tracing::error!(
                source = problem.place,
                policy = problem.object,
                "{}",
                problem.reason
            );
        }
        if degraded.is_empty() && !self.reported.is_empty() {
            tracing::info!("all problems are solved");
        }
        self.reported = degraded;
        self.tell_systemd();
    }

    fn tell_systemd(&self) {
        let endpoints =
            self.parts.engine.policy().endpoints.len() + self.parts.engine.policy().workloads.len();
        let state = match self.state() {
            State::Starting => "starting".to_owned(),
            State::Enforcing => "enforcing".to_owned(),
            State::Degraded => format!(
                "degraded ({} problems, see moatctl status)",
                self.degraded().len()
            ),
        };
        notify::status(&format!(
            "{state}: generation {}, {endpoints} endpoints",
            self.parts.generation
        ));
    }

    fn stop(&self) {
        notify::stopping();
        // The rules stay: stopping the daemon must not open the host.
        let _ = std::fs::remove_file(&self.socket);
        tracing::info!("stopped; the rules stay in force");
    }
}
