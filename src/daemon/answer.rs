//! Answers to what clients ask through the control socket.

use std::path::Path;

use super::control::{Call, Reply, Request};
use super::report::{ConfigReport, PlanReport, SnapshotReport, SourceReport, Status};
use super::run::Daemon;
use crate::api::{self, Kind};
use crate::calc::HostPolicy;
use crate::dataplane::iptables;
use crate::verdict;

impl Daemon<'_> {
    /// Answers one call.
    pub(super) fn answer(&mut self, call: Call) {
        let reply = match self.reply(call.request) {
            Ok(value) => Reply::Ok(value),
            Err(message) => message,
        };
        // A client that left needs no answer.
        let _ = call.reply.send(reply);
    }

    fn reply(&mut self, request: Request) -> Result<serde_json::Value, Reply> {
        match request {
            Request::Status => to_json(&self.status()),
            Request::Get {
                kind,
                namespace,
                name,
            } => self
                .get(&kind, namespace.as_deref(), name.as_deref())
                .map_err(Reply::Refused),
            Request::Config => to_json(&self.config()),
            Request::Plan { files } => {
                let plan = self.plan(&files)?;
                to_json(&plan)
            }
            Request::Explain(query) => {
                let engine = &self.parts.engine;
                let resources = engine.resources();
                let answer =
                    verdict::explain(&query, engine.policy(), &resources, Some(engine.links()));
                to_json(&answer.map_err(Reply::Refused)?)
            }
            Request::Metrics => to_json(&self.metrics.text(&self.reading())),
            Request::Ready => to_json(&self.ready),
            Request::Watch => Err(Reply::Refused("events are not a single answer".to_owned())),
            Request::Checksystem => {
                let backend = self.parts.choice.backend;
                to_json(&tokio::task::block_in_place(|| {
                    iptables::check_features(backend)
                }))
            }
        }
    }

    fn status(&mut self) -> Status {
        let warnings = self.parts.engine.warnings();
        let engine = &self.parts.engine;
        let sources = self
            .parts
            .loaded
            .settings
            .policy_dirs
            .iter()
            .map(|dir| self.source_report(dir));
        Status {
            node: self.parts.loaded.settings.felix_hostname.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: self.parts.generation,
            state: self.state(),
            degraded: self.degraded(),
            warnings: self.missing.iter().cloned().chain(warnings).collect(),
            endpoints: engine.endpoints(),
            backend: self.parts.dataplane.name(),
            backend_reason: self.parts.choice.why.clone(),
            sources: sources.collect(),
            snapshot: self.snapshot.map(|(generation, at)| SnapshotReport {
                generation,
                age: at.elapsed().as_secs(),
            }),
            last_apply: self.last_apply.clone(),
            verified_at: self.verified_at.clone(),
        }
    }

    fn source_report(&self, dir: &Path) -> SourceReport {
        let store = self.parts.engine.store();
        let of_dir = |path: &str| Path::new(path).parent() == Some(dir);
        SourceReport {
            name: format!("dir:{}", dir.display()),
            in_sync: self.parts.source.away().all(|away| away != dir)
                && !store.unconfirmed().any(of_dir),
            last_contact: self.contacts.get(dir).cloned(),
            revision: store.revision(),
        }
    }

    fn get(
        &self,
        kind: &str,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> Result<serde_json::Value, String> {
        let kind: Kind = kind.parse().map_err(|_| format!("unknown kind {kind}"))?;
        let wanted = |r: &api::Resource| {
            namespace.is_none_or(|n| n == r.id.namespace) && name.is_none_or(|n| n == r.id.name)
        };
        let mut found = Vec::new();
        for resource in self.parts.engine.store().of_kind(kind) {
            let r = resource.map_err(|issue| issue.to_string())?;
            if wanted(&r) {
                found.push(serde_json::json!({"resource": &r.raw, "origin": r.origin.to_string()}));
            }
        }
        Ok(serde_json::Value::Array(found))
    }

    fn config(&self) -> ConfigReport {
        let rows = self.parts.loaded.rows();
        ConfigReport {
            settings: rows
                .iter()
                .filter_map(|row| serde_json::to_value(row).ok())
                .collect(),
            notes: self.parts.loaded.notes.clone(),
        }
    }

    fn plan(&mut self, files: &[(String, String)]) -> Result<PlanReport, Reply> {
        let mut resources = Vec::new();
        let mut issues = Vec::new();
        for (name, text) in files {
            let parsed = api::parse_bytes(name, text.as_bytes());
            issues.extend(parsed.issues.iter().map(ToString::to_string));
            if parsed.has_errors() {
                return Err(Reply::Refused(issues.join("\n")));
            }
            resources.extend(parsed.resources);
        }
        let (ruleset, policy) = if files.is_empty() {
            let policy = HostPolicy::clone(self.parts.engine.policy());
            (self.ruleset.clone(), policy)
        } else {
            self.parts.engine.candidate(&resources)
        };
        let plan = tokio::task::block_in_place(|| {
            self.parts.dataplane.read()?;
            self.parts.dataplane.plan(&ruleset, &policy)
        });
        let plan = plan.map_err(|e| Reply::Error(e.to_string()))?;
        Ok(PlanReport {
            changes: !plan.is_empty(),
            changed: plan.changed,
            lines: plan.lines(),
            issues,
        })
    }
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<serde_json::Value, Reply> {
    serde_json::to_value(value).map_err(|e| Reply::Error(e.to_string()))
}
