use std::fs;
use std::os::unix::fs::FileExt;

use super::*;

fn many(path: &str, count: usize) -> FileUpdate {
    let names: Vec<String> = (0..count).map(|n| format!("set-{n:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    sets(path, &names)
}

fn size(home: &Home) -> u64 {
    fs::metadata(home.dir.path().join("snapshot"))
        .unwrap()
        .len()
}

#[test]
fn a_save_costs_what_changed() {
    let mut home = Home::new();
    apply(&mut home.store, "dir", vec![many("a", 500), many("b", 5)]);
    home.save(1);
    let before = size(&home);
    assert_eq!(apply(&mut home.store, "dir", vec![many("b", 6)]), "");
    apply(&mut home.store, "dir", vec![sets("c", &["x"])]);
    home.save(2);
    assert!(size(&home) - before < 600, "{}", size(&home) - before);
    assert!(
        home.store.save(meta(), 2, 7).is_none(),
        "nothing is to be saved"
    );
    let before = size(&home);
    home.save(3);
    assert!(size(&home) - before < 60, "another generation is a commit");
    let job = home.store.save(meta(), 3, 9).expect("it was confirmed");
    home.store.saved(job.run()).unwrap();
    assert!(size(&home) - before < 120, "another time is a commit");
    assert_eq!(home.store.written(), Some(9));
    assert_eq!(home.restarted().store.written(), Some(9));
}

#[test]
fn large_loads_go_to_the_disk_before_they_are_saved() {
    let mut home = Home::new();
    apply(&mut home.store, "dir", vec![many("a", 3000)]);
    let unfinished = home.dir.path().join("snapshot.new");
    assert!(fs::metadata(&unfinished).unwrap().len() > 256 << 10);
    let before = view(&home.store);
    let home = home.reborn();
    assert_eq!(view(&home.store), before);
    assert!(!unfinished.exists());
}

#[test]
fn what_was_not_saved_is_not_there_after_a_crash() {
    let mut home = Home::new();
    apply(&mut home.store, "dir", vec![sets("a", &["x"])]);
    home.save(1);
    apply(&mut home.store, "dir", vec![many("b", 3000)]);
    let grown = size(&home);
    let home = home.restarted();
    assert_eq!(view(&home.store), "x=10.0.0.0/8@a");
    assert!(size(&home) < grown, "the end without commit is cut off");
}

#[test]
fn a_journal_with_much_of_the_past_is_written_anew() {
    let mut home = Home::new();
    apply(&mut home.store, "dir", vec![sets("a", &["x", "y"])]);
    home.save(1);
    for n in 0..100u64 {
        let change = sets("b", &[&format!("z=10.{}.{}.0/24", n % 200, n / 200)]);
        apply(
            &mut home.store,
            "dir",
            vec![change, many("c", 10 + (n % 2) as usize)],
        );
        let meta = Meta {
            settings: "s".repeat((200 << 10) + (n % 2) as usize),
            ..meta()
        };
        let job = home.store.save(meta, n + 2, 7).unwrap();
        home.store.saved(job.run()).unwrap();
        if home.dir.path().join("snapshot.prev").exists() {
            break;
        }
    }
    assert!(home.dir.path().join("snapshot.prev").exists());
    assert!(size(&home) < 300_000, "{}", size(&home));
    let before = view(&home.store);
    let home = home.restarted();
    assert_eq!(view(&home.store), before);
    fs::remove_file(home.dir.path().join("snapshot")).unwrap();
    let (_, saved, _) = Store::open(home.dir.path());
    assert!(saved.is_some(), "the previous one is kept");
}

#[test]
fn a_save_may_run_while_the_view_changes() {
    let mut home = Home::new();
    apply(&mut home.store, "dir", vec![sets("a", &["x", "y", "z"])]);
    let job = home.store.save(meta(), 1, 7).unwrap();
    apply(
        &mut home.store,
        "dir",
        vec![sets("a", &["x=10.1.0.0/16", "z"]), sets("b", &["w"])],
    );
    assert!(home.store.save(meta(), 2, 7).is_none(), "one at a time");
    let done = job.run();
    apply(&mut home.store, "dir", vec![sets("a", &["v", "z"])]);
    home.store.saved(done).unwrap();
    assert_eq!(home.store.commit(), None, "the view is another one by now");
    let before = view(&home.store);
    assert_eq!(before, "v=10.0.0.0/8@a w=10.0.0.0/8@b z=10.0.0.0/8@a");
    let home = home.reborn();
    assert_eq!(view(&home.store), before);
    assert!(home.store.commit().is_some());
}

#[test]
fn without_a_disk_everything_stays_in_memory_and_is_saved_later() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("state");
    let (mut store, saved, _) = Store::open(&dir);
    assert!(saved.is_none());
    apply(&mut store, "dir", vec![many("a", 3000)]);
    let job = store.save(meta(), 1, 7).unwrap();
    let error = store.saved(job.run()).unwrap_err();
    assert!(error.to_string().starts_with("cannot create"), "{error}");
    assert_eq!(store.resources().count(), 3000);
    fs::create_dir(&dir).unwrap();
    let job = store.save(meta(), 1, 7).unwrap();
    store.saved(job.run()).unwrap();
    apply(&mut store, "dir", vec![sets("b", &["x"])]);
    assert_eq!(store.resources().count(), 3001);
    let (mut store, saved, _) = Store::open(&dir);
    store.seed(saved.unwrap(), &mut |_| ());
    assert_eq!(store.resources().count(), 3000);
}

/// A record is damaged while the daemon runs.
#[test]
fn a_document_that_was_damaged_is_missed_not_invented() {
    let mut home = Home::new();
    apply(
        &mut home.store,
        "dir",
        vec![sets("a", &["x", "y=10.77.0.0/16"])],
    );
    home.save(1);
    let path = home.dir.path().join("snapshot");
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|w| w == b"10.77").unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"10.78", at as u64).unwrap();
    let read: Vec<_> = home.store.resources().collect();
    assert!(read[0].is_ok());
    let issue = read[1].as_ref().unwrap_err().to_string();
    assert!(
        issue.contains("GlobalNetworkSet/y: the document is lost: the snapshot is damaged"),
        "{issue}"
    );
    assert!(home.store.lost("dir").is_empty(), "not found yet");

    // A new journal cannot have it, and the file is asked for.
    home.store.disk.rewrite_next();
    home.save(2);
    assert_eq!(home.store.lost("dir"), ["a"]);
    assert!(home.store.problems()[0].message.contains("lost"));
    let again = sets("a", &["x", "y=10.77.0.0/16"]);
    assert_eq!(apply(&mut home.store, "dir", vec![again]), "");
    assert!(home.store.lost("dir").is_empty() && home.store.problems().is_empty());
    let home = home.reborn();
    assert_eq!(view(&home.store), "x=10.0.0.0/8@a y=10.77.0.0/16@a");
}
