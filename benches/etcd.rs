//! What following an etcd costs: time from put to kernel, the first list, CPU while others change, and many hosts at once.
//! `cargo bench --bench etcd [-- WORD...]`, words: lag, list, churn, fleet. Root only; etcd must be installed.

#[path = "etcd/site.rs"]
mod site;

use std::time::{Duration, Instant};

use moat::api::ResourceId;
use moat::calc::{Calculator, Host};
use moat::etcd::{Access, Client, Condition, Write, keys};
use moat::source::etcd::{ETCD, EtcdSource};
use moat::store::{Change, Store};
use site::{Daemon, Site};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// Writes under way at once while a datastore is filled.
const WRITERS: usize = 64;
/// How many endpoints share a value of the label `app`.
const PER_APP: usize = 100;

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|w| !w.starts_with('-'))
        .collect();
    let asked = |word: &str| words.is_empty() || words.iter().any(|w| w == word);
    site::enter_namespace();
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for (word, part) in [
        ("lag", lag as fn(&Runtime)),
        ("list", list),
        ("churn", churn),
        ("fleet", fleet),
    ] {
        if asked(word) {
            part(&runtime);
        }
    }
}

fn access() -> Access {
    access_by(site::URL)
}

fn access_by(url: &str) -> Access {
    Access {
        endpoints: vec![url.to_owned()],
        ..Access::default()
    }
}

fn id(kind: moat::api::Kind, namespace: &str, name: &str) -> ResourceId {
    ResourceId {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// A remote endpoint; each version has another address.
fn workload(n: usize, version: usize, app: &str) -> (String, String) {
    let name = format!("node{}-k8s-pod{n}-eth0", n % 1000);
    let address = format!("10.{}.{}.{}", version % 250, n / 256 % 256, n % 256);
    let high = n / 65_536;
    let address = address.replacen("10.", &format!("{}.", 10 + high), 1);
    let value = format!(
        r#"{{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}","namespace":"ns","uid":"0f6c2b1e-6c1f-4a4e-8f57-0d7a3f9b2c11","creationTimestamp":"2026-01-02T03:04:05Z","labels":{{"app":"{app}","env":"e{}","zone":"z{}","projectcalico.org/namespace":"ns","projectcalico.org/orchestrator":"k8s"}}}},"spec":{{"orchestrator":"k8s","node":"node{}","pod":"pod{n}","endpoint":"eth0","ipNetworks":["{address}/32"],"profiles":["kns.ns"],"interfaceName":"cali{n:011}"}}}}"#,
        n % 3,
        n % 50,
        n % 1000,
    );
    (
        keys::key(&id(moat::api::Kind::WorkloadEndpoint, "ns", &name)),
        value,
    )
}

async fn put(client: &mut Client, key: &str, value: &str) {
    let write = Write::Put {
        value: value.as_bytes().to_vec(),
        lease: 0,
    };
    client
        .write(key.as_bytes(), Condition::Always, write)
        .await
        .expect("written");
}

/// This host's endpoint, and a policy that allows one app.
async fn put_policy(client: &mut Client) {
    let endpoint = r#"{"kind":"HostEndpoint","apiVersion":"projectcalico.org/v3","metadata":{"name":"h","labels":{"role":"web"}},"spec":{"node":"h","interfaceName":"eth0"}}"#;
    let policy = r#"{"kind":"GlobalNetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"web"},"spec":{"tier":"default","selector":"role == 'web'","types":["Ingress"],"ingress":[{"action":"Allow","protocol":"TCP","source":{"selector":"app == 'mine'"},"destination":{"ports":[80]}}]}}"#;
    let key = |kind, name| keys::key(&id(kind, "", name));
    put(client, &key(moat::api::Kind::HostEndpoint, "h"), endpoint).await;
    put(
        client,
        &key(moat::api::Kind::GlobalNetworkPolicy, "web"),
        policy,
    )
    .await;
}

async fn fill(count: usize) {
    let client = Client::connect_any(&access()).await.expect("etcd");
    put_policy(&mut client.clone()).await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let mut client = client.clone();
        writers.spawn(async move {
            for n in (writer..count).step_by(WRITERS) {
                let (key, value) = workload(n, 0, &format!("a{}", n / PER_APP));
                put(&mut client, &key, &value).await;
            }
        });
    }
    writers.join_all().await;
}

/// Time from the beginning of a put to the end of the write into the kernel.
fn lag(runtime: &Runtime) {
    let site = Site::new();
    runtime.block_on(fill(1000));
    let daemon = Daemon::start(&site);
    daemon.wait_sync();
    let events = daemon.watch();
    let mut lags = Vec::new();
    let mut client = runtime
        .block_on(Client::connect_any(&access()))
        .expect("etcd");
    for n in 0..300 {
        let (key, value) = workload(n % 10, n + 1, "mine");
        let began = std::time::SystemTime::now();
        runtime.block_on(put(&mut client, &key, &value));
        lags.push(events.applied_after(began));
        std::thread::sleep(Duration::from_millis(20));
    }
    lags.sort();
    let at = |share: f64| lags[(lags.len() as f64 * share) as usize];
    println!(
        "| put to kernel, {} changes of one member | median {:?} | 99th {:?} | longest {:?} |",
        lags.len(),
        at(0.5),
        at(0.99),
        lags[lags.len() - 1]
    );
}

/// The first list of many endpoints.
fn list(runtime: &Runtime) {
    for count in [10_000, 100_000] {
        let site = Site::new();
        let began = Instant::now();
        runtime.block_on(fill(count));
        eprintln!("filled {count} in {:?}", began.elapsed());
        let daemon = Daemon::start(&site);
        let took = daemon.wait_sync();
        daemon.wait_quiet();
        let (peak, now) = daemon.memory();
        println!(
            "| first list of {count} endpoints | in force after {took:?} | peak {peak} MB | then {now} MB |"
        );
        drop(daemon);
        let daemon = Daemon::start(&site);
        let took = daemon.wait_sync();
        daemon.wait_quiet();
        let (peak, now) = daemon.memory();
        println!(
            "| restart with a snapshot of {count} | in sync after {took:?} | peak {peak} MB | then {now} MB |"
        );
    }
}

/// CPU while others change 100 endpoints a second.
fn churn(runtime: &Runtime) {
    const RATE: usize = 100;
    const SECONDS: usize = 20;
    let site = Site::new();
    runtime.block_on(fill(10_000));
    let daemon = Daemon::start(&site);
    daemon.wait_sync();
    daemon.wait_quiet();
    for (share, every) in [("none", usize::MAX), ("one in a hundred", 100), ("all", 1)] {
        let before = daemon.cpu();
        let mut client = runtime
            .block_on(Client::connect_any(&access()))
            .expect("etcd");
        let began = Instant::now();
        for n in 0..RATE * SECONDS {
            let mine = every != usize::MAX && n % every == 0;
            let app = if mine {
                "mine".to_owned()
            } else {
                format!("a{}", n / PER_APP)
            };
            let (key, value) = workload(n % 10_000, n, &app);
            runtime.block_on(put(&mut client, &key, &value));
            let due = began + Duration::from_secs_f64((n + 1) as f64 / RATE as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let cpu = daemon.cpu() - before;
        let percent = 100.0 * cpu.as_secs_f64() / began.elapsed().as_secs_f64();
        println!("| {RATE} changes a second, {share} matter here | {percent:.1} % of one core |");
    }
}

/// Many sources, stores and calculators in this process against one etcd, directly and through its proxy; no kernel.
fn fleet(runtime: &Runtime) {
    const ENDPOINTS: usize = 1000;
    for hosts in [50, 200] {
        let site = Site::new();
        runtime.block_on(fill(ENDPOINTS));
        one_fleet(runtime, hosts, ENDPOINTS, site::URL, &[site.etcd_pid()]);
        let proxy = site::Proxy::start();
        let pids = [site.etcd_pid(), proxy.pid()];
        one_fleet(runtime, hosts, ENDPOINTS, site::PROXY_URL, &pids);
    }
}

fn one_fleet(
    runtime: &Runtime,
    hosts: usize,
    endpoints: usize,
    url: &'static str,
    servers: &[u32],
) {
    const CHANGES: usize = 100;
    let spent = || -> Vec<Duration> { servers.iter().map(|pid| site::process_cpu(*pid)).collect() };
    let own = || site::process_cpu(std::process::id());
    let (began, served, calculated) = (Instant::now(), spent(), own());
    let memory = site::process_memory();
    let (tell, mut told) = tokio::sync::mpsc::channel(2 * hosts);
    let mut fleet = JoinSet::new();
    let handle = runtime.handle();
    (0..hosts).for_each(|n| drop(fleet.spawn_on(host(n, url, tell.clone()), handle)));
    let (synced, mut times) = runtime.block_on(async {
        for _ in 0..hosts {
            told.recv().await;
        }
        let synced = began.elapsed();
        let mut client = Client::connect_any(&access()).await.expect("etcd");
        let mut times = Vec::new();
        for n in 0..CHANGES {
            let (key, value) = workload(0, n + 1, "mine");
            let changed = Instant::now();
            put(&mut client, &key, &value).await;
            for _ in 0..hosts {
                told.recv().await;
            }
            times.push(changed.elapsed());
        }
        (synced, times)
    });
    times.sort();
    let cost: Vec<Duration> = spent()
        .iter()
        .zip(served)
        .map(|(after, before)| *after - before)
        .collect();
    println!(
        "| {hosts} hosts by {url}, {endpoints} endpoints | all in sync after {synced:?} | a change is everywhere after {:?}, longest {:?} | CPU of the servers {cost:?} | of a host {:?} | memory of a host {} kB |",
        times[CHANGES / 2],
        times[CHANGES - 1],
        (own() - calculated) / u32::try_from(hosts).expect("few hosts"),
        site::process_memory().saturating_sub(memory) / hosts as u64,
    );
    runtime.block_on(fleet.shutdown());
}

/// Tells when it is in sync, and of each change after that.
async fn host(number: usize, url: &str, tell: tokio::sync::mpsc::Sender<()>) {
    let mut source = EtcdSource::start(access_by(url));
    let mut store = Store::new();
    // The first one is the host that the endpoint is of.
    let node = if number == 0 {
        "h".to_owned()
    } else {
        format!("h{number}")
    };
    let settings = site::settings();
    let mut calculator = Calculator::new(
        Host {
            node,
            ..Host::default()
        },
        &settings,
    );
    let mut is_synced = false;
    loop {
        let news = source.next().await;
        let updates = source.take(news, &store);
        let has_changed = !updates.is_empty() && is_synced;
        store.apply(ETCD, updates, &mut |change| match change {
            Change::Upserted(resource) => calculator.upsert(resource),
            Change::Deleted(id) => calculator.delete(id),
            Change::Moved(_) => {}
        });
        if !source.is_listing() {
            calculator.flush();
        }
        if has_changed || (!is_synced && source.is_synced()) {
            is_synced = true;
            // The other side may count no more.
            let _ = tell.send(()).await;
        }
    }
}
