use std::fs;

use super::*;
use crate::api::{Kind, Protocol};
use crate::calc::{IpSet, SetId};
use crate::store::members::{self, Members};

fn id(name: &str) -> ResourceId {
    ResourceId {
        kind: Kind::GlobalNetworkSet,
        namespace: String::new(),
        name: name.to_owned(),
    }
}

/// A saved view with a cache for two of its three resources.
fn home() -> (Home, Members) {
    let mut home = Home::new();
    let files = vec![sets("/p/a", &["x", "y"]), sets("/p/b", &["z"])];
    apply(&mut home.store, "dir", files);
    home.save(5);
    let nets = ["10.0.0.0/8", "10.1.2.3/32", "2001:db8::/64"].map(|n| n.parse().unwrap());
    let ports = [
        ("10.1.2.3".parse().unwrap(), Protocol(6), 80),
        ("::1".parse().unwrap(), Protocol(17), 53),
    ];
    let named = |protocol| SetId::NamedPort {
        selector: "all()".into(),
        protocol,
        port: "web".into(),
    };
    let members = Members {
        commit: home.store.commit().unwrap(),
        dirs: vec![("/p".to_owned(), Some([7; 32])), ("/q".to_owned(), None)],
        documents: home.store.locate([&id("x"), &id("z")]).unwrap(),
        sets: [
            (SetId::Selector("a == 'b'".into()), IpSet::Nets(nets.into())),
            (named(Some(Protocol(6))), IpSet::Ports(ports.into())),
            (named(None), IpSet::Nets([].into())),
        ]
        .map(|(id, set)| (id, Arc::new(set)))
        .into(),
    };
    members::write(home.dir.path(), &members).unwrap();
    (home, members)
}

fn found(home: &Home) -> Option<Vec<String>> {
    let quick = members::read(home.dir.path())?;
    let resources = quick.resources()?;
    let one = |r: &Resource| format!("{} {}", r.id.name, r.origin);
    Some(resources.iter().map(one).collect())
}

#[test]
fn comes_back_with_its_documents_and_nothing_else() {
    let (home, members) = home();
    let quick = members::read(home.dir.path()).unwrap();
    assert_eq!(quick.members, members);
    assert_eq!(quick.meta, meta());
    assert_eq!(found(&home).unwrap(), ["x /p/a:1", "z /p/b:1"]);
}

#[test]
fn counts_only_for_the_last_commit() {
    let (mut home, members) = home();
    apply(&mut home.store, "dir", vec![sets("/p/c", &["w"])]);
    assert_eq!(home.store.commit(), None);
    assert!(home.store.locate([&id("w")]).is_none(), "not written yet");
    assert!(found(&home).is_some(), "nothing was saved since");
    home.save(6);
    assert!(found(&home).is_none());
    let commit = home.store.commit().unwrap();
    members::write(home.dir.path(), &Members { commit, ..members }).unwrap();
    assert!(found(&home).is_some());
    home.store.disk.rewrite_next();
    home.save(7);
    assert!(found(&home).is_none(), "it is another journal");
    fs::remove_file(home.dir.path().join("snapshot")).unwrap();
    assert!(found(&home).is_none());
}

#[test]
fn damage_anywhere_costs_the_cache_only() {
    let (home, _) = home();
    let path = home.dir.path().join("members");
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&path, &damaged).unwrap();
        assert_eq!(found(&home), None, "byte {at}");
        fs::write(&path, &bytes[..at]).unwrap();
        assert_eq!(found(&home), None, "{at} bytes");
    }
    fs::write(&path, &bytes).unwrap();
    assert!(found(&home).is_some());
}

#[test]
fn a_damaged_document_stops_the_quick_start() {
    let (home, _) = home();
    let path = home.dir.path().join("snapshot");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(3).position(|w| w == b"\"x\"").unwrap();
    bytes[at + 1] = b'w';
    fs::write(&path, bytes).unwrap();
    assert!(members::read(home.dir.path()).is_some());
    assert_eq!(found(&home), None);
}

proptest::proptest! {
    #[test]
    fn arbitrary_content_is_refused_or_read(content: Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = b"moat-members 1\n".to_vec();
        bytes.extend(content);
        let check = crc32fast::hash(&bytes);
        bytes.extend(check.to_le_bytes());
        fs::write(dir.path().join("members"), bytes).unwrap();
        proptest::prop_assert!(members::read(dir.path()).is_none());
    }
}
