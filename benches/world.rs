//! The world that every figure of docs/performance.md is measured in: one host, and a cluster of any size beside it.
//!
//! The same seed and size give the same world, byte for byte.

use moat::api::{self, Resource};

/// Labels `app=a0` and so on.
pub const APPS: usize = 1000;
const ENVS: [&str; 3] = ["prod", "dev", "stage"];
const ZONES: usize = 50;
/// Workload endpoints on each node.
const PER_NODE: usize = 100;
/// The node name of the host that is measured.
pub const HOST: &str = "bench-host";
/// The port that only the last rule of the last policy names, and the source app that it allows.
pub const LAST_PORT: u16 = 60_000;
/// Ports that rules name are below this.
const PORTS: u64 = 50_000;

/// How big the world is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Remote workload endpoints.
    pub endpoints: usize,
    /// Policies of ten rules.
    pub policies: usize,
    /// How many of the policies select the host.
    pub selecting: usize,
}

/// The size in which most is measured: ten policies select the host, and one more allows `env == 'prod'`.
pub const TEN: Size = Size {
    endpoints: 100_000,
    policies: 1000,
    selecting: 10,
};
/// All policies select the host: 10,000 rules.
pub const ALL: Size = Size {
    selecting: 1000,
    ..TEN
};

/// A generator of pseudo-random numbers (splitmix64), so that the world needs no library and never changes.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// One that is told apart by its seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// One remote workload endpoint.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its number, which gives it name and address.
    pub number: usize,
    /// K of `app=aK`.
    pub app: usize,
    /// Value of `env`.
    pub env: &'static str,
    /// Value of `zone` is z and this.
    pub zone: usize,
}

impl Workload {
    /// Its address.
    pub fn address(&self) -> String {
        let n = self.number + 1;
        format!("10.{}.{}.{}", 64 + (n >> 16), (n >> 8) & 255, n & 255)
    }

    /// The document, as compact JSON.
    pub fn json(&self) -> String {
        let (node, n) = (self.number / PER_NODE, self.number);
        format!(
            concat!(
                r#"{{"apiVersion":"projectcalico.org/v3","kind":"WorkloadEndpoint","metadata":{{"name":"n{node}-k8s-p{n}-eth0","#,
                r#""namespace":"apps","labels":{{"app":"a{app}","env":"{env}","zone":"z{zone}"}}}},"spec":{{"node":"n{node}","#,
                r#""orchestrator":"k8s","pod":"p{n}","endpoint":"eth0","interfaceName":"cali{n:x}","ipNetworks":["{address}/32"],"#,
                r#""profiles":["kns.apps"]}}}}"#
            ),
            node = node,
            n = n,
            app = self.app,
            env = self.env,
            zone = self.zone,
            address = self.address(),
        )
    }
}

/// The remote endpoints.
pub fn workloads(seed: u64, size: Size) -> impl Iterator<Item = Workload> {
    let mut random = Random::new(seed);
    (0..size.endpoints).map(move |number| Workload {
        number,
        app: random.below(APPS as u64) as usize,
        env: ENVS[random.below(ENVS.len() as u64) as usize],
        zone: random.below(ZONES as u64) as usize,
    })
}

/// The HostEndpoint, the policies and the endpoint of the sender of the floods, as compact JSON.
pub fn policies(seed: u64, size: Size, sender: &str) -> Vec<String> {
    let mut random = Random::new(seed ^ 0x5eed);
    let mut documents = vec![host_endpoint(), flood_sender(sender)];
    for n in 0..size.policies {
        let role = if n < size.selecting { "web" } else { "db" };
        let last = n + 1 == size.selecting;
        let mut rules = Vec::new();
        for r in 0..10 {
            let (protocol, app, port) = match (last, r) {
                (true, 9) => ("UDP", "flood".to_owned(), u64::from(LAST_PORT)),
                _ => {
                    let protocol = ["TCP", "UDP"][random.below(2) as usize];
                    let app = format!("a{}", random.below(APPS as u64));
                    (protocol, app, 1 + random.below(PORTS))
                }
            };
            rules.push(rule(protocol, &format!("app == '{app}'"), port));
        }
        documents.push(policy(&format!("p{n:04}"), n, role, &rules));
    }
    if size.selecting < size.policies {
        let prod = rule("TCP", "env == 'prod'", 443);
        documents.push(policy("prod", size.policies, "web", &[prod]));
    }
    documents
}

fn host_endpoint() -> String {
    format!(
        r#"{{"apiVersion":"projectcalico.org/v3","kind":"HostEndpoint","metadata":{{"name":"host","labels":{{"role":"web"}}}},"spec":{{"node":"{HOST}","interfaceName":"*"}}}}"#
    )
}

/// A network set with the address that the floods come from.
fn flood_sender(address: &str) -> String {
    format!(
        r#"{{"apiVersion":"projectcalico.org/v3","kind":"GlobalNetworkSet","metadata":{{"name":"flood","labels":{{"app":"flood"}}}},"spec":{{"nets":["{address}/32"]}}}}"#
    )
}

fn rule(protocol: &str, selector: &str, port: u64) -> String {
    format!(
        r#"{{"action":"Allow","protocol":"{protocol}","source":{{"selector":"{selector}"}},"destination":{{"ports":[{port}]}}}}"#
    )
}

/// A policy document with these rules.
pub fn policy(name: &str, order: usize, role: &str, rules: &[String]) -> String {
    format!(
        r#"{{"apiVersion":"projectcalico.org/v3","kind":"GlobalNetworkPolicy","metadata":{{"name":"{name}"}},"spec":{{"order":{order},"selector":"role == '{role}'","types":["Ingress"],"ingress":[{}]}}}}"#,
        rules.join(",")
    )
}

/// The resource of a document.
pub fn parse(document: &str) -> Resource {
    let parsed = api::parse_bytes("world.json", document.as_bytes());
    assert!(!parsed.has_errors(), "{:?}", parsed.issues);
    parsed.resources.into_iter().next().expect("one resource")
}

/// A policy as it is, and with another port in one rule.
pub fn changed_policy(policies: &[String]) -> [Resource; 2] {
    let is_third = |p: &&String| p.contains("\"name\":\"p0003\"");
    let document = policies.iter().find(is_third).expect("a policy");
    let port = document.split("\"ports\":[").nth(1);
    let port = port.and_then(|t| t.split(']').next()).expect("a port");
    let other = document.replacen(&format!("[{port}]"), "[50123]", 1);
    [parse(document), parse(&other)]
}
