//! What a packet pays: small UDP packets from one network namespace through the INPUT of another, as a share of what passes
//! where only "established accept, then accept" is loaded. Both hosts are flooded in turn, so that a busy machine slows both.
//!
//! `cargo bench --bench packets -- [nft|legacy] [v4|v6] [POLICIES] [wide|few|one]` (root; the default is everything).

#[path = "../tests/common/netns.rs"]
mod netns;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use moat::api::{self, Resource};
use moat::calc::{Host, HostPolicy, compute};
use moat::compile::{Options, compile};
use moat::config::{Input, Settings, load};
use moat::dataplane::iptables::{Backend, Iptables};
use moat::dataplane::{Dataplane, Wanted};
use netns::Namespace;

/// Rules of a policy.
const RULES: usize = 10;
/// How long one host is flooded before it is the other's turn.
const TURN: Duration = Duration::from_millis(150);
/// Turns of each host.
const TURNS: usize = 9;
/// A port that no rule names.
const UNNAMED: u16 = 63_999;

/// How the ports of the rules lie.
#[derive(Clone, Copy, Debug)]
enum Spread {
    /// Each rule has a port of its own, the last one beside all others.
    Wide,
    /// All rules have one of twenty.
    Few,
    /// All rules have the same.
    One,
}

impl Spread {
    fn port(self, number: usize) -> u16 {
        let port = match self {
            Spread::Wide => 1 + (number * 7919) % 50_000,
            Spread::Few => 8000 + number % 20 * 37,
            Spread::One => 8000,
        };
        u16::try_from(port).unwrap_or(u16::MAX)
    }
}

/// One world to measure in.
#[derive(Clone, Copy, Debug)]
struct World {
    policies: usize,
    spread: Spread,
    v6: bool,
}

fn address(v6: bool, host: &str) -> String {
    match (v6, host) {
        (false, "peer") => "10.7.0.1".to_owned(),
        (false, _) => "10.7.0.2".to_owned(),
        (true, "peer") => "fd07::1".to_owned(),
        (true, _) => "fd07::2".to_owned(),
    }
}

impl World {
    fn documents(self) -> String {
        let mut text = String::from(
            "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: host, labels: {role: web}}\nspec: {node: h, interfaceName: '*'}\n",
        );
        for policy in 0..self.policies {
            // The sender is in the set of the last policy only.
            let own = match policy + 1 == self.policies {
                true => format!(", '{}'", address(self.v6, "peer")),
                false => String::new(),
            };
            let (high, low) = (policy / 250, policy % 250);
            text += &format!(
                "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {{name: set{policy}, labels: {{app: a{policy}}}}}\nspec: {{nets: [10.9.{high}.{low}, 'fd09::{policy:x}'{own}]}}\n"
            );
            let rule = |i| {
                let number = policy * RULES + i;
                let last = number + 1 == self.policies * RULES;
                let (protocol, port) = match self.spread {
                    Spread::Wide if last => ("UDP", 60_000),
                    Spread::Wide => (["TCP", "UDP"][number % 2], self.spread.port(number)),
                    _ => ("UDP", self.spread.port(number)),
                };
                format!(
                    "{{action: Allow, protocol: {protocol}, source: {{selector: \"app == 'a{policy}'\"}}, destination: {{ports: [{port}]}}}}"
                )
            };
            let rules: Vec<String> = (0..RULES).map(rule).collect();
            text += &format!(
                "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: policy{policy}}}\nspec: {{order: {policy}, selector: \"role == 'web'\", types: [Ingress], ingress: [{}]}}\n",
                rules.join(", ")
            );
        }
        text
    }

    fn policy(self, settings: &Settings) -> HostPolicy {
        let parsed = api::parse_bytes("bench.yaml", self.documents().as_bytes());
        assert!(!parsed.has_errors(), "{:?}", parsed.issues);
        let resources: Vec<Resource> = parsed.resources;
        let host = Host {
            node: "h".to_owned(),
            ..Host::default()
        };
        compute(&resources, &host, settings)
    }

    fn last_port(self) -> u16 {
        match self.spread {
            Spread::Wide => 60_000,
            spread => spread.port(self.policies * RULES - 1),
        }
    }
}

fn settings() -> Settings {
    load(&Input::bare("h"))
        .expect("defaults are valid")
        .settings
}

/// A host and a peer that floods it.
struct Pair {
    host: Namespace,
    peer: Namespace,
    v6: bool,
}

impl Pair {
    fn new(number: usize, v6: bool) -> Result<Pair, String> {
        let names = ["host", "peer"].map(|role| Namespace::name_for(number, role));
        let [host, peer] = &names;
        netns::ip_batch(&[
            format!("netns add {host}"),
            format!("netns add {peer}"),
            format!("link add eth0 netns {host} type veth peer name eth0 netns {peer}"),
        ])?;
        let [host, peer] = names.map(Namespace::open);
        let pair = Pair {
            host: host?,
            peer: peer?,
            v6,
        };
        let length = if v6 { "64" } else { "24" };
        for (namespace, role) in [(&pair.host, "host"), (&pair.peer, "peer")] {
            namespace.sysctl("ipv6/conf/eth0/accept_dad", "0")?;
            namespace.ip(&[
                "link set lo up".to_owned(),
                "link set eth0 up".to_owned(),
                format!("address add {}/{length} dev eth0", address(v6, role)),
            ])?;
        }
        Ok(pair)
    }

    fn bare(&self, backend: Backend) -> Result<(), String> {
        let tool = match (backend, self.v6) {
            (Backend::Nft, false) => "iptables-nft",
            (Backend::Nft, true) => "ip6tables-nft",
            (_, false) => "iptables-legacy",
            (_, true) => "ip6tables-legacy",
        };
        let established = "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
        for line in [established, "-A INPUT -j ACCEPT"] {
            self.host.run(tool, &line.split(' ').collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn flood(&self, port: u16, answered: bool) -> Result<Flood, String> {
        let bind = |namespace: &Namespace, role: &str, port: u16| {
            let at = SocketAddr::new(address(self.v6, role).parse().expect("an address"), port);
            namespace
                .enter(|| UdpSocket::bind(at))
                .map_err(|e| format!("{at} in {}: {e}", namespace.name()))
        };
        let receiver = bind(&self.host, "host", port)?;
        let sender = bind(&self.peer, "peer", 40_000)?;
        let to = receiver.local_addr().map_err(|e| e.to_string())?;
        sender.connect(to).map_err(|e| e.to_string())?;
        for _ in 0..20 {
            sender.send(b"hello").map_err(|e| e.to_string())?;
            std::thread::sleep(Duration::from_millis(1));
        }
        if answered {
            let from = sender.local_addr().map_err(|e| e.to_string())?;
            receiver
                .send_to(b"hello", from)
                .map_err(|e| e.to_string())?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Flood { receiver, sender })
    }
}

struct Flood {
    receiver: UdpSocket,
    sender: UdpSocket,
}

impl Flood {
    /// Packets in a second of processor time.
    fn turn(&self) -> f64 {
        let start = Instant::now();
        let cpu = cpu_time();
        let mut sent = 0u32;
        while start.elapsed() < TURN {
            for _ in 0..64 {
                // What the receiver's queue cannot take is dropped there, which costs both hosts the same.
                sent += u32::from(self.sender.send(&[0; 18]).is_ok());
            }
        }
        f64::from(sent) / (cpu_time() - cpu).as_secs_f64()
    }

    fn received(&self) -> bool {
        self.receiver.set_nonblocking(true).is_ok() && self.receiver.recv(&mut [0; 32]).is_ok()
    }
}

/// What the kernel charges this thread for: it carries its packets through the other namespace itself.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Packets of one kind, and the share of them that shall pass at least, in percent.
struct Kind {
    what: &'static str,
    port: u16,
    answered: bool,
    passes: bool,
    target: u8,
}

fn floods(world: World) -> [Kind; 3] {
    let kind = |what, port, answered, passes, target| Kind {
        what,
        port,
        answered,
        passes,
        target,
    };
    let last = if world.policies > 100 { 50 } else { 70 };
    let port = world.last_port();
    [
        kind("answered once", port, true, true, 95),
        kind(
            "new, last policy's port and source",
            port,
            false,
            true,
            last,
        ),
        kind("new, port that no rule names", UNNAMED, false, false, 70),
    ]
}

fn measure(backend: Backend, world: World) -> Result<(), String> {
    let bare = Pair::new(0, world.v6)?;
    let full = Pair::new(1, world.v6)?;
    bare.bare(backend)?;
    let settings = settings();
    let policy = world.policy(&settings);
    let ruleset = Arc::new(compile(&policy, &Options::new(&settings, true)));
    let wanted = Wanted::whole(ruleset, &policy);
    let mut dataplane = full.host.enter(|| Iptables::new(backend, 1024));
    full.host
        .enter(|| dataplane.apply(&wanted))
        .map_err(|e| format!("{e:?}"))?;
    for flood in floods(world) {
        let Kind {
            what,
            port,
            answered,
            passes,
            target,
        } = flood;
        let [bare, full] = [&bare, &full].map(|pair| {
            pair.host.run("conntrack", &["-F"])?;
            pair.flood(port, answered)
        });
        let (bare, full) = (bare?, full?);
        if full.received() != passes {
            return Err(format!("{what}: packets should pass: {passes}"));
        }
        let mut turns: Vec<(f64, f64)> = (0..TURNS).map(|_| (bare.turn(), full.turn())).collect();
        turns.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
        let (bare, full) = turns[TURNS / 2];
        let share = full / bare * 100.0;
        println!(
            "| {backend} | {} | {} | {:?} | {what} | {:.0}k of {:.0}k/s | {share:.0} % | {target} % | {} |",
            if world.v6 { "IPv6" } else { "IPv4" },
            world.policies,
            world.spread,
            full / 1e3,
            bare / 1e3,
            if share.round() >= f64::from(target) {
                "pass"
            } else {
                "falls short"
            },
        );
    }
    Ok(())
}

fn main() -> Result<(), String> {
    netns::check_machine()?;
    netns::remove_stale();
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|w| w != "--bench")
        .collect();
    let has = |word: &str, group: &[&str]| {
        words.iter().any(|w| w == word) || !words.iter().any(|w| group.contains(&w.as_str()))
    };
    println!("| backend | family | policies | ports | flood | packets | share | target | |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let number = words.iter().find_map(|w| w.parse().ok());
    let sizes = number.map_or(vec![10, 1000], |n| vec![n]);
    for backend in [Backend::Nft, Backend::Legacy] {
        for (v6, family) in [(false, "v4"), (true, "v6")] {
            for spread in [Spread::Wide, Spread::Few, Spread::One] {
                let name = format!("{spread:?}").to_lowercase();
                let wanted = has(&backend.to_string(), &["nft", "legacy"])
                    && has(family, &["v4", "v6"])
                    && has(&name, &["wide", "few", "one"]);
                for policies in sizes.iter().copied().filter(|_| wanted) {
                    measure(
                        backend,
                        World {
                            policies,
                            spread,
                            v6,
                        },
                    )?;
                }
            }
        }
    }
    Ok(())
}
