use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::store::{SavedFile, SavedStore};

fn snapshot(generation: u64) -> Snapshot {
    Snapshot {
        generation,
        written: 1_700_000_000,
        node: "web1".to_owned(),
        settings: serde_json::json!({"policyDir": ["/etc/moat/policy.d"], "order": 10.1}),
        store: SavedStore {
            files: vec![SavedFile {
                source: "dir".to_owned(),
                path: "/a.yaml".to_owned(),
                objects: Vec::new(),
            }],
        },
        backend: Some("nft".to_owned()),
    }
}

fn generation(dir: &Path) -> (Option<u64>, usize) {
    let (found, messages) = read(dir);
    (found.map(|s| s.generation), messages.len())
}

#[test]
fn comes_back_as_written_with_private_mode() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(generation(dir.path()), (None, 0));
    write(dir.path(), &snapshot(7)).unwrap();
    let (found, messages) = read(dir.path());
    assert!(messages.is_empty());
    assert_eq!(
        serde_json::to_value(found).unwrap(),
        serde_json::to_value(snapshot(7)).unwrap()
    );
    let mode = fs::metadata(dir.path().join(CURRENT))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn keeps_the_previous_and_cleans_up_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &snapshot(1)).unwrap();
    fs::write(dir.path().join(NEW), "unfinished").unwrap();
    write(dir.path(), &snapshot(2)).unwrap();
    assert_eq!(generation(dir.path()), (Some(2), 0));
    assert!(!dir.path().join(NEW).exists());
    fs::write(dir.path().join(CURRENT), "garbage").unwrap();
    assert_eq!(generation(dir.path()), (Some(1), 1));
    fs::remove_file(dir.path().join(CURRENT)).unwrap();
    assert_eq!(generation(dir.path()), (Some(1), 0));
}

#[test]
fn every_truncation_is_noticed() {
    let payload = serde_json::to_vec(&snapshot(1)).unwrap();
    let whole = [header(&payload).as_bytes(), &payload].concat();
    assert!(decode(&whole).is_ok());
    for length in 0..whole.len() {
        assert!(decode(&whole[..length]).is_err(), "{length} bytes");
    }
    assert!(decode(&[&whole[..], b"x"].concat()).is_err());
}

#[test]
fn every_flipped_bit_is_noticed() {
    let payload = serde_json::to_vec(&snapshot(1)).unwrap();
    let mut bytes = [header(&payload).as_bytes(), &payload].concat();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bytes).is_err(), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn messages_say_why() {
    let payload = b"{}";
    let reason = |bytes: &[u8]| decode(bytes).unwrap_err();
    assert!(
        reason(format!("{}{{}}", header(payload).replace(" 1 ", " 2 ")).as_bytes())
            .contains("format \"2\"")
    );
    assert!(reason(format!("{}{{}}", header(payload)).as_bytes()).contains("missing field"));
    assert!(reason(&[b'x'; 200]).contains("does not begin"));
}

#[test]
fn foreign_files_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let current = dir.path().join(CURRENT);
    let reason = || read(dir.path()).1.join("\n");
    write(dir.path(), &snapshot(1)).unwrap();
    fs::set_permissions(&current, fs::Permissions::from_mode(0o646)).unwrap();
    assert!(reason().contains("writable by everyone"));
    fs::rename(&current, dir.path().join("elsewhere")).unwrap();
    symlink("elsewhere", &current).unwrap();
    assert!(reason().contains("symbolic link"));
    fs::remove_file(&current).unwrap();
    fs::create_dir(&current).unwrap();
    assert!(reason().contains("not a regular file"));
    fs::remove_dir(&current).unwrap();
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &current, FileType::Fifo, mode, 0).unwrap();
    assert!(reason().contains("not a regular file"));
    fs::remove_file(&current).unwrap();
    File::create(&current)
        .unwrap()
        .set_len(MAX_BYTES + 1)
        .unwrap();
    assert!(
        reason().contains("at most 1073741824 are read"),
        "{}",
        reason()
    );
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_are_no_snapshot(bytes: Vec<u8>, length in 0..1000usize) {
        proptest::prop_assert!(decode(&bytes).is_err());
        let lying = format!("{MAGIC} {VERSION} {length} 00000000\n").into_bytes();
        proptest::prop_assert!(decode(&[lying, bytes].concat()).is_err());
    }
}
