//! Any order and grouping of updates ends in the same host policy, byte for byte, as one load of the end state; and so does
//! the ruleset made of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use moat::api::{self, Resource, ResourceId};
use moat::calc::{Calculator, Host, compute};
use moat::compile::{Compiler, Options, compile};
use moat::config::{Input, Settings, load};
use proptest::prelude::*;

fn settings() -> Settings {
    let input = Input {
        config_file: std::path::Path::new("/nonexistent/moat.toml"),
        explicit: false,
        vendor_dir: std::path::Path::new("/nonexistent"),
        env: Vec::new(),
        node: Some("host1"),
        felix: Vec::new(),
        hostname: "host1".to_owned(),
    };
    load(&input).expect("defaults are valid").settings
}

/// Small alphabets make collisions, overlaps and re-creations likely.
const LABELS: [&str; 3] = ["a", "b", "c"];
const SELECTORS: [&str; 8] = [
    "all()",
    "role == 'a'",
    "role in {'a', 'b'}",
    "has(zone)",
    "!has(role)",
    "zone == 'c' && role != 'a'",
    "role == 'a' || zone == 'b'",
    "inherited == 'a'",
];

fn document(kind: &str, namespace: Option<&str>, name: &str, labels: &str, spec: &str) -> String {
    let namespace = namespace.map_or(String::new(), |n| format!(", namespace: {n}"));
    format!(
        "apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: {name}{namespace}, labels: {{{labels}}}}}\nspec: {spec}\n"
    )
}

prop_compose! {
    fn labels()(role in 0..4usize, zone in 0..4usize) -> String {
        let pair = |key: &str, i: usize| LABELS.get(i).map(|v| format!("{key}: {v}"));
        [pair("role", role), pair("zone", zone)].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

prop_compose! {
    fn host_endpoint()(i in 0..3usize, labels in labels(), iface in 0..4usize, ip in 1..4u8, node in 1..3u8, profile in 0..3usize) -> String {
        let attach = match iface {
            0 => "interfaceName: '*'".to_owned(),
            1 => format!("expectedIPs: [10.0.0.{ip}]"),
            n => format!("interfaceName: eth{n}, expectedIPs: [10.0.0.{ip}, 'fd00::{ip}']"),
        };
        let profiles = ["[]", "[p0]", "[p1, p0]"][profile];
        let spec = format!("{{node: host{node}, {attach}, profiles: {profiles}, ports: [{{name: http, protocol: TCP, port: 8{ip}}}]}}");
        document("HostEndpoint", None, &format!("hep{i}"), &labels, &spec)
    }
}

prop_compose! {
    fn workload()(i in 0..2usize, labels in labels(), ip in 1..4u8, node in 1..3u8) -> String {
        let spec = format!("{{orchestrator: libvirt, workload: w{i}, node: host{node}, endpoint: eth0, interfaceName: cali{i}, ipNetworks: [10.1.0.{ip}/32], profiles: [p0], ports: [{{name: http, protocol: TCP, port: 80}}]}}");
        document("WorkloadEndpoint", Some("vms"), &format!("host{node}-libvirt-w{i}-eth0"), &labels, &spec)
    }
}

prop_compose! {
    fn set()(i in 0..3usize, labels in labels(), net in 0..4usize, namespaced in any::<bool>()) -> String {
        let nets = ["[10.0.0.0/8]", "[10.0.0.1, 10.0.0.0/24]", "[0.0.0.0/0]", "['fd00::/8', 192.0.2.1]"][net];
        if namespaced {
            document("NetworkSet", Some("vms"), &format!("set{i}"), &labels, &format!("{{nets: {nets}}}"))
        } else {
            document("GlobalNetworkSet", None, &format!("set{i}"), &labels, &format!("{{nets: {nets}}}"))
        }
    }
}

prop_compose! {
    fn rule()(action in 0..4usize, source in 0..9usize, not in 0..9usize, port in 0..4usize) -> String {
        let action = ["Allow", "Deny", "Pass", "Log"][action];
        let selector = SELECTORS.get(source).map_or(String::new(), |s| format!("selector: \"{s}\", "));
        let not = SELECTORS.get(not).map_or(String::new(), |s| format!("notSelector: \"{s}\""));
        let ports = ["", ", destination: {ports: [80, http]}", ", destination: {ports: ['1:100']}", ", destination: {notPorts: [http]}"][port];
        let source = format!("{selector}{not}").trim_end_matches(", ").to_owned();
        format!("{{action: {action}, protocol: TCP, source: {{{source}}}{ports}}}")
    }
}

prop_compose! {
    fn policy()(i in 0..4usize, tier in 0..3usize, order in 0..3usize, selector in 0..8usize, rules in prop::collection::vec(rule(), 0..5), kind in 0..3usize, forward in any::<bool>(), egress in any::<bool>()) -> String {
        let tier = ["default", "first", "absent"][tier];
        let order = ["", "order: 1, ", "order: 2, "][order];
        let direction = if egress { "egress" } else { "ingress" };
        let body = format!("tier: {tier}, {order}selector: \"{}\", {direction}: [{}]", SELECTORS[selector], rules.join(", "));
        match kind {
            0 => document("NetworkPolicy", Some("vms"), &format!("np{i}"), "", &format!("{{{body}}}")),
            1 => document("StagedGlobalNetworkPolicy", None, &format!("staged{i}"), "", &format!("{{{body}}}")),
            _ => document("GlobalNetworkPolicy", None, &format!("gnp{i}"), "", &format!("{{{body}, applyOnForward: {forward}}}")),
        }
    }
}

prop_compose! {
    fn tier()(order in 0..2usize, pass in any::<bool>()) -> String {
        let order = [10, 2_000_000][order];
        document("Tier", None, "first", "", &format!("{{order: {order}, defaultAction: {}}}", if pass { "Pass" } else { "Deny" }))
    }
}

prop_compose! {
    fn profile()(i in 0..2usize, value in 0..3usize, rules in prop::collection::vec(rule(), 0..2)) -> String {
        document("Profile", None, &format!("p{i}"), "", &format!("{{labelsToApply: {{inherited: {}}}, ingress: [{}]}}", LABELS[value], rules.join(", ")))
    }
}

fn any_document() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => host_endpoint(),
        2 => workload(),
        2 => set(),
        5 => policy(),
        1 => tier(),
        1 => profile(),
    ]
}

/// One step: a document is created or replaced, or its resource deleted; and whether the policy is asked for afterwards.
#[derive(Clone, Debug)]
struct Step {
    document: String,
    delete: bool,
    ask: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (any_document(), prop::bool::weighted(0.25), any::<bool>());
    prop::collection::vec(
        step.prop_map(|(document, delete, ask)| Step {
            document,
            delete,
            ask,
        }),
        1..40,
    )
}

fn parse(document: &str) -> Resource {
    let parsed = api::parse_bytes("test.yaml", document.as_bytes());
    assert!(!parsed.has_errors(), "{document}\n{:?}", parsed.issues);
    parsed.resources.into_iter().next().expect("one resource")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_like_one_load(steps in steps()) {
        let settings = settings();
        let host = Host { node: "host1".to_owned(), ..Host::default() };
        let mut calculator = Calculator::new(host.clone(), &settings);
        let mut end: BTreeMap<ResourceId, Resource> = BTreeMap::new();
        let options = Options { tree_from: 2, leaf: 1, ..Options::new(&settings, true) };
        let mut compiler = Compiler::new(options.clone());
        for step in &steps {
            let resource = parse(&step.document);
            if step.delete {
                calculator.delete(&resource.id);
                end.remove(&resource.id);
            } else {
                calculator.upsert(&resource);
                end.insert(resource.id.clone(), resource);
            }
            if step.ask {
                let policy = calculator.host_policy();
                let ruleset = compiler.compile(&policy, &options);
                prop_assert_eq!(&*ruleset, &compile(&policy, &options));
                prop_assert!(Arc::ptr_eq(&ruleset, &compiler.compile(&policy, &options)));
            }
        }
        let incremental = calculator.host_policy();
        let loaded = compute(&end.values().cloned().collect::<Vec<_>>(), &host, &settings);
        let backwards = compute(&end.values().rev().cloned().collect::<Vec<_>>(), &host, &settings);
        let bytes = |policy| serde_json::to_string(policy).expect("serializable");
        prop_assert_eq!(bytes(&incremental), bytes(&loaded));
        prop_assert_eq!(bytes(&backwards), bytes(&loaded));
        prop_assert_eq!(&*compiler.compile(&incremental, &options), &compile(&loaded, &options));
    }
}
