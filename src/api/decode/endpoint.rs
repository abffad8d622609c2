//! HostEndpoint and WorkloadEndpoint (facts 1.2 and 1.11).

use std::sync::Arc;

use ipnet::IpNet;

use super::at::{At, Fields, Message};
use super::schema::{self, MAX_ITEMS, Ty};
use super::{names, quoted, read, rule};
use crate::api::types::{EndpointPort, HostEndpoint, Spec, WorkloadEndpoint};
use crate::api::yaml::Node;

/// The interface name that stands for all interfaces of the host.
const ALL_INTERFACES: &str = "*";

/// Specification of a HostEndpoint.
pub fn host(at: &At<'_>) -> Option<Spec> {
    let fields = Fields::of(at)?;
    let node = fields.required("node", |at| non_empty(at).and_then(|_| read::name(at)));
    let interface_name = fields.opt("interfaceName", |at| match read::text(at)?.as_str() {
        ALL_INTERFACES => Some(ALL_INTERFACES.to_owned()),
        "" => Some(String::new()),
        _ => read::interface(at),
    });
    let mut expected_ips = fields.list("expectedIPs", MAX_ITEMS, read::ip);
    expected_ips.sort();
    expected_ips.dedup();
    let profiles = fields.list("profiles", MAX_ITEMS, read::name);
    let ports = fields.list("ports", MAX_ITEMS, port);
    let named = at.node.get("interfaceName").and_then(Node::text);
    let ips = fields.get("expectedIPs");
    if named.is_none_or(str::is_empty) && ips.is_none_or(|at| at.is_empty_list()) {
        at.complain(Message::with(
            "one of interfaceName and expectedIPs must be given",
            "interfaceName: \"*\" means all interfaces of the host".to_owned(),
        ));
    }
    fields.finish_open();
    Some(Spec::HostEndpoint(Arc::new(HostEndpoint {
        node: node?,
        interface_name: interface_name.unwrap_or_default(),
        expected_ips,
        profiles,
        ports,
    })))
}

fn non_empty(at: &At<'_>) -> Option<()> {
    if read::borrowed(at)?.is_empty() {
        at.error("must not be empty")
    } else {
        Some(())
    }
}

/// A named port.
fn port(at: &At<'_>) -> Option<EndpointPort> {
    let fields = Fields::of(at)?;
    let name = fields.required("name", |at| read::checked(at, names::port));
    named_port(fields, name)
}

/// A port of a workload; one that is only published on the host has no name, so that no rule can mean it.
fn workload_port(at: &At<'_>) -> Option<Option<EndpointPort>> {
    let fields = Fields::of(at)?;
    let host_port = fields.opt("hostPort", |at| read::integer(at, 0..=65535));
    fields.opt("hostIP", read::text);
    let is_published = host_port.is_some_and(|port| port > 0);
    let has_name = fields
        .opt("name", read::text)
        .is_some_and(|name| !name.is_empty());
    let is_nameless = is_published && !has_name;
    let name = match is_nameless {
        true => Some(String::new()),
        false => fields.required("name", |at| read::checked(at, names::port)),
    };
    let port = named_port(fields, name)?;
    Some((!is_nameless).then_some(port))
}

fn named_port(fields: Fields<'_>, name: Option<String>) -> Option<EndpointPort> {
    let protocol = fields.required("protocol", |at| {
        let protocol = rule::protocol(at)?;
        if protocol.has_ports() {
            Some(protocol)
        } else {
            at.error("must be a protocol with ports: TCP, UDP or SCTP")
        }
    });
    let port = fields.required("port", read::port);
    fields.finish();
    Some(EndpointPort {
        name: name?,
        protocol: protocol?,
        port: port?,
    })
}

/// Fields of a WorkloadEndpoint that policy does not use.
const UNUSED: [(&str, Ty); 10] = [
    ("orchestrator", Ty::Name),
    ("workload", Ty::Text),
    ("containerID", Ty::Text),
    ("pod", Ty::Name),
    ("endpoint", Ty::Text),
    (
        "ipNATs",
        Ty::List(&Ty::Fields(&[
            ("internalIP", Ty::Required(&Ty::Ip)),
            ("externalIP", Ty::Required(&Ty::Ip)),
        ])),
    ),
    ("ipv4Gateway", Ty::Ip4),
    ("ipv6Gateway", Ty::Ip6),
    ("mac", Ty::Mac),
    ("qosControls", Ty::Fields(&QOS)),
];

const RATE: Ty = Ty::Int(0, i64::MAX);
const QOS: [(&str, Ty); 15] = [
    ("ingressBandwidth", RATE),
    ("egressBandwidth", RATE),
    ("ingressBurst", RATE),
    ("egressBurst", RATE),
    ("ingressPeakrate", RATE),
    ("egressPeakrate", RATE),
    ("ingressMinburst", RATE),
    ("egressMinburst", RATE),
    ("ingressPacketRate", RATE),
    ("egressPacketRate", RATE),
    ("ingressPacketBurst", RATE),
    ("egressPacketBurst", RATE),
    ("ingressMaxConnections", RATE),
    ("egressMaxConnections", RATE),
    ("dscp", Ty::TextOrInt),
];

/// Specification of a WorkloadEndpoint.
pub fn workload(at: &At<'_>) -> Option<Spec> {
    let fields = Fields::of(at)?;
    let node = fields.required("node", |at| non_empty(at).and_then(|_| read::name(at)));
    let interface_name = fields.required("interfaceName", read::interface);
    let ip_networks = fields.list("ipNetworks", MAX_ITEMS, host_net);
    let allow_spoofed = fields.list("allowSpoofedSourcePrefixes", MAX_ITEMS, read::masked_net);
    let profiles = fields.list("profiles", MAX_ITEMS, read::name);
    let ports = fields.list("ports", MAX_ITEMS, workload_port);
    let service_account = fields.opt("serviceAccountName", read::name);
    schema::check_fields(&fields, &UNUSED);
    fields.finish_open();
    check_name(at);
    Some(Spec::WorkloadEndpoint(Arc::new(WorkloadEndpoint {
        node: node?,
        interface_name: interface_name?,
        ip_networks,
        allow_spoofed,
        profiles,
        ports: ports.into_iter().flatten().collect(),
        service_account: service_account.unwrap_or_default(),
    })))
}

fn host_net(at: &At<'_>) -> Option<IpNet> {
    let net = read::strict_net(at)?;
    if net.prefix_len() == net.max_prefix_len() {
        Some(net)
    } else {
        at.error(format!("must be one address (/{})", net.max_prefix_len()))
    }
}

/// The name that Calico derives from the parts of a WorkloadEndpoint; `None` when a part is missing.
pub fn derived_name(spec: &Node) -> Option<String> {
    let part = |name: &str| {
        spec.get(name)
            .and_then(Node::text)
            .filter(|text| !text.is_empty())
    };
    let orchestrator = part("orchestrator")?;
    let (workload, endpoint) = match orchestrator {
        "k8s" => (part("pod")?, part("endpoint")?),
        "cni" => (part("containerID")?, part("endpoint")?),
        "libnetwork" => ("libnetwork", part("endpoint")?),
        _ => (part("workload")?, part("endpoint")?),
    };
    let parts = [part("node")?, orchestrator, workload, endpoint];
    Some(parts.map(|part| part.replace('-', "--")).join("-"))
}

/// A name that is given must be the one that Calico would derive.
fn check_name(spec: &At<'_>) {
    let (Some(derived), Some(document)) = (derived_name(spec.node), spec.above()) else {
        return;
    };
    let Some(meta) = document.node.get("metadata") else {
        return;
    };
    let Some(name) = meta.get("name") else { return };
    if name
        .text()
        .is_some_and(|name| !name.is_empty() && name != derived)
    {
        let meta = document.entry("metadata", meta);
        let help = format!("write {}", quoted(&derived));
        let rule =
            "the name of a workload endpoint is made of node, orchestrator, workload and endpoint";
        meta.entry("name", name).complain(Message::with(rule, help));
    }
}
