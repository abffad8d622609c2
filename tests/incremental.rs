//! Any order and grouping of updates ends in the same host policy, byte for byte, as one load of the end state; and so does
//! the ruleset made of it. What is said to have changed on the way is exactly what did.

use std::collections::BTreeMap;
use std::sync::Arc;

use moat::api::{self, Resource, ResourceId, Spec};
use moat::calc::{Calculator, Host, HostPolicy, IpSet, SetChange, SetId, compute};
use moat::compile::{Compiler, Options, compile};
use moat::config::{Input, Settings, load};
use moat::dataplane::links::{Link, Links};
use proptest::prelude::*;

fn settings() -> Settings {
    load(&Input::bare("host1"))
        .expect("defaults are valid")
        .settings
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

/// One step: a document is created or replaced, or its resource deleted; the host may get other interfaces; and whether the
/// policy is asked for afterwards.
#[derive(Clone, Debug)]
struct Step {
    document: String,
    delete: bool,
    links: Option<usize>,
    ask: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let links = prop::option::weighted(0.1, 0..3_usize);
    let step = (
        any_document(),
        prop::bool::weighted(0.25),
        links,
        any::<bool>(),
    );
    prop::collection::vec(
        step.prop_map(|(document, delete, links, ask)| Step {
            document,
            delete,
            links,
            ask,
        }),
        1..40,
    )
}

/// Interfaces with the addresses that endpoints expect, or without.
fn links(which: usize) -> Links {
    let link = |name: &str, address: Option<&str>| {
        let addresses = address.map(|a| a.parse().expect("an address"));
        let link = Link {
            name: name.to_owned(),
            up: true,
            addresses: addresses.into_iter().collect(),
        };
        (name.to_owned(), link)
    };
    match which {
        0 => Links::new(),
        1 => Links::from([link("eth2", Some("10.0.0.1")), link("eth9", None)]),
        _ => Links::from([
            link("eth9", Some("10.0.0.2")),
            link("cali1", Some("10.0.0.1")),
        ]),
    }
}

fn parse(document: &str) -> Resource {
    let parsed = api::parse_bytes("test.yaml", document.as_bytes());
    assert!(!parsed.has_errors(), "{document}\n{:?}", parsed.issues);
    parsed.resources.into_iter().next().expect("one resource")
}

fn host(links: Links) -> Host {
    Host {
        node: "host1".to_owned(),
        links,
    }
}

fn bytes(policy: &HostPolicy) -> String {
    serde_json::to_string(policy).expect("serializable")
}

/// One who knows the host policy only by what is said to have changed.
#[derive(Default)]
struct Follower {
    policy: Option<HostPolicy>,
    sets: BTreeMap<SetId, IpSet>,
}

impl Follower {
    /// Takes over what changed and nothing else, which must give the present host policy.
    fn follow(&mut self, calculator: &mut Calculator) -> Result<(), TestCaseError> {
        let changes = calculator.flush();
        let now = calculator.policy();
        for (id, change) in &changes.sets {
            self.follow_set(id, change, now)?;
        }
        let sets = |policy: &HostPolicy| -> BTreeMap<SetId, IpSet> {
            let sets = policy.sets.iter();
            sets.map(|(id, set)| (id.clone(), (**set).clone()))
                .collect()
        };
        prop_assert_eq!(&self.sets, &sets(now));
        let mine = self.policy.get_or_insert_with(|| HostPolicy {
            endpoints: BTreeMap::new(),
            workloads: BTreeMap::new(),
            policies: BTreeMap::new(),
            profiles: BTreeMap::new(),
            ..now.clone()
        });
        take(&mut mine.endpoints, &now.endpoints, changes.endpoints);
        take(&mut mine.workloads, &now.workloads, changes.workloads);
        take(
            &mut mine.policies,
            &now.policies,
            changes.policies.into_iter().map(Arc::new),
        );
        take(&mut mine.profiles, &now.profiles, changes.profiles);
        mine.sets = now.sets.clone();
        prop_assert_eq!(bytes(mine), bytes(now));
        // Whoever keeps sets makes the next change copy them, so that both ways of changing are tried.
        if now.sets.len().is_multiple_of(2) {
            mine.sets.clear();
        }
        Ok(())
    }

    fn follow_set(
        &mut self,
        id: &SetId,
        change: &SetChange,
        now: &HostPolicy,
    ) -> Result<(), TestCaseError> {
        let is_known = self.sets.contains_key(id);
        match change {
            SetChange::New | SetChange::Replaced => {
                prop_assert_eq!(is_known, *change == SetChange::Replaced);
                self.sets.insert(id.clone(), (*now.sets[id]).clone());
            }
            SetChange::Gone => prop_assert!(self.sets.remove(id).is_some()),
            SetChange::Members { added, removed } => {
                prop_assert!(is_known && added.len() + removed.len() > 0);
                let set = self.sets.get_mut(id).expect("known");
                prop_assert!(removed.iter().all(|m| set.remove(*m)), "{:?}", removed);
                prop_assert!(added.iter().all(|m| set.insert(*m)), "{:?}", added);
            }
        }
        Ok(())
    }
}

fn take<K: Ord + Clone, V: Clone>(
    mine: &mut BTreeMap<K, V>,
    now: &BTreeMap<K, V>,
    changed: impl IntoIterator<Item = K>,
) {
    for key in changed {
        match now.get(&key) {
            Some(value) => mine.insert(key, value.clone()),
            None => mine.remove(&key),
        };
    }
}

/// Whether a resource only contributes members to IP sets on `host1`.
fn is_remote(resource: &Resource) -> bool {
    match &resource.spec {
        Spec::HostEndpoint(endpoint) => endpoint.node != "host1",
        Spec::WorkloadEndpoint(endpoint) => endpoint.node != "host1",
        Spec::NetworkSet(_) => true,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_like_one_load(steps in steps()) {
        let settings = settings();
        let mut calculator = Calculator::new(host(Links::new()), &settings);
        let mut follower = Follower::default();
        let mut end: BTreeMap<ResourceId, Resource> = BTreeMap::new();
        let mut present = Links::new();
        let options = Options { tree_from: 2, leaf: 1, merge_from: 2, ..Options::new(&settings, true) };
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
            if let Some(which) = step.links {
                present = links(which);
                calculator.set_links(present.clone());
            }
            if step.ask {
                follower.follow(&mut calculator)?;
                let policy = calculator.host_policy();
                let ruleset = compiler.compile(&policy, &options);
                prop_assert_eq!(&*ruleset, &compile(&policy, &options));
                prop_assert!(Arc::ptr_eq(&ruleset, &compiler.compile(&policy, &options)));
            }
        }
        follower.follow(&mut calculator)?;
        prop_assert!(calculator.flush().is_empty());
        let incremental = calculator.host_policy();
        let host = host(present);
        let loaded = compute(&end.values().cloned().collect::<Vec<_>>(), &host, &settings);
        let backwards = compute(&end.values().rev().cloned().collect::<Vec<_>>(), &host, &settings);
        prop_assert_eq!(bytes(&incremental), bytes(&loaded));
        prop_assert_eq!(bytes(&backwards), bytes(&loaded));
        prop_assert_eq!(&*compiler.compile(&incremental, &options), &compile(&loaded, &options));
    }

    /// A start from remembered members: they hold until the rest is known, and then only what differs is a change.
    #[test]
    fn assumed_members_hold_until_they_are_settled(steps in steps(), stale in any::<bool>()) {
        let settings = settings();
        let mut end: BTreeMap<ResourceId, Resource> = BTreeMap::new();
        let mut remembered = None;
        for (n, step) in steps.iter().enumerate() {
            if stale && n == steps.len() / 2 {
                remembered = Some(end.clone());
            }
            let resource = parse(&step.document);
            end.insert(resource.id.clone(), resource);
        }
        let load = |resources: &BTreeMap<ResourceId, Resource>| {
            let mut calculator = Calculator::new(host(Links::new()), &settings);
            resources.values().for_each(|r| calculator.upsert(r));
            calculator
        };
        let remembered = load(&remembered.unwrap_or(end.clone()));
        let members = remembered.export_sets().map(|(id, set)| (id.clone(), set.clone()));
        let members: BTreeMap<SetId, IpSet> = members.collect();

        let (remote, near): (Vec<_>, Vec<_>) = end.values().cloned().partition(is_remote);
        let mut calculator = Calculator::new(host(Links::new()), &settings);
        let mut follower = Follower::default();
        calculator.assume_sets(members.clone());
        prop_assert!(calculator.sets_assumed());
        near.iter().for_each(|r| calculator.upsert(r));
        follower.follow(&mut calculator)?;
        remote.iter().for_each(|r| calculator.upsert(r));
        let policy = calculator.policy();
        for (id, assumed) in members.iter().filter(|(id, _)| policy.sets.contains_key(id)) {
            prop_assert_eq!(&*policy.sets[id], assumed);
        }
        follower.follow(&mut calculator)?;

        calculator.settle();
        prop_assert!(!calculator.sets_assumed());
        let loaded = load(&end).host_policy();
        prop_assert_eq!(bytes(calculator.policy()), bytes(&loaded));
        let changes = calculator.flush();
        prop_assert!(!changes.touches_rules());
        for (id, set) in &loaded.sets {
            let as_assumed = members.get(id).is_none_or(|assumed| *assumed == **set);
            prop_assert_eq!(changes.sets.contains_key(id), !as_assumed);
        }
        // What comes later is counted as if nothing had ever been assumed.
        end.values().for_each(|r| calculator.delete(&r.id));
        prop_assert!(calculator.policy().sets.is_empty());
        end.values().rev().for_each(|r| calculator.upsert(r));
        prop_assert_eq!(bytes(calculator.policy()), bytes(&loaded));
    }
}
