//! Before the network is there: `moatd boot` on a host that follows an etcd.

use std::process::Command;

use crate::{ENDPOINT, Site};

fn boot(site: &Site) -> String {
    let done = Command::new(env!("CARGO_BIN_EXE_moatd"))
        .arg("--config")
        .arg(site.host.path("moat.toml"))
        .arg("boot")
        .env_remove("JOURNAL_STREAM")
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{log}");
    log
}

fn flush(site: &Site) {
    site.host.both(&["-F"]);
    site.host.both(&["-X"]);
}

#[test]
fn boot_enforces_the_snapshot_of_the_datastore() {
    let mut site = Site::filled();
    let daemon = site.host.start();
    site.wait_port(4001, &daemon);
    crate::wait_until(
        || site.host.status()["snapshot"]["generation"] == site.host.status()["generation"],
        || daemon.log(),
    );
    daemon.stop();
    site.etcd.kill();
    flush(&site);
    boot(&site);
    assert!(site.has(4001));
    // The daemon finds it so, and says how old it is.
    let daemon = site.host.start();
    site.wait_problem("the policy of the snapshot is in force, as etcd had it at 20");
    assert!(site.has(4001), "{}", daemon.log());
}

#[test]
fn without_snapshot_and_datastore_the_policy_of_boot_stays() {
    let mut site = Site::new();
    site.etcd.kill();
    site.host.policy("local.yaml", ENDPOINT);
    boot(&site);
    let rules = || {
        let mut rules = site.host.rules();
        rules.retain(|rule| rule.starts_with("-A"));
        rules
    };
    let of_boot = rules();
    assert!(
        of_boot.iter().any(|rule| rule.contains("moat")),
        "{of_boot:#?}"
    );
    let daemon = site.host.start();
    site.wait_problem("nothing was ever read from it, so the rules in the kernel stay as they are");
    assert_eq!(rules(), of_boot, "{}", daemon.log());
}
