//! The loop: events, calculate, plan, apply, report.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast;

use super::args::Args;
use super::connections::{Cut, Cutter};
use super::control::{self, Served};
use super::http::Servers;
use super::metrics::{Metrics, Reading};
use super::report::{ApplyReport, Degraded, Event, Happening, State, now};
use super::start::{Parts, start};
use super::{EX_CANTCREAT, EX_OSERR, Failure, notify};
use crate::compile::Ruleset;
use crate::dataplane::events::RuleEvents;
use crate::dataplane::iptables;
use crate::dataplane::iptables::Feature;
use crate::dataplane::links::LinkMonitor;
use crate::source::News;

/// Pause before a failed apply is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(2);
/// What a long first apply may take beyond the unit's start limit, granted anew for every try.
pub(super) const START_EXTENSION: Duration = Duration::from_secs(120);
/// A directory that was being written to is looked at again after this.
const UNSETTLED: Duration = Duration::from_secs(1);
/// A change of rules by others is looked at after this, when its transaction is over.
const VERIFY_DELAY: Duration = Duration::from_millis(100);
/// The least time between two comparisons with the kernel that changes of others cause.
const VERIFY_PAUSE: Duration = Duration::from_millis(700);
/// Timers that are off.
pub(super) const NEVER: Duration = Duration::from_secs(86_400 * 365);

/// Serves until told to stop.
pub async fn run(args: &Args) -> Result<(), Failure> {
    // First, so that no early signal ends the program.
    let mut signals = Signals::new()
        .map_err(|e| Failure::new(EX_OSERR, format!("cannot handle signals: {e}")))?;
    let parts = start(args).await?;
    let run_dir = parts.loaded.settings.run_dir.clone();
    let served = control::serve(&run_dir);
    let served = served.map_err(|e| {
        Failure::new(
            EX_CANTCREAT,
            format!(
                "cannot serve the control socket in {}: {e}",
                run_dir.display()
            ),
        )
    })?;
    let mut daemon = Daemon::new(args, parts, &served);
    daemon.first_apply();
    daemon.events(served, &mut signals).await;
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
    /// Why the kernel cannot be compared with the policy, if it cannot.
    pub(super) compare_error: Option<String>,
    pub(super) last_apply: Option<ApplyReport>,
    pub(super) verified_at: Option<String>,
    pub(super) snapshot: Option<(u64, Instant)>,
    /// When each policy directory was last listed.
    pub(super) contacts: BTreeMap<PathBuf, String>,
    /// Why there is no fresh snapshot, if there is none.
    pub(super) snapshot_problem: Option<String>,
    pub(super) retry_at: Option<Instant>,
    pub(super) rescan_at: Option<Instant>,
    pub(super) verify_at: Instant,
    /// What systemd was told last.
    pub(super) told: String,
    /// When the kernel was last compared.
    pub(super) compared_at: Instant,
    /// Why interfaces are not followed, if they are not.
    pub(super) links_problem: Option<String>,
    /// What this kernel or its tools lack.
    pub(super) missing: Vec<String>,
    /// Problems already logged, so that each is said once.
    pub(super) reported: Vec<Degraded>,
    pub(super) metrics: Metrics,
    /// Metrics and health over HTTP.
    servers: Servers,
    /// Where those who watch hear what happens.
    events: broadcast::Sender<Event>,
    /// Looks for connections that policy denies.
    pub(super) cutter: Cutter,
    /// Connections that were cut so far.
    pub(super) cut: u64,
    /// Why unwanted connections cannot be found, if so.
    cut_problem: Option<String>,
}

impl<'a> Daemon<'a> {
    fn new(args: &'a Args, parts: Parts, served: &Served) -> Daemon<'a> {
        let ruleset = parts.engine.ruleset();
        Daemon {
            args,
            parts,
            socket: served.path.clone(),
            ready: false,
            ruleset,
            apply_error: None,
            compare_error: None,
            last_apply: None,
            verified_at: None,
            snapshot: None,
            contacts: BTreeMap::new(),
            snapshot_problem: None,
            retry_at: None,
            rescan_at: None,
            verify_at: Instant::now() + NEVER,
            told: String::new(),
            compared_at: Instant::now(),
            links_problem: None,
            missing: Vec::new(),
            reported: Vec::new(),
            metrics: Metrics::new(),
            servers: Servers::default(),
            events: served.events.clone(),
            cutter: Cutter::default(),
            cut: 0,
            cut_problem: None,
        }
    }

    fn first_apply(&mut self) {
        notify::extend_timeout(START_EXTENSION);
        self.parts.generation += 1;
        self.apply();
        self.note_contacts();
        self.rescan_at = self
            .parts
            .source
            .unsettled()
            .then(|| Instant::now() + UNSETTLED);
        self.log_problems();
    }

    async fn events(&mut self, mut served: Served, signals: &mut Signals) {
        let watchdog = notify::watchdog_interval();
        let mut pinged = Instant::now();
        let backend = self.parts.choice.backend;
        let mut features = tokio::task::spawn_blocking(move || iptables::check_features(backend));
        let mut features_known = false;
        let mut rule_events = self.rule_events();
        if rule_events.is_some() {
            // What changed before the subscription was not told.
            self.rules_changed();
        }
        loop {
            // The loop's own progress, a few times per interval.
            if watchdog.is_some_and(|interval| pinged.elapsed() >= interval / 2) {
                pinged = Instant::now();
                notify::watchdog();
            }
            self.servers
                .configure(&self.parts.loaded.settings, &served.sender)
                .await;
            let timer = self.next_timer(watchdog);
            tokio::select! {
                _ = signals.terminate.recv() => return,
                _ = signals.interrupt.recv() => return,
                _ = signals.reload.recv() => self.reload(),
                news = self.parts.watcher.changed() => self.files_changed(&news),
                result = self.parts.monitor.changed(), if self.links_problem.is_none() => match result {
                    Ok(()) => self.links_changed(),
                    Err(error) => {
                        self.links_problem = Some(format!("interfaces are not followed: {error}"));
                        self.follow_links().await;
                    }
                },
                result = next_rule_event(&mut rule_events) => {
                    if let Err(error) = result {
                        tracing::warn!("changes of rules by others are found by comparing only: {error}");
                        rule_events = None;
                    }
                    self.rules_changed();
                }
                result = &mut features, if !features_known => {
                    features_known = true;
                    self.note_missing(result.unwrap_or_default());
                }
                Some(call) = served.calls.recv() => self.answer(call),
                result = self.cutter.done() => self.cut_done(result),
                () = tokio::time::sleep_until(timer.into()) => {
                    self.timers();
                    if self.links_problem.is_some() {
                        self.follow_links().await;
                    }
                }
            }
        }
    }

    /// Only nf_tables tells when somebody changes rules.
    fn rule_events(&self) -> Option<RuleEvents> {
        if self.parts.choice.backend != iptables::Backend::Nft {
            return None;
        }
        let events = RuleEvents::new();
        events
            .inspect_err(|e| {
                tracing::warn!("changes of rules by others are found by comparing only: {e}")
            })
            .ok()
    }

    /// Somebody, perhaps moat itself, changed rules: compare soon, but not more often than a comparison may cost.
    fn rules_changed(&mut self) {
        let soon = Instant::now() + VERIFY_DELAY;
        let not_before = self.compared_at + VERIFY_PAUSE;
        self.verify_at = self.verify_at.min(soon.max(not_before));
    }

    /// Begins anew to follow interfaces after the monitor came to its end; tried again until it works.
    async fn follow_links(&mut self) {
        match LinkMonitor::new().await {
            Ok(monitor) => {
                self.parts.monitor = monitor;
                self.links_problem = None;
                self.links_changed();
            }
            Err(error) => {
                self.links_problem = Some(format!("interfaces are not followed: {error}"));
                self.log_problems();
            }
        }
    }

    fn next_timer(&self, watchdog: Option<Duration>) -> Instant {
        let relink = self.links_problem.as_ref().map(|_| Instant::now() + RETRY);
        let due = [
            relink,
            self.retry_at,
            self.rescan_at,
            self.cutter.due(),
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
            self.files_changed(&News::Anywhere);
        }
        if self.cutter.due().is_some_and(|at| at <= time) {
            let engine = &self.parts.engine;
            self.cutter
                .start(engine.policy().clone(), engine.links().clone());
        }
        if self.verify_at <= time {
            self.verify();
        }
    }

    /// Tells those who watch.
    pub(super) fn tell(&self, event: Event) {
        // Nobody watches: fine.
        let _ = self.events.send(event);
    }

    fn cut_done(&mut self, result: std::io::Result<Cut>) {
        let problem = result.as_ref().err().map(|e| {
            format!("connections that policy denies are not found: {e}; they go on until they end")
        });
        if let Ok(Cut { removed, judged }) = result
            && removed > 0
        {
            self.cut += removed as u64;
            self.metrics.connections_removed(removed as u64);
            let text = format!("{removed} of {judged} connections were cut: policy denies them");
            tracing::info!("{text}");
            self.tell(Event::now(self.parts.generation, Happening::Cut, text));
        }
        if problem != self.cut_problem {
            self.cut_problem = problem;
            self.log_problems();
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
        self.scan(&News::Anywhere);
        self.recalculate(true);
        // Readiness is told once something is in force, not by a reload before that.
        if self.ready {
            notify::ready();
        }
    }

    fn files_changed(&mut self, news: &News) {
        let changed = self.scan(news);
        self.recalculate(changed);
    }

    /// Reads the directories; says whether a resource changed.
    fn scan(&mut self, news: &News) -> bool {
        let mut changed = false;
        let mut news = news;
        loop {
            let parts = &mut self.parts;
            let touched = parts.engine.read(&mut parts.source, news);
            news = &News::Anywhere;
            self.note_contacts();
            changed |= touched.resources;
            if !(touched.felix && self.parts.reload_settings(self.args)) {
                break;
            }
        }
        self.rescan_at = self
            .parts
            .source
            .unsettled()
            .then(|| Instant::now() + UNSETTLED);
        changed
    }

    fn note_contacts(&mut self) {
        let away: Vec<&Path> = self.parts.source.away().collect();
        for dir in &self.parts.loaded.settings.policy_dirs {
            if !away.contains(&dir.as_path()) {
                self.contacts.insert(dir.clone(), now());
            }
        }
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

    pub(super) fn degraded(&self) -> Vec<Degraded> {
        let mut degraded: Vec<Degraded> = self.parts.settings_problem.iter().cloned().collect();
        degraded.extend(self.apply_error.iter().map(|reason| Degraded {
            reason: reason.clone(),
            object: "kernel".to_owned(),
            place: self.parts.dataplane.name(),
        }));
        degraded.extend(self.compare_error.iter().map(|reason| Degraded {
            reason: format!("cannot compare the kernel with the policy: {reason}"),
            object: "kernel".to_owned(),
            place: self.parts.dataplane.name(),
        }));
        degraded.extend(self.links_problem.iter().map(|reason| Degraded {
            reason: reason.clone(),
            object: "interfaces".to_owned(),
            place: "netlink".to_owned(),
        }));
        degraded.extend(self.snapshot_problem.iter().map(|reason| Degraded {
            reason: reason.clone(),
            object: "snapshot".to_owned(),
            place: self.parts.state_dir.display().to_string(),
        }));
        degraded.extend(self.cut_problem.iter().map(|reason| Degraded {
            reason: reason.clone(),
            object: "connections".to_owned(),
            place: "netlink".to_owned(),
        }));
        degraded.extend(self.servers.problem().map(|reason| Degraded {
            reason: reason.to_owned(),
            object: "http".to_owned(),
            place: String::new(),
        }));
        degraded.extend(self.parts.watcher.problem().map(|reason| Degraded {
            reason: reason.to_owned(),
            object: "policyDirs".to_owned(),
            place: String::new(),
        }));
        degraded.extend(self.parts.engine.degraded());
        degraded
    }

    /// What metrics show of the present state.
    pub(super) fn reading(&self) -> Reading {
        let policy = self.parts.engine.policy();
        Reading {
            generation: self.parts.generation,
            ready: self.ready,
            degraded: self.degraded().len(),
            endpoints: policy.endpoints.len() + policy.workloads.len(),
            policies: policy.policies.len(),
            resources: self.parts.engine.store().resources().count(),
            snapshot_age: self.snapshot.map(|(_, at)| at.elapsed()),
            sets: Vec::new(),
        }
    }

    pub(super) fn state(&self) -> State {
        match (self.ready, self.degraded().is_empty()) {
            (false, _) => State::Starting,
            (true, true) => State::Enforcing,
            (true, false) => State::Degraded,
        }
    }

    pub(super) fn log_problems(&mut self) {
        let degraded = self.degraded();
        for problem in degraded.iter().filter(|p| !self.reported.contains(p)) {
            tracing::error!(
                source = problem.place,
                policy = problem.object,
                "{}",
                problem.reason
            );
            let text = problem.reason.clone();
            self.tell(Event::now(self.parts.generation, Happening::Problem, text));
        }
        if degraded.is_empty() && !self.reported.is_empty() {
            tracing::info!("all problems are solved");
        }
        self.reported = degraded;
        self.tell_systemd();
    }

    pub(super) fn tell_systemd(&mut self) {
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
        let text = format!(
            "{state}: generation {}, {endpoints} endpoints",
            self.parts.generation
        );
        if self.told != text {
            notify::status(&text);
            self.told = text;
        }
    }

    fn stop(&self) {
        notify::stopping();
        // The rules stay: stopping the daemon must not open the host.
        let _ = std::fs::remove_file(&self.socket);
        tracing::info!("stopped; the rules stay in force");
    }
}

/// Never resolves without a subscription.
async fn next_rule_event(events: &mut Option<RuleEvents>) -> std::io::Result<()> {
    match events {
        Some(events) => events.changed().await,
        None => std::future::pending().await,
    }
}
