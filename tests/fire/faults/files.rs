//! The policy directory and hostile files in it. Whatever cannot be read takes nothing away.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::super::netns::output;
use super::super::policy::{self, Form};
use super::super::world::World;
use super::Promise::Never;
use super::{Fault, fault};

pub const FAULTS: &[Fault] = &[
    fault(
        "directory away",
        Never,
        away,
        "the policy directory is moved away and deleted, and a new one moved in",
    ),
    fault(
        "directory exchanged",
        Never,
        exchanged,
        "the policy directory is exchanged for another one in one step",
    ),
    fault(
        "endless files",
        Never,
        endless,
        "a FIFO, and a link to /dev/zero, among the policies",
    ),
    fault(
        "huge file",
        Never,
        huge,
        "a file of 1 GB among the policies",
    ),
    fault(
        "invalid UTF-8",
        Never,
        invalid,
        "bytes that are no text, in a file beside the policies and in the main one",
    ),
    fault(
        "broken policy",
        Never,
        broken,
        "the main policy has a mistake: its last good version stays",
    ),
    fault(
        "10,000 files",
        Never,
        many,
        "10,000 files appear and vanish (1,000 in the short run)",
    ),
    fault(
        "settings written in place",
        Never,
        settings_in_place,
        "moat.toml is written in pieces while SIGHUP arrives",
    ),
    fault(
        "file written in place",
        Never,
        in_place,
        "the main policy is written again and again in pieces, and read meanwhile",
    ),
];

fn file(w: &World, name: &str) -> PathBuf {
    w.moat.path("policy.d").join(name)
}

fn failed(e: std::io::Error) -> String {
    e.to_string()
}

/// A whole directory, made where nobody looks.
fn new_directory(w: &World, form: Form) -> Result<PathBuf, String> {
    let dir = w.moat.path("new.d");
    fs::create_dir(&dir).map_err(failed)?;
    fs::write(dir.join("main.yaml"), policy::main(form)).map_err(failed)?;
    fs::write(dir.join("bulk.yaml"), policy::bulk(0)).map_err(failed)?;
    Ok(dir)
}

fn away(w: &mut World) -> Result<(), String> {
    let dir = w.moat.path("policy.d");
    for _ in 0..w.times(1, 10) {
        let gone = w.moat.path("gone.d");
        fs::rename(&dir, &gone).map_err(failed)?;
        fs::remove_dir_all(&gone).map_err(failed)?;
        w.wait_degraded(&["policy.d"])?;
        let new = new_directory(w, Form::Usual)?;
        fs::rename(new, &dir).map_err(failed)?;
        w.tries += 1;
        w.settle()?;
    }
    Ok(())
}

fn exchanged(w: &mut World) -> Result<(), String> {
    let dir = w.moat.path("policy.d");
    for turn in 0..w.times(2, 20) {
        let before = w.moat.generation()?;
        let new = new_directory(w, [Form::Moved, Form::Usual][turn as usize % 2])?;
        renameat_with(CWD, &new, CWD, &dir, RenameFlags::EXCHANGE).map_err(|e| e.to_string())?;
        fs::remove_dir_all(new).map_err(failed)?;
        w.wait_for_generation(before)?;
        w.tries += 1;
    }
    Ok(())
}

/// Puts hostile files there until `status` names the first of them, then removes them.
fn hostile(
    w: &mut World,
    names: &[&str],
    make: impl Fn(&World) -> Result<(), String>,
) -> Result<(), String> {
    for _ in 0..w.times(1, 5) {
        make(w)?;
        w.wait_degraded(&names[..1])?;
        w.change("bulk.yaml", &policy::bulk(5))?;
        names
            .iter()
            .try_for_each(|name| fs::remove_file(file(w, name)))
            .map_err(failed)?;
        w.write_all()?;
        w.tries += 1;
        w.settle()?;
    }
    Ok(())
}

fn endless(w: &mut World) -> Result<(), String> {
    hostile(w, &["pipe.yaml", "zero.yaml"], |w| {
        output(Command::new("mkfifo").arg(file(w, "pipe.yaml")))?;
        symlink("/dev/zero", file(w, "zero.yaml")).map_err(failed)
    })
}

fn huge(w: &mut World) -> Result<(), String> {
    hostile(w, &["huge.yaml"], |w| {
        File::create(file(w, "huge.yaml"))
            .and_then(|f| f.set_len(1 << 30))
            .map_err(failed)
    })
}

fn invalid(w: &mut World) -> Result<(), String> {
    hostile(w, &["binary.yaml"], |w| {
        fs::write(file(w, "binary.yaml"), [0_u8, 159, 146, 150].repeat(1000)).map_err(failed)?;
        let mut text = policy::main(Form::Usual).into_bytes();
        let half = text.len() / 2;
        text[half] = 0xff;
        fs::write(w.moat.path("policy.d/.new"), text).map_err(failed)?;
        fs::rename(file(w, ".new"), file(w, "main.yaml")).map_err(failed)
    })
}

fn broken(w: &mut World) -> Result<(), String> {
    let good = policy::main(Form::Usual);
    let texts = [
        "kind: [".to_owned(),
        good.replace("Deny", "Denny"),
        good.replace("group ==", "group =+"),
        String::new(),
    ];
    for turn in 0..w.times(4, 20) {
        w.moat
            .policy("main.yaml", &texts[turn as usize % texts.len()])?;
        w.wait_degraded(&["main.yaml"])?;
        w.moat.policy("main.yaml", &good)?;
        w.tries += 1;
        w.settle()?;
    }
    Ok(())
}

fn many(w: &mut World) -> Result<(), String> {
    let count = w.times(1_000, 10_000);
    let name = |i: u64| format!("many{i}.yaml");
    for i in 0..count {
        let set = policy::set(&format!("many{i}"), "many", &["10.6.0.0/16"]);
        fs::write(file(w, &name(i)), set).map_err(failed)?;
    }
    w.change("bulk.yaml", &policy::bulk(6))?;
    (0..count)
        .try_for_each(|i| fs::remove_file(file(w, &name(i))))
        .map_err(failed)?;
    w.tries += 1;
    w.write_all()
}

/// A program that does not rename leaves the file in pieces for a moment, and some take their time. What stands there then
/// may well be valid, but is no policy that anybody wrote.
fn in_place(w: &mut World) -> Result<(), String> {
    for turn in 0..w.times(3, 60) {
        let text = policy::main([Form::Moved, Form::Usual][turn as usize % 2]);
        let documents: Vec<&str> = text.split_inclusive("---\n").collect();
        let pause = w.random(documents.len() as u64) as usize;
        let mut out = File::create(file(w, "main.yaml")).map_err(failed)?;
        for (number, document) in documents.iter().enumerate() {
            out.write_all(document.as_bytes()).map_err(failed)?;
            w.sleep_random(30);
            if number == pause {
                thread::sleep(Duration::from_millis(800));
            }
        }
        drop(out);
        thread::sleep(Duration::from_millis(100));
        w.tries += 1;
    }
    w.write_all()
}

/// The first pieces are settings too: an empty file is the defaults, which are those of another host.
fn settings_in_place(w: &mut World) -> Result<(), String> {
    let path = w.moat.path("moat.toml");
    let text = fs::read_to_string(&path).map_err(failed)?;
    for _ in 0..w.times(3, 50) {
        let mut out = File::create(&path).map_err(failed)?;
        for line in text.split_inclusive('\n') {
            w.moat.signal(Signal::SIGHUP)?;
            w.sleep_random(60);
            out.write_all(line.as_bytes()).map_err(failed)?;
        }
        drop(out);
        w.moat.signal(Signal::SIGHUP)?;
        w.tries += 1;
    }
    Ok(())
}
