use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;

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
        FileContent::Parsed(p) if p.has_errors() => "errors".to_owned(),
        FileContent::Parsed(p) => p.resources.len().to_string(),
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
    assert_eq!(said(&source.scan()), ["a.json: 1", "b.yaml: 1"]);
    assert!(source.scan().is_empty());
    bed.write("b.yaml", &format!("{}{}", set("b"), set("c").trim_end()));
    fs::remove_file(bed.dir.join("a.json")).unwrap();
    let updates = source.scan();
    assert_eq!(updates.len(), 2);
    assert_eq!(said(&updates)[0], "a.json: removed");
    assert_eq!(updates[1].path, bed.path("b.yaml"));
    assert!(source.scan().is_empty());
}

#[test]
fn a_rewrite_of_the_same_size_is_seen() {
    let bed = Bed::new();
    bed.write("a.yaml", &set("a"));
    let mut source = bed.source();
    source.scan();
    std::thread::sleep(Duration::from_millis(20));
    bed.write("a.yaml", &set("b"));
    let updates = source.scan();
    let FileContent::Parsed(parsed) = &updates[0].content else {
        panic!("{updates:?}")
    };
    assert_eq!(parsed.resources[0].id.name, "b");
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
    source.scan();
    let aside = bed.root.path().join("aside");
    fs::rename(&bed.dir, &aside).unwrap();
    assert!(
        said(&source.scan())[0]
            .starts_with("policy.d: cannot be read as a directory: No such file")
    );
    fs::rename(&aside, &bed.dir).unwrap();
    assert_eq!(said(&source.scan()), ["policy.d: removed"]);
    fs::rename(&bed.dir, &aside).unwrap();
    fs::create_dir(&bed.dir).unwrap();
    assert_eq!(said(&source.scan()), ["a.yaml: removed"]);
}

#[test]
fn a_file_in_the_place_of_the_directory_is_an_issue() {
    let bed = Bed::new();
    fs::remove_dir(&bed.dir).unwrap();
    fs::write(&bed.dir, "x").unwrap();
    assert!(said(&bed.source().scan())[0].contains("Not a directory"));
}

#[test]
fn refuses_what_others_may_have_written() {
    let bed = Bed::new();
    bed.write("a.yaml", &set("a"));
    let mut source = bed.source();
    source.scan();
    chmod(&bed.dir.join("a.yaml"), 0o646);
    assert_eq!(
        said(&source.scan()),
        ["a.yaml: is writable by everyone (mode 0646)"]
    );
    assert!(
        source.scan().is_empty(),
        "a refused version is reported once"
    );
    chmod(&bed.dir.join("a.yaml"), 0o644);
    assert_eq!(said(&source.scan()), ["a.yaml: 1"]);
    chmod(&bed.dir, 0o777);
    assert_eq!(
        said(&source.scan()),
        ["policy.d: is writable by everyone (mode 0777)"]
    );
    chmod(&bed.dir, 0o1777);
    assert_eq!(said(&source.scan()), ["policy.d: removed"]);
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
        said(&bed.source().scan()),
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
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    symlink("nowhere", bed.dir.join("dangling.yaml")).unwrap();
    let target = bed.root.path().join("target");
    fs::write(&target, set("t")).unwrap();
    symlink(&target, bed.dir.join("link.yaml")).unwrap();
    let mut source = bed.source();
    assert_eq!(
        said(&source.scan()),
        [
            "d.yaml: is not a regular file",
            "dangling.yaml: is a symbolic link to a file that does not exist",
            "link.yaml: 1",
            "p.yaml: is not a regular file",
        ]
    );
    chmod(&target, 0o666);
    let said_now = said(&source.scan());
    assert!(
        said_now.contains(&"link.yaml: is writable by everyone (mode 0666)".to_owned()),
        "{said_now:?}"
    );
    fs::remove_file(&target).unwrap();
    assert!(said(&source.scan()).iter().all(|s| !s.contains("removed")));
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
    let said = said(&bed.source().scan());
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
fn a_file_just_emptied_is_being_rewritten() {
    let bed = Bed::new();
    bed.write("a.yaml", &set("a"));
    let mut source = bed.source();
    source.scan();
    bed.write("a.yaml", "");
    assert_eq!(said(&source.scan()), ["a.yaml: is being written to"]);
    assert!(source.unsettled());
    let old = SystemTime::now() - Duration::from_secs(5);
    fs::File::options()
        .write(true)
        .open(bed.dir.join("a.yaml"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    assert_eq!(said(&source.scan()), ["a.yaml: 0"]);
    assert!(!source.unsettled());
}

#[test]
fn files_of_a_snapshot_are_missed_only_where_the_directory_is_there() {
    let bed = Bed::new();
    bed.write("a.yaml", &set("a"));
    let lost = bed.root.path().join("lost.d");
    let mut source = DirSource::new(vec![bed.dir.clone(), lost.clone()]);
    source.expect([
        bed.path("a.yaml"),
        bed.path("old.yaml"),
        lost.join("kept.yaml").display().to_string(),
        "/no/longer/configured.yaml".to_owned(),
    ]);
    let first = said(&source.scan());
    assert!(first[0].starts_with("lost.d: cannot be read"), "{first:?}");
    assert_eq!(first[1..], ["a.yaml: 1", "old.yaml: removed"]);
    assert_eq!(source.away().collect::<Vec<_>>(), [&lost]);
    fs::create_dir(&lost).unwrap();
    let then = said(&source.scan());
    assert_eq!(
        then,
        [
            "configured.yaml: removed",
            "lost.d: removed",
            "kept.yaml: removed"
        ],
        "a mistyped directory does not take away what the right one held"
    );
}
