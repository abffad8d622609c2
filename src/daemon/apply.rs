//! Between the ruleset and the kernel: one job at a time on the dataplane's thread, which apply, compare or look.

use std::pin::Pin;
use std::time::{Duration, Instant};

use super::boot;
use super::connections::Suspects;
use super::notify;
use super::report::{ApplyReport, Event, Happening, now};
use super::run::{Daemon, NEVER, START_EXTENSION};
use crate::config::ExistingConnections;
use crate::dataplane::{Applied, Changed, DataplaneError, iptables};

/// Pause before a failed apply is tried again; doubles up to the longest.
const RETRY: Duration = Duration::from_secs(1);
/// The longest pause between two tries.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// A change of rules by others is looked at after this, when its transaction is over.
const VERIFY_DELAY: Duration = Duration::from_millis(100);
/// The least time between two comparisons with the kernel that changes of others cause.
const VERIFY_PAUSE: Duration = Duration::from_millis(700);

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Brings a change into the kernel.
    Apply,
    /// Compares everything and repairs.
    Verify,
    /// Looks cheaply whether somebody changed something.
    Check,
    /// Removes what moat left in the backend that is not in use.
    Clear,
}

/// How a job ended.
enum Done {
    /// The kernel is as wanted, after these changes.
    Applied(Applied),
    /// No policy could be read, and the kernel holds one of an earlier run: nothing was touched.
    Blind,
    /// Whether the kernel may have been changed.
    Checked(bool),
    /// Whether anything had to be removed.
    Cleared(bool),
}

type Outcome = Result<Done, DataplaneError>;
type Job = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A job under way.
struct Running {
    work: Work,
    job: Job,
    began: Instant,
    generation: u64,
    /// When the first of the changes in it was noticed.
    noticed: Instant,
    suspects: Suspects,
}

/// What the loop knows of the kernel and what it is to do there next.
pub struct Kernel {
    running: Option<Running>,
    /// Whether the next apply must compare everything, because the kernel may hold anything.
    whole: bool,
    /// When the first change that is not in the kernel was noticed.
    noticed: Option<Instant>,
    /// After a failure: when to try again, and the pause after that.
    retry_at: Option<Instant>,
    pause: Duration,
    verify_at: Instant,
    compared_at: Instant,
    check_due: bool,
    clear_due: bool,
    /// Why the last change is not in force.
    pub apply_error: Option<String>,
    /// Why the kernel cannot be compared with the policy, if it cannot.
    pub compare_error: Option<String>,
    /// What the kernel refused: object and reason.
    pub refused: Vec<(String, String)>,
    /// Generation in force.
    pub generation: u64,
    /// The last apply.
    pub last_apply: Option<ApplyReport>,
    /// When the kernel was last known to be as wanted.
    pub verified_at: Option<String>,
    /// Times that somebody else's changes were repaired.
    pub repairs: u64,
}

impl Kernel {
    /// Nothing is known.
    pub fn new(generation: u64) -> Kernel {
        Kernel {
            running: None,
            whole: true,
            noticed: Some(Instant::now()),
            retry_at: None,
            pause: RETRY,
            verify_at: Instant::now() + NEVER,
            compared_at: Instant::now(),
            check_due: false,
            clear_due: true,
            apply_error: None,
            compare_error: None,
            refused: Vec::new(),
            generation,
            last_apply: None,
            verified_at: None,
            repairs: 0,
        }
    }

    /// Something changed that is not in the kernel yet.
    pub fn changed(&mut self, noticed: Instant) {
        self.noticed.get_or_insert(noticed);
    }

    /// Somebody, perhaps moat itself, changed rules: compare soon, but not more often than a comparison may cost.
    pub fn rules_changed(&mut self) {
        let soon = Instant::now() + VERIFY_DELAY;
        let not_before = self.compared_at + VERIFY_PAUSE;
        self.verify_at = self.verify_at.min(soon.max(not_before));
    }

    /// Whether the kernel has everything that was calculated.
    pub fn is_in_step(&self) -> bool {
        self.noticed.is_none() && !self.is_applying()
    }

    /// Whether a change is being written.
    pub fn is_applying(&self) -> bool {
        self.running.as_ref().is_some_and(|r| r.work == Work::Apply)
    }

    /// A look is due.
    pub fn check_soon(&mut self) {
        self.check_due = true;
    }

    /// When [`Daemon::work`] is to be called although nothing happened.
    pub fn due(&self) -> Instant {
        match (&self.running, self.retry_at) {
            (Some(_), _) => Instant::now() + NEVER,
            (None, Some(at)) => at.min(self.verify_at),
            (None, None) => self.verify_at,
        }
    }

    /// Waits until the job under way ends; for ever, when there is none. Nothing is lost when the wait is cancelled.
    pub async fn ended(&mut self) -> Ended {
        let Some(running) = &mut self.running else {
            return std::future::pending().await;
        };
        let outcome = running.job.as_mut().await;
        match self.running.take() {
            Some(running) => Ended { running, outcome },
            None => std::future::pending().await,
        }
    }

    /// What to do now.
    fn next(&self, ready: bool) -> Option<Work> {
        let time = Instant::now();
        if self.running.is_some() || self.retry_at.is_some_and(|at| at > time) {
            return None;
        }
        if self.noticed.is_some() {
            return Some(Work::Apply);
        }
        if self.verify_at <= time {
            return Some(Work::Verify);
        }
        if self.clear_due && ready {
            return Some(Work::Clear);
        }
        self.check_due.then_some(Work::Check)
    }

    fn failed(&mut self) {
        self.whole = true;
        self.noticed.get_or_insert_with(Instant::now);
        self.retry_at = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_RETRY);
    }
}

/// A job that ended.
pub struct Ended {
    running: Running,
    outcome: Outcome,
}

impl Daemon<'_> {
    /// Begins the next job if none is under way and there is something to do.
    pub(super) fn work(&mut self) {
        if self.is_waiting() {
            return;
        }
        let Some(work) = self.kernel.next(self.ready) else {
            return;
        };
        let mut suspects = Suspects::Nobody;
        let noticed = self.kernel.noticed.unwrap_or_else(Instant::now);
        let job: Job = match work {
            Work::Apply => {
                // Work may be long; tools that do not work get no more time.
                if !self.ready && self.kernel.apply_error.is_none() {
                    notify::extend_timeout(START_EXTENSION);
                }
                self.kernel.noticed = None;
                self.kernel.retry_at = None;
                let whole = std::mem::take(&mut self.kernel.whole);
                let (wanted, changes) = self.parts.engine.hand_over(whole);
                suspects = Suspects::of(&changes);
                // A policy that nobody could read is not an empty one: rules of an earlier run are better than none.
                let guarded = !self.ready && self.parts.is_blind();
                Box::pin(self.parts.applier.ask(move |dataplane| {
                    if guarded && !dataplane.plan(&wanted)?.is_empty() {
                        return Ok(Done::Blind);
                    }
                    dataplane.apply(&wanted).map(Done::Applied)
                }))
            }
            Work::Verify => {
                self.schedule_verify();
                self.kernel.compared_at = Instant::now();
                let (wanted, changes) = self.parts.engine.hand_over(true);
                suspects = Suspects::of(&changes);
                let verified = self.parts.applier.verify(wanted);
                Box::pin(async move { verified.await.map(Done::Applied) })
            }
            Work::Check => {
                self.kernel.check_due = false;
                let checked = self.parts.applier.check();
                Box::pin(async move { checked.await.map(Done::Checked) })
            }
            Work::Clear => {
                self.kernel.clear_due = false;
                let other = self.parts.choice.backend.other();
                Box::pin(self.parts.applier.ask(move |_| {
                    iptables::remove_rules(other).map(|plan| Done::Cleared(!plan.is_empty()))
                }))
            }
        };
        self.kernel.running = Some(Running {
            work,
            job,
            began: Instant::now(),
            generation: self.parts.generation,
            noticed,
            suspects,
        });
    }

    /// Takes in how a job ended.
    pub(super) fn ended(&mut self, ended: Ended) {
        let Ended { running, outcome } = ended;
        match (running.work, outcome) {
            (Work::Apply, Ok(Done::Applied(applied))) => self.applied(running, applied),
            (Work::Apply, Ok(_)) => {
                self.not_applied(
                    &running,
                    "no policy can be read and there is no snapshot of it",
                );
            }
            (Work::Apply, Err(error)) => {
                self.not_applied(&running, &format!("cannot write the rules: {error}"));
            }
            (Work::Verify, Ok(Done::Applied(applied))) => self.verified(running, applied),
            (Work::Verify | Work::Check, Err(error)) => self.not_compared(&error),
            (Work::Check, Ok(Done::Checked(true))) => self.kernel.verify_at = Instant::now(),
            (Work::Clear, outcome) => self.cleared(outcome),
            _ => {}
        }
        self.log_problems();
    }

    fn applied(&mut self, running: Running, applied: Applied) {
        let took = running.began.elapsed();
        if self.kernel.apply_error.take().is_some() {
            tracing::info!("the rules could be written again");
        }
        self.metrics.applied(took, true);
        self.metrics.lag(running.noticed.elapsed());
        let report = ApplyReport {
            when: now(),
            milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            changed: applied.changed,
        };
        self.tell_applied(running.generation, &report);
        self.kernel.last_apply = Some(report);
        self.in_force(running.generation);
        self.kernel.compare_error = None;
        self.kernel.verified_at = Some(now());
        self.schedule_verify();
        self.note_refused(&applied);
        if applied.changed != Changed::default() {
            self.suspect(running.suspects);
        }
        boot::mark(&self.parts.state_dir, self.parts.engine.policy());
        if !self.ready {
            boot::reopen();
            self.ready = true;
            notify::ready();
        }
    }

    /// This generation is in force.
    pub(super) fn in_force(&mut self, generation: u64) {
        self.kernel.generation = generation;
        self.saver.want(generation);
    }

    fn suspect(&mut self, suspects: Suspects) {
        let settings = &self.parts.loaded.settings;
        if settings.existing_connections == ExistingConnections::Reevaluate {
            self.cutter.suspect(suspects);
        }
    }

    fn tell_applied(&self, generation: u64, report: &ApplyReport) {
        let policy = self.parts.engine.policy();
        let endpoints = policy.endpoints.len() + policy.workloads.len();
        let c = &report.changed;
        let text = format!(
            "policy in force: generation {generation}, {endpoints} endpoints, {} rules added, {} removed, {} set members changed, {} ms",
            c.rules_added, c.rules_removed, c.members, report.milliseconds
        );
        if c.rules_added + c.rules_removed > 0 {
            tracing::info!(generation, "{text}");
        } else {
            tracing::debug!(generation, "{text}");
        }
        self.tell(|| Event {
            applied: Some(report.clone()),
            ..Event::now(generation, Happening::Applied, text)
        });
    }

    /// What one object's refusal keeps out of the kernel is tried again with everything.
    fn note_refused(&mut self, applied: &Applied) {
        let refused = applied.refused.iter();
        self.kernel.refused = refused
            .map(|(object, reason)| (object.clone(), reason.clone()))
            .collect();
        if self.kernel.refused.is_empty() {
            self.kernel.pause = RETRY;
        } else {
            self.kernel.failed();
        }
    }

    fn not_applied(&mut self, running: &Running, message: &str) {
        self.metrics.applied(running.began.elapsed(), false);
        let text = format!("{message}; the rules in the kernel stay as they are, trying again");
        if self.kernel.apply_error.as_deref() != Some(message) {
            tracing::error!("{text}");
        }
        self.tell(|| Event::now(running.generation, Happening::Failed, text));
        self.kernel.apply_error = Some(message.to_owned());
        // Its flows are suspect once it is in force.
        self.suspect_later(&running.suspects);
        self.kernel.failed();
    }

    /// The next apply is a whole one, after which everybody is suspect.
    fn suspect_later(&mut self, suspects: &Suspects) {
        if *suspects != Suspects::Nobody {
            self.parts.engine.distrust();
        }
    }

    fn verified(&mut self, running: Running, applied: Applied) {
        self.kernel.compare_error = None;
        self.kernel.verified_at = Some(now());
        self.in_force(running.generation);
        self.note_refused(&applied);
        let c = applied.changed;
        if c == Changed::default() {
            return;
        }
        // Changes of policy that were on their way are in it, so it is a repair only without them.
        if running.suspects == Suspects::Nobody {
            self.kernel.repairs += 1;
            let rules = c.rules_added + c.rules_removed;
            let sets = c.sets_created + c.sets_removed;
            self.metrics
                .repaired(&[("rules", rules), ("members", c.members), ("sets", sets)]);
            let text = format!(
                "somebody changed what is moat's in the kernel: {rules} rules, {} set members and {sets} sets repaired",
                c.members
            );
            tracing::warn!("{text}");
            self.tell(|| Event::now(running.generation, Happening::Repaired, text));
        }
        self.suspect(running.suspects);
    }

    fn not_compared(&mut self, error: &DataplaneError) {
        self.kernel.compare_error = Some(error.to_string());
        self.kernel.failed();
    }

    fn cleared(&mut self, outcome: Outcome) {
        let other = self.parts.choice.backend.other();
        match outcome {
            Ok(Done::Cleared(true)) => {
                tracing::info!(
                    "removed moat's rules from the {other} backend, which is not in use"
                );
                // They may have held old sets.
                self.kernel.verify_at = Instant::now();
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!("cannot look for old rules in the {other} backend: {error}");
            }
        }
    }

    fn schedule_verify(&mut self) {
        let interval = self.parts.loaded.settings.iptables_refresh_interval;
        self.kernel.verify_at = Instant::now() + if interval.is_zero() { NEVER } else { interval };
    }
}
