//! Policy that keeps a host from its own datastore: moatctl says so before it is written, moatd when it is in force.

use crate::host::wait_until;
use crate::{ENDPOINT, Site, ctl, policy};

/// No endpoint governs loopback, but one the link of the second member.
const SETTINGS: &str = "datastoreType = \"etcdv3\"\netcdEndpoints = [\"http://127.0.0.1:2379\", \"http://10.1.0.9:2379\"]\nreportingInterval = 0";
/// Everything is open to these without policy.
const PROFILE: &str = r#""profiles":["projectcalico-default-allow"]"#;

#[test]
fn moatctl_says_so_before() {
    let site = ctl::Site::new();
    site.host.settings(SETTINGS);
    let closed = policy("web", 4001).replace("[\"Ingress\"]", "[\"Ingress\",\"Egress\"]");
    let endpoint = ENDPOINT.replace("\"node\"", &format!("{PROFILE},\"node\""));
    site.run_on(&endpoint, &["apply", "-f", "-"])
        .says(0, "Successfully applied 1");
    let warning = "h could not reach this datastore (10.1.0.9:2379) any more";
    site.run_on(&closed, &["apply", "--dry-run", "-f", "-"])
        .says(0, warning);
    let rule = r#""egress":[{"action":"Allow","protocol":"TCP","destination":{"ports":[2379]}}],"ingress""#;
    let open = closed.replace("\"ingress\"", rule);
    let fine = site.run_on(&open, &["apply", "-f", "-"]);
    fine.says(0, "Successfully applied 1");
    assert!(!fine.err.contains("could not reach"), "{}", fine.err);
    site.run_on(&closed, &["apply", "-f", "-"]).says(0, warning);
}

#[test]
fn moatd_says_so() {
    let site = Site::filled();
    site.host.settings(SETTINGS);
    let endpoint = ENDPOINT.replace("\"node\"", &format!("{PROFILE},\"node\""));
    site.etcd.put("hostendpoints/h-eth0", &endpoint);
    let daemon = site.host.start();
    site.wait_port(4001, &daemon);
    let warnings = || site.host.status()["warnings"].to_string();
    assert!(!warnings().contains("its own datastore"), "{}", warnings());
    let closed = policy("web", 4001).replace("[\"Ingress\"]", "[\"Ingress\",\"Egress\"]");
    site.etcd.put("globalnetworkpolicies/web", &closed);
    wait_until(
        || warnings().contains("policy denies this host its own datastore 10.1.0.9:2379"),
        || format!("{:#}", site.host.status()),
    );
    assert!(!warnings().contains("127.0.0.1"), "{}", warnings());
}
