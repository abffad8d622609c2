//! The pure middle of the daemon: store, calculator, compiler. No clock, no kernel, no task.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::report::{Degraded, EndpointReport};
use crate::api::{Issue, ResourceId, Severity, Spec};
use crate::calc::{self, Calculator, Direction, Host, HostEp, HostPolicy, TierBlock, WorkloadEp};
use crate::compile::{self, Ruleset};
use crate::config::Settings;
use crate::dataplane::links::Links;
use crate::source::{DirSource, News};
use crate::store::journal::Saved;
use crate::store::{Change, Store};

/// Name of the directory source in the store.
pub const DIR: &str = "dir";

/// Resources in, ruleset out.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    ipv6: bool,
    links: Links,
    store: Store,
    calculator: Calculator,
    policy: Arc<HostPolicy>,
}

impl Engine {
    /// An engine for the resources of this store, which are none yet.
    pub fn new(settings: Settings, links: Links, ipv6: bool, store: Store) -> Engine {
        let mut calculator = calculator(&settings, &links, &store);
        let policy = Arc::new(calculator.host_policy());
        Engine {
            settings,
            ipv6,
            links,
            store,
            calculator,
            policy,
        }
    }

    /// What is in force.
    pub fn policy(&self) -> &Arc<HostPolicy> {
        &self.policy
    }

    /// The view of all resources.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Interfaces and addresses.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// The view of all resources, to be saved.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Takes up what a snapshot held.
    pub fn seed(&mut self, saved: Saved) {
        self.change(|store, sink| store.seed(saved, sink));
    }

    /// Takes in what changed in the directories; says whether any resource changed, and whether a FelixConfiguration did.
    pub fn read(&mut self, source: &mut DirSource, news: &News) -> Touched {
        self.change(|store, sink| {
            source.scan_for(news, &mut |update| store.take(DIR, update, sink));
        })
    }

    /// Feeds the calculator with what `work` changes in the store.
    fn change(&mut self, work: impl FnOnce(&mut Store, &mut crate::store::Sink<'_>)) -> Touched {
        let before = self.store.revision();
        let calculator = &mut self.calculator;
        let mut felix = false;
        let mut moved = Vec::new();
        work(&mut self.store, &mut |change| {
            let id = match change {
                Change::Upserted(resource) => {
                    calculator.upsert(resource);
                    &resource.id
                }
                Change::Deleted(id) => {
                    calculator.delete(id);
                    id
                }
                Change::Moved(id) => {
                    moved.push(id.clone());
                    id
                }
            };
            felix |= id.kind == crate::api::Kind::FelixConfiguration;
        });
        for id in moved {
            // A lost document is reported by the store.
            if let Ok(Some(resource)) = self.store.get(&id) {
                self.calculator.upsert(&resource);
            }
        }
        Touched {
            resources: self.store.revision() != before,
            felix,
        }
    }

    /// Other interfaces or addresses.
    pub fn set_links(&mut self, links: Links) {
        self.calculator.set_links(links.clone());
        self.links = links;
    }

    /// Other settings.
    pub fn set_settings(&mut self, settings: Settings) {
        if settings.felix_hostname == self.settings.felix_hostname {
            self.calculator.set_settings(&settings);
        } else {
            self.calculator = calculator(&settings, &self.links, &self.store);
        }
        self.settings = settings;
    }

    /// Calculates; says whether the host policy differs from the one before.
    pub fn calculate(&mut self) -> bool {
        let policy = self.calculator.host_policy();
        if policy == *self.policy {
            return false;
        }
        self.policy = Arc::new(policy);
        true
    }

    /// The ruleset of the host policy.
    pub fn ruleset(&self) -> Ruleset {
        compile::compile(
            &self.policy,
            &compile::Options::new(&self.settings, self.ipv6),
        )
    }

    /// The ruleset, and its policy, that these resources, added to the present ones or in place of them, would make.
    pub fn candidate(&self, resources: &[crate::api::Resource]) -> (Ruleset, HostPolicy) {
        let mut merged: BTreeMap<ResourceId, crate::api::Resource> = self
            .resources()
            .into_iter()
            .map(|r| (r.id.clone(), r))
            .collect();
        merged.extend(resources.iter().map(|r| (r.id.clone(), r.clone())));
        let resources: Vec<_> = merged.into_values().collect();
        let host = Host {
            node: self.settings.felix_hostname.clone(),
            links: self.links.clone(),
        };
        let policy = calc::compute(&resources, &host, &self.settings);
        let options = compile::Options::new(&self.settings, self.ipv6);
        (compile::compile(&policy, &options), policy)
    }

    /// All resources whose documents can be read; the store reports the others.
    pub fn resources(&self) -> Vec<crate::api::Resource> {
        self.store.resources().filter_map(Result::ok).collect()
    }

    /// All FelixConfigurations, by name.
    pub fn felix(&self) -> Vec<(String, Arc<crate::api::FelixConfiguration>)> {
        let resources = self.store.of_kind(crate::api::Kind::FelixConfiguration);
        resources
            .filter_map(|resource| {
                let resource = resource.ok()?;
                match resource.spec {
                    Spec::FelixConfiguration(felix) => Some((resource.id.name, felix)),
                    _ => None,
                }
            })
            .collect()
    }

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
        degraded.extend(self.store.unconfirmed().map(|path| Degraded {
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
        warnings.extend(self.calculator.lint().iter().map(ToString::to_string));
        warnings
    }

    /// The endpoints of this host.
    pub fn endpoints(&self) -> Vec<EndpointReport> {
        let hosts = self
            .policy
            .endpoints
            .values()
            .map(|ep| self.host_report(ep));
        let workloads = self
            .policy
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
            kind: crate::api::Kind::HostEndpoint,
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

/// What an update touched.
#[derive(Clone, Copy, Debug)]
pub struct Touched {
    /// Any resource.
    pub resources: bool,
    /// A FelixConfiguration, so that settings must be loaded again.
    pub felix: bool,
}

fn calculator(settings: &Settings, links: &Links, store: &Store) -> Calculator {
    let host = Host {
        node: settings.felix_hostname.clone(),
        links: links.clone(),
    };
    let mut calculator = Calculator::new(host, settings);
    for resource in store.resources().filter_map(Result::ok) {
        calculator.upsert(&resource);
    }
    calculator
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
