//! The driver against the kernel, with the `ipset` program as witness; in a network namespace of each test.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use ipnet::IpNet;

use super::*;
use crate::api::Protocol;

const KINDS: [SetKind; 3] = [SetKind::Nets, SetKind::AddrPorts, SetKind::Ports];
const NAME: &str = "moat4-test";

/// Runs the test in a namespace of its own, unless the machine refuses one.
fn in_netns(test: impl FnOnce(&mut IpSets)) {
    if let Err(e) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
        eprintln!("skipped: no network namespace: {e}");
        return;
    }
    test(&mut IpSets::open().unwrap());
}

/// What the program says; it must succeed.
fn ipset(arguments: &str) -> String {
    let done = Command::new("ipset").args(arguments.split(' ')).output();
    let done = done.unwrap();
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "ipset {arguments}: {errors}");
    String::from_utf8(done.stdout).unwrap()
}

/// Members as the program lists them.
fn listed(name: &str) -> BTreeSet<String> {
    let text = ipset(&format!("save {name}"));
    let adds = text.lines().filter_map(|l| l.strip_prefix("add "));
    adds.filter_map(|l| l.split_once(' '))
        .map(|(_, member)| member.to_owned())
        .collect()
}

fn net(text: &str) -> Member {
    Member::Net(text.parse().unwrap())
}

fn nets(range: std::ops::Range<u32>) -> impl Iterator<Item = Member> + Clone {
    range.map(|n| Member::Net(IpNet::from(IpAddr::from(Ipv4Addr::from(n + 0x0a00_0000)))))
}

/// Members of a kind, and how the program writes them.
fn samples(kind: SetKind, family: Family) -> (Vec<Member>, Vec<&'static str>) {
    let port = |addr: &str, protocol, port| Member::AddrPort(addr.parse().unwrap(), protocol, port);
    match (kind, family) {
        (SetKind::Nets, Family::V4) => (
            ["0.0.0.0/1", "10.0.0.0/8", "10.1.2.3/32"].map(net).to_vec(),
            vec!["0.0.0.0/1", "10.0.0.0/8", "10.1.2.3"],
        ),
        (SetKind::Nets, Family::V6) => (
            ["8000::/1", "fd00::/64", "fd00::1/128"].map(net).to_vec(),
            vec!["8000::/1", "fd00::/64", "fd00::1"],
        ),
        (SetKind::AddrPorts, Family::V4) => (
            vec![
                port("10.0.0.1", Protocol::TCP, 80),
                port("10.0.0.1", Protocol::UDP, 65535),
                port("10.0.0.1", Protocol::SCTP, 1),
            ],
            vec!["10.0.0.1,tcp:80", "10.0.0.1,udp:65535", "10.0.0.1,sctp:1"],
        ),
        (SetKind::AddrPorts, Family::V6) => (
            vec![port("fd00::1", Protocol::TCP, 80)],
            vec!["fd00::1,tcp:80"],
        ),
        (SetKind::Ports, _) => (
            vec![Member::Port(0), Member::Port(80), Member::Port(65535)],
            vec!["0", "80", "65535"],
        ),
    }
}

#[test]
fn every_kind_of_both_families_is_written_and_read() {
    in_netns(|sets| {
        for (kind, family) in KINDS.iter().flat_map(|k| Family::ALL.map(|f| (*k, f))) {
            let (members, texts) = samples(kind, family);
            sets.create(NAME, kind, family, 1000, members.len())
                .unwrap();
            sets.add(NAME, kind, members.clone()).unwrap();
            // What is there already is no error.
            sets.add(NAME, kind, members.clone()).unwrap();
            let texts: BTreeSet<String> = texts.into_iter().map(str::to_owned).collect();
            assert_eq!(listed(NAME), texts);
            let mut found = BTreeSet::new();
            sets.members(NAME, kind, |m| assert!(found.insert(m.unwrap())))
                .unwrap();
            assert_eq!(found, members.iter().copied().collect());
            assert_eq!(
                members.iter().map(member_text).collect::<BTreeSet<_>>(),
                texts
            );
            let header = sets.headers().unwrap().remove(0);
            assert!(header.holds(kind, family), "{header:?}");
            assert_eq!(header.members, u32::try_from(members.len()).ok());
            sets.remove(NAME, kind, members.clone()).unwrap();
            sets.remove(NAME, kind, members).unwrap();
            assert!(listed(NAME).is_empty());
            sets.destroy(NAME).unwrap();
        }
        assert!(sets.headers().unwrap().is_empty());
    });
}

#[test]
fn a_hundred_thousand_members() {
    in_netns(|sets| {
        let all = nets(0..100_000);
        sets.create(NAME, SetKind::Nets, Family::V4, 131_072, 100_000)
            .unwrap();
        sets.add(NAME, SetKind::Nets, all.clone()).unwrap();
        let mut found = Vec::new();
        sets.members(NAME, SetKind::Nets, |m| found.push(m.unwrap()))
            .unwrap();
        found.sort();
        assert!(found.into_iter().eq(all));
        sets.remove(NAME, SetKind::Nets, nets(1..100_000)).unwrap();
        assert_eq!(listed(NAME), BTreeSet::from(["10.0.0.0".to_owned()]));
        sets.flush(NAME).unwrap();
        assert_eq!(sets.headers().unwrap()[0].members, Some(0));
    });
}

#[test]
fn a_full_set_names_the_member_that_has_no_room() {
    in_netns(|sets| {
        sets.create(NAME, SetKind::Nets, Family::V4, 5000, 10)
            .unwrap();
        let error = sets.add(NAME, SetKind::Nets, nets(0..6000)).unwrap_err();
        assert_eq!(error.reason(), Some(Reason::Full));
        let said = error.to_string();
        let head = "the kernel refuses to add to IP set moat4-test, member 10.0.";
        assert!(
            said.starts_with(head) && said.ends_with(": it is full"),
            "{said}"
        );
        // The kernel counts by parts of its table, and may let a few more in; never fewer.
        let members = sets.headers().unwrap()[0].members.unwrap();
        assert!((5000..6000).contains(&members), "{members}");
    });
}

#[test]
fn a_bigger_set_takes_the_place_of_one_in_use() {
    in_netns(|sets| {
        sets.create(NAME, SetKind::Nets, Family::V4, 2, 2).unwrap();
        sets.add(NAME, SetKind::Nets, nets(0..2)).unwrap();
        ipset("create user list:set");
        ipset("add user moat4-test");
        let refused = |e: SetError| e.reason().unwrap();
        assert_eq!(refused(sets.destroy(NAME).unwrap_err()), Reason::InUse);
        assert_eq!(
            refused(sets.rename(NAME, "moat4-other").unwrap_err()),
            Reason::InUse
        );
        sets.create("moat4-tmp", SetKind::Nets, Family::V4, 8, 3)
            .unwrap();
        sets.add("moat4-tmp", SetKind::Nets, nets(0..3)).unwrap();
        sets.swap("moat4-tmp", NAME).unwrap();
        sets.destroy("moat4-tmp").unwrap();
        let headers = sets.headers().unwrap();
        let ours = headers.iter().find(|h| h.name == NAME).unwrap();
        assert_eq!((ours.capacity, ours.references), (8, 1));
        assert_eq!(listed(NAME).len(), 3);
    });
}

#[test]
fn refusals_say_why() {
    in_netns(|sets| {
        let nets = SetKind::Nets;
        sets.create(NAME, nets, Family::V4, 8, 0).unwrap();
        sets.create("moat4-p", SetKind::AddrPorts, Family::V4, 8, 0)
            .unwrap();
        let said = |result: Result<(), SetError>| result.unwrap_err().to_string();
        assert_eq!(
            said(sets.create(NAME, nets, Family::V4, 8, 0)),
            "the kernel refuses to create IP set moat4-test: a set of this name exists"
        );
        assert_eq!(
            said(sets.add("moat4-gone", nets, [net("10.0.0.1/32")])),
            "the kernel refuses to add to IP set moat4-gone: there is no such set"
        );
        assert_eq!(
            said(sets.members("moat4-gone", nets, |_| {})),
            "the kernel refuses to list IP set moat4-gone: there is no such set"
        );
        assert_eq!(
            said(sets.swap("moat4-p", NAME)),
            "the kernel refuses to swap IP set moat4-test: a set of another type has this name"
        );
        let zero = said(sets.add(NAME, nets, [net("10.0.0.1/32"), net("0.0.0.0/0")]));
        assert!(zero.contains("member 0.0.0.0/0: error 4104"), "{zero}");
        assert_eq!(listed(NAME).len(), 1, "the one before is in");
        sets.rename("moat4-p", "moat4-q").unwrap();
        assert_eq!(sets.headers().unwrap().len(), 2);
    });
}

#[test]
fn what_is_unlike_ours_is_seen_as_such() {
    in_netns(|sets| {
        for options in [
            "hash:net timeout 100",
            "hash:net counters",
            "hash:ip",
            "list:set",
            "bitmap:port range 0-1000",
        ] {
            ipset(&format!("create moat4-test {options}"));
            let header = sets.headers().unwrap().remove(0);
            assert_eq!(header.kind, None, "{options}");
            ipset("destroy moat4-test");
        }
        ipset("create moat4-test hash:net");
        ipset("add moat4-test 10.0.0.0/8");
        ipset("add moat4-test 10.1.0.0/16 nomatch");
        assert!(sets.headers().unwrap()[0].holds(SetKind::Nets, Family::V4));
        let mut found = Vec::new();
        sets.members(NAME, SetKind::Nets, |m| found.push(m))
            .unwrap();
        assert!(found.contains(&None) && found.contains(&Some(net("10.0.0.0/8"))));
    });
}

#[test]
fn many_sets_are_listed_by_their_headers() {
    in_netns(|sets| {
        for n in 0..2000 {
            let name = format!("moat4-{n}");
            sets.create(&name, SetKind::Nets, Family::V4, 64, 1)
                .unwrap();
            sets.add(&name, SetKind::Nets, nets(n..n + 1)).unwrap();
        }
        let headers = sets.headers().unwrap();
        let names: BTreeSet<&str> = headers.iter().map(|h| h.name.as_str()).collect();
        assert_eq!((headers.len(), names.len()), (2000, 2000));
        assert!(headers.iter().all(|h| h.members == Some(1)));
    });
}

#[test]
fn torn_answers_are_read_up_to_the_tear() {
    let mut request = Request::default();
    request.begin(wire::Command::Add, 0, 7);
    request.text(cmd::SETNAME, NAME);
    request.member(net("10.0.0.0/8"), 1);
    let whole = request.end().to_vec();
    for cut in 0..=whole.len() {
        for reply in wire::replies(&whole[..cut]) {
            let Body::Data(body) = reply.body else {
                continue;
            };
            for (_, value) in attributes(body) {
                // Whatever it is, it is read without harm.
                let _ = (wire::text(value), wire::number(value), wire::port(value));
                let _ = KINDS.map(|k| wire::member(k, value));
            }
        }
        for cut in 0..cut {
            let _ = attributes(&whole[cut..]).count();
        }
    }
}
