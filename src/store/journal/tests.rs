use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::source::Stamp;
use crate::store::document::Doc;

fn meta() -> Meta {
    Meta {
        node: "web1".to_owned(),
        settings: "{\"order\": 10.1}".to_owned(),
        backend: Some("nft".to_owned()),
        version: "1".to_owned(),
    }
}

fn job(dir: &Path, journal: Option<Journal>, generation: u64, bodies: &[&str]) -> Job {
    let object = |(n, body): (usize, &&str)| ObjectOut {
        entry: n as u32,
        doc: Doc::Memory(body.as_bytes().into()),
        line: 10 * n as u32 + 1,
    };
    let file = FileOut {
        source: "dir".into(),
        path: "/a.yaml".into(),
        stamp: Some(Stamp::from_words([1, 2, 3, 4, 5, 6, u64::MAX])),
        objects: bodies.iter().enumerate().map(object).collect(),
    };
    Job {
        dir: dir.to_owned(),
        rewrite: journal.is_none(),
        journal,
        files: vec![file],
        removed: vec![("dir".into(), "/gone.yaml".into())],
        meta: meta(),
        meta_at: None,
        generation,
        written: 1_700_000_000,
    }
}

/// Two saves, each an object more.
fn written(dir: &Path) -> Journal {
    let done = job(dir, None, 1, &["{\"one\": 1}"]).run();
    done.result.unwrap();
    let journal = done.journal.unwrap();
    let done = job(
        dir,
        Some(journal.clone()),
        2,
        &["{\"one\": 1}", "{\"two\": 2}"],
    )
    .run();
    done.result.unwrap();
    journal
}

/// Generation and documents of what is found.
fn found(dir: &Path) -> Option<(u64, Vec<String>)> {
    let opened = open(dir);
    let (saved, journal) = (opened.saved?, opened.journal?);
    let objects = saved.files.iter().flat_map(|file| &file.objects);
    let text = |object: &SavedObject| {
        let body = journal.document(object.spot).unwrap();
        format!("{}:{}", object.line, String::from_utf8(body).unwrap())
    };
    Some((saved.commit.generation, objects.map(text).collect()))
}

fn one() -> Option<(u64, Vec<String>)> {
    Some((1, vec!["1:{\"one\": 1}".to_owned()]))
}

fn two() -> Option<(u64, Vec<String>)> {
    let both = ["1:{\"one\": 1}", "11:{\"two\": 2}"];
    Some((2, both.map(str::to_owned).to_vec()))
}

#[test]
fn comes_back_as_written_with_private_mode() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    assert_eq!(found(dir.path()), two());
    let opened = open(dir.path());
    assert!(opened.messages.is_empty());
    let saved = opened.saved.unwrap();
    assert_eq!(saved.meta, meta());
    assert_eq!(saved.files[0].path, "/a.yaml");
    let stamp = saved.files[0].stamp.unwrap();
    assert_eq!(stamp.to_words(), [1, 2, 3, 4, 5, 6, u64::MAX]);
    let mode = fs::metadata(dir.path().join(CURRENT))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600);
}

/// The bytes of a journal, and where each of its two commits ends.
fn bytes() -> (Vec<u8>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let done = job(dir.path(), None, 1, &["{\"one\": 1}"]).run();
    done.result.unwrap();
    let journal = done.journal.unwrap();
    let first = journal.size() as usize;
    let both = ["{\"one\": 1}", "{\"two\": 2}"];
    job(dir.path(), Some(journal), 2, &both)
        .run()
        .result
        .unwrap();
    (fs::read(dir.path().join(CURRENT)).unwrap(), first)
}

#[test]
fn torn_at_every_byte_the_last_whole_commit_counts() {
    let (bytes, first) = bytes();
    let dir = tempfile::tempdir().unwrap();
    for length in 0..=bytes.len() {
        fs::write(dir.path().join(CURRENT), &bytes[..length]).unwrap();
        let expected = match length {
            _ if length == bytes.len() => two(),
            _ if length >= first => one(),
            _ => None,
        };
        assert_eq!(found(dir.path()), expected, "{length} bytes");
    }
}

#[test]
fn every_flipped_bit_costs_no_more_than_the_commits_behind_it() {
    let (mut bytes, first) = bytes();
    let dir = tempfile::tempdir().unwrap();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(dir.path().join(CURRENT), &bytes).unwrap();
        let expected = if bit / 8 < first { None } else { one() };
        assert_eq!(found(dir.path()), expected, "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn garbage_behind_the_last_commit_is_reported_and_does_no_harm() {
    let (bytes, _) = bytes();
    let dir = tempfile::tempdir().unwrap();
    for garbage in [&[0u8; 100][..], &[0xff; 100], b"x", &bytes] {
        fs::write(dir.path().join(CURRENT), [&bytes, garbage].concat()).unwrap();
        let opened = open(dir.path());
        assert_eq!(opened.saved.unwrap().commit.generation, 2);
        assert_eq!(opened.messages.len(), 1);
    }
}

#[test]
fn the_previous_one_stands_in() {
    let dir = tempfile::tempdir().unwrap();
    let journal = written(dir.path());
    let mut again = job(dir.path(), Some(journal), 3, &["{}"]);
    again.rewrite = true;
    again.run().result.unwrap();
    assert_eq!(found(dir.path()), Some((3, vec!["1:{}".to_owned()])));
    fs::write(dir.path().join(NEW), "unfinished").unwrap();
    fs::write(dir.path().join(CURRENT), "garbage").unwrap();
    assert_eq!(found(dir.path()), two());
    let opened = open(dir.path());
    assert_eq!(opened.messages.len(), 1);
    // The next save makes a new journal and does not put the garbage in the place of the good one.
    let mut next = job(dir.path(), opened.journal, 4, &["{}"]);
    assert!(!next.journal.as_ref().unwrap().is_sound());
    next.rewrite = true;
    next.run().result.unwrap();
    assert_eq!(found(dir.path()), Some((4, vec!["1:{}".to_owned()])));
    fs::remove_file(dir.path().join(CURRENT)).unwrap();
    assert_eq!(found(dir.path()), two());
}

#[test]
fn a_failed_save_leaves_the_journal_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let journal = written(dir.path());
    let size = journal.size();
    let too_large = "x".repeat(MAX_RECORD);
    let documents = ["{}", &"y".repeat(1 << 20), &too_large];
    let done = job(dir.path(), Some(journal.clone()), 3, &documents).run();
    assert!(matches!(done.result, Err(WriteError::TooLarge)));
    assert!(done.placed.is_empty() && journal.is_sound());
    assert_eq!(fs::metadata(dir.path().join(CURRENT)).unwrap().len(), size);
    let done = job(dir.path(), Some(journal), 4, &["{}"]).run();
    done.result.unwrap();
    assert_eq!(found(dir.path()), Some((4, vec!["1:{}".to_owned()])));
}

#[test]
fn a_record_of_another_journal_is_none_of_this_one() {
    let (one, first) = bytes();
    let (other, _) = bytes();
    let dir = tempfile::tempdir().unwrap();
    let spliced = [&one[..first], &other[first..]].concat();
    fs::write(dir.path().join(CURRENT), spliced).unwrap();
    assert_eq!(found(dir.path()).unwrap().0, 1);
}

#[test]
fn messages_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let reason = |bytes: &[u8]| {
        fs::write(dir.path().join(CURRENT), bytes).unwrap();
        open(dir.path()).messages.join("\n")
    };
    let (bytes, first) = bytes();
    assert!(
        reason(b"moat-snapshot 1 123456789 123456789012345678901234567890")
            .contains("format \"1\"")
    );
    assert!(reason(&[b'x'; 200]).contains("does not begin"));
    assert!(reason(&bytes[..HEADER]).contains("nothing in it is complete"));
    let mut damaged = bytes.clone();
    damaged[first + 10] ^= 1;
    let ending = "generation 1, which is complete before that, is used";
    let text = reason(&damaged);
    assert!(
        text.contains("is damaged at byte") && text.ends_with(ending),
        "{text}"
    );
    let text = reason(&bytes[..first + 10]);
    assert!(
        text.contains("10 bytes of an unfinished save") && text.ends_with(ending),
        "{text}"
    );
}

#[test]
fn foreign_files_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let current = dir.path().join(CURRENT);
    let reason = || open(dir.path()).messages.join("\n");
    written(dir.path());
    fs::set_permissions(&current, fs::Permissions::from_mode(0o646)).unwrap();
    assert!(reason().contains("writable by everyone"));
    fs::rename(&current, dir.path().join("elsewhere")).unwrap();
    symlink("elsewhere", &current).unwrap();
    assert!(reason().contains("symbolic link"));
    fs::remove_file(&current).unwrap();
    fs::create_dir(&current).unwrap();
    assert!(reason().contains("not a regular file"));
    fs::remove_dir(&current).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &current, fifo, mode, 0).unwrap();
    assert!(reason().contains("not a regular file"));
    fs::remove_file(&current).unwrap();
    File::create(&current)
        .unwrap()
        .set_len(MAX_BYTES + 1)
        .unwrap();
    assert!(
        reason().contains("at most 2147483648 are read"),
        "{}",
        reason()
    );
}

proptest::proptest! {
    #[test]
    fn arbitrary_records_are_read_or_refused(bodies: Vec<(u8, Vec<u8>)>) {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = header(7).into_bytes();
        for (kind, body) in bodies {
            let kinds = [Kind::Object, Kind::File, Kind::Removed, Kind::Meta, Kind::Commit];
            frame::put(&mut bytes, 0, 7, kinds[kind as usize % 5], &body);
        }
        fs::write(dir.path().join(CURRENT), bytes).unwrap();
        proptest::prop_assert!(open(dir.path()).saved.is_none());
    }
}
