use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;
use crate::api;
use crate::source::{is_policy_file, survey};

fn scan(source: &mut DirSource) -> Vec<FileUpdate> {
    let mut updates = Vec::new();
    source.scan(&mut |update| updates.push(update));
    updates
}

fn scan_for(source: &mut DirSource, dir: &Path, names: &[&str]) -> Vec<FileUpdate> {
    let files = names.iter().map(|n| (dir.to_owned(), (*n).to_owned()));
    let mut updates = Vec::new();
    source.scan_for(&News::Files(files.collect()), &mut |u| updates.push(u));
    updates
}

fn set(name: &str) -> String {
    format!(
        "{{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"GlobalNetworkSet\",\
         \"metadata\":{{\"name\":\"{name}\"}},\"spec\":{{\"nets\":[\"10.0.0.0/8\"]}}}}\n"
    )
}

struct Bed {
    root: TempDir,
    dir: PathBuf,
}

impl Bed {
    fn new() -> Bed {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("policy.d");
        fs::create_dir(&dir).unwrap();
        chmod(&dir, 0o755);
        Bed { root, dir }
    }

    fn source(&self) -> DirSource {
        DirSource::new(vec![self.dir.clone()])
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.join(name), text).unwrap();
        chmod(&self.dir.join(name), 0o644);
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// `name: what` of every update, by the last part of the path.
fn said(updates: &[FileUpdate]) -> Vec<String> {
    let what = |content: &FileContent| match content {
        FileContent::Text(text, _) => {
            let parsed = api::parse_bytes("x", text);
            match parsed.has_errors() {
                true => "errors".to_owned(),
                false => parsed.resources.len().to_string(),
            }
        }
        FileContent::Unchanged => "unchanged".to_owned(),
        FileContent::Value(..) => "a value".to_owned(),
        FileContent::Unreadable(issue) => issue.message.clone(),
        FileContent::Removed => "removed".to_owned(),
    };
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    updates
        .iter()
        .map(|u| format!("{}: {}", name(&u.path), what(&u.content)))
        .collect()
}

#[test]
fn delivers_only_what_changed_sorted_by_path() {
    let bed = Bed::new();
    bed.write("b.yaml", &set("b"));
    bed.write("a.json", &set("a"));
    let mut source = bed.source();
    assert_eq!(said(&scan(&mut source)), ["a.json: 1", "b.yaml: 1"]);
    assert!(scan(&mut source).is_empty());
    bed.write("b.yaml", &format!("{}{}", set("b"), set("c").trim_end()));
    fs::remove_file(bed.dir.join("a.json")).unwrap();
    let updates = scan(&mut source);
    assert_eq!(updates.len(), 2);
    assert_eq!(updates[0].path, bed.path("b.yaml"));
    assert_eq!(said(&updates)[1], "a.json: removed");
    assert!(scan(&mut source).is_empty());
}

#[test]
fn a_rewrite_of_the_same_size_is_seen() {
    let bed = Bed::new();
    bed.write("a.yaml", &set("a"));
    let mut source = bed.source();
    scan(&mut source);
    std::thread::sleep(Duration::from_millis(20));
    bed.write("a.yaml", &set("b"));
    let updates = scan(&mut source);
    let FileContent::Text(text, _) = &updates[0].content else {
        panic!("{updates:?}")
    };
    assert_eq!(*text, set("b").into_bytes());
}

#[test]
fn what_editors_and_package_managers_leave_is_not_policy() {
    let mine = ["a.yaml", "b.yml", "c.json", "d.YAML", "x.tmp.yaml"];
    let theirs = [
        ".a.yaml",
        "a.yaml~",
        ".a.yaml.swp",
        "#a.yaml#",
        ".#a.yaml",
        "a.yaml.tmp",
        "a.yaml.dpkg-old",
        "a.yaml.dpkg-new",
        "a.yaml.rpmsave",
        "a.yaml.rpmnew",
        "README",
        "yaml",
        "a.txt",
        "4913",
        "#a.yaml",
        "..data",
    ];
    assert!(mine.iter().all(|n| is_policy_file(n)));
    assert_eq!(theirs.iter().filter(|n| is_policy_file(n)).count(), 0);
}

#[test]
fn a_directory_that_is_away_is_not_an_empty_one() {
    let bed = Bed::new();
    bed.write("a.yaml", &set("a"));
    let mut source = bed.source();
    scan(&mut source);
    let aside = bed.root.path().join("aside");
    fs::rename(&bed.dir, &aside).unwrap();
    assert!(
        said(&scan(&mut source))[0]
            .starts_with("policy.d: cannot be read as a directory: No such file")
    );
    fs::rename(&aside, &bed.dir).unwrap();
    assert_eq!(said(&scan(&mut source)), ["policy.d: removed"]);
    fs::rename(&bed.dir, &aside).unwrap();
    fs::create_dir(&bed.dir).unwrap();
    assert_eq!(said(&scan(&mut source)), ["a.yaml: removed"]);
}

#[test]
fn a_file_in_the_place_of_the_directory_is_an_issue() {
    let bed = Bed::new();
    fs::remove_dir(&bed.dir).unwrap();
    fs::write(&bed.dir, "x").unwrap();
    assert!(said(&scan(&mut bed.source()))[0].contains("Not a directory"));
}

#[test]
fn refuses_what_others_may_have_written() {
    let bed = Bed::new();
    bed.write("a.yaml", &set("a"));
    let mut source = bed.source();
    scan(&mut source);
    chmod(&bed.dir.join("a.yaml"), 0o646);
    assert_eq!(
        said(&scan(&mut source)),
        ["a.yaml: is writable by everyone (mode 0646)"]
    );
    assert!(
        scan(&mut source).is_empty(),
        "a refused version is reported once"
    );
    chmod(&bed.dir.join("a.yaml"), 0o644);
    assert_eq!(said(&scan(&mut source)), ["a.yaml: 1"]);
    chmod(&bed.dir, 0o777);
    assert_eq!(
        said(&scan(&mut source)),
        ["policy.d: is writable by everyone (mode 0777)"]
    );
    chmod(&bed.dir, 0o1777);
    assert_eq!(said(&scan(&mut source)), ["policy.d: removed"]);
}

#[test]
fn refuses_foreign_owners() {
    let bed = Bed::new();
    bed.write("a.yaml", &set("a"));
    if std::os::unix::fs::chown(bed.dir.join("a.yaml"), Some(12345), None).is_err() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    assert_eq!(
        said(&scan(&mut bed.source())),
        ["a.yaml: is owned by uid 12345, not by root or uid 0"]
    );
}

#[test]
fn pipes_links_and_directories() {
    let bed = Bed::new();
    fs::create_dir(bed.dir.join("d.yaml")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        bed.dir.join("p.yaml"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    symlink("nowhere", bed.dir.join("dangling.yaml")).unwrap();
    let target = bed.root.path().join("target");
    fs::write(&target, set("t")).unwrap();
    symlink(&target, bed.dir.join("link.yaml")).unwrap();
    let mut source = bed.source();
    assert_eq!(
        said(&scan(&mut source)),
        [
            "d.yaml: is not a regular file",
            "dangling.yaml: is a symbolic link to a file that does not exist",
            "link.yaml: 1",
            "p.yaml: is not a regular file",
        ]
    );
    chmod(&target, 0o666);
    let said_now = said(&scan(&mut source));
    assert!(
        said_now.contains(&"link.yaml: is writable by everyone (mode 0666)".to_owned()),
        "{said_now:?}"
    );
    fs::remove_file(&target).unwrap();
    assert!(
        said(&scan(&mut source))
            .iter()
            .all(|s| !s.contains("removed"))
    );
}

#[test]
fn oversized_and_misnamed() {
    use std::os::unix::ffi::OsStrExt;
    let bed = Bed::new();
    bed.write("big.yaml", "");
    fs::File::options()
        .write(true)
        .open(bed.dir.join("big.yaml"))
        .unwrap()
        .set_len((64 << 20) + 1)
        .unwrap();
    fs::write(
        bed.dir.join(std::ffi::OsStr::from_bytes(b"\xff.yaml")),
        set("x"),
    )
    .unwrap();
    let said = said(&scan(&mut bed.source()));
    assert_eq!(
        said[0],
        "big.yaml: has 67108865 bytes, at most 67108864 are read"
    );
    assert!(
        said[1].ends_with("has a name that is not UTF-8"),
        "{said:?}"
    );
}

#[test]
fn a_file_that_is_open_is_left_alone() {
    let bed = Bed::new();
    bed.write("a.yaml", &set("a"));
    let mut source = bed.source();
    scan(&mut source);
    bed.write("a.yaml", "half");
    source.set_open([(bed.dir.clone(), "a.yaml".to_owned())].into());
    assert_eq!(said(&scan(&mut source)), ["a.yaml: is being written to"]);
    assert!(source.unsettled());
    source.set_open(BTreeSet::new());
    assert_eq!(said(&scan(&mut source)), ["a.yaml: errors"]);
}

#[test]
fn a_file_just_emptied_is_being_rewritten() {
    let bed = Bed::new();
    bed.write("a.yaml", &set("a"));
    let mut source = bed.source();
    scan(&mut source);
    bed.write("a.yaml", "");
    assert_eq!(said(&scan(&mut source)), ["a.yaml: is being written to"]);
    assert!(source.unsettled());
    let old = SystemTime::now() - Duration::from_secs(5);
    fs::File::options()
        .write(true)
        .open(bed.dir.join("a.yaml"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    assert_eq!(said(&scan(&mut source)), ["a.yaml: 0"]);
    assert!(!source.unsettled());
}

#[test]
fn files_of_a_snapshot_are_missed_only_where_the_directory_is_there() {
    let bed = Bed::new();
    bed.write("a.yaml", &set("a"));
    let lost = bed.root.path().join("lost.d");
    let mut source = DirSource::new(vec![bed.dir.clone(), lost.clone()]);
    source.expect(
        [
            bed.path("a.yaml"),
            bed.path("old.yaml"),
            lost.join("kept.yaml").display().to_string(),
            "/no/longer/configured.yaml".to_owned(),
        ]
        .map(|path| (path, None)),
    );
    let first = said(&scan(&mut source));
    assert!(first[0].starts_with("lost.d: cannot be read"), "{first:?}");
    assert_eq!(first[1..], ["a.yaml: 1", "old.yaml: removed"]);
    assert_eq!(source.away().collect::<Vec<_>>(), [&lost]);
    fs::create_dir(&lost).unwrap();
    let then = said(&scan(&mut source));
    assert_eq!(
        then,
        [
            "lost.d: removed",
            "kept.yaml: removed",
            "configured.yaml: removed",
        ],
        "a mistyped directory does not take away what the right one held"
    );
}

fn stamp_of(update: &FileUpdate) -> (String, Option<Stamp>) {
    match &update.content {
        FileContent::Text(_, stamp) => (update.path.clone(), *stamp),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_version_that_is_held_already_is_not_read() {
    let bed = Bed::new();
    bed.write("a.yaml", &set("a"));
    bed.write("b.yaml", &set("b"));
    let held: Vec<_> = scan(&mut bed.source()).iter().map(stamp_of).collect();
    std::thread::sleep(Duration::from_millis(20));
    bed.write("b.yaml", &set("c"));
    let mut source = bed.source();
    source.expect(held);
    assert_eq!(said(&scan(&mut source)), ["a.yaml: unchanged", "b.yaml: 1"]);
    assert!(scan(&mut source).is_empty(), "it is said once");
    source.forget(&bed.path("a.yaml"));
    assert_eq!(said(&scan(&mut source)), ["a.yaml: 1"]);
}

#[test]
fn named_files_are_looked_at_and_no_others() {
    let bed = Bed::new();
    bed.write("a.yaml", &set("a"));
    bed.write("b.yaml", &set("b"));
    let mut source = bed.source();
    assert_eq!(
        said(&scan_for(&mut source, &bed.dir, &["b.yaml"])),
        ["a.yaml: 1", "b.yaml: 1"],
        "never listed before"
    );
    bed.write("a.yaml", "");
    bed.write("c.yaml", &set("c"));
    assert_eq!(
        said(&scan_for(&mut source, &bed.dir, &["c.yaml", "none.yaml"])),
        ["c.yaml: 1"]
    );
    fs::remove_file(bed.dir.join("b.yaml")).unwrap();
    assert_eq!(
        said(&scan_for(&mut source, &bed.dir, &["b.yaml"])),
        ["b.yaml: removed"]
    );
    assert!(scan_for(&mut source, &bed.dir, &["b.yaml"]).is_empty());
    assert!(scan_for(&mut source, Path::new("/elsewhere"), &["a.yaml"]).is_empty());
    assert_eq!(said(&scan(&mut source)), ["a.yaml: is being written to"]);
    let other = bed.root.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::remove_dir_all(&bed.dir).unwrap();
    fs::rename(&other, &bed.dir).unwrap();
    let said = said(&scan_for(&mut source, &bed.dir, &["x.yaml"]));
    assert_eq!(
        said,
        ["a.yaml: removed", "c.yaml: removed"],
        "another directory is listed as a whole"
    );
}

#[test]
fn a_survey_tells_whether_anything_changed() {
    let bed = Bed::new();
    bed.write("a.yaml", &set("a"));
    bed.write("bad.yaml", "{ not closed");
    symlink("nowhere", bed.dir.join("dangling.yaml")).unwrap();
    let lost = bed.root.path().join("lost.d");
    let dirs = vec![bed.dir.clone(), lost.clone()];
    let mut source = DirSource::new(dirs.clone());
    scan(&mut source);
    let seen = source.digests();
    assert_eq!(seen, survey(&dirs));
    assert!(seen.iter().any(|(_, digest)| digest.is_none()));
    bed.write("b.yaml", &set("b"));
    assert_ne!(seen, survey(&dirs));
    scan_for(&mut source, &bed.dir, &["b.yaml"]);
    assert_eq!(source.digests(), survey(&dirs));
    chmod(&bed.dir.join("a.yaml"), 0o600);
    assert_ne!(source.digests(), survey(&dirs));
}
