//! Answers to what clients ask through the control socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::control::{Call, Reply, Request};
use super::engine::DIR;
use super::published::Governors;
use super::report::{ConfigReport, PlanReport, SnapshotReport, SourceReport, Status};
use super::run::Daemon;
use crate::api::{self, Kind};
use crate::dataplane::{Wanted, firewalls, iptables};
use crate::verdict::{self, Query};

impl Daemon<'_> {
    /// Answers one call, now or when the kernel has been looked at.
    pub(super) fn answer(&mut self, call: Call) {
        match call.request {
            Request::Plan { files } => match self.plan(&files) {
                Ok(plan) => later(call.reply, plan),
                Err(reply) => now(call.reply, Err(reply)),
            },
            Request::Published => {
                let governors = Governors::of(self.parts.engine.policy());
                let look = tokio::task::spawn_blocking(firewalls::published);
                later(call.reply, async move {
                    let ports = look.await.map_err(|e| Reply::Error(e.to_string()))?;
                    let ports = ports.map_err(|e| Reply::Error(e.to_string()))?;
                    to_json(&governors.reports(ports))
                });
            }
            Request::Checksystem => {
                let backend = self.parts.choice.backend;
                let look = tokio::task::spawn_blocking(move || iptables::check_features(backend));
                later(call.reply, async move {
                    to_json(&look.await.map_err(|e| Reply::Error(e.to_string()))?)
                });
            }
            Request::Firewalls => {
                let look = tokio::task::spawn_blocking(firewalls::examine);
                later(call.reply, async move {
                    let findings = look.await.map_err(|e| Reply::Error(e.to_string()))?;
                    to_json(&findings.map_err(|e| Reply::Error(e.to_string()))?)
                });
            }
            request => {
                let answer = self.reply(request);
                now(call.reply, answer);
            }
        }
    }

    fn reply(&mut self, request: Request) -> Answer {
        match request {
            Request::Get {
                kind,
                namespace,
                name,
            } => self
                .get(&kind, namespace.as_deref(), name.as_deref())
                .map_err(Reply::Refused),
            Request::Status => to_json(&self.status()),
            Request::Config => to_json(&self.config()),
            Request::Explain(query) => self.explain(&query),
            Request::Metrics => to_json(&self.metrics.text(&self.reading())),
            Request::Ready => to_json(&self.ready),
            Request::Plan { .. }
            | Request::Published
            | Request::Checksystem
            | Request::Firewalls
            | Request::Watch => Err(Reply::Refused(
                "this is not answered with what is known here".to_owned(),
            )),
        }
    }

    fn explain(&self, query: &Query) -> Answer {
        let engine = &self.parts.engine;
        let mut endpoints: Vec<_> = engine.of_kind(Kind::HostEndpoint);
        // Workloads may be many, and are needed only where one is named.
        let is_name = |end: &str| end.parse::<IpAddr>().is_err();
        if is_name(&query.from) || is_name(&query.to) {
            endpoints.extend(engine.of_kind(Kind::WorkloadEndpoint));
        }
        let answer = verdict::explain(query, engine.policy(), &endpoints, Some(engine.links()));
        to_json(&answer.map_err(Reply::Refused)?)
    }

    /// Says when policy keeps this host from its own datastore.
    fn cut_off(&self) -> Vec<String> {
        let engine = &self.parts.engine;
        let endpoints: Vec<_> = engine.of_kind(Kind::HostEndpoint);
        let is_denied = |address: &SocketAddr| {
            let from = address_towards(address)?;
            let query = Query {
                from: from.to_string(),
                to: address.ip().to_string(),
                port: Some(address.port()),
                ..Query::default()
            };
            let links = Some(engine.links());
            let answer = verdict::explain(&query, engine.policy(), &endpoints, links).ok()?;
            (answer.verdict == "deny").then(|| format!(
                "policy denies this host its own datastore {address}: a connection that is there goes on, but no new one can be made; allow it by policy, or put \"tcp:{}\" into failsafeOutboundHostPorts",
                address.port()
            ))
        };
        let addresses = self.parts.datastore.addresses();
        addresses.iter().filter_map(is_denied).collect()
    }

    fn status(&mut self) -> Status {
        let warnings = self.parts.engine.warnings();
        let missing = self.missing.iter().cloned();
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
            generation: self.kernel.generation,
            state: self.state(),
            degraded: self.degraded(),
            warnings: missing
                .chain(self.parts.datastore.warnings())
                .chain(self.cut_off())
                .chain(warnings)
                .collect(),
            endpoints: engine.endpoints(),
            published: Vec::new(),
            backend: self.parts.backend.clone(),
            backend_reason: self.parts.choice.why.clone(),
            sources: sources.chain(self.parts.datastore.report()).collect(),
            local_overrides: super::datastore::overrides(engine.store()),
            snapshot: self.saver.on_disk().map(|generation| SnapshotReport {
                generation,
                age: self.snapshot_age().unwrap_or_default().as_secs(),
            }),
            last_apply: self.kernel.last_apply.clone(),
            verified_at: self.kernel.verified_at.clone(),
            repairs: self.kernel.repairs,
            connections_cut: self.cut,
        }
    }

    fn source_report(&self, dir: &Path) -> SourceReport {
        let store = self.parts.engine.store();
        let of_dir = |path: &str| Path::new(path).parent() == Some(dir);
        SourceReport {
            name: format!("dir:{}", dir.display()),
            in_sync: self.parts.source.away().all(|away| away != dir)
                && !store.unconfirmed(DIR).any(of_dir),
            last_contact: self.contacts.get(dir).cloned(),
            revision: store.revision(),
            ignored: 0,
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

    /// What the kernel would have to change for these files, or for what is in force without any.
    fn plan(
        &self,
        files: &[(String, String)],
    ) -> Result<impl Future<Output = Answer> + Send + use<>, Reply> {
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
        let engine = &self.parts.engine;
        let wanted = if files.is_empty() {
            Wanted::whole(engine.ruleset().clone(), engine.policy())
        } else {
            let (ruleset, policy) = engine.candidate(&resources);
            Wanted::whole(Arc::new(ruleset), &policy)
        };
        let plan = self.parts.applier.plan(wanted);
        Ok(async move {
            let plan = plan.await.map_err(|e| Reply::Error(e.to_string()))?;
            to_json(&PlanReport {
                changes: !plan.is_empty(),
                changed: plan.changed,
                lines: plan.lines,
                issues,
            })
        })
    }
}

type Answer = Result<serde_json::Value, Reply>;

fn now(to: oneshot::Sender<Reply>, answer: Answer) {
    // A client that left needs no answer.
    let _ = to.send(answer.map_or_else(|refusal| refusal, Reply::Ok));
}

fn later(to: oneshot::Sender<Reply>, answer: impl Future<Output = Answer> + Send + 'static) {
    tokio::spawn(async move { now(to, answer.await) });
}

fn to_json<T: serde::Serialize>(value: &T) -> Answer {
    serde_json::to_value(value).map_err(|e| Reply::Error(e.to_string()))
}

/// The address from which the kernel would connect; nothing is sent.
fn address_towards(address: &SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(address).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
