//! Large keyspaces, many changes and a long outage, while packets are sent all the time: none is judged wrongly. They take minutes and print
//! figures: `cargo test --test etcd -- --ignored --nocapture --test-threads 1 scale`.

use std::process::Command;
use std::time::{Duration, Instant};

use moat::etcd::{Access, Client, Condition, Write};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::cluster::MEMBERS;
use crate::faults::{Site, set};
use crate::host::{Daemon, Host};
use crate::prober::{FRIEND, PORTS, Prober, Wrong};
use crate::server::KEYS;

/// Writes under way at once.
const WRITERS: usize = 32;
/// For a large datastore.
const LONG: Duration = Duration::from_secs(300);

/// A writer that is quicker than etcdctl.
struct Writer {
    runtime: Runtime,
    client: Client,
}

impl Writer {
    fn new(site: &Site) -> Writer {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let access = Access {
            endpoints: site.cluster.urls(),
            ..Access::default()
        };
        let client = runtime.block_on(Client::connect_any(&access)).unwrap();
        Writer { runtime, client }
    }

    /// Writes all of them, many at once.
    fn all(
        &self,
        count: usize,
        resource: impl Fn(usize) -> (String, String) + Copy + Send + 'static,
    ) {
        self.runtime.block_on(async {
            let mut writers = JoinSet::new();
            for first in 0..WRITERS {
                let mut client = self.client.clone();
                writers.spawn(async move {
                    for n in (first..count).step_by(WRITERS) {
                        put(&mut client, resource(n)).await;
                    }
                });
            }
            writers.join_all().await;
        });
    }

    /// Changes endpoints until then.
    fn churn(&self, count: usize, rate: usize, stop: Instant) -> JoinSet<usize> {
        let mut writers = JoinSet::new();
        for first in 0..WRITERS {
            let work = change(self.client.clone(), (count, first), rate, stop);
            writers.spawn_on(work, self.runtime.handle());
        }
        writers
    }
}

/// Endpoints of this number get new addresses, so many in a second until then; how many there were.
async fn change(mut client: Client, of: (usize, usize), rate: usize, stop: Instant) -> usize {
    let (count, first) = of;
    let (began, mut n) = (Instant::now(), 0);
    while Instant::now() < stop {
        let number = first + n * WRITERS;
        put(&mut client, workload(number % count, number / 7 + 1)).await;
        n += 1;
        let due = began + Duration::from_secs_f64((n * WRITERS) as f64 / rate as f64);
        tokio::time::sleep(due.saturating_duration_since(Instant::now())).await;
    }
    n
}

async fn put(client: &mut Client, (key, value): (String, String)) {
    let write = Write::Put {
        value: value.into_bytes(),
        lease: 0,
    };
    let key = format!("{KEYS}{key}");
    client
        .write(key.as_bytes(), Condition::Always, write)
        .await
        .unwrap();
}

/// An endpoint of another host; each version has another address.
fn workload(n: usize, version: usize) -> (String, String) {
    let (node, name) = (n % 1000, format!("node{}-k8s-pod{n}-eth0", n % 1000));
    let address = format!("10.{}.{}.{}", 100 + version % 100, n / 256 % 256, n % 256);
    let value = format!(
        r#"{{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}","namespace":"ns","uid":"u","creationTimestamp":"2026-01-02T03:04:05Z","labels":{{"app":"a{}","projectcalico.org/namespace":"ns","projectcalico.org/orchestrator":"k8s"}}}},"spec":{{"orchestrator":"k8s","node":"node{node}","pod":"pod{n}","endpoint":"eth0","ipNetworks":["{address}/32"],"profiles":["kns.ns"],"interfaceName":"cali{n:011}"}}}}"#,
        n % 500
    );
    (format!("workloadendpoints/ns/{name}"), value)
}

/// A set of 50 kB that no policy asks about.
fn large(n: usize) -> (String, String) {
    let net = |i: usize| format!("\"10.{}.{}.{}/32\"", 100 + n % 100, i / 256, i % 256);
    let nets: Vec<String> = (0..2700).map(net).collect();
    let value = format!(
        r#"{{"kind":"GlobalNetworkSet","apiVersion":"projectcalico.org/v3","metadata":{{"name":"large{n}","labels":{{"size":"large"}}}},"spec":{{"nets":[{}]}}}}"#,
        nets.join(",")
    );
    (format!("globalnetworksets/large{n}"), value)
}

/// The set in the kernel that holds those whom policy allows.
fn friends(host: &Host) -> String {
    let sets = host.sets();
    let line = sets
        .iter()
        .find(|line| line.starts_with("add ") && line.contains(FRIEND));
    line.unwrap().split(' ').nth(1).unwrap().to_owned()
}

fn is_in(set: &str, address: &str) -> bool {
    let asked = Command::new("ipset")
        .args(["test", set, address])
        .output()
        .unwrap();
    asked.status.success()
}

/// Median, 99th of a hundred and longest.
fn distribution(times: &mut [Duration]) -> String {
    times.sort();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    format!(
        "{} changes: median {:?}, 99th {:?}, longest {:?}",
        times.len(),
        at(50),
        at(99),
        at(100)
    )
}

/// Memory of a daemon in MB: the most so far, and now.
pub fn memory(daemon: &Daemon) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let of = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            >> 10
    };
    (of("VmHWM:"), of("VmRSS:"))
}

fn begin() -> (Site, Daemon, Prober) {
    let mut site = Site::new();
    let daemon = site.host.start();
    site.wait(&daemon, || site.has(PORTS[0]));
    site.converges(&daemon);
    let prober = Prober::start(&site.host);
    (site, daemon, prober)
}

#[track_caller]
fn judge(prober: &mut Prober, daemon: &Daemon) -> usize {
    let (wrong, sent) = prober.end();
    assert_eq!(wrong, Wrong::default(), "of {sent}\n{}", daemon.log());
    sent
}

#[test]
#[ignore = "takes three minutes: tests/run"]
fn fifty_thousand_endpoints_change_500_times_a_second() {
    const COUNT: usize = 50_000;
    const RATE: usize = 500;
    let (mut site, daemon, mut prober) = begin();
    let writer = Writer::new(&site);
    writer.all(COUNT, |n| workload(n, 0));
    site.patience = LONG;
    site.converges(&daemon);
    let before = memory(&daemon);
    let stop = Instant::now() + Duration::from_secs(60);
    let churn = writer.churn(COUNT, RATE, stop);
    let friends = friends(&site.host);
    let mut lags = Vec::new();
    let mut client = writer.client.clone();
    while Instant::now() < stop {
        let other = format!("10.77.{}.{}", lags.len() / 250, lags.len() % 250);
        let value = set(&[FRIEND, &other]);
        let put = put(&mut client, ("globalnetworksets/friends".to_owned(), value));
        let began = Instant::now();
        writer.runtime.block_on(put);
        while !is_in(&friends, &other) {
            assert!(began.elapsed() < LONG, "{}", daemon.log());
            std::thread::sleep(Duration::from_millis(2));
        }
        lags.push(began.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    let changes: usize = writer.runtime.block_on(churn.join_all()).iter().sum();
    assert!(changes >= 60 * RATE * 95 / 100, "{changes}");
    site.converges(&daemon);
    let after = memory(&daemon);
    assert!(after.0 < 128, "{after:?}");
    println!(
        "{COUNT} endpoints, {changes} changes in 60 s; put to kernel beside them, {}; memory in MB (peak, now) {before:?} before, {after:?} after; {} packets, none judged wrongly",
        distribution(&mut lags),
        judge(&mut prober, &daemon)
    );
}

#[test]
#[ignore = "takes two minutes: tests/run"]
fn a_keyspace_of_100_megabytes() {
    const COUNT: usize = 2300;
    let (mut site, daemon, mut prober) = begin();
    site.patience = LONG;
    let writer = Writer::new(&site);
    let size: usize = (0..COUNT).map(|n| large(n).1.len()).sum();
    let began = Instant::now();
    writer.all(COUNT, large);
    site.converges(&daemon);
    let (followed, used) = (began.elapsed(), memory(&daemon));
    // A new start lists everything.
    daemon.stop();
    std::fs::remove_dir_all(site.host.path("state")).unwrap();
    std::fs::create_dir(site.host.path("state")).unwrap();
    let began = Instant::now();
    let daemon = site.host.start();
    site.wait(&daemon, || site.is_synced());
    let listed = began.elapsed();
    site.converges(&daemon);
    let after = memory(&daemon);
    // A few times what the documents take, not many.
    assert!(used.0 < 256 && after.0 < 384, "{used:?} {after:?}");
    println!(
        "{} MB in {COUNT} sets: written and followed in {followed:?}, memory in MB (peak, now) {used:?}; listed after a start without snapshot in {listed:?}, {after:?}; {} packets, none judged wrongly",
        size >> 20,
        judge(&mut prober, &daemon)
    );
}

#[test]
#[ignore = "takes eleven minutes: tests/run"]
fn all_members_are_lost_for_ten_minutes() {
    let (mut site, daemon, mut prober) = begin();
    MEMBERS.iter().for_each(|member| site.cluster.kill(*member));
    let mut packets = 0;
    for _ in 0..10 {
        std::thread::sleep(Duration::from_secs(60));
        packets += judge(&mut prober, &daemon);
        prober.begin();
        let degraded = site.host.status()["degraded"].to_string();
        assert!(degraded.contains("etcd cannot be followed"), "{degraded}");
    }
    MEMBERS
        .iter()
        .for_each(|member| site.cluster.resume(*member));
    let began = Instant::now();
    site.cluster.wait_healthy();
    let healthy = began.elapsed();
    site.converges(&daemon);
    packets += judge(&mut prober, &daemon);
    assert!(memory(&daemon).0 < 64, "{:?}", memory(&daemon));
    println!(
        "ten minutes without etcd: {packets} packets, none judged wrongly; members healthy after {healthy:?}, followed again after {:?}; memory in MB {:?}",
        began.elapsed(),
        memory(&daemon)
    );
}
