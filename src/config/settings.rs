//! The settings as typed values.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::failsafe::Failsafe;

/// Every setting. In JSON the names are those of the parameter table, which says what each means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Directories with policy files, absolute.
    pub policy_dirs: Vec<PathBuf>,
    /// What must survive a reboot: snapshot and backend choice.
    pub state_dir: PathBuf,
    /// The control socket and locks.
    pub run_dir: PathBuf,
    /// The name by which endpoints refer to this host.
    pub felix_hostname: String,
    /// Whether policy also comes from a datastore.
    #[serde(default)]
    pub datastore_type: DatastoreType,
    /// URLs of etcd.
    #[serde(default)]
    pub etcd_endpoints: Vec<String>,
    /// A domain whose SRV records name them.
    #[serde(default)]
    pub etcd_discovery_srv: Option<String>,
    /// Certificate authorities of etcd.
    #[serde(default)]
    pub etcd_ca_file: Option<PathBuf>,
    /// The certificate of this host.
    #[serde(default)]
    pub etcd_cert_file: Option<PathBuf>,
    /// Its key.
    #[serde(default)]
    pub etcd_key_file: Option<PathBuf>,
    /// A user of etcd.
    #[serde(default)]
    pub etcd_username: Option<String>,
    /// Where the user's password is.
    #[serde(default)]
    pub etcd_password_file: Option<PathBuf>,
    /// Time between two reports that this host is alive; zero means none.
    #[serde(default, with = "super::value::duration")]
    pub reporting_interval: Duration,
    /// Time for which a report counts.
    #[serde(default, rename = "reportingTTL", with = "super::value::duration")]
    pub reporting_ttl: Duration,
    /// Whether the state of endpoints is reported.
    #[serde(default)]
    pub endpoint_reporting_enabled: bool,
    /// Whether this host writes its own HostEndpoint.
    #[serde(default)]
    pub register_host_endpoint: bool,
    /// Its labels, `KEY=VALUE`.
    #[serde(default)]
    pub host_endpoint_labels: Vec<String>,
    /// Which iptables programs to use.
    pub iptables_backend: IptablesBackend,
    /// Interfaces whose name starts with one of these belong to local workloads.
    pub interface_prefix: Vec<String>,
    /// Interfaces that are never treated as interfaces of the host.
    pub interface_exclude: Vec<String>,
    /// Where moat's jumps stand in the kernel's chains.
    pub chain_insert_mode: ChainInsertMode,
    /// What becomes of traffic from a workload to this host when policy of the workload allows it.
    pub default_endpoint_to_host_action: HostAction,
    /// What an allowed packet does in the filter table.
    pub iptables_filter_allow_action: AllowAction,
    /// What an allowed packet does in the mangle table.
    pub iptables_mangle_allow_action: AllowAction,
    /// What a denied packet meets in the filter table.
    pub iptables_filter_deny_action: DenyAction,
    /// Packet mark bits that moat may use; at least four.
    #[serde(with = "super::value::mask")]
    pub iptables_mark_mask: u32,
    /// Ports of this host that stay open.
    pub failsafe_inbound_host_ports: Vec<Failsafe>,
    /// Ports elsewhere that stay reachable.
    pub failsafe_outbound_host_ports: Vec<Failsafe>,
    /// Whether packets that connection tracking calls invalid are judged by policy.
    pub disable_conntrack_invalid_check: bool,
    /// Prefix of log lines of Log rules.
    pub log_prefix: String,
    /// Whether IPv6 is protected too.
    pub ipv6_support: bool,
    /// Time between comparisons with the kernel; zero means never.
    #[serde(with = "super::value::duration")]
    pub iptables_refresh_interval: Duration,
    /// The least severity that is logged.
    pub log_severity_screen: Severity,
    /// What becomes of connections that a changed policy denies.
    pub existing_connections: ExistingConnections,
    /// What the host is when its policy cannot be brought into the kernel at boot.
    pub boot_failure_policy: BootFailurePolicy,
    /// What becomes of the rules when the package is removed.
    pub on_remove: OnRemove,
    /// Whether metrics are served.
    pub prometheus_metrics_enabled: bool,
    /// Where metrics are served.
    pub prometheus_metrics_host: IpAddr,
    /// Where metrics are served.
    pub prometheus_metrics_port: u16,
    /// Whether liveness and readiness are served.
    pub health_enabled: bool,
    /// Where liveness and readiness are served.
    pub health_host: IpAddr,
    /// Where liveness and readiness are served.
    pub health_port: u16,
    /// Most members an IP set may have.
    pub max_ipset_size: u32,
    /// Rules that differ in one selector become one kernel rule where they are so many.
    pub merge_rules_from: u32,
}

/// Values of `datastoreType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatastoreType {
    /// Files only.
    #[default]
    None,
    /// An etcd cluster.
    EtcdV3,
}

/// Values of `iptablesBackend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IptablesBackend {
    /// What the host already uses, else what its kernel has.
    Auto,
    /// `iptables-nft`.
    Nft,
    /// `iptables-legacy`.
    Legacy,
}

/// Values of `existingConnections`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExistingConnections {
    /// Those that the new policy denies are cut.
    Reevaluate,
    /// They go on until they end by themselves.
    Keep,
}

/// Values of `bootFailurePolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BootFailurePolicy {
    /// Only failsafes, neighbour discovery and established connections pass.
    Closed,
    /// Everything passes.
    Open,
}

/// Values of `onRemove`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRemove {
    /// They stay in force.
    Keep,
    /// They go.
    Clean,
}

/// Values of `chainInsertMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChainInsertMode {
    /// Before the rules of others.
    Insert,
    /// After them.
    Append,
}

/// Values of `defaultEndpointToHostAction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostAction {
    /// Drop the packet.
    Drop,
    /// Go on to the host's own rules.
    Return,
    /// Accept the packet.
    Accept,
}

/// Values of `iptablesFilterAllowAction` and `iptablesMangleAllowAction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AllowAction {
    /// Accept the packet at once.
    Accept,
    /// Go on to the host's own rules.
    Return,
}

/// Values of `iptablesFilterDenyAction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DenyAction {
    /// Drop the packet silently.
    Drop,
    /// Tell the sender.
    Reject,
}

/// Values of `logSeverityScreen`, from the most to the least talkative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Severity {
    Trace,
    Debug,
    Info,
    Warning,
    Error,
    Fatal,
}
