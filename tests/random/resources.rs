//! Random resources. Nearly all are valid; the others are left out by the caller.

use serde_json::{Map, Value, json};

use super::rng::Rng;
use super::universe::{
    NAMESPACE_SELECTORS, NETS, PLACES, PORT_NAMES, PORT_WORDS, PORTS, SELECTORS, TIERS,
};

/// A store's worth of resources.
pub fn resources(rng: &mut Rng) -> Vec<Value> {
    let mut all = Vec::new();
    for i in 0..1 + rng.below(4) {
        all.push(host_endpoint(rng, i));
    }
    for (i, iface) in ["cali1", "cali2"].iter().enumerate() {
        if rng.percent(85) {
            all.push(workload(rng, i, iface));
        }
    }
    (0..rng.below(4)).for_each(|i| all.push(network_set(rng, i)));
    (0..rng.below(3)).for_each(|i| all.push(profile(rng, i)));
    for name in ["early", "late"] {
        if rng.percent(70) {
            let order = rng
                .pick(&[json!(5), json!(2_000_000), Value::Null].each_ref())
                .clone();
            let action = rng.pick(&["Deny", "Pass"]);
            all.push(resource(
                "Tier",
                "",
                name,
                json!({}),
                json!({"order": order, "defaultAction": action}),
            ));
        }
    }
    (0..1 + rng.below(7)).for_each(|i| all.push(policy(rng, i)));
    all
}

/// `null` fields stand for absent ones.
fn resource(kind: &str, namespace: &str, name: &str, labels: Value, spec: Value) -> Value {
    let mut metadata = json!({"name": name, "labels": labels});
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    let mut document = json!({
        "apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec
    });
    drop_nulls(&mut document);
    document
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn maybe<T>(rng: &mut Rng, chance: usize, make: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    if rng.percent(chance) {
        Some(make(rng))
    } else {
        None
    }
}

fn labels(rng: &mut Rng) -> Value {
    let mut labels = Map::new();
    if rng.percent(80) {
        labels.insert("role".into(), rng.pick(&["a", "b", "c"]).into());
    }
    if rng.percent(50) {
        labels.insert("zone".into(), rng.pick(&["x", "y"]).into());
    }
    labels.into()
}

fn profiles(rng: &mut Rng) -> Vec<&'static str> {
    let names = [
        "p0",
        "p1",
        "p2",
        "projectcalico-default-allow",
        "projectcalico-default-allow",
    ];
    if rng.percent(60) {
        rng.some(&names, 2)
    } else {
        Vec::new()
    }
}

fn endpoint_ports(rng: &mut Rng) -> Vec<Value> {
    let one = |rng: &mut Rng| {
        let protocol = rng.pick(&["TCP", "TCP", "UDP", "SCTP"]);
        json!({"name": rng.pick(&PORT_NAMES[..3]), "protocol": protocol, "port": rng.pick(&PORTS)})
    };
    (0..rng.below(4)).map(|_| one(rng)).collect()
}

fn host_endpoint(rng: &mut Rng, i: usize) -> Value {
    let iface = rng.pick(&["eth0", "eth0", "eth1", "*", "*", "eth7", ""]);
    let own = [
        "10.1.0.1", "fd01::1", "10.2.0.1", "fd02::1", "10.1.0.2", "fd01::2", "10.2.0.9",
    ];
    let ips = maybe(rng, 60, |rng| rng.some(&own, 3));
    let ips = if iface.is_empty() {
        ips.or(Some(vec!["10.2.0.1"]))
    } else {
        ips
    };
    let node = if rng.percent(80) { "host1" } else { "host2" };
    let spec = json!({
        "node": node,
        "interfaceName": if iface.is_empty() { Value::Null } else { iface.into() },
        "expectedIPs": ips,
        "profiles": profiles(rng),
        "ports": endpoint_ports(rng),
    });
    resource("HostEndpoint", "", &format!("hep{i}"), labels(rng), spec)
}

fn workload(rng: &mut Rng, i: usize, iface: &str) -> Value {
    let own: Vec<String> = PLACES
        .iter()
        .filter(|p| p.iface == iface)
        .take(1)
        .flat_map(|p| {
            [
                format!("{}/32", p.addresses[0]),
                format!("{}/128", p.addresses[1]),
            ]
        })
        .collect();
    let mut names = profiles(rng);
    names.extend(maybe(rng, 50, |rng| {
        rng.pick(&["kns.prod", "ksa.prod.robot"])
    }));
    let spec = json!({
        "orchestrator": "vm", "workload": format!("w{i}"), "endpoint": "eth0", "node": "host1",
        "interfaceName": iface, "ipNetworks": own, "profiles": names,
        "serviceAccountName": maybe(rng, 30, |_| "robot"),
        "ports": endpoint_ports(rng),
    });
    let namespace = rng.pick(&["prod", "test"]);
    resource(
        "WorkloadEndpoint",
        namespace,
        &format!("host1-vm-w{i}-eth0"),
        labels(rng),
        spec,
    )
}

fn network_set(rng: &mut Rng, i: usize) -> Value {
    let mut nets = rng.some(&NETS[0], 3);
    nets.extend(rng.some(&NETS[1], 2));
    let name = format!("set{i}");
    match rng.below(3) {
        0 => resource(
            "NetworkSet",
            rng.pick(&["prod", "test"]),
            &name,
            labels(rng),
            json!({"nets": nets}),
        ),
        _ => resource(
            "GlobalNetworkSet",
            "",
            &name,
            labels(rng),
            json!({"nets": nets}),
        ),
    }
}

fn profile(rng: &mut Rng, i: usize) -> Value {
    let name = if i == 2 {
        rng.pick(&["kns.prod", "ksa.prod.robot"]).to_owned()
    } else {
        format!("p{i}")
    };
    let spec = json!({
        "labelsToApply": {
            "inherited": rng.pick(&["p", "q"]),
            "pcns.stage": rng.pick(&["live", "trial"]),
            "pcsa.stage": rng.pick(&["live", "trial"]),
        },
        "ingress": rules(rng, 3, Direction::Ingress, false),
        "egress": rules(rng, 3, Direction::Egress, false),
    });
    resource("Profile", "", &name, json!({}), spec)
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Ingress,
    Egress,
}

fn policy(rng: &mut Rng, i: usize) -> Value {
    let kind = rng.pick(&[
        "GlobalNetworkPolicy",
        "GlobalNetworkPolicy",
        "GlobalNetworkPolicy",
        "NetworkPolicy",
        "StagedGlobalNetworkPolicy",
    ]);
    let global = kind != "NetworkPolicy";
    let early = global && rng.percent(35);
    let untracked = early && rng.percent(50);
    let pre_dnat = early && !untracked;
    let forward = early || (global && rng.percent(50));
    let types = maybe(rng, 50, |rng| match rng.below(3) {
        _ if pre_dnat => vec!["Ingress"],
        0 => vec!["Ingress"],
        1 => vec!["Egress"],
        _ => vec!["Ingress", "Egress"],
    });
    let flag = |set: bool| {
        if global && set {
            Value::Bool(true)
        } else {
            Value::Null
        }
    };
    let spec = json!({
        "tier": rng.pick(&TIERS),
        "order": maybe(rng, 60, |rng| rng.pick(&[1, 2, 3])),
        "selector": if rng.percent(40) { "all()" } else { rng.pick(&SELECTORS) },
        "namespaceSelector": if global { maybe(rng, 10, |rng| rng.pick(&NAMESPACE_SELECTORS)) } else { None },
        "serviceAccountSelector": maybe(rng, 8, |rng| rng.pick(&NAMESPACE_SELECTORS)),
        "types": types,
        "ingress": rules(rng, 5, Direction::Ingress, !global),
        "egress": if pre_dnat { Vec::new() } else { rules(rng, 5, Direction::Egress, !global) },
        "applyOnForward": flag(forward),
        "doNotTrack": flag(untracked),
        "preDNAT": flag(pre_dnat),
    });
    let namespace = if global {
        ""
    } else {
        rng.pick(&["prod", "test"])
    };
    resource(kind, namespace, &format!("policy{i}"), json!({}), spec)
}

fn rules(rng: &mut Rng, most: usize, direction: Direction, namespaced: bool) -> Vec<Value> {
    (0..rng.below(most + 1))
        .map(|_| rule(rng, direction, namespaced))
        .collect()
}

fn rule(rng: &mut Rng, direction: Direction, namespaced: bool) -> Value {
    let family = maybe(rng, 60, |rng| rng.below(2));
    let (protocol, ports) = protocol(rng, family);
    let icmp = matches!(protocol.as_str(), Some("ICMP" | "ICMPv6"));
    let message = |rng: &mut Rng| json!({"type": rng.pick(&[8, 13, 0, 128, 129, 134]), "code": maybe(rng, 40, |rng| rng.below(2))});
    let mut rule = json!({
        "action": rng.pick(&["Allow", "Allow", "Allow", "Deny", "Deny", "Pass", "Log"]),
        "ipVersion": family.filter(|_| rng.percent(40)).map(|f| [4, 6][f]),
        "protocol": protocol,
        "notProtocol": maybe(rng, 8, |rng| rng.pick(&["TCP", "UDP", "SCTP"])),
        "icmp": if icmp { maybe(rng, 50, message) } else { None },
        "notICMP": if icmp { maybe(rng, 20, message) } else { None },
        "source": side(rng, family, ports, namespaced),
        "destination": side(rng, family, ports, namespaced),
    });
    if rng.percent(3) {
        let side = if direction == Direction::Ingress {
            "source"
        } else {
            "destination"
        };
        rule[side] = json!({"services": {"name": "web", "namespace": "prod"}});
    }
    rule
}

/// Which port lists go with a protocol.
#[derive(Clone, Copy, PartialEq)]
enum Ports {
    None,
    Named,
    Any,
}

fn protocol(rng: &mut Rng, family: Option<usize>) -> (Value, Ports) {
    match rng.below(12) {
        0..=2 => (Value::Null, Ports::Named),
        3..=5 => ("TCP".into(), Ports::Any),
        6 | 7 => ("UDP".into(), Ports::Any),
        8 => ("SCTP".into(), Ports::Any),
        9 => (json!(rng.pick(&[99, 6, 17])), Ports::None),
        _ => (
            ["ICMP", "ICMPv6"][family.unwrap_or_else(|| rng.below(2))].into(),
            Ports::None,
        ),
    }
}

fn side(rng: &mut Rng, family: Option<usize>, ports: Ports, namespaced: bool) -> Value {
    let nets = |rng: &mut Rng, all: usize| family.map(|f| rng.some(&NETS[f][..all], 3));
    json!({
        "nets": if rng.percent(30) { nets(rng, 10) } else { None },
        "notNets": if rng.percent(15) { nets(rng, 9) } else { None },
        "selector": maybe(rng, 25, |rng| rng.pick(&SELECTORS)),
        "notSelector": maybe(rng, 12, |rng| rng.pick(&SELECTORS)),
        "namespaceSelector": maybe(rng, if namespaced { 20 } else { 6 }, |rng| {
            if rng.percent(30) { "global()" } else { rng.pick(&NAMESPACE_SELECTORS) }
        }),
        "serviceAccounts": maybe(rng, 3, |_| json!({"names": ["robot"]})),
        "ports": if rng.percent(30) { port_list(rng, ports) } else { None },
        "notPorts": if rng.percent(15) { port_list(rng, ports) } else { None },
    })
}

fn port_list(rng: &mut Rng, ports: Ports) -> Option<Vec<Value>> {
    let entry = |rng: &mut Rng| match ports {
        Ports::Any if rng.percent(60) => json!(rng.pick(&PORTS)),
        Ports::Any => rng.pick(&PORT_WORDS).into(),
        _ => rng.pick(&PORT_NAMES).into(),
    };
    let count = if ports == Ports::Any && rng.percent(15) {
        20
    } else {
        1 + rng.below(4)
    };
    (ports != Ports::None).then(|| (0..count).map(|_| entry(rng)).collect())
}
