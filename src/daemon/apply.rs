//! One job after the other on the dataplane's thread, and what follows from how it ended.

use std::time::Instant;

use super::boot;
use super::connections::Suspects;
use super::kernel::{Done, Ended, Job, Outcome, RETRY, Running, Work};
use super::notify;
use super::report::{ApplyReport, Event, Happening, now};
use super::run::{Daemon, NEVER, START_EXTENSION};
use crate::config::ExistingConnections;
use crate::dataplane::{Applied, Changed, DataplaneError, iptables};

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
                if whole {
                    // It compares everything. What others change from now on makes it sooner again.
                    self.schedule_verify();
                }
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
