//! Node, ClusterInformation, KubeControllersConfiguration and CalicoNodeStatus (facts 1.12, 1.17, 1.19).

use super::at::{At, Fields, Message};
use super::read;
use super::schema::{self, Ty};
use crate::api::net::Family;
use crate::api::types::Spec;

const NODE: [(&str, Ty); 8] = [
    ("ipv4VXLANTunnelAddr", Ty::Ip4),
    ("vxlanTunnelMACAddr", Ty::Mac),
    ("ipv6VXLANTunnelAddr", Ty::Ip6),
    ("vxlanTunnelMACAddrV6", Ty::Mac),
    (
        "orchRefs",
        Ty::List(&Ty::Fields(&[
            ("nodeName", Ty::Name),
            ("orchestrator", Ty::Required(&Ty::Name)),
        ])),
    ),
    (
        "wireguard",
        Ty::Fields(&[
            ("interfaceIPv4Address", Ty::Ip4),
            ("interfaceIPv6Address", Ty::Ip6),
        ]),
    ),
    (
        "addresses",
        Ty::List(&Ty::Fields(&[
            ("address", Ty::Required(&Ty::Net)),
            (
                "type",
                Ty::Word(&["CalicoNodeIP", "InternalIP", "ExternalIP"]),
            ),
        ])),
    ),
    ("interfaces", INTERFACES),
];

const INTERFACES: Ty = Ty::List(&Ty::Fields(&[
    ("name", Ty::Text),
    ("addresses", Ty::List(&Ty::Net)),
]));

const NODE_BGP: [(&str, Ty); 3] = [
    ("ipv4IPIPTunnelAddr", Ty::Ip4),
    ("routeReflectorClusterID", Ty::Ip4),
    ("interfaces", INTERFACES),
];

/// Specification of a Node.
pub fn node(at: &At<'_>) -> Option<Spec> {
    let fields = Fields::of(at)?;
    fields.opt("bgp", node_bgp);
    schema::check_fields(&fields, &NODE);
    fields.finish_open();
    Some(Spec::Other)
}

fn node_bgp(at: &At<'_>) -> Option<()> {
    let fields = Fields::of(at)?;
    if fields.at.entries()?.iter().all(|(_, node)| node.is_null()) {
        at.complain(Message::with(
            "must not be empty",
            "remove the field".to_owned(),
        ));
    }
    fields.opt("asNumber", as_number);
    fields.opt("ipv4Address", |at| net_of(at, Family::V4));
    fields.opt("ipv6Address", |at| net_of(at, Family::V6));
    schema::check_fields(&fields, &NODE_BGP);
    fields.finish();
    Some(())
}

fn net_of(at: &At<'_>, family: Family) -> Option<()> {
    let net = read::net(at)?;
    if Family::of_net(&net) == family {
        Some(())
    } else {
        at.error(format!("must be an {family} address or prefix"))
    }
}

/// An autonomous system number: a number, or two halves joined by a dot.
pub fn as_number(at: &At<'_>) -> Option<()> {
    let text = at.node.text().unwrap_or_default();
    let half = |s: &str| s.parse::<u16>().is_ok() && !s.starts_with('+');
    let dotted = text
        .split_once('.')
        .is_some_and(|(high, low)| half(high) && half(low));
    let plain = text.parse::<u32>().is_ok() && !text.starts_with('+');
    if dotted && at.node.is_number() {
        // 1.10 is 1.1 for everybody else.
        return read::text(at).map(drop);
    }
    if dotted || plain {
        Some(())
    } else {
        at.error("is not an AS number (0 to 4294967295, or 1.10 for two halves)")
    }
}

const INFORMATION: [(&str, Ty); 5] = [
    ("clusterGUID", Ty::Text),
    ("clusterType", Ty::Text),
    ("calicoVersion", Ty::Text),
    ("datastoreReady", Ty::Bool),
    ("variant", Ty::Text),
];

/// Specification of ClusterInformation.
pub fn information(at: &At<'_>) -> Option<Spec> {
    schema::check(at, &Ty::Fields(&INFORMATION))?;
    Some(Spec::Other)
}

const ENABLED: Ty = Ty::Word(&["Enabled", "Disabled"]);
const LEVEL: Ty = Ty::Word(&["None", "Debug", "Info", "Warning", "Error", "Fatal"]);
const RECONCILER: Ty = Ty::Fields(&[("reconcilerPeriod", Ty::Duration)]);

const TEMPLATES: Ty = Ty::List(&Ty::Fields(&[
    ("generateName", Ty::Text),
    ("interfaceCIDRs", Ty::List(&Ty::Net)),
    ("interfacePattern", Ty::Text),
    ("labels", Ty::Map(&Ty::Text)),
    ("annotations", Ty::Map(&Ty::Text)),
    ("nodeSelector", Ty::Selector),
]));

const CONTROLLERS: Ty = Ty::Fields(&[
    (
        "node",
        Ty::Fields(&[
            ("reconcilerPeriod", Ty::Duration),
            ("syncLabels", ENABLED),
            ("leakGracePeriod", Ty::Duration),
            (
                "hostEndpoint",
                Ty::Fields(&[
                    ("autoCreate", ENABLED),
                    ("createDefaultHostEndpoint", ENABLED),
                    ("templates", TEMPLATES),
                ]),
            ),
        ]),
    ),
    ("policy", RECONCILER),
    ("workloadEndpoint", RECONCILER),
    ("serviceAccount", RECONCILER),
    ("namespace", RECONCILER),
    (
        "loadBalancer",
        Ty::Fields(&[(
            "assignIPs",
            Ty::Word(&["AllServices", "RequestedServicesOnly"]),
        )]),
    ),
    ("policyMigration", Ty::Fields(&[("enabled", ENABLED)])),
]);

const KUBE_CONTROLLERS: Ty = Ty::Fields(&[
    ("logSeverityScreen", LEVEL),
    ("healthChecks", ENABLED),
    ("etcdV3CompactionPeriod", Ty::Duration),
    ("prometheusMetricsPort", Ty::Int(0, 65535)),
    ("debugProfilePort", Ty::Int(0, 65535)),
    ("controllers", CONTROLLERS),
]);

/// Specification of KubeControllersConfiguration.
pub fn kube_controllers(at: &At<'_>) -> Option<Spec> {
    schema::check(at, &KUBE_CONTROLLERS)?;
    Some(Spec::Other)
}

const NODE_STATUS: Ty = Ty::Fields(&[
    ("node", Ty::Name),
    ("classes", Ty::List(&Ty::Word(&["Agent", "BGP", "Routes"]))),
    ("updatePeriodSeconds", Ty::Int(0, 86_400)),
]);

/// Specification of CalicoNodeStatus.
pub fn node_status(at: &At<'_>) -> Option<Spec> {
    schema::check(at, &NODE_STATUS)?;
    Some(Spec::Other)
}
