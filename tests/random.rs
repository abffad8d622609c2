//! Random policies and random packets: what the reference verdict says against what the rules do in the real kernel, on both
//! backends and in both families. A failing world is made small and printed.
//!
//! `MOAT_SEED=N` (or `PROPTEST_RNG_SEED`, which the other random tests take too) repeats a run, `MOAT_WORLDS=N` sets how many random worlds each backend gets.

#[path = "random/field.rs"]
mod field;
#[path = "common/netns.rs"]
mod netns;
#[path = "random/packets.rs"]
mod packets;
#[path = "random/resources.rs"]
mod resources;
#[path = "random/rng.rs"]
mod rng;
#[path = "random/scenario.rs"]
mod scenario;
#[path = "common/topology.rs"]
mod topology;
#[path = "random/universe.rs"]
mod universe;

use std::fmt::Write;
use std::process::ExitCode;
use std::thread;
use std::time::{Instant, SystemTime};

use moat::api::to_yaml;
use moat::dataplane::iptables::Backend;
use moat::verdict::Verdict;

use field::Field;
use packets::{Shot, shots};
use rng::Rng;
use scenario::Scenario;

const WORLDS: u64 = 80;
const PACKETS: usize = 600;

fn main() -> ExitCode {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs());
    let seed = number("MOAT_SEED").or_else(|| number("PROPTEST_RNG_SEED"));
    let seed = seed.unwrap_or(now);
    let worlds = number("MOAT_WORLDS").unwrap_or(WORLDS);
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let backends: Vec<Backend> = [Backend::Nft, Backend::Legacy]
        .into_iter()
        .filter(|b| words.iter().all(|w| test_name(*b).contains(w.as_str())))
        .collect();
    println!(
        "\nrunning {} tests\nMOAT_SEED={seed} MOAT_WORLDS={worlds}",
        backends.len()
    );
    let start = Instant::now();
    let run = |backend: &Backend| run_backend(*backend, seed, worlds);
    let results: Vec<Result<usize, String>> = match netns::check_machine() {
        Err(error) => vec![Err(error); backends.len().max(1)],
        Ok(()) => {
            netns::remove_stale();
            thread::scope(|scope| {
                let tasks: Vec<_> = backends.iter().map(|b| scope.spawn(|| run(b))).collect();
                let join = |t: thread::ScopedJoinHandle<'_, _>| {
                    t.join()
                        .unwrap_or_else(|_| Err("the harness panicked".into()))
                };
                tasks.into_iter().map(join).collect()
            })
        }
    };
    report(&backends, &results, start)
}

fn test_name(backend: Backend) -> String {
    format!("random_policies_and_packets ({backend:?})").to_lowercase()
}

fn report(backends: &[Backend], results: &[Result<usize, String>], start: Instant) -> ExitCode {
    for (backend, result) in backends.iter().zip(results) {
        match result {
            Ok(packets) => println!("test {} ... ok ({packets} packets)", test_name(*backend)),
            Err(_) => println!("test {} ... FAILED", test_name(*backend)),
        }
    }
    let failures: Vec<&String> = results.iter().filter_map(|r| r.as_ref().err()).collect();
    failures.iter().for_each(|error| println!("\n{error}"));
    let (word, code) = match failures.is_empty() {
        true => ("ok", ExitCode::SUCCESS),
        false => ("FAILED", ExitCode::FAILURE),
    };
    println!(
        "\ntest result: {word}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out; \
         finished in {:.2}s\n",
        results.len() - failures.len(),
        failures.len(),
        start.elapsed().as_secs_f64()
    );
    code
}

/// All worlds of one backend, one after the other in one kernel, so that changes are tried too.
fn run_backend(backend: Backend, seed: u64, worlds: u64) -> Result<usize, String> {
    let mut field = Field::new(usize::from(backend == Backend::Legacy), backend)?;
    let mut sent = 0;
    let all = shots(&mut Rng::new(seed), PACKETS);
    let lost = Scenario::empty()?.try_out(&mut field, &all)?;
    if let Some((shot, _)) = lost.first() {
        return Err(format!(
            "without any rule {} packets are lost, such as {shot:?}",
            lost.len()
        ));
    }
    for world in 0..worlds {
        let mut rng = Rng::new(seed.wrapping_mul(1_000_003).wrapping_add(world));
        let scenario = Scenario::random(&mut rng)?;
        let shots = shots(&mut rng, PACKETS);
        let wrong = scenario.try_out(&mut field, &shots).map_err(|e| {
            format!(
                "world {world} of seed {seed}: {e}\n{}",
                documents(&scenario)
            )
        })?;
        sent += shots.len();
        for (shot, _) in wrong {
            // One packet alone: what another one did to the kernel's memory does not count.
            let alone = scenario.try_out(&mut field, std::slice::from_ref(&shot))?;
            if !alone.is_empty() {
                return Err(explain(scenario, &mut field, &shot, (seed, world))?);
            }
        }
    }
    Ok(sent)
}

/// The report on a failure, with the smallest world in which it happens.
fn explain(
    scenario: Scenario,
    field: &mut Field,
    shot: &Shot,
    (seed, world): (u64, u64),
) -> Result<String, String> {
    let small = scenario.shrink(field, shot)?;
    let wrong = small.try_out(field, std::slice::from_ref(shot))?;
    let verdict = wrong.first().map(|(_, verdict)| verdict);
    let mut text = format!("world {world} of MOAT_SEED={seed}\n\n{shot:?}\n\n");
    if let Some(Verdict { allow, trace }) = verdict {
        let (says, does) = if *allow {
            ("allow", "drops")
        } else {
            ("deny", "passes")
        };
        let _ = writeln!(
            text,
            "the verdict says {says}, the kernel {does} it. The trace:"
        );
        for step in trace {
            let policy = step.policy.as_deref().unwrap_or("-");
            let _ = writeln!(text, "  {} {policy}: {}", step.action, step.why);
        }
    }
    let changed: Vec<String> = settings(&small);
    let _ = write!(
        text,
        "\nsettings: {{{}}}\n{}",
        changed.join(", "),
        documents(&small)
    );
    Ok(text)
}

/// The settings that scenarios change.
fn settings(scenario: &Scenario) -> Vec<String> {
    let settings = &scenario.settings;
    vec![
        format!(
            "defaultEndpointToHostAction: {:?}",
            settings.default_endpoint_to_host_action
        ),
        format!(
            "disableConntrackInvalidCheck: {}",
            settings.disable_conntrack_invalid_check
        ),
        format!(
            "iptablesFilterDenyAction: {:?}",
            settings.iptables_filter_deny_action
        ),
        format!(
            "iptablesFilterAllowAction: {:?}",
            settings.iptables_filter_allow_action
        ),
        format!(
            "iptablesMangleAllowAction: {:?}",
            settings.iptables_mangle_allow_action
        ),
        format!("failsafes: {}", settings.failsafe_inbound_host_ports.len()),
    ]
}

/// As in a case file.
fn documents(scenario: &Scenario) -> String {
    let texts: Vec<String> = scenario.documents.iter().map(to_yaml).collect();
    let body: String = texts
        .join("---\n")
        .lines()
        .map(|line| format!("  {line}\n"))
        .collect();
    format!("resources: |\n{body}")
}
