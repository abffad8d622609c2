//! Changes of policy that leave every probed verdict as it is.

use std::thread;
use std::time::Duration;

use super::super::policy::{self, Form};
use super::super::world::World;
use super::Promise::Never;
use super::{Fault, fault};

pub const FAULTS: &[Fault] = &[
    fault(
        "changes beside",
        Never,
        beside,
        "500 changes a minute of a policy that no probed flow asks about",
    ),
    fault(
        "changes that move",
        Never,
        moving,
        "500 changes a minute by which other policies, in another order, come to the same verdicts",
    ),
    fault(
        "labels",
        Never,
        labels,
        "500 changes a minute of labels and members: sets of the same name or another take over each other's members",
    ),
    fault(
        "large changes",
        Never,
        large,
        "100 rules and 20 sets change at once, again and again",
    ),
];

/// 500 a minute.
const PACE: Duration = Duration::from_millis(120);

fn each(
    w: &mut World,
    short: u64,
    write: impl Fn(&World, usize) -> Result<(), String>,
) -> Result<(), String> {
    for turn in 0..w.times(short, 500) {
        write(w, turn as usize)?;
        w.tries += 1;
        thread::sleep(PACE);
    }
    Ok(())
}

fn remove(w: &World, file: &str) -> Result<(), String> {
    std::fs::remove_file(w.moat.path("policy.d").join(file)).map_err(|e| format!("{file}: {e}"))
}

fn beside(w: &mut World) -> Result<(), String> {
    each(w, 15, |w, turn| {
        w.moat
            .policy("beside.yaml", &policy::beside(7000 + turn as u16))
    })?;
    remove(w, "beside.yaml")
}

fn moving(w: &mut World) -> Result<(), String> {
    each(w, 15, |w, turn| {
        w.moat.policy(
            "main.yaml",
            &policy::main([Form::Moved, Form::Usual][turn % 2]),
        )
    })?;
    w.write_all()
}

fn labels(w: &mut World) -> Result<(), String> {
    let extra = ["friends", "enemies", "bulk1", "nobody"];
    each(w, 15, |w, turn| {
        // A set beside the usual ones changes sides; one with the friend's own address comes and goes.
        let here = policy::set("walker", extra[turn % 4], &["10.7.0.0/24", "fd07::/64"]);
        let twin = policy::set(
            "twin",
            ["friends", "nobody"][turn % 2],
            &["10.1.0.2", "fd01::2"],
        );
        w.moat.policy("labels.yaml", &(here + &twin))
    })?;
    remove(w, "labels.yaml")
}

fn large(w: &mut World) -> Result<(), String> {
    for turn in 0..w.times(4, 60) {
        w.change("bulk.yaml", &policy::bulk(turn as usize + 120))?;
        w.tries += 1;
    }
    w.write_all()
}
