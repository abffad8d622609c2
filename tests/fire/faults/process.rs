//! What happens to the process: ends, starts, signals, limits, clocks.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::super::netns::output;
use super::super::policy::{self, Form};
use super::super::world::World;
use super::Promise::Never;
use super::{Fault, fault};

pub const FAULTS: &[Fault] = &[
    fault("restart", Never, restart, "SIGTERM, then a new start"),
    fault(
        "kill",
        Never,
        kill_at_random,
        "kill -9 at random moments, also while it starts",
    ),
    fault(
        "kill in an apply",
        Never,
        kill_in_apply,
        "kill -9 while a change of 100 rules and 20 sets is written",
    ),
    fault(
        "kill twice",
        Never,
        kill_twice,
        "kill -9, and once more right after the next start",
    ),
    fault(
        "reload",
        Never,
        reload,
        "SIGHUP, several times, with and without other settings",
    ),
    fault(
        "switch of the backend",
        Never,
        switch_backend,
        "restart with the other backend, and back: each finds what the other left",
    ),
    fault(
        "two daemons",
        Never,
        two_daemons,
        "a second moatd on the same state directory",
    ),
    fault(
        "no descriptors",
        Never,
        no_descriptors,
        "no file descriptor left, while policy changes and somebody connects",
    ),
    fault(
        "clock jumps",
        Never,
        clock_jumps,
        "the clock of the day jumps years back and forth",
    ),
];

fn restart(w: &mut World) -> Result<(), String> {
    for _ in 0..w.times(2, 10) {
        w.moat.stop()?;
        w.moat.start()?;
        w.tries += 1;
    }
    Ok(())
}

fn kill_at_random(w: &mut World) -> Result<(), String> {
    for _ in 0..w.times(5, 200) {
        w.sleep_random(400);
        w.moat.kill();
        w.moat.spawn()?;
        w.tries += 1;
    }
    w.moat.wait_ready()
}

fn kill_in_apply(w: &mut World) -> Result<(), String> {
    for turn in 0..w.times(3, 60) {
        w.moat
            .policy("bulk.yaml", &policy::bulk(turn as usize + 1))?;
        let form = [Form::Moved, Form::Usual][turn as usize % 2];
        w.moat.policy("main.yaml", &policy::main(form))?;
        w.sleep_random(150);
        w.moat.kill();
        w.moat.start()?;
        w.tries += 1;
    }
    w.write_all()
}

fn kill_twice(w: &mut World) -> Result<(), String> {
    for turn in 0..w.times(2, 60) {
        w.moat
            .policy("bulk.yaml", &policy::bulk(turn as usize + 30))?;
        w.moat.kill();
        w.moat.spawn()?;
        w.sleep_random(120);
        w.moat.kill();
        w.moat.start()?;
        w.tries += 2;
    }
    w.write_all()
}

fn reload(w: &mut World) -> Result<(), String> {
    for turn in 0..w.times(6, 30) {
        let lines = [
            "",
            "logSeverityScreen = \"Warning\"",
            "maxIpsetSize = 524288",
        ];
        w.write_settings(lines[turn as usize % 3])?;
        w.moat.signal(Signal::SIGHUP)?;
        w.sleep_random(150);
        w.tries += 1;
    }
    w.write_all()?;
    w.moat.signal(Signal::SIGHUP)
}

fn switch_backend(w: &mut World) -> Result<(), String> {
    use super::super::backend::Backend::{Legacy, Nft};
    let (own, other) = if w.backend == Nft {
        (Nft, Legacy)
    } else {
        (Legacy, Nft)
    };
    for backend in [other, own] {
        w.moat.stop()?;
        w.backend = backend;
        let written = w.write_settings("");
        w.backend = own;
        written?;
        w.moat.start()?;
        thread::sleep(Duration::from_millis(200));
        w.tries += 1;
    }
    Ok(())
}

fn two_daemons(w: &mut World) -> Result<(), String> {
    let mut second = w.moat.command()?;
    for _ in 0..w.times(2, 10) {
        let status = second.status().map_err(|e| e.to_string())?;
        if status.success() {
            return Err("the second moatd ended without an error".into());
        }
        w.tries += 1;
    }
    Ok(())
}

fn no_descriptors(w: &mut World) -> Result<(), String> {
    let pid = w.moat.pid()?.to_string();
    let limit = |soft: &str| {
        output(Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={soft}:")]))
            .map(drop)
    };
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).map_err(|e| e.to_string())?;
    let line = limits
        .lines()
        .find(|l| l.starts_with("Max open files"))
        .ok_or("no limit")?;
    let usual = line.split_whitespace().nth(3).ok_or("no limit")?.to_owned();
    for turn in 0..w.times(2, 12) {
        let spare = w.random(4) as usize;
        limit(&(w.moat.descriptors()? + spare).to_string())?;
        w.moat
            .policy("bulk.yaml", &policy::bulk(turn as usize + 60))?;
        w.moat.policy(
            "main.yaml",
            &policy::main([Form::Moved, Form::Usual][turn as usize % 2]),
        )?;
        // There may be no answer: a connection is a descriptor too.
        let _ = w.moat.status();
        thread::sleep(Duration::from_millis(300));
        limit(&usual)?;
        w.tries += 1;
    }
    w.write_all()
}

/// A program's clock of the day is all that can be moved here without moving that of the machine.
fn clock_jumps(w: &mut World) -> Result<(), String> {
    let candidates = ["x86_64", "aarch64"]
        .map(|arch| format!("/usr/lib/{arch}-linux-gnu/faketime/libfaketime.so.1"));
    let Some(library) = candidates.into_iter().find(|path| Path::new(path).exists()) else {
        // The table shows that nothing was tried.
        return Ok(());
    };
    let clock = w.moat.path("clock");
    let jump = |to: &str| fs::write(&clock, to).map_err(|e| e.to_string());
    jump("+0")?;
    w.moat.stop()?;
    w.moat.environment = vec![
        ("LD_PRELOAD".into(), library),
        (
            "FAKETIME_TIMESTAMP_FILE".into(),
            clock.display().to_string(),
        ),
        ("FAKETIME_NO_CACHE".into(), "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
        ("DONT_FAKE_MONOTONIC".into(), "1".into()),
    ];
    w.moat.start()?;
    for turn in 0..w.times(4, 20) {
        jump(["+30y", "-20y", "+1", "-3600"][turn as usize % 4])?;
        w.change("bulk.yaml", &policy::bulk(turn as usize + 90))?;
        w.tries += 1;
    }
    w.write_all()?;
    w.moat.stop()?;
    w.moat.environment.clear();
    w.moat.start()
}
