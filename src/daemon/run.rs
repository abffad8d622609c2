//! The loop: events, calculate, plan, apply, report.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use super::args::Args;
use super::connections::{Cut, Cutter};
use super::control::{self, Served};
use super::http::Servers;
use super::kernel::Kernel;
use super::metrics::Metrics;
use super::report::{Degraded, Event, Happening};
use super::saving::Saver;
use super::start::{Parts, start};
use super::{EX_CANTCREAT, EX_OSERR, Failure, notify, settings};
use crate::dataplane::events::RuleEvents;
use crate::dataplane::iptables;
use crate::dataplane::iptables::Feature;
use crate::dataplane::links::LinkMonitor;
use crate::source::News;

/// What a long first apply may take beyond the unit's start limit.
pub(super) const START_EXTENSION: Duration = Duration::from_secs(120);
/// A directory that was being written to is looked at again after this.
pub(super) const UNSETTLED: Duration = Duration::from_secs(1);
/// Pause before interfaces are followed anew.
const RELINK: Duration = Duration::from_secs(2);
/// How often the kernel is looked at where it tells of no changes, unless the watchdog wakes the loop up more often.
const CHECK: Duration = Duration::from_secs(5);
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
    daemon.begin();
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
    pub(super) kernel: Kernel,
    pub(super) saver: Saver,
    /// When each policy directory was last listed.
    pub(super) contacts: BTreeMap<PathBuf, String>,
    pub(super) rescan_at: Option<Instant>,
    /// When settings that were being written are read.
    pub(super) reload_at: Option<Instant>,
    /// When the loop is to wake up next to tell the watchdog and to look at the kernel.
    tick_at: Instant,
    /// What systemd was told last.
    pub(super) told: String,
    /// Why interfaces are not followed, if they are not.
    pub(super) links_problem: Option<String>,
    /// What this kernel or its tools lack.
    pub(super) missing: Vec<String>,
    /// Problems already logged, so that each is said once.
    pub(super) reported: Vec<Degraded>,
    pub(super) metrics: Metrics,
    /// Metrics and health over HTTP.
    pub(super) servers: Servers,
    /// Where those who watch hear what happens.
    events: broadcast::Sender<Event>,
    /// Looks for connections that policy denies.
    pub(super) cutter: Cutter,
    /// Connections that were cut so far.
    pub(super) cut: u64,
    /// Why unwanted connections cannot be found, if so.
    pub(super) cut_problem: Option<String>,
}

impl<'a> Daemon<'a> {
    fn new(args: &'a Args, parts: Parts, served: &Served) -> Daemon<'a> {
        Daemon {
            args,
            kernel: Kernel::new(parts.generation),
            parts,
            socket: served.path.clone(),
            ready: false,
            saver: Saver::default(),
            contacts: BTreeMap::new(),
            rescan_at: None,
            reload_at: None,
            tick_at: Instant::now(),
            told: String::new(),
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

    fn begin(&mut self) {
        notify::extend_timeout(START_EXTENSION);
        // A quick start enforces what the snapshot says, and nothing newer.
        if self.parts.is_complete {
            self.parts.generation += 1;
        }
        self.note_contacts();
        self.rescan_at = self
            .parts
            .source
            .unsettled()
            .then(|| Instant::now() + UNSETTLED);
        // A start does not wait for ever for settings that are being written.
        let wait = settings::Versions::now(self.args).unsettled();
        self.reload_at = wait.map(|wait| Instant::now() + wait);
        self.log_problems();
        if self.is_waiting() {
            // The network may wait for this service, and the datastore is behind the network.
            notify::ready();
        }
    }

    /// Whether nothing may be written into the kernel yet, because the datastore was never heard.
    pub(super) fn is_waiting(&self) -> bool {
        !self.ready && self.parts.is_complete && {
            let parts = &self.parts;
            parts.datastore.is_awaited(parts.engine.store())
        }
    }

    async fn events(&mut self, mut served: Served, signals: &mut Signals) {
        let mut probe = Probe::Due;
        let mut rule_events = self.rule_events();
        loop {
            self.servers
                .configure(&self.parts.loaded.settings, &served.sender)
                .await;
            self.work();
            self.publish();
            if !self.parts.is_complete && !self.kernel.is_applying() {
                self.complete();
            }
            self.save();
            if self.ready && matches!(probe, Probe::Due) {
                let backend = self.parts.choice.backend;
                let look = move || iptables::check_features(backend);
                probe = Probe::Running(tokio::task::spawn_blocking(look));
            }
            let timer = self.next_timer();
            tokio::select! {
                _ = signals.terminate.recv() => return,
                _ = signals.interrupt.recv() => return,
                _ = signals.reload.recv() => self.reload(),
                ended = self.kernel.ended() => self.ended(ended),
                (saving, done) = self.saver.ended() => self.save_ended(saving, done),
                news = self.parts.watcher.changed() => self.files_changed(&news),
                news = self.parts.datastore.next() => self.datastore_news(news),
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
                    self.kernel.rules_changed();
                }
                found = probed(&mut probe) => self.note_missing(found),
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

    fn next_timer(&self) -> Instant {
        let relink = self.links_problem.as_ref().map(|_| Instant::now() + RELINK);
        let due = [
            relink,
            self.rescan_at,
            self.reload_at,
            self.cutter.due(),
            self.saver.due(),
        ];
        let first = match self.is_waiting() {
            true => self.tick_at,
            false => self.kernel.due().min(self.tick_at),
        };
        due.into_iter().flatten().fold(first, Instant::min)
    }

    fn timers(&mut self) {
        let time = Instant::now();
        if self.tick_at <= time {
            self.tick();
        }
        if self.reload_at.is_some_and(|at| at <= time) {
            self.reload();
        }
        if self.rescan_at.is_some_and(|at| at <= time) {
            self.rescan_at = None;
            self.files_changed(&News::Anywhere);
        }
        if self.cutter.due().is_some_and(|at| at <= time) {
            let engine = &self.parts.engine;
            let policy = Arc::new(engine.policy().clone());
            self.cutter.start(policy, engine.links().clone());
        }
    }

    /// The loop's own progress is what the watchdog is told of; a look at the kernel goes with it, so that an idle daemon wakes
    /// up for both at once.
    fn tick(&mut self) {
        let watchdog = notify::watchdog_interval();
        self.tick_at = Instant::now() + watchdog.map_or(CHECK, |limit| limit.min(CHECK));
        notify::watchdog();
        tokio::task::block_in_place(|| self.parts.datastore.keep_contact(false));
        if self.ready {
            self.kernel.check_soon();
        }
    }

    /// Tells those who watch.
    pub(super) fn tell(&self, event: impl FnOnce() -> Event) {
        if self.events.receiver_count() > 0 {
            // The last one may have left just now.
            let _ = self.events.send(event());
        }
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
            self.tell(|| Event::now(self.parts.generation, Happening::Cut, text));
        }
        if problem != self.cut_problem {
            self.cut_problem = problem;
            self.log_problems();
        }
    }

    fn note_missing(&mut self, features: Vec<Feature>) {
        if !iptables::is_checked(&features) {
            tracing::debug!(
                "features of the kernel cannot be tried from here; `moatctl checksystem` does"
            );
            return;
        }
        for feature in features.iter().filter(|f| !f.works) {
            let text = format!(
                "{} does not work here, lost: {} ({})",
                feature.name, feature.lost, feature.message
            );
            tracing::warn!("{text}");
            self.missing.push(text);
        }
    }

    pub(super) fn recalculate(&mut self, resources_changed: bool) {
        // Half a list is a policy that nobody wrote; at its end everything is calculated.
        if self.parts.datastore.is_listing() {
            return;
        }
        let noticed = Instant::now();
        let has_news = self.parts.engine.calculate();
        if has_news || resources_changed {
            self.metrics.calculated(noticed.elapsed());
            self.parts.generation += 1;
        }
        if has_news {
            self.kernel.changed(noticed);
        } else if self.kernel.is_in_step() {
            // Nothing that this host asks about: what is in force is of this generation, too.
            self.in_force(self.parts.generation);
        }
        self.log_problems();
    }

    fn stop(&mut self) {
        notify::stopping();
        self.write_cache();
        self.parts.datastore.keep_contact(true);
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

/// What the probe found; never resolves when there is none, or none any more.
async fn probed(probe: &mut Probe) -> Vec<Feature> {
    match probe {
        Probe::Running(task) => {
            let found = task.await.unwrap_or_default();
            *probe = Probe::Over;
            found
        }
        _ => std::future::pending().await,
    }
}

/// The look at what kernel and tools can do, which waits until policy is in force.
enum Probe {
    Due,
    Running(JoinHandle<Vec<Feature>>),
    Over,
}
