//! Endpoints of this host: which policies select them, ordered tiers, categories.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use super::model::{Attachment, Category, HostEp, TierBlock, WorkloadEp};
use super::policies::{Entry, PolicyNumber};
use super::posting::HolderId;
use super::{Calculator, attach, facts};
use crate::api::{HostEndpoint, Origin, Resource, ResourceId, Spec, WorkloadEndpoint};

/// The typed part of a local endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalSpec {
    /// Of the host itself.
    Host(Arc<HostEndpoint>),
    /// Of one of its workloads.
    Workload(Arc<WorkloadEndpoint>),
}

impl LocalSpec {
    fn of(resource: &Resource) -> Option<LocalSpec> {
        match &resource.spec {
            Spec::HostEndpoint(spec) => Some(LocalSpec::Host(spec.clone())),
            Spec::WorkloadEndpoint(spec) => Some(LocalSpec::Workload(spec.clone())),
            _ => None,
        }
    }

    /// Profiles in order.
    pub fn profiles(&self) -> &[String] {
        match self {
            LocalSpec::Host(spec) => &spec.profiles,
            LocalSpec::Workload(spec) => &spec.profiles,
        }
    }
}

/// An endpoint of this host.
#[derive(Debug)]
pub struct Local {
    /// What it says.
    pub spec: LocalSpec,
    /// Where it was read.
    pub origin: Origin,
    /// Itself among all endpoints.
    pub holder: HolderId,
    /// Policies (staged ones too) that select it; in order of evaluation when it is finished.
    pub selected: Vec<PolicyNumber>,
    finished: Option<Finished>,
}

/// A finished local endpoint, shared with the host policy.
#[derive(Clone, Debug, PartialEq)]
enum Finished {
    Host(Arc<HostEp>),
    Workload(Arc<WorkloadEp>),
}

impl Calculator {
    /// An endpoint or network set was created or changed. Those of other hosts are none of our business here.
    pub(super) fn refresh_local(&mut self, resource: &Resource, holder: HolderId) {
        let is_local = facts::node(resource) == Some(self.live.policy().node.as_str());
        let Some(spec) = is_local.then(|| LocalSpec::of(resource)).flatten() else {
            self.remove_local(&resource.id);
            return;
        };
        spec.profiles()
            .iter()
            .for_each(|name| self.use_profile(name));
        let old = self.locals.remove(&resource.id);
        if let Some(old) = &old {
            let profiles = old.spec.profiles().iter();
            profiles.for_each(|name| self.leave_profile(name));
        }
        self.attach_again |= old.as_ref().is_none_or(|old| old.spec != spec);
        let (selected, finished) = old.map_or((Vec::new(), None), |o| (o.selected, o.finished));
        let local = Local {
            spec,
            origin: resource.origin.clone(),
            holder,
            selected,
            finished,
        };
        self.locals.insert(resource.id.clone(), local);
        self.unfinished.insert(resource.id.clone());
        self.reselect(&resource.id);
    }

    /// An endpoint of this host is gone, or belongs to another host now.
    pub(super) fn remove_local(&mut self, id: &ResourceId) {
        let Some(local) = self.locals.remove(id) else {
            return;
        };
        for number in local.selected {
            self.use_policy(number, false);
        }
        let profiles = local.spec.profiles().iter();
        profiles.for_each(|name| self.leave_profile(name));
        self.unfinished.insert(id.clone());
        self.attach_again = true;
    }

    /// Endpoints whose inherited labels changed.
    pub(super) fn reselect_users_of(&mut self, profile: &str) {
        let uses = |local: &Local| local.spec.profiles().iter().any(|name| name == profile);
        let users = self.locals.iter().filter(|(_, local)| uses(local));
        let users: Vec<ResourceId> = users.map(|(id, _)| id.clone()).collect();
        users.iter().for_each(|id| self.reselect(id));
    }

    /// Finds the policies that select an endpoint by its present labels.
    fn reselect(&mut self, id: &ResourceId) {
        let Some(local) = self.locals.get_mut(id) else {
            return;
        };
        let Some(holder) = self.holders.get(local.holder) else {
            return;
        };
        let selectors = &self.policies.selectors;
        let now = selectors.matching(&self.holders.labels(holder));
        let mut before = local.selected.clone();
        before.sort_unstable();
        if now == before {
            return;
        }
        let is_new = |number: &u32| before.binary_search(number).is_err();
        let is_lost = |number: &u32| now.binary_search(number).is_err();
        let gained: Vec<u32> = now.iter().copied().filter(is_new).collect();
        let lost: Vec<u32> = before.iter().copied().filter(is_lost).collect();
        local.selected.retain(|number| !is_lost(number));
        local.selected.extend(&gained);
        self.unfinished.insert(id.clone());
        // Gained ones first: sets that both use stay as they are.
        gained
            .into_iter()
            .for_each(|number| self.use_policy(number, true));
        lost.into_iter()
            .for_each(|number| self.use_policy(number, false));
    }

    /// Brings the endpoints of the host policy up to date.
    pub(super) fn finish_endpoints(&mut self) {
        if !self.attach_again && self.unfinished.is_empty() {
            return;
        }
        for id in mem::take(&mut self.unfinished) {
            if let Some(mut local) = self.locals.remove(&id) {
                self.finish(&id, &mut local);
                self.locals.insert(id, local);
            }
        }
        let workloads = self.placed_workloads();
        let is_placed = |iface: &String| self.live.policy().workloads.contains_key(iface);
        let as_before = workloads.len() == self.live.policy().workloads.len();
        if self.attach_again || !as_before || !workloads.keys().all(is_placed) {
            self.attachments = attach::resolve(self, &workloads);
            self.attach_again = false;
        }
        self.live.set_workloads(workloads);
        let endpoints = self.attached_endpoints();
        self.live.set_endpoints(endpoints);
    }

    /// Workloads by interface. Of two endpoints on one interface the lowest id stands, as for host endpoints.
    fn placed_workloads(&self) -> BTreeMap<String, Arc<WorkloadEp>> {
        let mut workloads = BTreeMap::new();
        for local in self.locals.values() {
            if let (LocalSpec::Workload(spec), Some(Finished::Workload(workload))) =
                (&local.spec, &local.finished)
            {
                let place = workloads.entry(spec.interface_name.clone());
                place.or_insert_with(|| workload.clone());
            }
        }
        workloads
    }

    /// Host endpoints by name, with what they govern.
    fn attached_endpoints(&mut self) -> BTreeMap<String, Arc<HostEp>> {
        let mut endpoints = BTreeMap::new();
        let nothing = Attachment::default();
        for local in self.locals.values_mut() {
            let Some(Finished::Host(endpoint)) = &mut local.finished else {
                continue;
            };
            let attach = self.attachments.get(&endpoint.name).unwrap_or(&nothing);
            if endpoint.attach != *attach {
                Arc::make_mut(endpoint).attach = attach.clone();
            }
            endpoints.insert(endpoint.name.clone(), endpoint.clone());
        }
        endpoints
    }

    /// Calculates an endpoint. One that did not change stays the same allocation, so that comparing costs nothing.
    fn finish(&self, id: &ResourceId, local: &mut Local) {
        // Nearly sorted already: one pass.
        local.selected.sort_by(|a, b| {
            let (a, b) = (self.policies.get(*a), self.policies.get(*b));
            a.place.compare(&b.place)
        });
        let entries = local.selected.iter().map(|n| self.policies.get(*n));
        let (enforced, staged): (Vec<&Entry>, Vec<&Entry>) =
            entries.partition(|e| e.rules.is_some());
        let staged = staged.into_iter().map(|e| e.id.clone()).collect();
        let finished = match &local.spec {
            LocalSpec::Host(spec) => Finished::Host(Arc::new(HostEp {
                name: id.name.clone(),
                origin: local.origin.clone(),
                attach: self.attachments.get(&id.name).cloned().unwrap_or_default(),
                tiers: categories(&enforced),
                profiles: spec.profiles.clone(),
                staged,
            })),
            LocalSpec::Workload(spec) => Finished::Workload(Arc::new(WorkloadEp {
                id: id.clone(),
                origin: local.origin.clone(),
                sources: sources(spec),
                tiers: blocks(&enforced, Category::Normal),
                profiles: spec.profiles.clone(),
                staged,
            })),
        };
        if local.finished.as_ref() != Some(&finished) {
            local.finished = Some(finished);
        }
    }
}

/// Where a workload may send from: its addresses and what it may use besides; anything when it has no address.
fn sources(workload: &WorkloadEndpoint) -> Vec<ipnet::IpNet> {
    if workload.ip_networks.is_empty() {
        return Vec::new();
    }
    let own = workload.ip_networks.iter();
    own.chain(&workload.allow_spoofed).copied().collect()
}

fn categories(ordered: &[&Entry]) -> BTreeMap<Category, Vec<TierBlock>> {
    let all = [
        Category::Untracked,
        Category::PreDnat,
        Category::Normal,
        Category::Forward,
    ];
    let blocks = all.into_iter().map(|c| (c, blocks(ordered, c)));
    blocks.filter(|(_, blocks)| !blocks.is_empty()).collect()
}

/// The tiers of one category (facts 3.2).
fn blocks(ordered: &[&Entry], category: Category) -> Vec<TierBlock> {
    let mut blocks: Vec<TierBlock> = Vec::new();
    for entry in ordered.iter().filter(|e| e.applies.acts_in(category)) {
        let tier = &entry.place.tier;
        if blocks.last().is_none_or(|b| *b.tier != *tier.name) {
            blocks.push(TierBlock {
                tier: tier.name.to_string(),
                default_deny: !tier.default_pass
                    && matches!(category, Category::Normal | Category::Forward),
                ingress: Vec::new(),
                egress: Vec::new(),
            });
        }
        let Some(block) = blocks.last_mut() else {
            continue;
        };
        if entry.applies.ingress {
            block.ingress.push(entry.id.clone());
        }
        if entry.applies.egress {
            block.egress.push(entry.id.clone());
        }
    }
    blocks
}
