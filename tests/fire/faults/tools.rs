//! Tools that are not as they should be, seen by moatd only.

use std::thread;
use std::time::Duration;

use super::super::policy::{self, Form};
use super::super::world::World;
use super::Promise::Never;
use super::{Fault, fault};

pub const FAULTS: &[Fault] = &[
    fault(
        "missing tools",
        Never,
        missing,
        "the restore tools are not installed any more when policy changes",
    ),
    fault(
        "failing tools",
        Never,
        failing,
        "the restore tools fail with a message when policy changes",
    ),
    fault(
        "killed tools",
        Never,
        killed,
        "the restore tools are killed when policy changes",
    ),
    fault(
        "hanging tools",
        Never,
        hanging,
        "the restore tools hang when policy changes",
    ),
    fault(
        "late tools",
        Never,
        late,
        "a restore tool does its work after moatd was killed and started again",
    ),
    fault(
        "lying tools",
        Never,
        lying,
        "the restore tools say that all is well and do nothing",
    ),
    fault(
        "nonsense",
        Never,
        nonsense,
        "the save tools print nonsense, nothing, half of it, or 300 MB, at a start and later",
    ),
    fault(
        "broken start",
        Never,
        broken_start,
        "every tool fails when moatd starts",
    ),
];

const FAMILIES: [&str; 2] = ["iptables", "ip6tables"];

fn tools(w: &World, what: &str) -> [String; 2] {
    FAMILIES.map(|f| format!("{f}-{}-{what}", w.backend.name()))
}

fn fake(w: &World, what: &str, script: &str) -> Result<(), String> {
    tools(w, what)
        .iter()
        .try_for_each(|tool| w.moat.fake_tool(tool, script))
}

/// Changes policy, which needs the tools.
fn change(w: &World, turn: u64) -> Result<(), String> {
    w.moat
        .policy("bulk.yaml", &policy::bulk(turn as usize + 10))?;
    w.moat.policy("main.yaml", &policy::main(Form::Moved))
}

/// Everything is mended, and policy is as usual.
fn mend(w: &mut World) -> Result<(), String> {
    w.moat.mend_tools()?;
    w.write_all()?;
    w.tries += 1;
    Ok(())
}

fn missing(w: &mut World) -> Result<(), String> {
    for turn in 0..w.times(1, 5) {
        tools(w, "restore")
            .iter()
            .try_for_each(|t| w.moat.remove_tool(t))?;
        change(w, turn)?;
        w.wait_degraded(&["tables"])?;
        mend(w)?;
        w.settle()?;
    }
    Ok(())
}

fn failing(w: &mut World) -> Result<(), String> {
    for turn in 0..w.times(1, 5) {
        fake(
            w,
            "restore",
            "cat >/dev/null; echo the moon is in the wrong phase >&2; exit 3",
        )?;
        change(w, turn)?;
        w.wait_degraded(&["wrong phase"])?;
        mend(w)?;
        w.settle()?;
    }
    Ok(())
}

fn killed(w: &mut World) -> Result<(), String> {
    for turn in 0..w.times(1, 5) {
        fake(w, "restore", "kill -9 $$")?;
        change(w, turn)?;
        w.wait_degraded(&["tables"])?;
        mend(w)?;
        w.settle()?;
    }
    Ok(())
}

/// In a short run for a moment only; the daemon answers meanwhile.
fn hanging(w: &mut World) -> Result<(), String> {
    fake(w, "restore", "sleep 2; exec \"$REAL\" \"$@\"")?;
    change(w, 0)?;
    thread::sleep(Duration::from_millis(500));
    w.moat.status()?;
    mend(w)?;
    if w.long {
        w.settle()?;
        fake(w, "restore", "sleep 1000000")?;
        change(w, 1)?;
        let words = ["did not end", "killed"];
        // The time that a tool has is longer than what is waited for usually.
        (0..20)
            .find_map(|_| w.wait_degraded(&words).ok())
            .ok_or("status does not name the tool that hangs")?;
        mend(w)?;
    }
    Ok(())
}

/// What an orphaned tool writes belongs to a state that nobody wants any more.
fn late(w: &mut World) -> Result<(), String> {
    for turn in 0..w.times(1, 5) {
        fake(w, "restore", "sleep 1; exec \"$REAL\" \"$@\"")?;
        change(w, turn)?;
        thread::sleep(Duration::from_millis(300));
        w.moat.kill();
        mend(w)?;
        w.moat.start()?;
        thread::sleep(Duration::from_millis(1000));
    }
    Ok(())
}

fn lying(w: &mut World) -> Result<(), String> {
    for turn in 0..w.times(1, 5) {
        fake(w, "restore", "cat >/dev/null")?;
        change(w, turn)?;
        thread::sleep(Duration::from_millis(500));
        mend(w)?;
        w.settle()?;
    }
    Ok(())
}

const NONSENSE: [&str; 4] = [
    "echo '*filter'; echo ':moat-INPUT - [0:0]'; echo '-A moat-INPUT garbage \"'; echo COMMIT",
    "true",
    "\"$REAL\" \"$@\" | head -c 700",
    "yes nonsense | head -c 300000000",
];

fn nonsense(w: &mut World) -> Result<(), String> {
    for turn in 0..w.times(4, 12) {
        fake(w, "save", NONSENSE[turn as usize % NONSENSE.len()])?;
        if turn % 2 == 0 {
            w.moat.stop()?;
            w.moat.spawn()?;
        } else {
            change(w, turn)?;
        }
        thread::sleep(Duration::from_millis(500));
        mend(w)?;
        w.settle()?;
    }
    Ok(())
}

fn broken_start(w: &mut World) -> Result<(), String> {
    w.moat.stop()?;
    fake(w, "save", "echo no >&2; exit 1")?;
    fake(w, "restore", "cat >/dev/null; echo no >&2; exit 1")?;
    w.moat.fake_tool("ipset", "echo no >&2; exit 1")?;
    w.moat.spawn()?;
    thread::sleep(Duration::from_millis(700));
    mend(w)?;
    // It may have given up at once, which a service manager answers with a new start.
    if w.moat.wait_ready().is_err() {
        w.moat.kill();
        w.moat.start()?;
    }
    Ok(())
}
