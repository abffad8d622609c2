//! Random policies and packets: the compiled rules, read rule by rule as the kernel reads them, say what the reference verdict says.

#[path = "compiled/machine.rs"]
mod machine;

use std::net::IpAddr;

use moat::api::{self, Resource};
use moat::calc::{Host, compute};
use moat::compile::{Options, compile};
use moat::config::{Input, Settings, load};
use moat::dataplane::links::{Link, Links};
use moat::verdict::{Conntrack, Packet, Path, Traffic, decide, prune};
use proptest::prelude::*;

fn settings() -> Settings {
    load(&Input::bare("h"))
        .expect("defaults are valid")
        .settings
}

/// Interfaces with and without endpoints, of workloads known and unknown.
const IFACES: [&str; 6] = ["eth0", "eth1", "eth2", "lo", "cali0", "cali1"];
const ADDRESSES: [[&str; 5]; 2] = [
    ["10.0.0.1", "10.0.0.2", "10.0.1.1", "192.0.2.1", "10.1.0.1"],
    ["fd00::1", "fd00::2", "fd00:1::1", "2001:db8::1", "fe80::1"],
];
const PORTS: [u16; 5] = [22, 53, 80, 81, 443];
const SELECTORS: [&str; 4] = ["all()", "role == 'a'", "role != 'a'", "has(zone)"];

fn links() -> Links {
    let link = |name: &str, ip: &str| Link {
        name: name.to_owned(),
        up: true,
        addresses: [ip.parse().expect("an address")].into(),
    };
    let links = [
        link("eth1", "10.0.0.2"),
        link("eth2", "10.9.9.9"),
        link("lo", "127.0.0.1"),
    ];
    links.into_iter().map(|l| (l.name.clone(), l)).collect()
}

fn document(kind: &str, name: &str, label: usize, spec: &str) -> String {
    let label = ["role: a", "role: b", "zone: x", ""][label % 4];
    let namespace = if kind == "WorkloadEndpoint" {
        ", namespace: vms"
    } else {
        ""
    };
    format!(
        "apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: {name}{namespace}, labels: {{{label}}}}}\nspec: {spec}\n"
    )
}

fn pick(choices: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(choices)
}

prop_compose! {
    fn host_endpoint()(i in 0..4usize, label in 0..4usize, profiles in pick(&["[]", "[p0]", "[absent]", "[projectcalico-default-allow]"])) -> String {
        let attach = ["interfaceName: eth0, expectedIPs: [10.0.0.1]", "interfaceName: '*'", "expectedIPs: [10.0.0.2, 'fd00::2']", "interfaceName: lo"][i];
        let spec = format!("{{node: h, {attach}, profiles: {profiles}, ports: [{{name: http, protocol: TCP, port: 80}}, {{name: http, protocol: UDP, port: 81}}]}}");
        document("HostEndpoint", &format!("hep{i}"), label, &spec)
    }
}

prop_compose! {
    fn workload()(label in 0..4usize, own in pick(&["10.1.0.1/32", "fd00::1/128"]), profiles in pick(&["[]", "[p0]", "[projectcalico-default-allow]"])) -> String {
        let spec = format!("{{orchestrator: libvirt, workload: w, node: h, endpoint: eth0, interfaceName: cali0, ipNetworks: ['{own}'], profiles: {profiles}, ports: [{{name: http, protocol: TCP, port: 443}}]}}");
        document("WorkloadEndpoint", "h-libvirt-w-eth0", label, &spec)
    }
}

/// One side of a rule; ports only where the protocol has some.
fn side(ports: bool) -> impl Strategy<Value = String> {
    let nets = pick(&[
        "",
        "nets: [10.0.0.0/24]",
        "nets: [10.0.0.1, 192.0.2.0/24]",
        "nets: ['fd00::/64', 'fe80::/10']",
        "nets: [0.0.0.0/0]",
    ]);
    let not_nets = pick(&[
        "",
        "",
        "notNets: [10.0.0.2]",
        "notNets: [0.0.0.0/1, 128.0.0.0/1]",
        "notNets: [10.0.0.1, 10.0.1.0/24]",
    ]);
    let selector = pick(&[
        "",
        "",
        "selector: \"role == 'a'\"",
        "selector: all()",
        "notSelector: has(zone)",
        "selector: \"role == 'a'\", notSelector: has(zone)",
    ]);
    let port = pick(&[
        "",
        "ports: [80]",
        "ports: [http]",
        "ports: ['20:60', http]",
        "ports: [1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,80,443]",
    ]);
    let not_port = pick(&[
        "",
        "",
        "notPorts: [53]",
        "notPorts: [http]",
        "notPorts: [1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,81,443]",
    ]);
    (nets, not_nets, selector, port, not_port).prop_map(move |(n, nn, s, p, np)| {
        // One family in a rule: the validator refuses a mixture.
        let nn = if n.contains("fd00") { "" } else { nn };
        let ports = if ports { [p, np] } else { ["", ""] };
        let parts = [n, nn, s, ports[0], ports[1]];
        parts
            .into_iter()
            .filter(|p| !p.is_empty())
            .collect::<Vec<_>>()
            .join(", ")
    })
}

fn rule() -> impl Strategy<Value = String> {
    let action = pick(&["Allow", "Allow", "Deny", "Pass", "Log"]);
    let protocol = pick(&[
        "protocol: TCP, ",
        "protocol: UDP, ",
        "protocol: SCTP, ",
        "protocol: ICMP, icmp: {type: 8}, ",
        "protocol: ICMPv6, notICMP: {type: 128, code: 0}, ",
        "notProtocol: UDP, ",
        "protocol: 47, ",
        "",
    ]);
    (action, protocol).prop_flat_map(|(action, protocol)| {
        let ports = ["TCP", "SCTP"].iter().any(|p| protocol.contains(p)) || protocol.starts_with("protocol: UDP");
        // ICMP belongs to one family, and so do prefixes.
        let plain = protocol.contains("ICMP");
        (side(ports), side(ports), pick(&["", "", "ipVersion: 4, "])).prop_map(move |(from, to, version)| {
            let mixed = from.contains("fd00") != to.contains("fd00") && [&from, &to].iter().all(|s| s.to_lowercase().contains("nets"));
            let six = from.contains("fd00") || to.contains("fd00");
            let version = if plain || six { "" } else { version };
            let to = if plain || mixed { String::new() } else { to };
            let from = if plain { String::new() } else { from };
            format!("{{action: {action}, {version}{protocol}source: {{{from}}}, destination: {{{to}}}}}")
        })
    })
}

prop_compose! {
    fn policy()(i in 0..5usize, tier in pick(&["default", "first", "absent"]), selector in pick(&SELECTORS), flags in pick(&["", "", "applyOnForward: true, ", "applyOnForward: true, ", "applyOnForward: true, preDNAT: true, ", "applyOnForward: true, doNotTrack: true, "]), types in pick(&["[Ingress]", "[Egress]", "[Ingress, Egress]"]), ingress in prop::collection::vec(rule(), 0..3), egress in prop::collection::vec(rule(), 0..3)) -> String {
        let (types, egress) = if flags.contains("preDNAT") { ("[Ingress]", Vec::new()) } else { (types, egress) };
        let spec = format!("{{tier: {tier}, {flags}selector: \"{selector}\", types: {types}, ingress: [{}], egress: [{}]}}", ingress.join(", "), egress.join(", "));
        document("GlobalNetworkPolicy", &format!("gnp{i}"), 3, &spec)
    }
}

/// A rule as most are: a protocol, one list of ports, one selector. Many of them make port trees.
fn plain_rule() -> impl Strategy<Value = String> {
    let action = pick(&["Allow", "Allow", "Allow", "Deny", "Pass", "Log"]);
    let protocol = pick(&["TCP", "TCP", "UDP", "SCTP"]);
    let ports = pick(&[
        "[80]",
        "[80]",
        "[81]",
        "[443]",
        "[22]",
        "['80:81']",
        "['60:4000']",
        "['16:31', 443]",
        "['1:65535']",
        "['1:80']",
        "[53, 80, 443]",
    ]);
    let selector = pick(&["role == 'a'", "role == 'b'", "has(zone)", "all()"]);
    let peer = pick(&[
        "",
        "",
        "",
        "notSelector: has(zone)",
        "nets: [10.0.0.0/24]",
        "ports: [80]",
    ]);
    (action, protocol, ports, selector, peer).prop_map(|(action, protocol, ports, selector, peer)| {
        let peer = if peer.is_empty() { format!("selector: \"{selector}\"") } else { format!("selector: \"{selector}\", {peer}") };
        format!("{{action: {action}, protocol: {protocol}, source: {{{peer}}}, destination: {{ports: {ports}}}}}")
    })
}

prop_compose! {
    fn crowd()(flags in pick(&["", "", "applyOnForward: true, "]), policies in prop::collection::vec((pick(&["default", "default", "first"]), pick(&["", "selector: all(), "]), prop::collection::vec(prop_oneof![6 => plain_rule(), 1 => rule()], 1..6)), 2..9)) -> Vec<String> {
        let policy = |(i, (tier, selector, rules)): (usize, &(&str, &str, Vec<String>))| {
            let spec = format!("{{tier: {tier}, {flags}{selector}types: [Ingress], ingress: [{}]}}", rules.join(", "));
            document("GlobalNetworkPolicy", &format!("crowd{i}"), 3, &spec)
        };
        policies.iter().enumerate().map(policy).collect()
    }
}

prop_compose! {
    fn other()(kind in 0..3usize, label in 0..4usize, word in pick(&["Pass", "Deny"]), rules in prop::collection::vec(rule(), 0..2)) -> String {
        match kind {
            0 => document("Tier", "first", 3, &format!("{{order: 10, defaultAction: {word}}}")),
            1 => document("GlobalNetworkSet", &format!("set{label}"), label, "{nets: [10.0.0.0/31, 0.0.0.0/0, 'fd00::/64']}"),
            _ => document("Profile", "p0", 3, &format!("{{ingress: [{}], egress: []}}", rules.join(", "))),
        }
    }
}

fn resources() -> impl Strategy<Value = Vec<Resource>> {
    let any = prop_oneof![3 => host_endpoint(), 1 => workload(), 5 => policy(), 2 => other()];
    let crowd = prop_oneof![1 => Just(Vec::new()), 1 => crowd()];
    (prop::collection::vec(any, 1..12), crowd).prop_map(|(mut documents, crowd)| {
        documents.extend(crowd);
        let mut end = std::collections::BTreeMap::new();
        for document in documents {
            let parsed = api::parse_bytes("test.yaml", document.as_bytes());
            assert!(!parsed.has_errors(), "{document}\n{:?}", parsed.issues);
            end.extend(parsed.resources.into_iter().map(|r| (r.id.clone(), r)));
        }
        end.into_values().collect()
    })
}

fn packet() -> impl Strategy<Value = Packet> {
    let address = 0..5usize;
    let protocol = prop::sample::select(vec![6u8, 17, 132, 1, 58, 47]);
    let state = prop::sample::select(vec![
        Conntrack::New,
        Conntrack::New,
        Conntrack::New,
        Conntrack::Established,
        Conntrack::Invalid,
        Conntrack::Untracked,
    ]);
    let port = || prop::sample::select(PORTS.to_vec());
    let icmp = prop::sample::select(vec![
        (8u8, 0u8),
        (128, 0),
        (128, 1),
        (135, 0),
        (2, 0),
        (130, 0),
    ]);
    let hops = prop::sample::select(vec![1u8, 64, 255]);
    (
        0..2usize,
        address.clone(),
        address.clone(),
        protocol,
        port(),
        port(),
        icmp,
        hops,
        state,
        prop::option::weighted(0.2, (address, port())),
    )
        .prop_map(
            |(family, src, dst, proto, sport, dport, icmp, hop_limit, conntrack, original)| {
                let addr =
                    |i: usize| -> IpAddr { ADDRESSES[family][i].parse().expect("an address") };
                let ports = [6, 17, 132].contains(&proto);
                Packet {
                    src: addr(src),
                    dst: addr(dst),
                    proto,
                    sport: ports.then_some(sport),
                    dport: ports.then_some(dport),
                    icmp: [1, 58].contains(&proto).then_some(icmp),
                    hop_limit,
                    conntrack,
                    original: original.map(|(dst, port)| (addr(dst), ports.then_some(port))),
                }
            },
        )
}

fn path() -> impl Strategy<Value = Path> {
    let iface = || pick(&IFACES).prop_map(str::to_owned);
    let router = || pick(&["eth0", "eth1", "eth2", "cali0", "cali1"]).prop_map(str::to_owned);
    prop_oneof![
        iface().prop_map(|iface| Path::In { iface }),
        iface().prop_map(|iface| Path::Out { iface }),
        (router(), router()).prop_map(|(in_iface, out_iface)| Path::Forward {
            in_iface,
            out_iface
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn rules_say_what_the_verdict_says(
        resources in resources(),
        packets in prop::collection::vec((packet(), path()), 1..20),
        (accept, mangle, invalid, to_host) in (any::<bool>(), any::<bool>(), any::<bool>(), 0..3usize),
        (tree_from, leaf, merge_from) in (0..12usize, 1..4usize, 1..4usize),
    ) {
        use moat::config::HostAction::{Accept, Drop, Return};
        let mut settings = settings();
        settings.disable_conntrack_invalid_check = invalid;
        settings.default_endpoint_to_host_action = [Drop, Return, Accept][to_host];
        let host = Host { node: "h".to_owned(), links: links() };
        let policy = compute(&resources, &host, &settings);
        let mut options = Options::new(&settings, true);
        (options.filter_accept, options.mangle_accept) = (accept, mangle);
        (options.tree_from, options.leaf, options.merge_from) = (tree_from, leaf, merge_from);
        let ruleset = compile(&policy, &options);
        for (packet, path) in &packets {
            // Connection tracking translates only what it tracks.
            let mut packet = packet.clone();
            if matches!(packet.conntrack, Conntrack::Untracked | Conntrack::Invalid) {
                packet.original = None;
            }
            // With Return every stage on the way is asked, and an unknown workload is denied by its own.
            let known = packet.conntrack == Conntrack::Established;
            if known && !accept && matches!(path, Path::Forward { .. }) {
                continue;
            }
            let verdict = decide(&policy, &packet, path);
            let passes = machine::passes(&ruleset, &policy, &packet, path);
            prop_assert_eq!(passes, verdict.allow, "{:?} {:?}\n{:#?}", packet, path, verdict.trace);
            let traffic = Traffic {
                proto: packet.proto,
                dport: packet.dport,
                original_dport: packet.original.map_or(packet.dport, |(_, port)| port),
            };
            let pruned = decide(&prune(&policy, traffic), &packet, path);
            prop_assert_eq!(pruned.allow, verdict.allow, "pruned for {:?}: {:?} {:?}", traffic, packet, path);
        }
    }
}
