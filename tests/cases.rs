//! Cases as data (`tests/cases/*.yaml`), each run against the reference verdict and with real
//! packets on both iptables backends, and with the resources in etcd instead of files, written
//! there by moatctl, or by the calicoctl that `MOAT_TEST_CALICOCTL` names. `cargo test --test cases --
//! WORD...` runs those whose name (with the way it is run, as printed) has every word.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use common::backend::Backend;
use common::case::{self, Case};
use common::daemon::{Programs, program};
use common::datastore::REFUSED;
use common::kernel::Origin;
use common::{judge, kernel, netns};

/// Runs wait more than they work.
const WORKERS: usize = 3;

/// One way to run a case.
#[derive(Clone, Copy)]
enum Way {
    Verdict,
    Kernel(Backend),
    Etcd,
}

struct Job<'a> {
    case: &'a Case,
    way: Way,
}

impl Job<'_> {
    fn name(&self) -> String {
        let way = match self.way {
            Way::Verdict => "verdict",
            Way::Kernel(backend) => backend.name(),
            Way::Etcd => "etcd",
        };
        format!("{} ({way})", self.case.name)
    }

    /// What moat must refuse, the tools refuse to write.
    fn is_possible(&self) -> bool {
        let is_refused =
            || self.case.head.files_only || self.case.stages.iter().any(|s| s.rejected);
        !matches!(self.way, Way::Etcd) || !is_refused()
    }

    fn run(&self, programs: Programs) -> Result<(), String> {
        let run = || match self.way {
            Way::Verdict => judge::run(self.case),
            Way::Kernel(backend) => kernel::run(self.case, backend, Origin::Files, programs),
            Way::Etcd => {
                let tool = program("MOAT_TEST_CALICOCTL", programs.moatctl);
                kernel::run(self.case, Backend::Nft, Origin::Datastore(tool), programs)
            }
        };
        let result = catch_unwind(AssertUnwindSafe(run));
        result
            .unwrap_or_else(|_| Err("the harness panicked".into()))
            .map_err(|error| {
                let head = &self.case.head;
                format!(
                    "{}\nproves {}\n\n{error}",
                    head.title,
                    head.covers.join("; ")
                )
            })
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let cases = match case::load_all() {
        Ok(cases) => cases,
        Err(error) => return fail(&error),
    };
    let ways = [
        Way::Verdict,
        Way::Kernel(Backend::Nft),
        Way::Kernel(Backend::Legacy),
        Way::Etcd,
    ];
    let all = ways
        .iter()
        .flat_map(|way| cases.iter().map(|case| Job { case, way: *way }))
        .filter(Job::is_possible);
    let total = all.clone().count();
    let jobs: Vec<Job<'_>> = all
        .filter(|job| words.iter().all(|w| job.name().contains(w.as_str())))
        .collect();
    if let Err(error) = netns::check_machine() {
        return fail(&error);
    }
    netns::remove_stale();
    run_all(&jobs, total - jobs.len())
}

fn fail(error: &str) -> ExitCode {
    println!(
        "{error}\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out"
    );
    ExitCode::FAILURE
}

/// What the workers found.
#[derive(Default)]
struct Found {
    failures: Mutex<Vec<(String, String)>>,
    ignored: AtomicUsize,
}

fn run_all(jobs: &[Job<'_>], filtered: usize) -> ExitCode {
    let programs = Programs {
        moatd: program("MOAT_TEST_MOATD", env!("CARGO_BIN_EXE_moatd")),
        moatctl: program("MOAT_TEST_MOATCTL", env!("CARGO_BIN_EXE_moatctl")),
    };
    println!("\nrunning {} tests", jobs.len());
    let start = Instant::now();
    let queue = Mutex::new(jobs.iter());
    let found = Found::default();
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| work(&queue, &found, programs));
        }
    });
    let ignored = found.ignored.into_inner();
    let failures = found
        .failures
        .into_inner()
        .unwrap_or_else(|e| e.into_inner());
    for (name, error) in &failures {
        println!("\n---- {name} ----\n{error}");
    }
    let (verdict, code) = match failures.is_empty() {
        true => ("ok", ExitCode::SUCCESS),
        false => ("FAILED", ExitCode::FAILURE),
    };
    println!(
        "\ntest result: {verdict}. {} passed; {} failed; {ignored} ignored; 0 measured; {filtered} \
         filtered out; finished in {:.2}s\n",
        jobs.len() - failures.len() - ignored,
        failures.len(),
        start.elapsed().as_secs_f64(),
    );
    code
}

/// Takes jobs until none is left.
fn work<'a>(queue: &Mutex<std::slice::Iter<'a, Job<'a>>>, found: &Found, programs: Programs) {
    let is_foreign = std::env::var_os("MOAT_TEST_CALICOCTL").is_some();
    loop {
        let Some(job) = queue.lock().ok().and_then(|mut jobs| jobs.next()) else {
            return;
        };
        let start = Instant::now();
        let result = job.run(programs);
        let (name, seconds) = (job.name(), start.elapsed().as_secs_f64());
        match result {
            Ok(()) => println!("test {name} ... ok <{seconds:.2}s>"),
            // A calicoctl that does not know a kind yet, or wants more than moat, says nothing
            // about moat.
            Err(error) if is_foreign && error.contains(REFUSED) => {
                println!("test {name} ... ignored, {error}");
                found.ignored.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                println!("test {name} ... FAILED <{seconds:.2}s>");
                if let Ok(mut failures) = found.failures.lock() {
                    failures.push((name, error));
                }
            }
        }
    }
}
