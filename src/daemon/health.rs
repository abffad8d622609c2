//! What is wrong, and who is told of it: status, log, systemd, metrics.

use std::collections::HashSet;

use super::metrics::Reading;
use super::notify;
use super::report::{Degraded, Event, Happening, State};
use super::run::Daemon;

impl Daemon<'_> {
    /// Everything that is wrong now.
    pub(super) fn degraded(&self) -> Vec<Degraded> {
        let kernel = &self.kernel;
        let backend = &self.parts.backend;
        let snapshots = self.parts.state_dir.display().to_string();
        let compare = kernel
            .compare_error
            .as_ref()
            .map(|e| format!("cannot compare the kernel with the policy: {e}"));
        let known = [
            (kernel.apply_error.as_deref(), "kernel", backend.as_str()),
            (compare.as_deref(), "kernel", backend),
            (self.links_problem.as_deref(), "interfaces", "netlink"),
            (self.saver.problem(), "snapshot", &snapshots),
            (self.cut_problem.as_deref(), "connections", "netlink"),
            (self.servers.problem(), "http", ""),
            (self.parts.watcher.problem(), "policyDirs", ""),
        ];
        let mut degraded: Vec<Degraded> = self.parts.settings_problem.iter().cloned().collect();
        degraded.extend(known.into_iter().filter_map(|(reason, object, place)| {
            Some(Degraded {
                reason: reason?.to_owned(),
                object: object.to_owned(),
                place: place.to_owned(),
            })
        }));
        degraded.extend(kernel.refused.iter().map(|(object, reason)| Degraded {
            reason: format!("{object} is not in force: {reason}; everything else is"),
            object: object.clone(),
            place: backend.clone(),
        }));
        let store = self.parts.engine.store();
        degraded.extend(self.parts.datastore.degraded(store));
        degraded.extend(self.parts.engine.degraded());
        degraded
    }

    /// What metrics show of the present state.
    pub(super) fn reading(&self) -> Reading {
        let policy = self.parts.engine.policy();
        let sets = policy.sets.iter();
        Reading {
            generation: self.kernel.generation,
            ready: self.ready,
            degraded: self.degraded().len(),
            endpoints: policy.endpoints.len() + policy.workloads.len(),
            policies: policy.policies.len(),
            resources: self.parts.engine.store().len(),
            snapshot_age: self.saver.on_disk().and(self.snapshot_age()),
            sets: sets.map(|(id, set)| (id.to_string(), set.len())).collect(),
        }
    }

    pub(super) fn state(&self) -> State {
        match (self.ready, self.degraded().is_empty()) {
            (false, _) => State::Starting,
            (true, true) => State::Enforcing,
            (true, false) => State::Degraded,
        }
    }

    /// Says each new problem once, and when all are solved.
    pub(super) fn log_problems(&mut self) {
        let degraded = self.degraded();
        let reported: HashSet<&Degraded> = self.reported.iter().collect();
        for problem in degraded.iter().filter(|p| !reported.contains(p)) {
            tracing::error!(
                source = problem.place,
                policy = problem.object,
                "{}",
                problem.reason
            );
            self.tell_problem(problem.reason.clone());
        }
        if degraded.is_empty() && !self.reported.is_empty() {
            tracing::info!("all problems are solved");
            self.tell_problem("all problems are solved".to_owned());
        }
        self.reported = degraded;
        self.tell_systemd();
    }

    fn tell_problem(&self, text: String) {
        self.tell(|| Event::now(self.parts.generation, Happening::Problem, text));
    }

    /// The line that `systemctl status` shows, when it is another one.
    fn tell_systemd(&mut self) {
        let policy = self.parts.engine.policy();
        let endpoints = policy.endpoints.len() + policy.workloads.len();
        let state = match self.state() {
            State::Starting => "starting".to_owned(),
            State::Enforcing => "enforcing".to_owned(),
            State::Degraded => format!(
                "degraded ({} problems, see moatctl status)",
                self.reported.len()
            ),
        };
        let generation = self.kernel.generation;
        let text = format!("{state}: generation {generation}, {endpoints} endpoints");
        if self.told != text {
            notify::status(&text);
            self.told = text;
        }
    }
}
