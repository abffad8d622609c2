//! What the engine can say of what it holds: errors, warnings, endpoints.

use super::super::report::{Degraded, EndpointReport};
use super::{DIR, Engine};
use crate::api::{Issue, Kind, ResourceId, Severity, Spec};
use crate::calc::{Direction, HostEp, TierBlock, WorkloadEp};

impl Engine {
    /// Whether there is no resource because none of those that there may be could be read.
    pub fn is_blind(&self) -> bool {
        let is_error = |i: &Issue| i.severity == Severity::Error;
        self.store.is_empty() && self.store.problems().iter().any(is_error)
    }

    /// Errors in the files, and what is in force from the snapshot only.
    pub fn degraded(&self) -> Vec<Degraded> {
        let errors = self
            .store
            .problems()
            .into_iter()
            .filter(|i| i.severity == Severity::Error);
        let mut degraded: Vec<Degraded> = errors.map(|issue| of_issue(&issue)).collect();
        degraded.extend(self.store.unconfirmed(DIR).map(|path| Degraded {
            reason:
                "the file cannot be read now: its content of the snapshot is in force".to_owned(),
            object: path.to_owned(),
            place: path.to_owned(),
        }));
        degraded.extend(self.store.incomplete().map(|path| Degraded {
            reason: "no last good content is known, so what is wrong in it is not in force: less may be allowed or denied than was meant".to_owned(),
            object: path.to_owned(),
            place: path.to_owned(),
        }));
        degraded
    }

    /// What may surprise the user.
    pub fn warnings(&mut self) -> Vec<String> {
        let warnings = self
            .store
            .problems()
            .into_iter()
            .filter(|i| i.severity == Severity::Warning);
        let mut warnings: Vec<String> = warnings.map(|i| i.to_string()).collect();
        if self.store.is_warned_of_enough() {
            warnings.push(
                "there may be more warnings than these about what the datastore holds".to_owned(),
            );
        }
        warnings.extend(self.calculator.lint().iter().map(ToString::to_string));
        warnings
    }

    /// The endpoints of this host.
    pub fn endpoints(&self) -> Vec<EndpointReport> {
        let hosts = self
            .policy()
            .endpoints
            .values()
            .map(|ep| self.host_report(ep));
        let workloads = self
            .policy()
            .workloads
            .iter()
            .map(|(iface, ep)| workload_report(iface, ep));
        hosts.chain(workloads).collect()
    }

    fn host_report(&self, ep: &HostEp) -> EndpointReport {
        let mut interfaces: Vec<String> = ep.attach.interfaces.iter().cloned().collect();
        if ep.attach.others {
            interfaces.push("*".to_owned());
        }
        let id = ResourceId {
            kind: Kind::HostEndpoint,
            namespace: String::new(),
            name: ep.name.clone(),
        };
        let resource = self.store.get(&id).ok().flatten();
        let addresses = match resource.map(|r| r.spec) {
            Some(Spec::HostEndpoint(spec)) => {
                spec.expected_ips.iter().map(ToString::to_string).collect()
            }
            _ => Vec::new(),
        };
        let tiers: Vec<&TierBlock> = ep.tiers.values().flatten().collect();
        EndpointReport {
            name: ep.name.clone(),
            kind: "HostEndpoint".to_owned(),
            interfaces,
            addresses,
            policies: policies(&tiers),
            profiles: ep.profiles.clone(),
            staged: ep.staged.iter().map(ToString::to_string).collect(),
        }
    }
}

fn workload_report(iface: &str, ep: &WorkloadEp) -> EndpointReport {
    EndpointReport {
        name: format!("{}/{}", ep.id.namespace, ep.id.name),
        kind: "WorkloadEndpoint".to_owned(),
        interfaces: vec![iface.to_owned()],
        addresses: ep.sources.iter().map(ToString::to_string).collect(),
        policies: policies(&ep.tiers.iter().collect::<Vec<_>>()),
        profiles: ep.profiles.clone(),
        staged: ep.staged.iter().map(ToString::to_string).collect(),
    }
}

/// Policies in order, each once although it may act in several categories and directions.
fn policies(tiers: &[&TierBlock]) -> Vec<String> {
    let mut names = Vec::new();
    for tier in tiers {
        for id in tier
            .policies(Direction::Ingress)
            .iter()
            .chain(tier.policies(Direction::Egress))
        {
            let name = format!("{}/{id}", tier.tier);
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

fn of_issue(issue: &Issue) -> Degraded {
    Degraded {
        reason: issue.to_string(),
        object: issue
            .object
            .as_ref()
            .map_or_else(|| issue.file.clone(), ToString::to_string),
        place: match (issue.line, issue.column) {
            (0, _) => issue.file.clone(),
            (line, 0) => format!("{}:{line}", issue.file),
            (line, column) => format!("{}:{line}:{column}", issue.file),
        },
    }
}
