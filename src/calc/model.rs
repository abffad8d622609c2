//! The host policy: the answer for this host, in policy words. No word of iptables in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use super::ipset::{IpSet, SetId};
use crate::api::{Action, Family, Icmp, Origin, PortRange, Protocol, ResourceId};
pub use crate::config::Failsafe;

/// One side of a rule with its selectors resolved to IP sets. All populated fields must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Side {
    /// The address lies in one of these (when not empty).
    pub nets: Box<[IpNet]>,
    /// The address lies in none of these.
    pub not_nets: Box<[IpNet]>,
    /// The address is in each of these sets.
    pub sets: Box<[SetId]>,
    /// The address is in none of these sets.
    pub not_sets: Box<[SetId]>,
    /// The port is in one of these, or in one of `named` (when either is not empty).
    pub ports: Box<[PortRange]>,
    /// See `ports`.
    pub named: Box<[SetId]>,
    /// The port is in none of these.
    pub not_ports: Box<[PortRange]>,
    /// Address and port are in none of these.
    pub not_named: Box<[SetId]>,
}

impl Side {
    /// The sets this side refers to.
    pub fn set_ids(&self) -> impl Iterator<Item = &SetId> {
        self.sets
            .iter()
            .chain(&self.not_sets[..])
            .chain(&self.named[..])
            .chain(&self.not_named[..])
    }
}

/// One policy rule, ready to be matched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// What happens when everything matches.
    pub action: Action,
    /// Position in its list, from 0.
    pub index: usize,
    /// 1-based line in the policy's file, 0 when unknown.
    pub line: u32,
    /// The only family it can match, by `ipVersion` or by its prefixes.
    pub family: Option<Family>,
    /// See the resource.
    pub protocol: Option<Protocol>,
    /// See the resource.
    pub not_protocol: Option<Protocol>,
    /// See the resource.
    pub icmp: Option<Icmp>,
    /// See the resource.
    pub not_icmp: Option<Icmp>,
    /// Source of the packet.
    pub source: Side,
    /// Destination of the packet.
    pub destination: Side,
    /// Why the rule can match nothing on this host, if so (service without data, `http`).
    pub never: Option<Box<str>>,
    /// `metadata.annotations`, for comments.
    pub annotations: BTreeMap<String, String>,
}

/// The rules of a policy or profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleLists {
    /// The resource.
    pub id: Arc<ResourceId>,
    /// Tier of a policy; empty for a profile.
    pub tier: String,
    /// Where it was read.
    pub origin: Origin,
    /// Towards the endpoint.
    pub ingress: Vec<Rule>,
    /// From the endpoint.
    pub egress: Vec<Rule>,
}

/// Direction as seen from the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Direction {
    /// Towards it.
    Ingress,
    /// From it.
    Egress,
}

impl Direction {
    /// Lower-case word.
    pub fn word(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }

    /// The other one: what a host sees of its workload's traffic.
    pub fn opposite(self) -> Direction {
        match self {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        }
    }
}

impl RuleLists {
    /// The rules of one direction.
    pub fn rules(&self, direction: Direction) -> &[Rule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// The policies of one tier that apply to an endpoint in one category, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TierBlock {
    /// Tier name.
    pub tier: String,
    /// Whether a packet that no policy decided is denied at the end of the tier (else it goes on).
    pub default_deny: bool,
    /// Policies active for ingress.
    pub ingress: Vec<Arc<ResourceId>>,
    /// Policies active for egress.
    pub egress: Vec<Arc<ResourceId>>,
}

impl TierBlock {
    /// The policies of one direction.
    pub fn policies(&self, direction: Direction) -> &[Arc<ResourceId>] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// What traffic a host endpoint governs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// Interfaces by name; they need not exist yet.
    pub interfaces: BTreeSet<String>,
    /// Every interface that no named endpoint governs (`*`).
    pub others: bool,
    /// Local addresses, while no interface is known to carry one of the endpoint's expected IPs.
    pub addresses: BTreeSet<IpAddr>,
}

impl Attachment {
    /// Whether it governs nothing.
    pub fn is_empty(&self) -> bool {
        self.interfaces.is_empty() && !self.others && self.addresses.is_empty()
    }
}

/// The four categories of facts 3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Category {
    /// `doNotTrack` policies, before connection tracking.
    Untracked,
    /// `preDNAT` policies, before destination NAT.
    PreDnat,
    /// Traffic of local processes.
    Normal,
    /// Forwarded traffic, `applyOnForward` policies.
    Forward,
}

impl Category {
    /// The word of Calico's documentation.
    pub fn word(self) -> &'static str {
        match self {
            Category::Untracked => "doNotTrack",
            Category::PreDnat => "preDNAT",
            Category::Normal => "normal",
            Category::Forward => "applyOnForward",
        }
    }
}

/// A HostEndpoint of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostEp {
    /// Name of the resource.
    pub name: String,
    /// Where it was read.
    pub origin: Origin,
    /// What it governs.
    pub attach: Attachment,
    /// Tiers by category; a category without policies is absent.
    pub tiers: BTreeMap<Category, Vec<TierBlock>>,
    /// Profiles in order.
    pub profiles: Vec<String>,
    /// Staged policies that would select it, never enforced.
    pub staged: Vec<Arc<ResourceId>>,
}

impl HostEp {
    /// The tiers of a category, empty when it has none.
    pub fn tiers(&self, category: Category) -> &[TierBlock] {
        self.tiers.get(&category).map_or(&[], Vec::as_slice)
    }
}

/// A WorkloadEndpoint of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkloadEp {
    /// The resource.
    pub id: ResourceId,
    /// Where it was read.
    pub origin: Origin,
    /// Its addresses and allowed source prefixes; empty means any source.
    pub sources: Vec<IpNet>,
    /// Tiers with policies, in order.
    pub tiers: Vec<TierBlock>,
    /// Profiles in order.
    pub profiles: Vec<String>,
    /// Staged policies that would select it, never enforced.
    pub staged: Vec<Arc<ResourceId>>,
}

/// What happens to packets of a local workload for the host itself, after the workload's policy allowed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ToHost {
    /// Denied.
    Drop,
    /// Left to the host's own rules.
    Return,
    /// Accepted.
    Accept,
}

/// Settings that change what policy means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Options {
    /// Towards local processes.
    pub failsafe_in: Vec<Failsafe>,
    /// From local processes.
    pub failsafe_out: Vec<Failsafe>,
    /// Interfaces whose names start so belong to workloads.
    pub workload_prefixes: Vec<String>,
    /// See [`ToHost`].
    pub workload_to_host: ToHost,
    /// Whether packets that fit no flow are denied.
    pub drop_invalid: bool,
}

/// The answer for this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostPolicy {
    /// The node name it is for.
    pub node: String,
    /// Host endpoints by name.
    pub endpoints: BTreeMap<String, Arc<HostEp>>,
    /// Workloads by interface.
    pub workloads: BTreeMap<String, Arc<WorkloadEp>>,
    /// The policies that the endpoints refer to.
    #[serde(serialize_with = "values")]
    pub policies: BTreeMap<Arc<ResourceId>, Arc<RuleLists>>,
    /// The profiles that the endpoints refer to; missing ones are present and deny.
    pub profiles: BTreeMap<String, Arc<RuleLists>>,
    /// The IP sets that the rules refer to.
    #[serde(serialize_with = "pairs")]
    pub sets: BTreeMap<SetId, Arc<IpSet>>,
    /// Settings.
    pub options: Options,
}

fn values<S: serde::Serializer, K, V: Serialize>(
    map: &BTreeMap<K, Arc<V>>,
    s: S,
) -> Result<S::Ok, S::Error> {
    s.collect_seq(map.values().map(|v| &**v))
}

fn pairs<S: serde::Serializer, K: Serialize, V: Serialize>(
    map: &BTreeMap<K, Arc<V>>,
    s: S,
) -> Result<S::Ok, S::Error> {
    s.collect_seq(map.iter().map(|(k, v)| (k, &**v)))
}

impl HostPolicy {
    /// Whether an interface belongs to a workload: by name prefix, or because a workload endpoint names it.
    pub fn is_workload_iface(&self, iface: &str) -> bool {
        self.workloads.contains_key(iface)
            || self
                .options
                .workload_prefixes
                .iter()
                .any(|p| iface.starts_with(p.as_str()))
    }

    /// Whether any endpoint belongs to this host. Without one nothing at all is enforced.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.workloads.is_empty()
    }

    /// The `*` endpoint, if any.
    pub fn others(&self) -> Option<&HostEp> {
        self.endpoints
            .values()
            .find(|e| e.attach.others)
            .map(|e| &**e)
    }

    /// The endpoint that governs an interface by name.
    pub fn named(&self, iface: &str) -> Option<&HostEp> {
        self.endpoints
            .values()
            .find(|e| e.attach.interfaces.contains(iface))
            .map(|e| &**e)
    }
}
