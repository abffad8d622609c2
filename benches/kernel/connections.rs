//! What a change costs on a host with many tracked connections: finding and cutting those that it denies.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::daemon::{Files, Host, Run};
use crate::table::Table;
use crate::{forms, inside, median, netns, world};

/// Entries of connection tracking.
const ENTRIES: [usize; 3] = [1_000, 10_000, 100_000];
/// Connections of one neighbour.
const EACH: u16 = 100;
/// The neighbour that loses its access.
const VICTIM: usize = 1;
/// Times that it does, and that a rule changes.
const TIMES: u32 = 5;
/// After this a change is over, with everything that follows it; the pause after a look at many connections is over, too.
const OVER: Duration = Duration::from_secs(2);

/// Prints the rows of every number of entries.
pub fn measure(table: &mut Table) {
    table.begin("connections under way (nft)");
    for entries in ENTRIES {
        let site = Site::new(entries);
        site.one_address(table);
        site.all_rules(table);
        site.run.stop();
    }
}

/// A host, its neighbours, and connections between them.
struct Site {
    host: Host,
    peer: Host,
    files: Files,
    run: Run,
    entries: usize,
}

impl Site {
    fn new(entries: usize) -> Site {
        let (host, peer) = (Host::new("tracked"), Host::new("peers"));
        let names = [&host, &peer].map(|h| h.namespace().name());
        let [a, b] = names;
        netns::ip_batch(&[format!(
            "link add eth0 netns {a} type veth peer name eth0 netns {b}"
        )])
        .expect("a link");
        let ip = |host: &Host, lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
            host.namespace().ip(&lines).expect("an address");
        };
        let up = "link set eth0 up";
        ip(&host, &[up, "address add 10.7.0.2/24 dev eth0"]);
        ip(&peer, &[up, "address add 10.7.0.1/24 dev eth0"]);
        ip(&host, &["route add 10.8.0.0/16 via 10.7.0.1"]);
        ip(&peer, &["route add local 10.8.0.0/16 dev lo"]);
        let files = Files::new("nft");
        files.put("policy.json", &policy(entries, true, 1));
        let run = files.start(&host);
        // Entries that nobody answers are forgotten after half a minute.
        host.namespace()
            .sysctl("netfilter/nf_conntrack_udp_timeout", "3600")
            .expect("connection tracking");
        let site = Site {
            host,
            peer,
            files,
            run,
            entries,
        };
        (0..neighbours(entries)).for_each(|n| site.connect(n));
        let tracked = site.tracked();
        assert!(tracked >= entries, "{tracked} entries");
        site
    }

    /// Makes the connections of one neighbour, which last.
    fn connect(&self, neighbour: usize) {
        let send = || {
            let socket = UdpSocket::bind((address(neighbour).as_str(), 40_000))?;
            (0..EACH).try_for_each(|n| socket.send_to(b"hello", ("10.7.0.2", 2000 + n)).map(drop))
        };
        inside(self.peer.namespace(), send).expect("sent");
    }

    fn tracked(&self) -> usize {
        let path = "/proc/sys/net/netfilter/nf_conntrack_count";
        let text = inside(self.host.namespace(), || std::fs::read_to_string(path));
        text.ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
    }

    /// A neighbour leaves the set of those who may: its connections are cut, all others go on.
    fn one_address(&self, table: &mut Table) {
        let mut times = Vec::new();
        let mut cpu = Duration::ZERO;
        for _ in 0..TIMES {
            let full = self.tracked();
            let before = self.run.cpu();
            let begin = Instant::now();
            self.files
                .put("policy.json", &policy(self.entries, false, 1));
            while self.tracked() + usize::from(EACH) > full {
                assert!(begin.elapsed() < Duration::from_secs(20), "nothing is cut");
                std::thread::sleep(Duration::from_millis(1));
            }
            times.push(begin.elapsed());
            std::thread::sleep(OVER);
            cpu += self.run.cpu() - before;
            assert!(self.tracked() + usize::from(EACH) >= full, "others are cut");
            self.files
                .put("policy.json", &policy(self.entries, true, 1));
            std::thread::sleep(OVER);
            self.connect(VICTIM);
        }
        let entries = self.entries;
        let what = format!(
            "{entries} entries, an address leaves a set: its {EACH} connections are cut after"
        );
        table.row(&what, median(times), None);
        table.row("  CPU", cpu / TIMES, None);
    }

    /// A rule changes, so that every connection is judged; all may go on.
    fn all_rules(&self, table: &mut Table) {
        let full = self.tracked();
        let before = self.run.cpu();
        for n in 0..TIMES {
            let text = policy(self.entries, true, 2 + n);
            self.files.put("policy.json", &text);
            std::thread::sleep(OVER);
        }
        let cpu = (self.run.cpu() - before) / TIMES;
        assert!(self.tracked() >= full, "connections that may go on are cut");
        let entries = self.entries;
        let what = format!("{entries} entries, a rule changes, all are judged: CPU");
        table.row(&what, cpu, None);
    }
}

fn neighbours(entries: usize) -> usize {
    entries / usize::from(EACH)
}

fn address(neighbour: usize) -> String {
    format!("10.8.{}.{}", neighbour / 250, 1 + neighbour % 250)
}

/// Neighbours may send UDP, the victim only if it is said so; a port that nobody uses makes one policy differ from another.
fn policy(entries: usize, victim: bool, port: u32) -> String {
    let nets: Vec<String> = (0..neighbours(entries))
        .filter(|n| victim || *n != VICTIM)
        .map(|n| format!("\"{}/32\"", address(n)))
        .collect();
    let object = |kind: &str, name: &str, labels: &str, spec: &str| {
        format!(
            r#"{{"apiVersion":"projectcalico.org/v3","kind":"{kind}","metadata":{{"name":"{name}","labels":{{{labels}}}}},"spec":{{{spec}}}}}"#
        )
    };
    let endpoint = format!(r#""node":"{}","interfaceName":"eth0""#, world::HOST);
    let set = format!(r#""nets":[{}]"#, nets.join(","));
    let rules = format!(
        r#""selector":"all()","types":["Ingress"],"ingress":[{{"action":"Allow","protocol":"TCP","destination":{{"ports":[{port}]}}}},{{"action":"Allow","protocol":"UDP","source":{{"selector":"role == 'friend'"}}}}]"#
    );
    let objects = [
        object("HostEndpoint", "eth0", "", &endpoint),
        object("GlobalNetworkSet", "friends", r#""role":"friend""#, &set),
        object("GlobalNetworkPolicy", "friends", "", &rules),
    ];
    forms::list(objects.into_iter())
}
