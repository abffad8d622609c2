//! Starts, restarts, settings, refusals.

use std::fs;

use nix::sys::signal::Signal;

use super::host::{Host, wait_until};
use super::{FOREIGN, POLICY, host, on_both, ours};

#[test]
fn a_restart_changes_no_rule_and_keeps_counters() {
    on_both(|host| {
        let daemon = host.start();
        // Something to count.
        let _ = std::net::UdpSocket::bind("10.1.0.1:0")
            .and_then(|socket| socket.send_to(b"x", "10.1.0.9:9"));
        let counted = |host: &Host| {
            let mut lines = host.rules_of(host.backend, &["-c"]);
            lines.retain(|l| !l.starts_with(':') || l.contains("moat"));
            lines
        };
        let (rules, sets) = (counted(host), host.sets());
        assert!(
            rules
                .iter()
                .any(|l| l.starts_with('[') && !l.starts_with("[0:0]")),
            "{rules:#?}"
        );
        daemon.stop();
        assert_eq!(counted(host), rules, "SIGTERM leaves the rules");
        let daemon = host.start();
        let changed = &host.status()["lastApply"]["changed"];
        assert!(
            changed.as_object().unwrap().values().all(|n| *n == 0),
            "{changed}\n{}",
            daemon.log()
        );
        assert_eq!((counted(host), host.sets()), (rules, sets));
    });
}

#[test]
fn sigkill_leaves_the_rules() {
    on_both(|host| {
        let daemon = host.start();
        let rules = host.rules();
        drop(daemon);
        assert_eq!(host.rules(), rules);
    });
}

#[test]
fn appended_jumps_stay_behind_the_rules_of_others() {
    on_both(|host| {
        host.settings("chainInsertMode = \"append\"");
        host.both(&FOREIGN);
        host.start().stop();
        let (chain, rules) = (host.chain("INPUT"), host.rules());
        assert!(
            chain.len() == 2 && chain[1].contains("moat-INPUT"),
            "{chain:#?}"
        );
        host.start().stop();
        assert_eq!(host.rules(), rules);
    });
}

#[test]
fn every_setting_of_actions_is_written_and_read_back() {
    let settings = "iptablesFilterAllowAction = \"Return\"\niptablesMangleAllowAction = \"Return\"\n\
        iptablesFilterDenyAction = \"Reject\"\niptablesMarkMask = 0xf0\ninterfacePrefix = [\"cali\", \"tap\"]";
    on_both(|host| {
        host.settings(settings);
        host.start().stop();
        let rules = host.rules();
        host.start().stop();
        assert_eq!(host.rules(), rules);
        assert!(rules.iter().any(|r| r.contains("REJECT")), "{rules:#?}");
    });
}

#[test]
fn a_second_moatd_on_one_state_directory_is_refused() {
    let host = host("nft");
    let _daemon = host.start();
    let rules = host.rules();
    let (code, log) = host.refused();
    assert_eq!(code, Some(73), "{log}");
    assert!(log.contains("another moatd"), "{log}");
    assert_eq!(host.rules(), rules);
    assert_eq!(
        host.status()["state"],
        "enforcing",
        "the first one still serves"
    );
}

#[test]
fn an_invalid_file_changes_nothing() {
    let host = host("nft");
    let daemon = host.start();
    let rules = host.rules();
    for broken in [
        "kind: [",
        &POLICY.replace("action: Deny", "action: Denny"),
        "",
    ] {
        host.policy("main.yaml", broken);
        let degraded = || host.status()["state"] == "degraded";
        wait_until(degraded, || format!("{broken}\n{}", daemon.log()));
        assert_eq!(host.rules(), rules);
        host.policy("main.yaml", POLICY);
        wait_until(|| host.status()["state"] == "enforcing", || daemon.log());
        assert_eq!(host.rules(), rules);
    }
}

#[test]
fn bad_settings_at_start() {
    let host = host("nft");
    let (good, bad) = (
        "logSeverityScreen = \"Info\"",
        "chainInsertMode = \"upside down\"",
    );
    host.settings(bad);
    let (code, log) = host.refused();
    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains("chainInsertMode"), "{log}");
    host.settings(good);
    host.start().stop();
    let rules = host.rules();
    host.settings(bad);
    let daemon = host.start();
    assert_eq!(host.rules(), rules);
    let status = host.status();
    assert_eq!(status["state"], "degraded");
    assert!(
        status["degraded"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("chainInsertMode"),
        "{status}"
    );
    host.settings(good);
    daemon.signal(Signal::SIGHUP);
    wait_until(|| host.status()["state"] == "enforcing", || daemon.log());
}

#[test]
fn a_host_without_ipv6() {
    let host = host("nft");
    for key in ["all", "default", "lo", "eth0"] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{key}/disable_ipv6"), "1").unwrap();
    }
    host.start().stop();
    assert!(ours(&host) > 0);
}
