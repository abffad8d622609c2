//! The state directory, and what is in it.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::super::netns::output;
use super::super::policy::{self, Form};
use super::super::world::World;
use super::Promise::Never;
use super::{Fault, fault};

pub const FAULTS: &[Fault] = &[
    fault(
        "full disk",
        Never,
        full,
        "no space in the state directory, while policy changes and at a start",
    ),
    fault(
        "read-only disk",
        Never,
        read_only,
        "the state directory is read-only, while policy changes",
    ),
    fault(
        "torn snapshot",
        Never,
        torn,
        "what the state directory holds is cut or garbled at random bytes before a start",
    ),
    fault(
        "torn snapshot, no files",
        Never,
        torn_without_files,
        "the same, and the policy directory is away: only the kernel knows the policy",
    ),
    fault(
        "no files",
        Never,
        without_files,
        "the policy directory is away at a start",
    ),
    fault(
        "no state",
        Never,
        without_state,
        "the state directory is emptied before a start",
    ),
];

fn change(w: &World, turn: u64) -> Result<(), String> {
    w.moat
        .policy("bulk.yaml", &policy::bulk(turn as usize + 70))?;
    w.change("main.yaml", &policy::main(Form::Moved))
}

/// Writes until there is no space.
fn fill(w: &World) -> Result<PathBuf, String> {
    let path = w.moat.path("state/filler");
    let mut file = File::create(&path).map_err(|e| format!("filler: {e}"))?;
    for size in [1 << 16, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    Ok(path)
}

fn full(w: &mut World) -> Result<(), String> {
    for turn in 0..w.times(1, 5) {
        let filler = fill(w)?;
        change(w, turn)?;
        w.enforcing_or(&["space", "snapshot"])?;
        w.moat.stop()?;
        w.moat.start()?;
        w.enforcing_or(&["space", "snapshot"])?;
        fs::remove_file(filler).map_err(|e| e.to_string())?;
        w.write_all()?;
        w.tries += 1;
        w.settle()?;
    }
    Ok(())
}

/// Read-only for moatd alone, by a mount in its own mount namespace.
fn read_only(w: &mut World) -> Result<(), String> {
    let state = w.moat.path("state").display().to_string();
    for turn in 0..w.times(1, 5) {
        let pid = w.moat.pid()?.to_string();
        let inside = |script: &str| {
            let script = script.replace("STATE", &state);
            output(Command::new("nsenter").args(["-t", &pid, "-m", "sh", "-c", &script])).map(drop)
        };
        inside("mount --bind STATE STATE && mount -o remount,bind,ro STATE")?;
        change(w, turn)?;
        w.enforcing_or(&["read-only", "Read-only", "snapshot"])?;
        inside("umount STATE")?;
        w.write_all()?;
        w.tries += 1;
        w.settle()?;
    }
    Ok(())
}

/// What moatd keeps between two runs.
fn state_files(w: &World) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(w.moat.path("state")).map_err(|e| e.to_string())?;
    let files = entries.flatten().map(|e| e.path());
    Ok(files
        .filter(|p| p.is_file() && p.file_name().is_some_and(|n| n != "lock"))
        .collect())
}

/// Cuts a file at a random byte, or overwrites some bytes somewhere in it.
fn garble(w: &mut World, path: &Path) -> Result<(), String> {
    let length = path.metadata().map_err(|e| e.to_string())?.len();
    let at = w.random(length + 1);
    let cut = w.random(2) == 0;
    let bytes: Vec<u8> = (0..1 + w.random(16)).map(|_| w.random(256) as u8).collect();
    let mut file = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(|e| e.to_string())?;
    let done = match cut {
        true => file.set_len(at),
        false => file
            .seek(SeekFrom::Start(at))
            .and_then(|_| file.write_all(&bytes)),
    };
    done.map_err(|e| format!("{}: {e}", path.display()))
}

/// All of its files in half of the tries, one of them in the others.
fn garble_state(w: &mut World) -> Result<(), String> {
    let files = state_files(w)?;
    let single = w.random(2 * files.len() as u64) as usize;
    for (number, file) in files.iter().enumerate() {
        if single >= files.len() || single == number {
            garble(w, file)?;
        }
    }
    Ok(())
}

fn torn(w: &mut World) -> Result<(), String> {
    for _ in 0..w.times(3, 60) {
        w.moat.stop()?;
        garble_state(w)?;
        w.moat.start()?;
        w.tries += 1;
    }
    Ok(())
}

/// Starts without policy directory, and gives it back.
fn start_without_files(w: &mut World) -> Result<(), String> {
    let (dir, away) = (w.moat.path("policy.d"), w.moat.path("away.d"));
    fs::rename(&dir, &away).map_err(|e| e.to_string())?;
    let spawned = w.moat.spawn();
    thread::sleep(Duration::from_millis(600));
    let said = w.enforcing_or(&["policy.d"]);
    fs::rename(&away, &dir).map_err(|e| e.to_string())?;
    spawned?;
    w.moat.wait_ready()?;
    w.tries += 1;
    said
}

/// The newest state that is whole is used, so there is none of another policy to fall back to.
fn torn_without_files(w: &mut World) -> Result<(), String> {
    w.moat.stop()?;
    for file in state_files(w)? {
        fs::remove_file(file).map_err(|e| e.to_string())?;
    }
    w.moat.start()?;
    for _ in 0..w.times(2, 40) {
        w.moat.stop()?;
        garble_state(w)?;
        start_without_files(w)?;
        w.settle()?;
    }
    Ok(())
}

fn without_files(w: &mut World) -> Result<(), String> {
    for _ in 0..w.times(1, 10) {
        w.moat.stop()?;
        start_without_files(w)?;
    }
    Ok(())
}

fn without_state(w: &mut World) -> Result<(), String> {
    for _ in 0..w.times(1, 10) {
        w.moat.stop()?;
        for file in state_files(w)? {
            fs::remove_file(file).map_err(|e| e.to_string())?;
        }
        w.moat.start()?;
        w.tries += 1;
    }
    Ok(())
}
