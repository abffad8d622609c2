//! Under fire: on both backends a prober sends allowed and denied flows of both families, one packet each millisecond, while
//! faults happen one after the other. No verdict may be wrong, except while the rules of somebody else are in the way, and
//! afterwards everything must be as before. Prints a line for each fault and backend.
//!
//! `cargo test --test fire -- [WORD...] [--seconds N] [--table FILE]` makes the faults whose name (with the backend) has every
//! word; with `--seconds` many times, as `tests/soak` does. Everything runs in namespaces of its own: networks, mounts,
//! processes; nothing of it is left, however the run ends.

#[path = "common/backend.rs"]
mod backend;
#[path = "fire/connects.rs"]
mod connects;
#[path = "fire/faults/mod.rs"]
mod faults;
#[path = "fire/flows.rs"]
mod flows;
#[path = "fire/moat.rs"]
mod moat;
#[path = "fire/net.rs"]
mod net;
#[path = "common/netns.rs"]
mod netns;
#[path = "fire/policy.rs"]
mod policy;
#[path = "fire/prober.rs"]
mod prober;
#[path = "fire/sound.rs"]
mod sound;
#[path = "fire/table.rs"]
mod table;
#[path = "fire/tally.rs"]
mod tally;
#[path = "fire/wire.rs"]
mod wire;
#[path = "fire/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use backend::Backend;
use faults::{Fault, Promise};
use moat::Programs;
use table::{Row, Rows};
use world::World;

/// Tells the program that it is inside of the namespaces.
const INSIDE: &str = "--inside-namespaces";
/// Makes them: names of networks are files, so they get a directory of their own.
const SETUP: &str = "mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && exec \"$@\"";
/// A wrong verdict that lasts longer than this was not repaired.
const REPAIRED: Duration = Duration::from_secs(10);
/// Verdicts after the fault count too.
const AFTERWARDS: Duration = Duration::from_millis(100);
const BASELINE: Duration = Duration::from_secs(1);

struct Options {
    words: Vec<String>,
    /// With this, faults are made again and again until then.
    seconds: Option<u64>,
    table: Option<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Err(error) = netns::check_machine() {
        return end(&[], &[], Some(&error), Duration::ZERO);
    }
    if !arguments.iter().any(|a| a == INSIDE) {
        return enter_namespaces(&arguments);
    }
    netns::remove_stale();
    let options = match options(&arguments) {
        Ok(options) => options,
        Err(error) => return end(&[], &[], Some(&error), Duration::ZERO),
    };
    let begin = Instant::now();
    let rows = Mutex::new(Rows::new());
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for (number, backend) in [Backend::Nft, Backend::Legacy].into_iter().enumerate() {
            let (options, rows, failures) = (&options, &rows, &failures);
            scope.spawn(move || {
                let run = || burn(number, backend, options, rows);
                let result = catch_unwind(AssertUnwindSafe(run))
                    .unwrap_or_else(|_| Err("the harness panicked".into()));
                if let (Err(error), Ok(mut failures)) = (result, failures.lock()) {
                    failures.push(format!("{}: {error}", backend.name()));
                }
            });
        }
    });
    let rows = rows.into_inner().unwrap_or_else(|e| e.into_inner());
    let failures = failures.into_inner().unwrap_or_else(|e| e.into_inner());
    summary(&options, &rows, &failures, begin.elapsed())
}

/// Starts this program anew inside of namespaces that end with it.
fn enter_namespaces(arguments: &[String]) -> ExitCode {
    let lock = format!(
        "{}/fire-{}.lock",
        env!("CARGO_TARGET_TMPDIR"),
        std::process::id()
    );
    let program = std::env::current_exe().unwrap_or_default();
    // Whoever ends this program ends everything inside too.
    let status = Command::new("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--propagation",
            "private",
        ])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-c", SETUP, "sh"])
        .arg(program)
        .arg(INSIDE)
        .args(arguments)
        .env(faults::LOCK, &lock)
        .status();
    // It is there only if a tool made it.
    let _ = std::fs::remove_file(lock);
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => end(&[], &[], Some(&format!("setpriv: {error}")), Duration::ZERO),
    }
}

fn options(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options {
        words: Vec::new(),
        seconds: None,
        table: None,
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .cloned()
                .ok_or(format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "--seconds" => {
                options.seconds = Some(value()?.parse().map_err(|_| "--seconds needs a number")?)
            }
            "--table" => options.table = Some(value()?),
            // Options of cargo's own test harness.
            other if other.starts_with('-') => {}
            word => options.words.push(word.to_owned()),
        }
    }
    Ok(options)
}

/// The faults for one backend that were asked for.
fn chosen(backend: Backend, options: &Options) -> Vec<&'static Fault> {
    let mut faults = faults::all();
    faults.retain(|fault| {
        let name = format!("{} ({})", fault.name, backend.name());
        fault.only.is_none_or(|only| only == backend)
            && options.words.iter().all(|w| name.contains(w.as_str()))
    });
    faults
}

/// Makes all faults on one backend, again and again if there is time.
fn burn(
    number: usize,
    backend: Backend,
    options: &Options,
    rows: &Mutex<Rows>,
) -> Result<(), String> {
    let faults = chosen(backend, options);
    if faults.is_empty() {
        return Ok(());
    }
    let programs = Programs {
        moatd: program("MOAT_TEST_MOATD", env!("CARGO_BIN_EXE_moatd")),
        moatctl: program("MOAT_TEST_MOATCTL", env!("CARGO_BIN_EXE_moatctl")),
    };
    let begin = Instant::now();
    let mut world = World::new(number, backend, programs, options.seconds.is_some())?;
    let baseline = world.check_harness(BASELINE)?;
    println!(
        "fire nothing at all ({}) ... ok: {} packets in {:.1} s with nothing enforced, none lost",
        backend.name(),
        baseline.packets,
        baseline.time.as_secs_f64()
    );
    world
        .first_start()
        .map_err(|e| format!("{e}\n{}", world.moat.log()))?;
    let mut first = true;
    while first
        || options
            .seconds
            .is_some_and(|s| begin.elapsed().as_secs() < s)
    {
        for fault in &faults {
            if !first
                && options
                    .seconds
                    .is_some_and(|s| begin.elapsed().as_secs() >= s)
            {
                break;
            }
            let row = one(&mut world, fault);
            println!("{}", row.line(fault, backend.name()));
            let good = row.is_good(fault.promise);
            rows.lock()
                .map_err(|e| e.to_string())?
                .entry((fault.name, backend.name()))
                .or_default()
                .add(&row);
            if !good {
                println!("--- moatd\n{}", world.moat.log());
                println!("--- rules and sets: {}", keep(backend, &world));
                world
                    .recover()
                    .map_err(|e| format!("after {}: {e}\n{}", fault.name, world.moat.log()))?;
            }
        }
        first = false;
    }
    Ok(())
}

/// Makes one fault and says what became of it.
fn one(world: &mut World, fault: &Fault) -> Row {
    world.begin();
    let made = (fault.make)(world);
    let settled = made.and_then(|()| world.settle());
    thread::sleep(AFTERWARDS);
    let mut row = Row {
        tries: world.tries,
        tally: world.prober.end(false),
        ..Row::default()
    };
    match settled {
        Ok(time) => row.settled = time,
        Err(error) => row.errors.push(error),
    }
    let longest = row.tally.open.longest.max(row.tally.cut.longest);
    if longest > REPAIRED {
        row.errors.push(format!(
            "verdicts were wrong for {:.1} s",
            longest.as_secs_f64()
        ));
    }
    if fault.promise == Promise::Repaired && row.tally.is_right() && row.tries == 0 {
        row.errors.push("nothing was tried".into());
    }
    if world.moat.log().contains("panicked at") {
        row.errors.push("moatd panicked".into());
    }
    row
}

/// Writes what is too long to print to a file, and says where.
fn keep(backend: Backend, world: &World) -> String {
    let path = format!(
        "{}/fire-{}.txt",
        env!("CARGO_TARGET_TMPDIR"),
        backend.name()
    );
    match std::fs::write(&path, backend.dump(world.net.host())) {
        Ok(()) => path,
        Err(error) => format!("{path}: {error}"),
    }
}

/// A program of the build under test, or the one that an environment variable names.
fn program(variable: &str, built: &'static str) -> &'static str {
    match std::env::var(variable) {
        Ok(path) if std::path::Path::new(&path).exists() => Box::leak(path.into_boxed_str()),
        _ => built,
    }
}

fn summary(options: &Options, rows: &Rows, failures: &[String], time: Duration) -> ExitCode {
    let faults = faults::all();
    let bad = |(fault, _): &(&str, &str), row: &Row| {
        let promise = faults
            .iter()
            .find(|f| f.name == *fault)
            .map_or(Promise::Never, |f| f.promise);
        !row.is_good(promise)
    };
    let results: Vec<bool> = rows.iter().map(|(name, row)| !bad(name, row)).collect();
    let markdown = table::markdown(&faults, rows);
    if options.seconds.is_some() {
        println!("\n{markdown}");
    }
    if let Some(path) = &options.table
        && let Err(error) = std::fs::write(path, markdown)
    {
        println!("{path}: {error}");
    }
    end(&results, failures, None, time)
}

fn end(results: &[bool], failures: &[String], error: Option<&str>, time: Duration) -> ExitCode {
    for failure in failures.iter().map(String::as_str).chain(error) {
        println!("{failure}");
    }
    let passed = results.iter().filter(|good| **good).count();
    let failed = results.len() - passed + failures.len() + error.iter().count();
    let (verdict, code) = match failed {
        0 => ("ok", ExitCode::SUCCESS),
        _ => ("FAILED", ExitCode::FAILURE),
    };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.2}s\n",
        time.as_secs_f64()
    );
    code
}
