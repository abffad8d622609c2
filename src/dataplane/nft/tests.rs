use std::net::UdpSocket;
use std::process::Command;

use super::fallback::{close, is_closed, open};
use super::*;
use crate::config::Settings;

/// What `nft` says of the table, with the words that differ between its versions left out.
fn listed() -> String {
    let output = Command::new("nft")
        .args(["-n", "list", "ruleset"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn settings() -> Settings {
    let input = crate::config::Input {
        config_file: "/nonexistent".as_ref(),
        explicit: false,
        vendor_dir: "/nonexistent".as_ref(),
        env: vec![
            (
                "MOAT_FAILSAFEINBOUNDHOSTPORTS".into(),
                "tcp:22,udp:10.1.0.0/16:161,tcp:[2001:db8::/32]:443".into(),
            ),
            ("MOAT_FAILSAFEOUTBOUNDHOSTPORTS".into(), "udp:53".into()),
        ],
        node: None,
        felix: Vec::new(),
        hostname: "h".into(),
    };
    crate::config::load(&input).unwrap().settings
}

#[test]
fn closes_and_opens_again() {
    if let Err(e) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
        panic!("this test needs root: {e}");
    }
    Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()
        .unwrap();
    assert!(!open().unwrap(), "there is nothing yet");
    assert_eq!(listed(), "");
    close(&settings()).unwrap();
    close(&settings()).unwrap();
    assert!(is_closed());
    let rules = listed();
    for wanted in [
        "table inet moat-boot",
        "hook input priority 0; policy drop;",
        "hook forward priority 0; policy drop;",
        "hook output priority 0; policy drop;",
        "iif \"lo\" accept",
        "oif \"lo\" accept",
        "ct state 0x2,0x4 accept",
        "tcp dport 22 accept",
        "ip saddr 10.1.0.0/16 udp dport 161 accept",
        "ip6 saddr 2001:db8::/32 tcp dport 443 accept",
        "udp dport 53 accept",
    ] {
        assert!(rules.contains(wanted), "no `{wanted}` in\n{rules}");
    }
    assert_eq!(rules.matches("table ").count(), 1, "{rules}");
    // The loopback interface goes on.
    let (a, b) = (
        UdpSocket::bind("127.0.0.1:0").unwrap(),
        UdpSocket::bind("127.0.0.1:0").unwrap(),
    );
    a.send_to(b"x", b.local_addr().unwrap()).unwrap();
    b.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(b.recv(&mut [0; 1]).unwrap(), 1);
    assert!(open().unwrap());
    assert!(!is_closed());
    assert_eq!(listed(), "");
}
