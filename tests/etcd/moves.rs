//! `moatctl datastore migrate`: everything moves to another etcd, from an export of its own or of calicoctl.

use std::fs;

use serde_json::{Value, json};

use crate::ctl::Site;

/// What calicoctl 3.28.5 printed.
const CALICOCTL: &str = include_str!("calicoctl.export");
const RESOURCES: &str = r#"
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: security}
spec: {order: 10}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: security.first, annotations: {note: "kept"}}
spec: {tier: security, selector: all(), ingress: [{action: Pass}]}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: p1}
spec: {labelsToApply: {a: b}}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: n-k8s-pod-eth0, namespace: ns}
spec: {node: n, orchestrator: k8s, pod: pod, endpoint: eth0, interfaceName: cali1, ipNetworks: [10.65.0.2/32]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: web1, labels: {role: web}}
spec: {node: h1, interfaceName: eth0}
"#;
const COPY: &str = r#"{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"knp.default.copy","namespace":"ns","uid":"u","creationTimestamp":"2026-01-02T03:04:05Z","labels":{"projectcalico.org/tier":"default"},"annotations":{"projectcalico.org/metadata":"{\"name\":\"knp.default.copy\"}"}},"spec":{"tier":"default","selector":"all()","types":["Ingress"]}}"#;
const LOCK: [&str; 3] = ["datastore", "migrate", "lock"];
const EXPORT: [&str; 3] = ["datastore", "migrate", "export"];
const IMPORT: [&str; 5] = ["datastore", "migrate", "import", "-f", "-"];

impl Site {
    /// Everything without what is another one each time.
    fn content(&self) -> Vec<(String, Value)> {
        let text = self.etcd.ctl(&["get", "--prefix", "/calico/"]);
        let lines: Vec<&str> = text.lines().collect();
        let pair = |pair: &[&str]| {
            let mut value: Value = serde_json::from_str(pair[1]).unwrap();
            for field in ["uid", "creationTimestamp"] {
                if let Some(metadata) = value["metadata"].as_object_mut() {
                    metadata.remove(field);
                }
            }
            (pair[0].to_owned(), value)
        };
        lines.chunks(2).map(pair).collect()
    }

    fn wipe(&self) {
        self.etcd.ctl(&["del", "--prefix", "/calico/"]);
    }
}

#[test]
fn a_datastore_moves() {
    let site = Site::new();
    site.run(&EXPORT)
        .says(1, "resource does not exist: ClusterInformation(default)");
    site.run_on(RESOURCES, &["apply", "-f", "-"])
        .says(0, "Successfully applied 5 resource(s)");
    // As Calico copies it from Kubernetes.
    site.etcd.put("networkpolicies/ns/knp.default.copy", COPY);
    for (key, value) in [
        (
            "assignment/ipv4/block/10.0.0.0-26",
            r#"{"cidr":"10.0.0.0/26"}"#,
        ),
        ("host/n/ipv4/block/10.0.0.0-26", r#"{"state":"confirmed"}"#),
        ("handle/x", r#"{"block":{"10.0.0.0/26":1}}"#),
        ("config", r#"{"strict_affinity":true}"#),
    ] {
        site.etcd
            .ctl(&["put", &format!("/calico/ipam/v2/{key}"), value]);
    }
    site.run(&LOCK).says(0, "Datastore locked.");
    let before = site.content();
    let export = site.run(&EXPORT);
    assert_eq!(export.err, "");
    let parts: Vec<&str> = export.out.split("===\n").collect();
    assert!(parts[0].starts_with("apiVersion: projectcalico.org/v3\nitems:\n- api"));
    assert!(!parts[0].contains("WorkloadEndpoint"), "{}", parts[0]);
    let addresses: Value = serde_json::from_str(parts[2]).unwrap();
    assert_eq!(
        addresses["handles"],
        json!([{"Key": "/calico/ipam/v2/handle/x", "Value": {"block": {"10.0.0.0/26": 1}}, "TTL": 0}])
    );
    site.run_on(&export.out, &IMPORT)
        .says(1, "the datastore is not empty");
    site.wipe();
    // A lock of the new one makes what the old one has of its own.
    site.run(&LOCK).says(0, "Datastore locked.");
    site.run_on(&export.out, &IMPORT)
        .says(0, "Successfully applied 4 IPAM resource(s)");
    assert_eq!(site.content(), before);
    site.run(&["datastore", "migrate", "unlock"])
        .says(0, "Datastore unlocked.");
    let information = site.stored("clusterinformations/default");
    assert_eq!(information["spec"]["datastoreReady"], true);
    site.run(&EXPORT).says(0, "the datastore is not locked");
}

#[test]
fn what_calicoctl_exported_is_imported() {
    let site = Site::new();
    let file = site.host.path("export");
    fs::write(&file, CALICOCTL).unwrap();
    let file = file.display().to_string();
    site.run(&["datastore", "migrate", "import", "-f", &file])
        .says(0, "Successfully applied 10 resource(s)");
    // It exports no tiers and was written by a client that has other keys for policies.
    let policy = site.stored("globalnetworkpolicies/default.g1");
    assert_eq!(policy["spec"]["selector"], "role == 'web'");
    assert_eq!(site.stored("hostendpoints/h1")["spec"]["node"], "n1");
    let set = site.stored("networksets/ns1/s1");
    assert_eq!(set["spec"]["nets"], json!(["10.1.0.0/16"]));
    let information = site.stored("clusterinformations/default");
    let guid = CALICOCTL.split(r#""clusterGUID": ""#).nth(1).unwrap();
    assert_eq!(information["spec"]["clusterGUID"], guid[..32]);
    let addresses = site.etcd.ctl(&["get", "--prefix", "/calico/ipam/"]);
    for line in [
        "/calico/ipam/v2/assignment/ipv4/block/192.168.1.0-30",
        r#"{"strict_affinity":true,"auto_allocate_blocks":true}"#,
        r#"{"block":{"192.168.1.0/30":1},"deleted":false}"#,
        r#"{"state":"confirmed","deleted":false}"#,
    ] {
        assert!(addresses.lines().any(|l| l == line), "{line}: {addresses}");
    }
    // And out again as it came in.
    let part = |text: &str| {
        let part = text.split("===\n").next().unwrap().to_owned();
        let is_steady =
            |line: &&str| !line.contains("resourceVersion") && !line.contains("assignmentMode");
        let lines: Vec<String> = part.lines().filter(is_steady).map(str::to_owned).collect();
        lines
    };
    assert_eq!(part(&site.run(&EXPORT).out), part(CALICOCTL));
}

#[test]
fn what_is_no_export_is_not_imported() {
    let site = Site::new();
    let parts: Vec<&str> = CALICOCTL.split("===\n").collect();
    let joined = |parts: [&str; 3]| parts.join("===\n");
    for (text, said) in [
        (parts[0].to_owned(), "it has not three parts"),
        (joined([parts[0], "{", "{}"]), "is no export"),
        (
            joined([
                parts[0],
                "{}",
                r#"{"config": {"Key": "/other", "Value": {}}}"#,
            ]),
            "no key of addresses",
        ),
        (joined(["kind: Tier\n", "{}", "{}"]), "nothing was imported"),
    ] {
        site.run_on(&text, &IMPORT).says(1, said);
    }
    assert_eq!(site.content(), []);
}
