//! A datastore that was wiped, filled anew, or replaced by an older one: never "delete all", and never overlooked.

use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::host::wait_until;
use crate::server::KEYS;
use crate::{ENDPOINT, Site, policy};

/// Longer than somebody has to fill an emptied datastore again.
const REFILLED: Duration = Duration::from_secs(13);

#[test]
fn what_was_wiped_takes_nothing_away_until_it_is_filled() {
    let mut site = Site::new();
    site.host.settings("datastoreType = \"etcdv3\"\netcdEndpoints = [\"http://127.0.0.1:2379\"]\nreportingInterval = 0\nregisterHostEndpoint = true\nhostEndpointLabels = [\"role=web\"]");
    site.etcd
        .put("globalnetworkpolicies/web", &policy("web", 4001));
    let daemon = site.host.start();
    site.wait_port(4001, &daemon);
    site.etcd.kill();
    site.etcd.wipe();
    site.etcd.resume();
    site.wait_problem("etcd holds no resource any more");
    sleep(REFILLED);
    // The host's own endpoint is not what fills it.
    assert_eq!(site.etcd.ctl(&["get", "--prefix", "--keys-only", KEYS]), "");
    assert!(site.has(4001), "{}", daemon.log());
    // Nor is one setting, or an endpoint of another host.
    let felix = r#"{"kind":"FelixConfiguration","apiVersion":"projectcalico.org/v3","metadata":{"name":"default"},"spec":{}}"#;
    site.etcd.put("felixconfigurations/default", felix);
    let other = ENDPOINT
        .replace("h-eth0", "h2")
        .replace(r#""node":"h""#, r#""node":"h2""#);
    site.etcd.put("hostendpoints/h2", &other);
    sleep(REFILLED);
    site.wait_problem("etcd holds no policy any more");
    assert!(site.has(4001), "{}", daemon.log());
    site.etcd
        .put("globalnetworkpolicies/web", &policy("web", 4002));
    site.wait_port(4002, &daemon);
    wait_until(|| !site.has(4001), || daemon.log());
    wait_until(|| site.problems() == "[]", || site.problems());
    let registered = || {
        site.etcd
            .ctl(&["get", "--keys-only", &format!("{KEYS}hostendpoints/h")])
    };
    wait_until(|| !registered().is_empty(), || daemon.log());
    // Somebody deletes it: without it no policy applies to the host.
    wait_until(
        || {
            site.host.status()["endpoints"]
                .to_string()
                .contains("\"h\"")
        },
        || daemon.log(),
    );
    site.etcd.delete("hostendpoints/h");
    wait_until(|| !registered().is_empty(), || daemon.log());
    site.wait_port(4002, &daemon);
}

#[test]
fn an_older_backup_with_as_many_revisions_is_recognised() {
    let mut site = Site::filled();
    let daemon = site.host.start();
    site.wait_port(4001, &daemon);
    let backup = site.etcd.backup();
    site.etcd
        .put("globalnetworkpolicies/later", &policy("later", 4003));
    site.wait_port(4003, &daemon);
    daemon.signal(Signal::SIGSTOP);
    site.etcd.kill();
    site.etcd.restore(&backup);
    site.etcd.resume();
    for _ in 0..10 {
        site.etcd
            .put("globalnetworkpolicies/other", &policy("other", 4004));
    }
    daemon.signal(Signal::SIGCONT);
    site.wait_port(4004, &daemon);
    wait_until(|| !site.has(4003), || daemon.log());
    assert!(site.has(4001));
}

#[test]
fn keys_that_are_no_text_are_in_nobodys_way() {
    let site = Site::filled();
    for n in 0..1000 {
        let key = format!("{KEYS}x/\u{1f600}{n:04}");
        site.etcd.put_raw(key.as_bytes(), b"x");
    }
    for n in 0..3 {
        site.etcd
            .put_raw(&[KEYS.as_bytes(), b"x/\xff", &[n]].concat(), b"x");
    }
    let daemon = site.host.start();
    site.wait_port(4001, &daemon);
    site.wait_sync();
    assert_eq!(site.source()["ignored"], 1003);
}
