//! The `projectcalico.org/v3` resources as moat understands them, after validation and defaulting.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::document::Document;
use super::net::{Family, Port, Protocol};
use crate::selector::Selector;

/// The kinds of facts 1, in the order in which they are listed to users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Kind {
    HostEndpoint,
    GlobalNetworkPolicy,
    NetworkPolicy,
    Tier,
    NetworkSet,
    GlobalNetworkSet,
    Profile,
    WorkloadEndpoint,
    StagedGlobalNetworkPolicy,
    StagedNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    FelixConfiguration,
    Node,
    IPPool,
    BGPConfiguration,
    BGPPeer,
    BGPFilter,
    BlockAffinity,
    IPAMBlock,
    IPAMHandle,
    IPAMConfiguration,
    IPReservation,
    ClusterInformation,
    KubeControllersConfiguration,
    CalicoNodeStatus,
}

/// What identifies a resource. Namespace is empty for cluster-scoped kinds.
/// Displayed as `Kind/name` or `Kind/namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResourceId {
    /// The kind.
    pub kind: Kind,
    /// Namespace of namespaced kinds, else empty.
    pub namespace: String,
    /// The effective name (facts 1.1: legacy tier prefixes of policy names resolved).
    pub name: String,
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{:?}/{}", self.kind, self.name)
        } else {
            write!(f, "{:?}/{}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// Where a resource was read: a file and the 1-based line at which its document (or list item) starts; or a datastore key (line 0).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// File path as it was found, or key; shared by all resources of the file.
    pub file: Arc<str>,
    /// 1-based line, 0 when lines mean nothing.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            f.write_str(&self.file)
        } else {
            write!(f, "{}:{}", self.file, self.line)
        }
    }
}

/// Metadata that policy uses. The whole metadata stays available in [`Resource::raw`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Labels as written.
    pub labels: BTreeMap<String, String>,
    /// Annotations as written.
    pub annotations: BTreeMap<String, String>,
    /// `creationTimestamp` as written, else empty.
    pub created: String,
    /// `resourceVersion` as written, else empty.
    pub version: String,
}

/// One validated resource. Cheap to clone: the parts are shared.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Identity.
    pub id: ResourceId,
    /// Labels and annotations.
    pub meta: Arc<Metadata>,
    /// The typed specification.
    pub spec: Spec,
    /// The document as it was given, for `get`, the snapshot and comparison.
    pub raw: Document,
    /// Where it came from.
    pub origin: Origin,
}

/// The typed specification of each kind.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Spec {
    HostEndpoint(Arc<HostEndpoint>),
    /// GlobalNetworkPolicy and NetworkPolicy.
    Policy(Arc<Policy>),
    /// The three staged kinds: calculated, never enforced. `None` where the action is Delete, Learn or Ignore, or the form is Kubernetes'.
    Staged(StagedAction, Option<Arc<Policy>>),
    Tier(Tier),
    /// NetworkSet and GlobalNetworkSet.
    NetworkSet(Arc<NetworkSet>),
    Profile(Arc<Profile>),
    WorkloadEndpoint(Arc<WorkloadEndpoint>),
    FelixConfiguration(Arc<FelixConfiguration>),
    /// Validated (typed) but without effect on policy yet: Node, IPPool and the kinds of later work.
    Other,
}

/// facts 1.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEndpoint {
    /// The host it belongs to.
    pub node: String,
    /// Empty, a name, or `*`.
    pub interface_name: String,
    /// Addresses that selectors see; also choose the interface when no name is given.
    pub expected_ips: Vec<IpAddr>,
    /// Profile names in order.
    pub profiles: Vec<String>,
    /// Named ports.
    pub ports: Vec<EndpointPort>,
}

/// A named port of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointPort {
    /// Name that rules refer to.
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// facts 1.11, the fields that policy uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadEndpoint {
    /// The host it runs on.
    pub node: String,
    /// The interface on that host.
    pub interface_name: String,
    /// Its addresses (/32 and /128).
    pub ip_networks: Vec<IpNet>,
    /// Source prefixes it may use besides its addresses.
    pub allow_spoofed: Vec<IpNet>,
    /// Profile names in order.
    pub profiles: Vec<String>,
    /// Named ports.
    pub ports: Vec<EndpointPort>,
    /// The service account it runs as, else empty.
    pub service_account: String,
}

/// facts 1.3 and 1.4: the common form of GlobalNetworkPolicy and NetworkPolicy, defaults filled in.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Tier name; `default` when none was given.
    pub tier: String,
    /// `None` sorts after every number.
    pub order: Option<f64>,
    /// Endpoints it applies to.
    pub selector: Selector,
    /// GlobalNetworkPolicy only.
    pub namespace_selector: Option<Selector>,
    /// Restricts to pods of these service accounts.
    pub service_account_selector: Option<Selector>,
    /// Whether `types` (given or derived) has Ingress.
    pub applies_ingress: bool,
    /// Whether `types` (given or derived) has Egress.
    pub applies_egress: bool,
    /// Rules for traffic towards the endpoint.
    pub ingress: Vec<Rule>,
    /// Rules for traffic from the endpoint.
    pub egress: Vec<Rule>,
    /// Also applies to forwarded traffic.
    pub apply_on_forward: bool,
    /// Enforced before connection tracking.
    pub do_not_track: bool,
    /// Enforced before destination NAT.
    pub pre_dnat: bool,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Action {
    Allow,
    Deny,
    Log,
    Pass,
}

/// facts 1.6.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What to do when everything matches.
    pub action: Action,
    /// Only this family.
    pub ip_version: Option<Family>,
    /// Only this protocol.
    pub protocol: Option<Protocol>,
    /// Any protocol but this.
    pub not_protocol: Option<Protocol>,
    /// ICMP type and code.
    pub icmp: Option<Icmp>,
    /// Not this ICMP type and code.
    pub not_icmp: Option<Icmp>,
    /// Source of the packet.
    pub source: Entity,
    /// Destination of the packet.
    pub destination: Entity,
    /// Whether the rule has an `http` match, which a packet filter cannot enforce.
    pub has_http: bool,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// 1-based line of the rule in its file, 0 when unknown.
    pub line: u32,
}

/// An ICMP type with an optional code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Icmp {
    /// Type; `None` means any.
    pub kind: Option<u8>,
    /// Code; `None` means any.
    pub code: Option<u8>,
}

/// facts 1.7: one side of a rule. Fields are ANDed, list items ORed, `not` fields mean none of.
#[derive(Clone, Debug, Default)]
pub struct Entity {
    /// Any of these prefixes.
    pub nets: Vec<IpNet>,
    /// None of these prefixes.
    pub not_nets: Vec<IpNet>,
    /// Endpoints and sets.
    pub selector: Option<Selector>,
    /// Not these endpoints and sets.
    pub not_selector: Option<Selector>,
    /// Restricts to namespaces; may be exactly `global()`.
    pub namespace_selector: Option<Selector>,
    /// Any of these ports.
    pub ports: Vec<Port>,
    /// None of these ports.
    pub not_ports: Vec<Port>,
    /// Restricts to pods of these service accounts.
    pub service_accounts: Option<ServiceAccounts>,
    /// A Kubernetes service.
    pub services: Option<Service>,
}

/// `serviceAccounts` of an entity rule.
#[derive(Clone, Debug)]
pub struct ServiceAccounts {
    /// Any of these names.
    pub names: BTreeSet<String>,
    /// Labels of the service account.
    pub selector: Option<Selector>,
}

/// `services` of an entity rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Service name.
    pub name: String,
    /// Its namespace (that of the policy when a NetworkPolicy gives none).
    pub namespace: String,
}

/// facts 1.8.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tier {
    /// Position; `None` in the file becomes 1,000,000.
    pub order: f64,
    /// Whether traffic that no policy of the tier decides goes on to the next tier (else it is denied).
    pub default_pass: bool,
}

/// facts 1.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum StagedAction {
    Set,
    Delete,
    Learn,
    Ignore,
}

/// facts 1.9.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// Rules towards the endpoint.
    pub ingress: Vec<Rule>,
    /// Rules from the endpoint.
    pub egress: Vec<Rule>,
    /// Labels inherited by endpoints that list the profile.
    pub labels: BTreeMap<String, String>,
}

/// facts 1.10. Host bits are already masked.
#[derive(Clone, Debug, Default)]
pub struct NetworkSet {
    /// The prefixes.
    pub nets: Vec<IpNet>,
}

/// facts 1.18: fields that are moat settings, by FelixConfiguration field name, as JSON scalars or lists; the rest is known but without effect.
#[derive(Clone, Debug, Default)]
pub struct FelixConfiguration {
    /// Field name to value, exactly as written.
    pub fields: BTreeMap<String, serde_json::Value>,
    /// `spec.nodeSelector`, which makes the object apply only to matching nodes.
    pub node_selector: Option<Selector>,
}
