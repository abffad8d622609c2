//! Policies of the default tier have other keys with clients before Calico 3.32. moatctl finds them there, and writes where the clients of the
//! same datastore look.

use serde_json::Value;

use crate::ctl::{POLICY, Site};

#[test]
fn a_policy_of_an_old_client_keeps_its_key() {
    let site = Site::new();
    let old = r#"{"kind":"GlobalNetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"default.allow-ssh","uid":"u","creationTimestamp":"2020-01-01T00:00:00Z"},"spec":{"selector":"all()","types":["Ingress"]}}"#;
    site.etcd
        .put("globalnetworkpolicies/default.allow-ssh", old);
    site.run(&["get", "gnp"]).says(0, "\nallow-ssh   default");
    site.run_on(POLICY, &["create", "-f", "-"])
        .says(1, "resource already exists: GlobalNetworkPolicy(allow-ssh)");
    site.run_on(POLICY, &["apply", "-f", "-"])
        .says(0, "Successfully applied");
    let stored = site.stored("globalnetworkpolicies/default.allow-ssh");
    assert_eq!(stored["metadata"]["name"], "default.allow-ssh");
    assert_eq!(stored["metadata"]["uid"], "u");
    // Nor does it get what an old client does not know.
    assert_eq!(stored["metadata"]["annotations"], Value::Null);
    assert_eq!(stored["spec"]["tier"], Value::Null);
    assert_eq!(site.raw("globalnetworkpolicies/allow-ssh"), "");
    site.run(&["delete", "gnp", "allow-ssh"]).says(
        0,
        "Successfully deleted 1 'GlobalNetworkPolicy' resource(s)",
    );
    assert_eq!(site.raw("globalnetworkpolicies/default.allow-ssh"), "");
}

#[test]
fn new_policies_are_where_the_other_clients_look_for_them() {
    let information = |version: &str| {
        format!(
            r#"{{"kind":"ClusterInformation","apiVersion":"projectcalico.org/v3","metadata":{{"name":"default","uid":"1","creationTimestamp":"2026-01-02T03:04:05Z"}},"spec":{{"calicoVersion":"{version}","datastoreReady":true}}}}"#
        )
    };
    let (new, old) = (
        "globalnetworkpolicies/allow-ssh",
        "globalnetworkpolicies/default.allow-ssh",
    );
    let site = Site::new();
    let written = |key: &str| {
        site.run_on(POLICY, &["create", "-f", "-"])
            .says(0, "Successfully created");
        let raw = site.raw(key);
        site.run_on(POLICY, &["diff", "-f", "-"])
            .says(0, "nothing would change");
        site.run(&["delete", "gnp", "allow-ssh"])
            .says(0, "Successfully deleted");
        assert_eq!(site.raw(key), "");
        raw
    };
    for version in ["v3.32.0", "v4.0.0", "master"] {
        site.etcd
            .put("clusterinformations/default", &information(version));
        assert!(written(new).contains(r#""tier":"default""#), "{version}");
    }
    for version in ["v3.28.5", "v3.31.2"] {
        site.etcd
            .put("clusterinformations/default", &information(version));
        let raw = written(old);
        assert!(raw.contains(r#""name":"default.allow-ssh""#), "{raw}");
        assert!(!raw.contains("tier"), "{raw}");
        assert!(!raw.contains("annotations"), "{raw}");
    }
    // Nobody says which version it is, but an old client was here.
    site.etcd.delete("clusterinformations/default");
    site.etcd.put("networkpolicies/ns/default.x", r#"{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"default.x","namespace":"ns"},"spec":{"types":["Ingress"]}}"#);
    assert!(written(old).contains("default.allow-ssh"));
    site.etcd.delete("networkpolicies/ns/default.x");
    assert!(written(new).contains(r#"{\"name\":\"allow-ssh\"}"#));
}
