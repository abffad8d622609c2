//! Between the ruleset and the kernel: apply, compare, keep the snapshot.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::connections::Suspects;
use super::report::{ApplyReport, now};
use super::run::{Daemon, NEVER, RETRY, START_EXTENSION};
use super::{chain, notify};
use crate::config::ExistingConnections;
use crate::dataplane::{DataplaneError, Plan, iptables};
use crate::store::Meta;

impl Daemon<'_> {
    /// Writes the ruleset; a failure keeps what the kernel holds and is tried again.
    pub(super) fn apply(&mut self) {
        let begin = Instant::now();
        if !self.ready {
            notify::extend_timeout(START_EXTENSION);
        }
        match tokio::task::block_in_place(|| self.write()) {
            Ok(plan) => self.applied(&plan, begin),
            Err(message) => {
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

    fn write(&mut self) -> Result<Plan, String> {
        let failed = |e: DataplaneError| format!("cannot write the rules: {e}");
        let dataplane = &mut self.parts.dataplane;
        let policy = self.parts.engine.policy();
        // A policy that nobody could read is not an empty one: rules of an earlier run are better than none.
        if !self.ready && self.parts.engine.is_blind() {
            let plan = dataplane.plan(&self.ruleset, policy).map_err(failed)?;
            if !plan.is_empty() {
                return Err("no policy can be read and there is no snapshot of it".to_owned());
            }
        }
        dataplane.apply(&self.ruleset, policy).map_err(failed)
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
        self.metrics.applied(begin.elapsed(), true);
        if !plan.is_empty()
            && self.parts.loaded.settings.existing_connections == ExistingConnections::Reevaluate
        {
            self.cutter.suspect(Suspects::Everybody);
        }
        self.save();
        if !self.ready {
            self.ready = true;
            self.clear_other_backend();
            notify::ready();
        }
    }

    /// Rules of ours in the backend that is not in use would judge every packet a second time.
    fn clear_other_backend(&mut self) {
        let other = self.parts.choice.backend.other();
        match iptables::remove_rules(other) {
            Ok(plan) if plan.is_empty() => {}
            Ok(_) => {
                tracing::info!(
                    "removed moat's rules from the {other} backend, which is not in use"
                );
                // They may have held old sets.
                self.apply();
            }
            Err(error) => {
                tracing::warn!("cannot look for old rules in the {other} backend: {error}")
            }
        }
    }

    fn schedule_verify(&mut self) {
        let interval = self.parts.loaded.settings.iptables_refresh_interval;
        self.verify_at = Instant::now() + if interval.is_zero() { NEVER } else { interval };
    }

    /// Compares the kernel with what is wanted and repairs it.
    pub(super) fn verify(&mut self) {
        self.compared_at = Instant::now();
        self.schedule_verify();
        let read = tokio::task::block_in_place(|| {
            self.parts.dataplane.read()?;
            let policy = self.parts.engine.policy();
            self.parts.dataplane.plan(&self.ruleset, policy)
        });
        let error = read.as_ref().err().map(ToString::to_string);
        if error != self.compare_error {
            self.compare_error = error;
            self.log_problems();
        }
        match read {
            Ok(plan) if plan.is_empty() => {
                self.verified_at = Some(now());
                // Tried again now if the disk was full before.
                self.save();
            }
            Ok(plan) => {
                tracing::warn!(
                    "somebody changed moat's rules ({} lines differ): repairing",
                    plan.lines().len()
                );
                self.apply();
            }
            // Reported with the other problems, once.
            Err(_) => {}
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
        let meta = Meta {
            node: self.parts.loaded.settings.felix_hostname.clone(),
            settings: serde_json::to_string(&self.parts.loaded).unwrap_or_default(),
            backend: Some(self.parts.choice.backend.to_string()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let generation = self.parts.generation;
        let store = self.parts.engine.store_mut();
        let Some(job) = store.save(meta, generation, written) else {
            return;
        };
        let done = tokio::task::block_in_place(|| job.run());
        let saved = store.saved(done);
        self.snapshot_problem = saved.as_ref().err().map(|error| {
            let why = chain(error);
            format!("{why}: after a restart without the policy files an older policy is in force")
        });
        if saved.is_ok() {
            self.snapshot = Some((generation, Instant::now()));
        }
    }
}
