//! BGPConfiguration, BGPPeer and BGPFilter (facts 1.14 and 1.15).

use super::at::{At, Fields};
use super::schema::{self, Ty};
use crate::api::types::Spec;

const SECRET: Ty = Ty::Fields(&[(
    "secretKeyRef",
    Ty::Fields(&[
        ("name", Ty::Text),
        ("key", Ty::Text),
        ("optional", Ty::Bool),
    ]),
)]);
const BLOCKS: Ty = Ty::List(&Ty::Fields(&[("cidr", Ty::StrictNet)]));
const ENABLED: Ty = Ty::Word(&["Enabled", "Disabled"]);
const SECONDS: Ty = Ty::Duration;

const CONFIGURATION: [(&str, Ty); 20] = [
    (
        "logSeverityScreen",
        Ty::Word(&["Trace", "Debug", "Info", "Warning", "Error", "Fatal"]),
    ),
    ("nodeToNodeMeshEnabled", Ty::Bool),
    ("asNumber", Ty::AsNumber),
    ("serviceClusterIPs", BLOCKS),
    ("serviceExternalIPs", BLOCKS),
    ("serviceLoadBalancerIPs", BLOCKS),
    ("serviceLoadBalancerAggregation", ENABLED),
    (
        "communities",
        Ty::List(&Ty::Fields(&[("name", Ty::Text), ("value", Ty::Text)])),
    ),
    (
        "prefixAdvertisements",
        Ty::List(&Ty::Fields(&[
            ("cidr", Ty::StrictNet),
            ("communities", Ty::List(&Ty::Text)),
        ])),
    ),
    ("listenPort", Ty::Int(1, 65535)),
    ("nodeMeshPassword", SECRET),
    ("nodeMeshMaxRestartTime", SECONDS),
    ("bindMode", Ty::Word(&["None", "NodeIP"])),
    ("ignoredInterfaces", Ty::List(&Ty::Text)),
    ("localWorkloadPeeringIPV4", Ty::Ip4),
    ("localWorkloadPeeringIPV6", Ty::Ip6),
    ("programClusterRoutes", Ty::Text),
    ("ipv4NormalRoutePriority", Ty::Int(0, i32::MAX as i64)),
    ("ipv6NormalRoutePriority", Ty::Int(0, i32::MAX as i64)),
    ("ipv4ElevatedRoutePriority", Ty::Int(0, i32::MAX as i64)),
];

/// Specification of BGPConfiguration.
pub fn configuration(at: &At<'_>) -> Option<Spec> {
    let fields = Fields::of(at)?;
    schema::check_fields(&fields, &CONFIGURATION);
    let mesh = fields
        .get("nodeToNodeMeshEnabled")
        .is_none_or(|at| at.node.text() != Some("false"));
    for name in ["nodeMeshPassword", "nodeMeshMaxRestartTime"] {
        if let Some(at) = fields.get(name).filter(|_| !mesh) {
            at.complain("is only possible when nodeToNodeMeshEnabled is true");
        }
    }
    fields.finish_open();
    Some(Spec::Other)
}

const PEER: [(&str, Ty); 20] = [
    ("node", Ty::Name),
    ("nodeSelector", Ty::Selector),
    ("peerIP", Ty::Text),
    ("peerSelector", Ty::Selector),
    ("asNumber", Ty::AsNumber),
    ("localASNumber", Ty::AsNumber),
    ("keepOriginalNextHop", Ty::Bool),
    ("nextHopMode", Ty::Word(&["Auto", "Self", "Keep"])),
    ("password", SECRET),
    ("sourceAddress", Ty::Word(&["UseNodeIP", "None"])),
    ("maxRestartTime", SECONDS),
    ("keepaliveTime", SECONDS),
    ("numAllowedLocalASNumbers", Ty::Int(0, i32::MAX as i64)),
    ("ttlSecurity", Ty::Int(0, 255)),
    ("reachableBy", Ty::Ip),
    ("filters", Ty::List(&Ty::Name)),
    ("localWorkloadSelector", Ty::Selector),
    ("reversePeering", Ty::Word(&["Auto", "Manual"])),
    ("extensions", Ty::Map(&Ty::Text)),
    ("failureDetectionMode", Ty::Text),
];

/// Pairs of fields that exclude each other.
const PEER_EXCLUDES: [(&str, &str); 3] = [
    ("node", "nodeSelector"),
    ("peerIP", "peerSelector"),
    ("asNumber", "peerSelector"),
];

/// Specification of a BGPPeer.
pub fn peer(at: &At<'_>) -> Option<Spec> {
    let fields = Fields::of(at)?;
    schema::check_fields(&fields, &PEER);
    for (one, other) in PEER_EXCLUDES {
        if let (Some(_), Some(at)) = (fields.get(one), fields.get(other)) {
            at.complain(format!("{one} and {other} exclude each other"));
        }
    }
    if fields.get("localWorkloadSelector").is_some() && fields.get("asNumber").is_none() {
        fields.missing_because("asNumber", "localWorkloadSelector needs an asNumber");
    }
    fields.finish_open();
    Some(Spec::Other)
}

const RULES: Ty = Ty::List(&Ty::Fields(&[
    ("cidr", Ty::Net),
    (
        "matchOperator",
        Ty::Word(&["Equal", "NotEqual", "In", "NotIn"]),
    ),
    (
        "prefixLength",
        Ty::Fields(&[("min", Ty::Int(0, 128)), ("max", Ty::Int(0, 128))]),
    ),
    ("source", Ty::Word(&["RemotePeers"])),
    ("interface", Ty::Text),
    ("peerType", Ty::Word(&["eBGP", "iBGP"])),
    ("communities", Ty::Any),
    ("asPathPrefix", Ty::List(&Ty::AsNumber)),
    ("priority", Ty::Int(0, i32::MAX as i64)),
    ("action", Ty::Required(&Ty::Word(&["Accept", "Reject"]))),
    (
        "operations",
        Ty::List(&Ty::Fields(&[
            ("addCommunity", Ty::Any),
            ("prependASPath", Ty::Any),
            ("setPriority", Ty::Any),
        ])),
    ),
]));

/// Specification of a BGPFilter.
pub fn filter(at: &At<'_>) -> Option<Spec> {
    let lists = &Ty::Fields(&[
        ("exportV4", RULES),
        ("importV4", RULES),
        ("exportV6", RULES),
        ("importV6", RULES),
    ]);
    schema::check(at, lists)?;
    for list in ["exportV4", "importV4", "exportV6", "importV6"] {
        let Some(node) = at.node.get(list).filter(|node| !node.is_null()) else {
            continue;
        };
        let list = at.entry(list, node);
        for (n, rule) in list.items()?.iter().enumerate() {
            let rule = list.item(n, rule);
            if rule.node.get("cidr").is_some() && rule.node.get("matchOperator").is_none() {
                rule.complain("a cidr needs a matchOperator");
            }
            operations(&rule);
        }
    }
    Some(Spec::Other)
}

fn operations(rule: &At<'_>) -> Option<()> {
    let node = rule.node.get("operations").filter(|node| !node.is_null())?;
    let list = rule.entry("operations", node);
    for (n, operation) in list.items()?.iter().enumerate() {
        if operation
            .entries()
            .is_some_and(|entries| entries.len() != 1)
        {
            list.item(n, operation).complain(
                "exactly one of addCommunity, prependASPath and setPriority must be given",
            );
        }
    }
    Some(())
}
