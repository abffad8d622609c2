//! `moatd boot`: what is in force before moatd serves, and what happens when that fails.

use std::fs;

use super::{Host, POLICY, on_both, ours, sorted};

const BROKEN: &str = "apiVersion: projectcalico.org/v3\nkind: HostEndpint\n";

/// The table with which a failed boot closes the host.
fn fallback(host: &Host) -> bool {
    host.run("nft", &["list", "tables"]).contains("moat-boot")
}

#[test]
fn boot_enforces_the_files_and_the_daemon_touches_nothing() {
    on_both(|host| {
        assert_eq!(host.boot().0, Some(0));
        let rules = sorted(host.rules());
        assert!(ours(host) > 0, "{rules:#?}");
        let _daemon = host.start();
        let changed = &host.status()["lastApply"]["changed"];
        assert!(
            changed.as_object().unwrap().values().all(|n| *n == 0),
            "{changed}"
        );
        assert_eq!(sorted(host.rules()), rules);
        let (code, log) = host.boot();
        assert_eq!(code, Some(0), "beside a running moatd: {log}");
    });
}

#[test]
fn boot_enforces_the_snapshot_when_files_are_gone_bad() {
    on_both(|host| {
        host.start().stop();
        let rules = sorted(host.rules());
        host.cleanup(&[]);
        host.policy("main.yaml", BROKEN);
        assert_eq!(host.boot().0, Some(0));
        assert_eq!(sorted(host.rules()), rules);
    });
}

#[test]
fn a_lost_snapshot_closes_until_policy_can_be_read() {
    on_both(|host| {
        host.start().stop();
        let rules = sorted(host.rules());
        host.cleanup(&[]);
        for lost in ["snapshot", "snapshot.prev", "members"] {
            // Not each of them need be there.
            let _ = fs::remove_file(host.path("state").join(lost));
        }
        host.policy("main.yaml", BROKEN);
        let (code, log) = host.boot();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("none can be read now"), "{log}");
        let closed = host.rules();
        assert!(
            closed.iter().any(|r| r.contains("--dports 22 ")),
            "{closed:#?}"
        );
        assert_ne!(closed, rules);
        host.policy("main.yaml", POLICY);
        let _daemon = host.start();
        assert_eq!(sorted(host.rules()), rules);
    });
}

#[test]
fn a_host_without_policy_stays_open() {
    on_both(|host| {
        fs::remove_file(host.path("policy.d/main.yaml")).unwrap();
        assert_eq!(host.boot().0, Some(0));
        assert_eq!(ours(host), 0);
        host.policy("main.yaml", BROKEN);
        host.settings("maxIpsetSize = 0");
        assert_eq!(host.boot().0, Some(78));
        assert!(!fallback(host));
    });
}

#[test]
fn a_boot_that_fails_closes_or_opens_as_the_setting_says() {
    on_both(|host| {
        host.start().stop();
        host.cleanup(&[]);
        let without_tools = || host.boot_without_tools();
        host.settings("bootFailurePolicy = \"open\"");
        let (code, log) = without_tools();
        assert_eq!(code, Some(69), "{log}");
        assert!(!fallback(host) && log.contains("stays OPEN"), "{log}");
        host.settings("");
        let (code, log) = without_tools();
        assert_eq!(code, Some(69), "{log}");
        assert!(
            fallback(host) && log.contains("only failsafes pass"),
            "{log}"
        );
        assert!(host.cleanup(&["--dry-run"]).contains("moat-boot"));
        // A daemon whose tools work takes over.
        let _daemon = host.start();
        assert!(!fallback(host));
        assert!(ours(host) > 0);
    });
}

#[test]
fn check_tells_whether_a_version_could_take_over() {
    on_both(|host| {
        assert_eq!(host.check().0, Some(0));
        host.start().stop();
        let (code, text) = host.check();
        assert_eq!(code, Some(0), "{text}");
        for file in ["snapshot", "snapshot.prev"] {
            fs::write(host.path("state").join(file), "rubbish").unwrap();
        }
        let (code, text) = host.check();
        assert!(code == Some(69) && text.contains("snapshot"), "{text}");
        host.settings("maxIpsetSize = 0");
        let (code, text) = host.check();
        assert!(code == Some(78) && text.contains("maxIpsetSize"), "{text}");
    });
}
