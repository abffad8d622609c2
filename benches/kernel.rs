//! What reaches the kernel, and when: starts, changes and memory of the daemon in the world of docs/performance.md, each beside the
//! raw tools doing the same in the same run.
//!
//! `cargo bench --bench kernel -- [nft|legacy] [ten|all]`, or `connections`, or `parsing` (root; the default is everything). `BENCH_ENDPOINTS` makes the
//! world smaller.

#[path = "kernel/connections.rs"]
mod connections;
#[path = "kernel/daemon.rs"]
mod daemon;
#[path = "kernel/forms.rs"]
mod forms;
#[path = "kernel/library.rs"]
mod library;
#[path = "../tests/common/netns.rs"]
mod netns;
#[path = "kernel/parsing.rs"]
mod parsing;
#[path = "kernel/raw.rs"]
mod raw;
#[path = "kernel/table.rs"]
mod table;
#[path = "world.rs"]
mod world;

use std::time::{Duration, Instant};

use daemon::{Files, Host};
use netns::Namespace;
use raw::State;
use table::Table;
use world::{Size, Workload};

/// Seed of the world.
const SEED: u64 = 6;
/// Times that everything short is repeated; the median counts.
const ROUNDS: usize = 5;
/// Label changes in one burst.
const BURST: usize = 10_000;
/// How long an idle daemon is watched.
const IDLE: Duration = Duration::from_secs(60);

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let wanted = |word: &str, others: &[&str]| {
        words.iter().any(|w| w == word) || !words.iter().any(|w| others.contains(&w.as_str()))
    };
    netns::check_machine().expect("a machine to measure on");
    netns::remove_stale();
    let mut table = Table::default();
    let worlds = ["nft", "legacy", "ten", "all"];
    if wanted("parsing", &[&worlds[..], &["connections"]].concat()) {
        let workloads: Vec<Workload> = world::workloads(SEED, sized(world::TEN)).collect();
        parsing::measure(&mut table, &workloads);
    }
    if wanted("connections", &[&worlds[..], &["parsing"]].concat()) {
        connections::measure(&mut table);
    }
    for backend in ["nft", "legacy"] {
        for (name, size) in [("ten", world::TEN), ("all", world::ALL)] {
            let parts = ["connections", "parsing"];
            if wanted(backend, &[&["nft", "legacy"][..], &parts].concat())
                && wanted(name, &[&["ten", "all"][..], &parts].concat())
            {
                measure(&mut table, backend, name, sized(size));
            }
        }
    }
    table.print();
}

fn sized(size: Size) -> Size {
    let endpoints = std::env::var("BENCH_ENDPOINTS").ok();
    let endpoints = endpoints.and_then(|n| n.parse().ok());
    Size {
        endpoints: endpoints.unwrap_or(size.endpoints),
        ..size
    }
}

fn measure(table: &mut Table, backend: &str, name: &str, size: Size) {
    table.begin(&format!("{backend}, {name}"));
    eprintln!("== {backend}, {name} policies select the host");
    let files = Files::new(backend);
    let workloads: Vec<Workload> = world::workloads(SEED, size).collect();
    files.write_world(SEED, size, &workloads);
    let first = Host::new("first");
    let run = files.start(&first);
    table.row("start from JSON files, no snapshot: ready", run.ready, None);
    table.memory("  peak memory", run.peak());
    files.wait_for_cache();
    let state = State::save(first.namespace(), backend);
    restart(table, &files, &first, &state, run);
    start_from_snapshot(table, &files, &state);
    if backend == "nft" {
        let run = files.start(&first);
        burst(table, &files, &run, &workloads);
        if name == "ten" {
            idle(table, &run);
        }
        run.stop();
        from_yaml(table, &files, SEED, size, &workloads);
    }
    library::measure(table, backend, SEED, size, &workloads);
}

/// With everything in place nothing is written.
fn restart(table: &mut Table, files: &Files, host: &Host, state: &State, run: daemon::Run) {
    run.stop();
    let mut times = Vec::new();
    let mut peaks = Vec::new();
    for _ in 0..ROUNDS {
        let run = files.start(host);
        times.push(run.ready);
        assert_eq!(run.changes(files), 0, "a restart wrote to the kernel");
        peaks.push(run.peak());
        run.stop();
    }
    let raw = median(
        (0..ROUNDS)
            .map(|_| state.read_back(host.namespace()))
            .collect(),
    );
    table.row(
        "restart, everything in place: ready",
        median(times),
        Some((raw, 1.5)),
    );
    peaks.sort_unstable();
    table.memory("  peak memory", peaks[peaks.len() / 2]);
}

/// Nothing in the kernel: each round has a network namespace of its own.
fn start_from_snapshot(table: &mut Table, files: &Files, state: &State) {
    let (mut times, mut raws) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let empty = Host::new("empty");
        let run = files.start(&empty);
        times.push(run.ready);
        run.stop();
        let other = Host::new("raw");
        raws.push(state.restore(other.namespace()));
    }
    let raw = median(raws);
    table.row(
        "start from the snapshot, empty kernel: enforced",
        median(times),
        Some((raw, 1.5)),
    );
}

fn from_yaml(table: &mut Table, files: &Files, seed: u64, size: Size, workloads: &[Workload]) {
    files.clear();
    files.write_yaml(seed, size, workloads);
    let host = Host::new("yaml");
    let run = files.start(&host);
    table.row("start from YAML files, no snapshot: ready", run.ready, None);
    table.memory("  peak memory", run.peak());
    run.stop();
}

/// Labels that no policy of the host asks about, all at once.
fn burst(table: &mut Table, files: &Files, run: &daemon::Run, workloads: &[Workload]) {
    let changed: Vec<String> = workloads
        .iter()
        .take(BURST)
        .map(|w| w.json().replace("\"zone\":\"", "\"zone\":\"other"))
        .collect();
    let generation = run.generation(files);
    let before = run.cpu();
    files.rewrite_first(&changed);
    let begin = Instant::now();
    while run.generation(files) == generation && begin.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let cpu = run.cpu() - before;
    table.limit(
        "10,000 label changes in one file, nobody asks: CPU with reading the file",
        cpu,
        Duration::from_millis(300),
    );
}

fn idle(table: &mut Table, run: &daemon::Run) {
    std::thread::sleep(Duration::from_secs(8));
    let (cpu, switches) = (run.cpu(), run.wake_ups());
    std::thread::sleep(IDLE);
    let woken = run.wake_ups() - switches;
    table.idle(woken, run.cpu() - cpu);
}

/// The middle one.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Runs a job in a network namespace; for modules.
fn inside<T: Send>(namespace: &Namespace, job: impl FnOnce() -> T + Send) -> T {
    namespace.enter(job)
}
