//! Store to host policy, incrementally.
//!
//! An update costs work in proportion to what it touches: label indexes lead from a changed label to the selectors and from a
//! changed selector to the endpoints; only policies that select an endpoint of this host are turned into rules, and only
//! sets that those rules use have members.

mod attach;
mod changes;
mod effective;
mod endpoints;
mod index;
mod lint;
mod model;
mod rules;
mod sets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use changes::{HostChanges, Member, SetChange};
pub use effective::{NAMESPACE, policy_selector};
pub use lint::{lint_host, lint_resources, nodes};
pub use model::*;
pub use rules::DEFAULT_ALLOW;

use crate::api::{Kind, Resource, ResourceId, Spec};
use crate::config::Settings;
use crate::dataplane::links::Links;
use index::{LabelMap, SelectorIndex};
use rules::ActiveRules;
use sets::{Holder, SetIndex};

/// What the calculator must know of the host besides resources.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Node name; resources whose `spec.node` equals it belong to this host.
    pub node: String,
    /// Interfaces and addresses.
    pub links: Links,
}

/// The incremental calculator. Feed it changes, then ask for the host policy.
#[derive(Debug)]
pub struct Calculator {
    host: Host,
    options: Options,
    exclude: Vec<String>,
    resources: BTreeMap<ResourceId, Resource>,
    /// Endpoints by the profiles whose labels they inherit.
    profile_users: BTreeMap<String, BTreeSet<ResourceId>>,
    sets: SetIndex,
    /// Effective selectors of enforced and staged policies.
    selectors: SelectorIndex<ResourceId>,
    /// Labels of this host's endpoints.
    local: BTreeMap<ResourceId, LabelMap>,
    /// Policies (staged ones too) that select each local endpoint.
    selected: BTreeMap<ResourceId, BTreeSet<ResourceId>>,
    /// Local endpoints that each policy selects.
    selects: BTreeMap<ResourceId, BTreeSet<ResourceId>>,
    active_policies: BTreeMap<ResourceId, ActiveRules>,
    active_profiles: BTreeMap<String, ActiveRules>,
    /// Finished endpoints, until something about them changes.
    finished: BTreeMap<ResourceId, endpoints::Finished>,
}

/// One load: the host policy of these resources. What any order of updates to a [`Calculator`] must end in.
pub fn compute(resources: &[Resource], host: &Host, settings: &Settings) -> HostPolicy {
    let mut calculator = Calculator::new(host.clone(), settings);
    for resource in resources {
        calculator.upsert(resource);
    }
    calculator.host_policy()
}

impl Calculator {
    /// A calculator without resources.
    pub fn new(host: Host, settings: &Settings) -> Calculator {
        Calculator {
            host,
            options: attach::options(settings),
            exclude: settings.interface_exclude.clone(),
            resources: BTreeMap::new(),
            profile_users: BTreeMap::new(),
            sets: SetIndex::default(),
            selectors: SelectorIndex::default(),
            local: BTreeMap::new(),
            selected: BTreeMap::new(),
            selects: BTreeMap::new(),
            active_policies: BTreeMap::new(),
            active_profiles: BTreeMap::new(),
            finished: BTreeMap::new(),
        }
    }

    /// New interfaces or addresses.
    pub fn set_links(&mut self, links: Links) {
        self.host.links = links;
    }

    /// New settings. The node name cannot change: make a new calculator.
    pub fn set_settings(&mut self, settings: &Settings) {
        self.options = attach::options(settings);
        self.exclude = settings.interface_exclude.clone();
    }

    /// A resource was created or changed.
    pub fn upsert(&mut self, resource: &Resource) {
        let old = self.resources.insert(resource.id.clone(), resource.clone());
        match &resource.spec {
            Spec::HostEndpoint(_) | Spec::WorkloadEndpoint(_) | Spec::NetworkSet(_) => {
                if let Some(old) = old {
                    self.unlink_profiles(&old);
                }
                self.link_profiles(resource);
                self.refresh_holder(&resource.id);
            }
            Spec::Profile(_) => self.profile_changed(&resource.id.name),
            Spec::Policy(_) | Spec::Staged(..) => self.policy_changed(&resource.id),
            Spec::Tier(_) => self.finished.clear(),
            Spec::FelixConfiguration(_) | Spec::Other => {}
        }
    }

    /// A resource was deleted.
    pub fn delete(&mut self, id: &ResourceId) {
        let Some(old) = self.resources.remove(id) else {
            return;
        };
        match &old.spec {
            Spec::HostEndpoint(_) | Spec::WorkloadEndpoint(_) | Spec::NetworkSet(_) => {
                self.unlink_profiles(&old);
                self.refresh_holder(id);
            }
            Spec::Profile(_) => self.profile_changed(&id.name),
            Spec::Policy(_) | Spec::Staged(..) => self.policy_changed(id),
            Spec::Tier(_) => self.finished.clear(),
            Spec::FelixConfiguration(_) | Spec::Other => {}
        }
    }

    /// The host policy of everything said so far.
    pub fn host_policy(&mut self) -> HostPolicy {
        let (endpoints, workloads) = self.finish_endpoints();
        HostPolicy {
            node: self.host.node.clone(),
            endpoints,
            workloads,
            policies: self
                .active_policies
                .iter()
                .map(|(id, a)| (id.clone(), a.lists.clone()))
                .collect(),
            profiles: self
                .active_profiles
                .iter()
                .map(|(name, a)| (name.clone(), a.lists.clone()))
                .collect(),
            sets: self.sets.finished(),
            options: self.options.clone(),
        }
    }

    /// The labels of a local endpoint after inheritance, for reports.
    pub fn labels(&self, id: &ResourceId) -> Option<&BTreeMap<String, String>> {
        self.local.get(id)
    }

    fn link_profiles(&mut self, resource: &Resource) {
        for name in endpoints::parents(resource) {
            self.profile_users
                .entry(name)
                .or_default()
                .insert(resource.id.clone());
        }
    }

    fn unlink_profiles(&mut self, resource: &Resource) {
        for name in endpoints::parents(resource) {
            if let Some(users) = self.profile_users.get_mut(&name) {
                users.remove(&resource.id);
                if users.is_empty() {
                    self.profile_users.remove(&name);
                }
            }
        }
    }

    /// Labels, addresses or existence of an endpoint or network set changed.
    fn refresh_holder(&mut self, id: &ResourceId) {
        self.finished.remove(id);
        let Some(resource) = self.resources.get(id) else {
            self.sets.set_holder(id, None);
            self.local.remove(id);
            self.select(id, BTreeSet::new());
            self.refresh_profiles();
            return;
        };
        let labels = endpoints::labels(resource, |name| {
            endpoints::profile_labels(&self.resources, name)
        });
        let (nets, ports) = endpoints::contribution(resource);
        let is_local = endpoints::node(resource) == Some(self.host.node.as_str());
        self.sets.set_holder(
            id,
            Some(Holder {
                labels: labels.clone(),
                nets,
                ports,
            }),
        );
        if is_local {
            let policies = self.selectors.matching(&labels);
            self.local.insert(id.clone(), labels);
            self.select(id, policies);
        } else if self.local.remove(id).is_some() {
            self.select(id, BTreeSet::new());
        }
        self.refresh_profiles();
    }

    fn profile_changed(&mut self, name: &str) {
        for id in self.profile_users.get(name).cloned().unwrap_or_default() {
            self.refresh_holder(&id);
        }
        if let Some(old) = self.active_profiles.remove(name) {
            self.release(&old);
        }
        self.refresh_profiles();
    }

    fn policy_changed(&mut self, id: &ResourceId) {
        if let Some(old) = self.active_policies.remove(id) {
            self.release(&old);
        }
        let selector = match self.resources.get(id).map(|r| &r.spec) {
            Some(Spec::Policy(p) | Spec::Staged(_, Some(p))) => Some(policy_selector(id, p)),
            _ => None,
        };
        match &selector {
            Some(selector) => self.selectors.insert(id.clone(), selector.clone()),
            None => self.selectors.remove(id),
        }
        let locals: Vec<ResourceId> = self.local.keys().cloned().collect();
        for endpoint in locals {
            let is_match = selector
                .as_ref()
                .is_some_and(|s| s.matches(&self.local[&endpoint]));
            self.match_one(&endpoint, id, is_match);
        }
        self.activate(id);
    }

    /// Sets the policies that select an endpoint.
    fn select(&mut self, endpoint: &ResourceId, policies: BTreeSet<ResourceId>) {
        let old = self.selected.get(endpoint).cloned().unwrap_or_default();
        for policy in old
            .symmetric_difference(&policies)
            .cloned()
            .collect::<Vec<_>>()
        {
            self.match_one(endpoint, &policy, policies.contains(&policy));
            self.activate(&policy);
        }
    }

    fn match_one(&mut self, endpoint: &ResourceId, policy: &ResourceId, is_match: bool) {
        let policies = self.selected.entry(endpoint.clone()).or_default();
        let changed = if is_match {
            policies.insert(policy.clone())
        } else {
            policies.remove(policy)
        };
        // A policy that still matches may have another tier, order or direction.
        if changed || is_match {
            self.finished.remove(endpoint);
        }
        if policies.is_empty() {
            self.selected.remove(endpoint);
        }
        let endpoints = self.selects.entry(policy.clone()).or_default();
        if is_match {
            endpoints.insert(endpoint.clone());
        } else {
            endpoints.remove(endpoint);
        }
        if endpoints.is_empty() {
            self.selects.remove(policy);
        }
    }

    /// Gives a policy its rules when it selects a local endpoint, takes them when it selects none.
    fn activate(&mut self, id: &ResourceId) {
        let wanted = self.selects.contains_key(id)
            && matches!(id.kind, Kind::GlobalNetworkPolicy | Kind::NetworkPolicy);
        if !wanted {
            if let Some(old) = self.active_policies.remove(id) {
                self.release(&old);
            }
            return;
        }
        if self.active_policies.contains_key(id) {
            return;
        }
        let Some(Resource {
            spec: Spec::Policy(policy),
            origin,
            ..
        }) = self.resources.get(id)
        else {
            return;
        };
        let (lists, used) = rules::policy_rules(id, origin, policy);
        let active = ActiveRules {
            lists: Arc::new(lists),
            used,
        };
        self.acquire(&active);
        self.active_policies.insert(id.clone(), active);
    }

    /// Keeps exactly the profiles active that local endpoints list.
    fn refresh_profiles(&mut self) {
        let wanted: BTreeSet<String> = self
            .local
            .keys()
            .filter_map(|id| self.resources.get(id))
            .flat_map(endpoints::profiles)
            .cloned()
            .collect();
        let stale: Vec<String> = self
            .active_profiles
            .keys()
            .filter(|n| !wanted.contains(*n))
            .cloned()
            .collect();
        for name in stale {
            if let Some(old) = self.active_profiles.remove(&name) {
                self.release(&old);
            }
        }
        for name in wanted {
            if self.active_profiles.contains_key(&name) {
                continue;
            }
            let id = ResourceId {
                kind: Kind::Profile,
                namespace: String::new(),
                name: name.clone(),
            };
            let (lists, used) = match self.resources.get(&id) {
                Some(Resource {
                    spec: Spec::Profile(profile),
                    origin,
                    ..
                }) => rules::profile_rules(&id, origin, profile),
                _ => (rules::absent_profile(&name), rules::UsedSets::new()),
            };
            let active = ActiveRules {
                lists: Arc::new(lists),
                used,
            };
            self.acquire(&active);
            self.active_profiles.insert(name, active);
        }
    }

    fn acquire(&mut self, active: &ActiveRules) {
        for (set, selector) in &active.used {
            self.sets.acquire(set, selector);
        }
    }

    fn release(&mut self, active: &ActiveRules) {
        for (set, selector) in &active.used {
            self.sets.release(set, selector);
        }
    }
}
