//! FelixConfiguration (facts 1.18 and 6.3): every field is known; what a value means is the business of `config`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::at::{At, Fields, Message};
use super::read;
use super::schema::{self, Ty};
use crate::api::types::{FelixConfiguration, Spec};

/// Name of the object for all hosts, and how the names of those for one host start.
const GLOBAL: &str = "default";
const PER_HOST: &str = "node.";

const NUMBER: Ty = Ty::Int(i64::MIN, i64::MAX);
const PORT: Ty = Ty::Int(0, 65535);
const MASK: Ty = Ty::Int(0, 0xffff_ffff);
const RANGE: Ty = Ty::Fields(&[("min", NUMBER), ("max", NUMBER)]);
const FAILSAFES: Ty = Ty::List(&Ty::Fields(&[
    ("protocol", Ty::Text),
    ("port", Ty::Required(&Ty::Int(0, 65535))),
    ("net", Ty::Text),
]));
const TIMEOUTS: Ty = Ty::List(&Ty::Fields(&[
    ("name", Ty::Required(&Ty::Text)),
    ("timeout", Ty::Required(&Ty::Duration)),
]));

/// The fields, by the type of their value.
const FIELDS: [(Ty, &[&str]); 15] = [
    (Ty::Bool, BOOLS),
    (NUMBER, NUMBERS),
    (PORT, PORTS),
    (Ty::Duration, DURATIONS),
    (Ty::Text, TEXTS),
    (
        Ty::TextOrInt,
        &[
            "bpfPSNATPorts",
            "natPortRange",
            "logActionRateLimit",
            "istioDSCPMark",
        ],
    ),
    (
        Ty::List(&Ty::Text),
        &[
            "externalNodesList",
            "bpfDSROptoutCIDRs",
            "bpfExcludeCIDRsFromNAT",
            "bpfForceTrackPacketsFromIfaces",
        ],
    ),
    (Ty::List(&Ty::TextOrInt), &["kubeNodePortRanges"]),
    (
        FAILSAFES,
        &["failsafeInboundHostPorts", "failsafeOutboundHostPorts"],
    ),
    (RANGE, &["routeTableRange"]),
    (Ty::List(&RANGE), &["routeTableRanges"]),
    (TIMEOUTS, &["healthTimeoutOverrides"]),
    (MASK, &["iptablesMarkMask", "nftablesMarkMask"]),
    (Ty::Map(&Ty::Text), &["bpfLogFilters"]),
    (Ty::Any, &["bpfConntrackTimeouts"]),
];

const BOOLS: &[&str] = &[
    "allowIPIPPacketsFromWorkloads",
    "allowVXLANPacketsFromWorkloads",
    "bpfConnectTimeLoadBalancingEnabled",
    "bpfDisableUnprivileged",
    "bpfEnabled",
    "bpfHostConntrackBypass",
    "bpfKubeProxyEndpointSlicesEnabled",
    "bpfKubeProxyIptablesCleanupEnabled",
    "bpfPolicyDebugEnabled",
    "debugDisableLogDropping",
    "disableConntrackInvalidCheck",
    "endpointReportingEnabled",
    "genericXDPEnabled",
    "healthEnabled",
    "ipipEnabled",
    "ipv6Support",
    "prometheusGoMetricsEnabled",
    "prometheusMetricsEnabled",
    "prometheusProcessMetricsEnabled",
    "prometheusWireGuardMetricsEnabled",
    "removeExternalRoutes",
    "requireMTUFile",
    "routeSyncDisabled",
    "sidecarAccelerationEnabled",
    "usageReportingEnabled",
    "useInternalDataplaneDriver",
    "vxlanEnabled",
    "wireguardEnabled",
    "wireguardEnabledV6",
    "wireguardHostEncryptionEnabled",
    "wireguardThreadingEnabled",
    "xdpEnabled",
];

const NUMBERS: &[&str] = &[
    "bpfExportBufferSizeMB",
    "bpfExtToServiceConnmark",
    "bpfKubeProxyHealthzPort",
    "bpfMaglevMaxEndpointsPerService",
    "bpfMaglevMaxServices",
    "bpfMapSizeConntrack",
    "bpfMapSizeConntrackCleanupQueue",
    "bpfMapSizeIPSets",
    "bpfMapSizeIfState",
    "bpfMapSizeNATAffinity",
    "bpfMapSizeNATBackend",
    "bpfMapSizeNATFrontend",
    "bpfMapSizePerCpuConntrack",
    "bpfMapSizeRoute",
    "deviceRouteProtocol",
    "goGCThreshold",
    "goMaxProcs",
    "goMemoryLimitMB",
    "ipipMTU",
    "ipv4ElevatedRoutePriority",
    "ipv4NormalRoutePriority",
    "ipv6ElevatedRoutePriority",
    "ipv6NormalRoutePriority",
    "logActionRateLimitBurst",
    "maxIpsetSize",
    "vxlanMTU",
    "vxlanMTUV6",
    "vxlanVNI",
    "wireguardMTU",
    "wireguardMTUV6",
    "wireguardRoutingRulePriority",
];

const PORTS: &[&str] = &[
    "debugPort",
    "healthPort",
    "metadataPort",
    "prometheusMetricsPort",
    "vxlanPort",
    "wireguardListeningPort",
    "wireguardListeningPortV6",
];

const DURATIONS: &[&str] = &[
    "bpfKubeProxyMinSyncPeriod",
    "dataplaneWatchdogTimeout",
    "debugSimulateCalcGraphHangAfter",
    "debugSimulateDataplaneApplyDelay",
    "debugSimulateDataplaneHangAfter",
    "endpointReportingDelay",
    "flowLogsFlushInterval",
    "interfaceRefreshInterval",
    "ipsetsRefreshInterval",
    "iptablesLockProbeInterval",
    "iptablesLockTimeout",
    "iptablesPostWriteCheckInterval",
    "iptablesRefreshInterval",
    "netlinkTimeout",
    "nftablesRefreshInterval",
    "reportingInterval",
    "reportingTTL",
    "routeRefreshInterval",
    "usageReportingInitialDelay",
    "usageReportingInterval",
    "wireguardKeepAlive",
    "wireguardPersistentKeepAlive",
    "xdpRefreshInterval",
];

const TEXTS: &[&str] = &[
    "awsSrcDstCheck",
    "bpfAttachType",
    "bpfCTLBLogFilter",
    "bpfConnectTimeLoadBalancing",
    "bpfConntrackLogLevel",
    "bpfConntrackMode",
    "bpfDataIfacePattern",
    "bpfDisableGROForIfaces",
    "bpfEnforceRPF",
    "bpfExternalServiceMode",
    "bpfHostNetworkedNATWithoutCTLB",
    "bpfJITHardening",
    "bpfL3IfacePattern",
    "bpfLogLevel",
    "bpfMapSizeConntrackScaling",
    "bpfProfiling",
    "bpfRedirectToPeer",
    "cgroupV2Path",
    "chainInsertMode",
    "dataplaneDriver",
    "debugCPUProfilePath",
    "debugHost",
    "debugMemoryProfilePath",
    "defaultEndpointToHostAction",
    "deviceRouteSourceAddress",
    "deviceRouteSourceAddressIPv6",
    "endpointStatusPathPrefix",
    "featureDetectOverride",
    "featureGates",
    "floatingIPs",
    "flowLogsGoldmaneServer",
    "flowLogsLocalReporter",
    "healthHost",
    "interfaceExclude",
    "interfacePrefix",
    "ipForwarding",
    "ipInIpTunnelAddr",
    "iptablesBackend",
    "iptablesFilterAllowAction",
    "iptablesFilterDenyAction",
    "iptablesLockFilePath",
    "iptablesMangleAllowAction",
    "iptablesNATOutgoingInterfaceFilter",
    "ipv4VXLANTunnelAddr",
    "ipv6VXLANTunnelAddr",
    "istioAmbientMode",
    "localSubnetL2Reachability",
    "logDebugFilenameRegex",
    "logFilePath",
    "logPrefix",
    "logSeverityFile",
    "logSeverityScreen",
    "logSeveritySys",
    "metadataAddr",
    "mtuIfacePattern",
    "natOutgoingAddress",
    "natOutgoingExclusions",
    "nftablesFilterAllowAction",
    "nftablesFilterDenyAction",
    "nftablesMangleAllowAction",
    "nftablesMode",
    "openstackRegion",
    "policySyncPathPrefix",
    "programClusterRoutes",
    "prometheusMetricsCAFile",
    "prometheusMetricsCertFile",
    "prometheusMetricsClientAuth",
    "prometheusMetricsHost",
    "prometheusMetricsKeyFile",
    "routeSource",
    "serviceLoopPrevention",
    "vxlanTunnelMACAddr",
    "vxlanTunnelMACAddrV6",
    "windowsManageFirewallRules",
    "wireguardInterfaceName",
    "wireguardInterfaceNameV6",
    "workloadSourceSpoofing",
];

/// Parameters that Calico reads on the host only.
const LOCAL: &[&str] = &[
    "clusterGUID",
    "datastoreType",
    "etcdAddr",
    "etcdCaFile",
    "etcdCertFile",
    "etcdEndpoints",
    "etcdKeyFile",
    "etcdScheme",
    "felixHostname",
    "typhaAddr",
    "typhaCAFile",
    "typhaCN",
    "typhaCertFile",
    "typhaK8sNamespace",
    "typhaK8sServiceName",
    "typhaKeyFile",
    "typhaReadTimeout",
    "typhaURISAN",
    "typhaWriteTimeout",
];

/// Specification of the FelixConfiguration of that name.
pub fn decode(at: &At<'_>, name: &str) -> Option<Spec> {
    let fields = Fields::of(at)?;
    let mut values = BTreeMap::new();
    let mut keep = |name: &'static str, ty: &Ty| {
        let value = fields.opt(name, |at| {
            schema::check(at, ty).and_then(|()| serde_json::to_value(at.node).ok())
        });
        if let Some(value) = value {
            values.insert(name.to_owned(), value);
        }
    };
    for (ty, names) in &FIELDS {
        names.iter().for_each(|name| keep(name, ty));
    }
    for name in LOCAL {
        if let Some(at) = fields.get(name) {
            at.warn("is read on the host only: here it has no effect");
        }
    }
    let node_selector = fields.opt("nodeSelector", read::selector);
    scope(&fields, name);
    fields.finish_open();
    Some(Spec::FelixConfiguration(Arc::new(FelixConfiguration {
        fields: values,
        node_selector,
    })))
}

/// Which hosts the object is for is told by its name or by a selector, not by both.
fn scope(fields: &Fields<'_>, name: &str) {
    let by_name = name == GLOBAL || name.starts_with(PER_HOST);
    match fields.get("nodeSelector") {
        Some(at) if by_name => at.complain(Message::with(
            format!(
                "cannot be used with the name {name}, which already says which hosts it is for"
            ),
            "give the object another name".to_owned(),
        )),
        None if !by_name => fields.at.warn(Message::with(
            "applies to no host",
            "name it `default` or `node.HOST`, or add a nodeSelector".to_owned(),
        )),
        _ => {}
    }
}
