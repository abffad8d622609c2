//! Policies of the default tier have other keys with clients before Calico 3.32. moatctl finds them there, and writes where the clients of the
//! same datastore look. And what newer clients than it has put there, it leaves there.

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

#[test]
fn a_setting_of_a_newer_client_is_not_in_the_way() {
    let site = Site::new();
    let felix = r#"{"kind":"FelixConfiguration","apiVersion":"projectcalico.org/v3","metadata":{"name":"default","uid":"u","creationTimestamp":"2020-01-01T00:00:00Z"},"spec":{"ofTheYear2030":{"b":1,"a":2}}}"#;
    site.etcd.put("felixconfigurations/default", felix);
    let labelled = site.run(&["label", "felixconfig", "default", "a=b"]);
    labelled.says(0, "Successfully set label a");
    let told = "spec.ofTheYear2030: unknown field `ofTheYear2030`: it has no effect here";
    assert!(labelled.err.contains(told), "{}", labelled.err);
    let stored = site.stored("felixconfigurations/default");
    assert_eq!(stored["metadata"]["labels"]["a"], "b");
    assert_eq!(
        stored["spec"]["ofTheYear2030"],
        serde_json::json!({"a": 2, "b": 1})
    );
}
