//! A state directory on a disk that is full or read-only. Each test runs once more, as a child in a mount namespace of its own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::*;

const VARIABLE: &str = "MOAT_TEST_STATE_DIR";

/// The state directory, in the child; elsewhere runs the child with a file system mounted there and returns none.
fn mounted(test: &str, options: &str) -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os(VARIABLE) {
        return Some(dir.into());
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can mount");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o \"$1\" none \"$2\" && exec \"$3\" --exact \"$4\"";
    let test = format!("store::tests::mounts::{test}");
    let status = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh", options])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(VARIABLE, dir.path())
        .status();
    assert!(status.unwrap().success());
    None
}

fn many(path: &str, count: usize) -> FileUpdate {
    let names: Vec<String> = (0..count).map(|n| format!("{path}-{n:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    sets(path, &names)
}

/// How many resources come back from the disk.
fn on_disk(dir: &Path) -> usize {
    let copy = tempfile::tempdir().unwrap();
    fs::copy(dir.join("snapshot"), copy.path().join("snapshot")).unwrap();
    let (mut store, saved, _) = Store::open(copy.path());
    store.seed(saved.unwrap(), &mut |_| ());
    store.len()
}

fn save(store: &mut Store, generation: u64) -> Result<(), String> {
    let job = store.save(meta(), generation, 7).unwrap();
    let saved = store.saved(job.run());
    saved.map_err(|e| format!("{e}: {}", std::error::Error::source(&e).unwrap()))
}

#[test]
fn full() {
    let Some(dir) = mounted("full", "size=1m") else {
        return;
    };
    let (mut store, _, _) = Store::open(&dir);
    apply(&mut store, "dir", vec![many("a", 1000)]);
    save(&mut store, 1).unwrap();
    let filler = dir.join("filler");
    fs::write(&filler, vec![0; 600 << 10]).unwrap();
    apply(&mut store, "dir", vec![many("b", 3000), sets("a", &["x"])]);
    for _ in 0..3 {
        let error = save(&mut store, 2).unwrap_err();
        assert!(error.contains("No space left"), "{error}");
        assert_eq!(store.resources().filter_map(Result::ok).count(), 3001);
        assert_eq!(on_disk(&dir), 1000, "what was saved is there");
    }
    fs::remove_file(filler).unwrap();
    save(&mut store, 2).unwrap();
    assert_eq!(store.resources().filter_map(Result::ok).count(), 3001);
    assert_eq!(on_disk(&dir), 3001);
}

#[test]
fn read_only() {
    let Some(dir) = mounted("read_only", "size=4m") else {
        return;
    };
    let (mut store, _, _) = Store::open(&dir);
    apply(&mut store, "dir", vec![many("a", 1000)]);
    save(&mut store, 1).unwrap();
    drop(store);
    let remount = |how: &str| {
        let status = Command::new("mount").args(["-o", how]).arg(&dir).status();
        assert!(status.unwrap().success());
    };
    remount("remount,ro");
    let (mut store, saved, messages) = Store::open(&dir);
    assert!(messages.is_empty(), "{messages:?}");
    store.seed(saved.unwrap(), &mut |_| ());
    assert_eq!(apply(&mut store, "dir", vec![sets("b", &["x"])]), "+x");
    let error = save(&mut store, 2).unwrap_err();
    assert!(error.contains("Read-only file system"), "{error}");
    assert_eq!(store.resources().filter_map(Result::ok).count(), 1001);
    remount("remount,rw");
    save(&mut store, 2).unwrap();
    assert_eq!(on_disk(&dir), 1001);
}
