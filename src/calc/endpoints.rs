//! Endpoints of this host: labels with inheritance, ordered tiers, categories.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::effective::{NAMESPACE, SERVICE_ACCOUNT};
use super::index::LabelMap;
use super::model::{Category, HostEp, TierBlock, WorkloadEp};
use super::{Calculator, attach};
use crate::api::{EndpointPort, Kind, Policy, Resource, ResourceId, Spec, Tier};

/// A finished local endpoint, shared with the host policies given out.
#[derive(Clone, Debug)]
pub enum Finished {
    /// Attachment is filled in when the host policy is made.
    Host(Arc<HostEp>),
    /// With its interface.
    Workload(String, Arc<WorkloadEp>),
}

/// The node an endpoint belongs to; `None` for network sets.
pub fn node(resource: &Resource) -> Option<&str> {
    match &resource.spec {
        Spec::HostEndpoint(e) => Some(&e.node),
        Spec::WorkloadEndpoint(e) => Some(&e.node),
        _ => None,
    }
}

/// The profiles whose rules an endpoint uses, in order.
pub fn profiles(resource: &Resource) -> &[String] {
    match &resource.spec {
        Spec::HostEndpoint(e) => &e.profiles,
        Spec::WorkloadEndpoint(e) => &e.profiles,
        _ => &[],
    }
}

/// The profiles whose labels a holder inherits. A NetworkSet inherits from the profile of its namespace.
pub fn parents(resource: &Resource) -> Vec<String> {
    if resource.id.kind == Kind::NetworkSet {
        return vec![format!("kns.{}", resource.id.namespace)];
    }
    profiles(resource).to_vec()
}

/// `labelsToApply` of a profile, if it exists.
pub fn profile_labels<'a>(
    resources: &'a BTreeMap<ResourceId, Resource>,
    name: &str,
) -> Option<&'a LabelMap> {
    let id = ResourceId {
        kind: Kind::Profile,
        namespace: String::new(),
        name: name.to_owned(),
    };
    match &resources.get(&id)?.spec {
        Spec::Profile(profile) => Some(&profile.labels),
        _ => None,
    }
}

/// Own labels, then those inherited: an own label wins, the first profile wins (facts 1.9).
pub fn labels<'a>(
    resource: &Resource,
    inherited: impl Fn(&str) -> Option<&'a LabelMap>,
) -> LabelMap {
    let mut labels = resource.meta.labels.clone();
    if !resource.id.namespace.is_empty() {
        labels.insert(NAMESPACE.to_owned(), resource.id.namespace.clone());
    }
    if let Spec::WorkloadEndpoint(e) = &resource.spec
        && !e.service_account.is_empty()
        && e.service_account.len() < 63
    {
        labels.insert(SERVICE_ACCOUNT.to_owned(), e.service_account.clone());
    }
    for parent in parents(resource) {
        for (label, value) in inherited(&parent).into_iter().flatten() {
            labels.entry(label.clone()).or_insert_with(|| value.clone());
        }
    }
    labels
}

/// What a holder adds to the sets that select it. A HostEndpoint adds only its expected IPs, never the interface's (facts 3.6).
pub fn contribution(resource: &Resource) -> (Vec<IpNet>, Vec<EndpointPort>) {
    match &resource.spec {
        Spec::HostEndpoint(e) => (
            e.expected_ips.iter().map(|ip| IpNet::from(*ip)).collect(),
            e.ports.clone(),
        ),
        Spec::WorkloadEndpoint(e) => (e.ip_networks.clone(), e.ports.clone()),
        Spec::NetworkSet(s) => (s.nets.clone(), Vec::new()),
        _ => (Vec::new(), Vec::new()),
    }
}

/// Position of a tier: real tiers by order and name, then pseudo-tiers that no Tier resource backs.
struct TierRank<'a> {
    exists: bool,
    order: f64,
    name: &'a str,
}

impl TierRank<'_> {
    fn compare(&self, other: &TierRank<'_>) -> Ordering {
        other
            .exists
            .cmp(&self.exists)
            .then(self.order.total_cmp(&other.order))
            .then_with(|| self.name.cmp(other.name))
    }
}

impl Calculator {
    /// The tier a policy names. The three predefined ones exist without a resource (facts 1.8).
    fn tier(&self, name: &str) -> Option<Tier> {
        let id = ResourceId {
            kind: Kind::Tier,
            namespace: String::new(),
            name: name.to_owned(),
        };
        if let Some(Resource {
            spec: Spec::Tier(tier),
            ..
        }) = self.resources.get(&id)
        {
            return Some(*tier);
        }
        match name {
            "default" => Some(Tier {
                order: 1_000_000.0,
                default_pass: false,
            }),
            "kube-admin" => Some(Tier {
                order: 1_000.0,
                default_pass: true,
            }),
            "kube-baseline" => Some(Tier {
                order: 10_000_000.0,
                default_pass: true,
            }),
            _ => None,
        }
    }

    /// Finished endpoints by name and workloads by interface.
    pub(super) fn finish_endpoints(
        &mut self,
    ) -> (
        BTreeMap<String, Arc<HostEp>>,
        BTreeMap<String, Arc<WorkloadEp>>,
    ) {
        for id in self.local.keys().cloned().collect::<Vec<_>>() {
            if !self.finished.contains_key(&id) {
                let finished = self.finish(&id);
                self.finished.insert(id, finished);
            }
        }
        self.finished.retain(|id, _| self.local.contains_key(id));
        let mut workloads = BTreeMap::new();
        for finished in self.finished.values() {
            if let Finished::Workload(iface, workload) = finished {
                // Two endpoints on one interface: the lowest id stands, as for host endpoints.
                workloads
                    .entry(iface.clone())
                    .or_insert_with(|| workload.clone());
            }
        }
        let attachments = attach::resolve(self, &workloads);
        let mut endpoints = BTreeMap::new();
        for finished in self.finished.values_mut() {
            let Finished::Host(endpoint) = finished else {
                continue;
            };
            let attach = attachments.get(&endpoint.name).cloned().unwrap_or_default();
            if endpoint.attach != attach {
                Arc::make_mut(endpoint).attach = attach;
            }
            endpoints.insert(endpoint.name.clone(), endpoint.clone());
        }
        (endpoints, workloads)
    }

    fn finish(&self, id: &ResourceId) -> Finished {
        let resource = &self.resources[id];
        let (enforced, staged) = self.ordered_policies(id);
        match &resource.spec {
            Spec::WorkloadEndpoint(workload) => {
                let sources = workload
                    .ip_networks
                    .iter()
                    .chain(&workload.allow_spoofed)
                    .copied();
                let finished = WorkloadEp {
                    id: id.clone(),
                    origin: resource.origin.clone(),
                    sources: if workload.ip_networks.is_empty() {
                        Vec::new()
                    } else {
                        sources.collect()
                    },
                    tiers: self.blocks(&enforced, Category::Normal),
                    profiles: workload.profiles.clone(),
                    staged,
                };
                Finished::Workload(workload.interface_name.clone(), Arc::new(finished))
            }
            _ => {
                let categories = [
                    Category::Untracked,
                    Category::PreDnat,
                    Category::Normal,
                    Category::Forward,
                ];
                let tiers = categories
                    .into_iter()
                    .map(|c| (c, self.blocks(&enforced, c)));
                Finished::Host(Arc::new(HostEp {
                    name: id.name.clone(),
                    origin: resource.origin.clone(),
                    attach: Default::default(),
                    tiers: tiers.filter(|(_, blocks)| !blocks.is_empty()).collect(),
                    profiles: profiles(resource).to_vec(),
                    staged,
                }))
            }
        }
    }

    /// The policies that select an endpoint in order of evaluation (facts 3.1), enforced and staged apart.
    fn ordered_policies(
        &self,
        endpoint: &ResourceId,
    ) -> (Vec<(&ResourceId, &Policy)>, Vec<ResourceId>) {
        let mut all: Vec<(TierRank<'_>, f64, String, &ResourceId, &Policy)> = Vec::new();
        for id in self.selected.get(endpoint).into_iter().flatten() {
            let Some(Spec::Policy(policy) | Spec::Staged(_, Some(policy))) =
                self.resources.get(id).map(|r| &r.spec)
            else {
                continue;
            };
            let tier = self.tier(&policy.tier);
            let rank = TierRank {
                exists: tier.is_some(),
                order: tier.map_or(0.0, |t| t.order),
                name: &policy.tier,
            };
            let tie = format!("{}/{}/{:?}", id.name, id.namespace, id.kind);
            all.push((rank, policy.order.unwrap_or(f64::INFINITY), tie, id, policy));
        }
        all.sort_by(|a, b| {
            a.0.compare(&b.0)
                .then(a.1.total_cmp(&b.1))
                .then_with(|| a.2.cmp(&b.2))
        });
        let is_enforced =
            |id: &ResourceId| matches!(id.kind, Kind::GlobalNetworkPolicy | Kind::NetworkPolicy);
        let staged = all
            .iter()
            .filter(|p| !is_enforced(p.3))
            .map(|p| p.3.clone())
            .collect();
        let enforced = all
            .into_iter()
            .filter(|p| is_enforced(p.3))
            .map(|p| (p.3, p.4))
            .collect();
        (enforced, staged)
    }

    /// The tiers of one category (facts 3.2).
    fn blocks(&self, ordered: &[(&ResourceId, &Policy)], category: Category) -> Vec<TierBlock> {
        let mut blocks: Vec<TierBlock> = Vec::new();
        for (id, policy) in ordered.iter().filter(|(_, p)| in_category(p, category)) {
            if blocks.last().is_none_or(|b| b.tier != policy.tier) {
                let ends_in_pass = self.tier(&policy.tier).is_some_and(|t| t.default_pass);
                blocks.push(TierBlock {
                    tier: policy.tier.clone(),
                    default_deny: !ends_in_pass
                        && matches!(category, Category::Normal | Category::Forward),
                    ingress: Vec::new(),
                    egress: Vec::new(),
                });
            }
            let block = blocks.last_mut().expect("pushed above");
            if policy.applies_ingress {
                block.ingress.push((*id).clone());
            }
            if policy.applies_egress {
                block.egress.push((*id).clone());
            }
        }
        blocks
    }
}

fn in_category(policy: &Policy, category: Category) -> bool {
    let plain = !policy.do_not_track && !policy.pre_dnat;
    match category {
        Category::Untracked => policy.do_not_track,
        Category::PreDnat => policy.pre_dnat,
        Category::Normal => plain,
        Category::Forward => plain && policy.apply_on_forward,
    }
}
