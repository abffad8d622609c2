//! An etcd whose users have passwords.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::host::wait_until;
use crate::{Site, policy};

/// A host that follows an etcd as a user who may read policy.
fn site() -> Site {
    let mut site = Site::filled();
    site.etcd.ctl(&["role", "add", "reader"]);
    let right = [
        "role",
        "grant-permission",
        "reader",
        "--prefix=true",
        "read",
    ];
    site.etcd
        .ctl(&[&right[..], &["/calico/resources/"]].concat());
    site.etcd.ctl(&["user", "add", "root:first"]);
    site.etcd.ctl(&["user", "add", "host:secret"]);
    site.etcd.ctl(&["user", "grant-role", "root", "root"]);
    site.etcd.ctl(&["user", "grant-role", "host", "reader"]);
    site.etcd.ctl(&["auth", "enable"]);
    site.etcd.user = Some("root:first");
    let file = site.host.path("password");
    fs::write(&file, "secret\n").unwrap();
    site.host.settings(&format!(
        "datastoreType = \"etcdv3\"\netcdEndpoints = [\"http://127.0.0.1:2379\"]\nreportingInterval = 0\netcdUsername = \"host\"\netcdPasswordFile = {file:?}"
    ));
    site
}

#[test]
fn a_host_that_is_known_by_its_password_follows() {
    let mut site = site();
    let daemon = site.host.start();
    site.wait_port(4001, &daemon);
    // The tokens of before are worth nothing.
    site.etcd.kill();
    site.etcd.resume();
    site.etcd
        .put("globalnetworkpolicies/web", &policy("web", 4002));
    site.wait_port(4002, &daemon);
    site.wait_sync();
    // A password that is wrong for a moment does not end what is followed with the old one.
    fs::write(site.host.path("password"), "zweites").unwrap();
    let warned = || site.host.status()["warnings"].to_string();
    wait_until(|| warned().contains("cannot be used"), warned);
    assert_eq!(site.problems(), "[]");
    change_password(&site);
    site.etcd.kill();
    site.etcd.resume();
    site.etcd
        .put("globalnetworkpolicies/web", &policy("web", 4003));
    site.wait_port(4003, &daemon);
    // Neither status nor log know it.
    for text in [site.host.status().to_string(), daemon.log()] {
        assert!(
            !text.contains("secret") && !text.contains("zweites"),
            "{text}"
        );
    }
    daemon.stop();
    // One that is wrong from the start is told.
    fs::write(site.host.path("password"), "guess").unwrap();
    let daemon = site.host.start();
    site.wait_problem("invalid user ID or password");
    assert!(!daemon.log().contains("guess"), "{}", daemon.log());
    fs::write(site.host.path("password"), "zweites").unwrap();
    site.wait_sync();
}

/// etcdctl asks for the new password on a terminal unless it is told not to.
fn change_password(site: &Site) {
    let user = site.etcd.user.unwrap();
    let command = "printf 'zweites\\n' | etcdctl user passwd host --interactive=false";
    let done = Command::new("sh")
        .args(["-c", command])
        .env("ETCDCTL_API", "3")
        .env("ETCDCTL_USER", user)
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    std::thread::sleep(Duration::from_millis(100));
}

#[test]
fn moatctl_knows_calicoctls_ways_to_name_user_and_password() {
    let site = site();
    let ctl = |env: &[(&str, &str)], arguments: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_moatctl"))
            .args(arguments)
            .env("ETCD_ENDPOINTS", "http://127.0.0.1:2379")
            .envs(env.iter().copied())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&done.stderr).into_owned();
        (
            done.status.code(),
            String::from_utf8_lossy(&done.stdout).into_owned(),
            errors,
        )
    };
    let root = [("ETCD_USERNAME", "root"), ("ETCD_PASSWORD", "first")];
    let (code, out, errors) = ctl(&root, &["get", "hep"]);
    assert!(code == Some(0) && out.contains("h-eth0"), "{errors}");
    let calico = [
        ("CALICO_ETCD_USERNAME", "root"),
        ("CALICO_ETCD_PASSWORD", "first"),
    ];
    assert_eq!(ctl(&calico, &["label", "hep", "h-eth0", "a=b"]).0, Some(0));
    // Who may only read is told so, and nothing is written.
    let reader = [("ETCD_USERNAME", "host"), ("ETCD_PASSWORD", "secret")];
    let (code, _, errors) = ctl(&reader, &["delete", "hep", "h-eth0"]);
    assert!(
        code == Some(1) && errors.contains("permission denied"),
        "{errors}"
    );
    assert_eq!(ctl(&reader, &["get", "hep", "h-eth0"]).0, Some(0));
    let (code, _, errors) = ctl(
        &[("ETCD_USERNAME", "host"), ("ETCD_PASSWORD", "x")],
        &["get", "hep"],
    );
    assert!(
        code == Some(1) && errors.contains("invalid user ID or password"),
        "{errors}"
    );
    // From a file, with the secret in it.
    let file = site.host.path("calicoctl.cfg");
    let config = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n  datastoreType: etcdv3\n  etcdEndpoints: http://127.0.0.1:2379\n  etcdUsername: root\n  etcdPassword: first\n";
    fs::write(&file, config).unwrap();
    let file = file.display().to_string();
    assert_eq!(ctl(&[], &["-c", &file, "get", "hep"]).0, Some(0));
}
