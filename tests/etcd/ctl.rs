//! moatctl on a real etcd: calicoctl's verbs, messages and exit codes, and documents as Calico's client writes them.

use std::process::Command;

use serde_json::{Value, json};

use crate::feed::feed;
use crate::host::Host;
use crate::server::{Etcd, KEYS};

const MOATCTL: &str = env!("CARGO_BIN_EXE_moatctl");

pub const POLICY: &str = r#"
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: allow-ssh, resourceVersion: ""}
spec:
  order: 100
  selector: role == 'web'
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [22]}}
"#;
pub const ENDPOINTS: &str = r#"
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: web1, labels: {role: web}}
spec: {node: h1, interfaceName: eth0}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: web2, labels: {role: web}}
spec: {node: h2, interfaceName: eth0}
"#;

pub struct Site {
    pub etcd: Etcd,
    pub host: Host,
}

pub struct Done {
    code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Done {
    #[track_caller]
    pub fn says(&self, code: i32, text: &str) {
        let all = format!("{}{}", self.out, self.err);
        assert!(
            self.code == Some(code) && all.contains(text),
            "{:?} {all}",
            self.code
        );
    }
}

impl Site {
    pub fn new() -> Site {
        let host = Host::new("nft");
        host.settings("datastoreType = \"etcdv3\"\netcdEndpoints = [\"http://127.0.0.1:2379\"]");
        let etcd = Etcd::start(&host.path("etcd"));
        Site { etcd, host }
    }

    pub fn run_on(&self, input: &str, arguments: &[&str]) -> Done {
        self.run_with(
            &[
                "--config",
                &self.host.path("moat.toml").display().to_string(),
            ],
            input,
            arguments,
        )
    }

    fn run_with(&self, head: &[&str], input: &str, arguments: &[&str]) -> Done {
        let done = feed(Command::new(MOATCTL).args(head).args(arguments), input);
        Done {
            code: done.status.code(),
            out: String::from_utf8(done.stdout).unwrap(),
            err: String::from_utf8(done.stderr).unwrap(),
        }
    }

    pub fn run(&self, arguments: &[&str]) -> Done {
        self.run_on("", arguments)
    }

    /// The stored value of a key, byte for byte.
    pub fn raw(&self, key: &str) -> String {
        self.etcd
            .ctl(&["get", "--print-value-only", &format!("{KEYS}{key}")])
    }

    pub fn stored(&self, key: &str) -> Value {
        serde_json::from_str(&self.raw(key)).unwrap()
    }
}

#[test]
fn documents_are_stored_as_calico_stores_them() {
    let site = Site::new();
    site.run_on(POLICY, &["create", "-f", "-"]).says(
        0,
        "Successfully created 1 'GlobalNetworkPolicy' resource(s)",
    );
    let raw = site.raw("globalnetworkpolicies/allow-ssh");
    let begin = r#"{"kind":"GlobalNetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"allow-ssh","uid":""#;
    assert!(raw.starts_with(begin), "{raw}");
    let stored = site.stored("globalnetworkpolicies/allow-ssh");
    let metadata = &stored["metadata"];
    assert_eq!(
        metadata["labels"],
        json!({"projectcalico.org/tier": "default"})
    );
    assert_eq!(
        metadata["annotations"],
        json!({"projectcalico.org/metadata": "{\"name\":\"allow-ssh\"}"})
    );
    assert!(metadata.get("resourceVersion").is_none(), "{stored}");
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert!(
        metadata["creationTimestamp"]
            .as_str()
            .unwrap()
            .ends_with('Z')
    );
    assert_eq!(stored["spec"]["tier"], "default");
    assert_eq!(stored["spec"]["types"], json!(["Ingress"]));
    // A change keeps what the first write made.
    let changed = POLICY.replace("[22]", "[22, 23]");
    site.run_on(&changed, &["apply", "-f", "-"])
        .says(0, "Successfully applied 1");
    let after = site.stored("globalnetworkpolicies/allow-ssh");
    assert_eq!(after["metadata"], stored["metadata"]);
    assert_eq!(
        after["spec"]["ingress"][0]["destination"]["ports"],
        json!([22, 23])
    );
}

#[test]
fn verbs_and_their_refusals() {
    let site = Site::new();
    site.run_on(ENDPOINTS, &["replace", "-f", "-"])
        .says(1, "resource does not exist: HostEndpoint(web1)");
    site.run_on(ENDPOINTS, &["apply", "--dry-run", "-f", "-"])
        .says(0, "nothing was written");
    site.run(&["get", "hep", "web1"])
        .says(1, "resource does not exist");
    site.run_on(ENDPOINTS, &["diff", "-f", "-"])
        .says(2, "+ kind: HostEndpoint");
    site.run_on(ENDPOINTS, &["create", "-f", "-"])
        .says(0, "Successfully created 2 'HostEndpoint' resource(s)");
    site.run_on(ENDPOINTS, &["diff", "-f", "-"])
        .says(0, "nothing would change");
    site.run_on(ENDPOINTS, &["create", "-f", "-"]).says(1, "failed to create any 'HostEndpoint' resources: [resource already exists: HostEndpoint(web1) resource already exists: HostEndpoint(web2)]");
    site.run_on(ENDPOINTS, &["create", "--skip-exists", "-f", "-"])
        .says(0, "Successfully");
    let third = ENDPOINTS.replace("web2", "web3");
    site.run_on(&third, &["create", "-f", "-"]).says(1, "Partial success: created the first 1 out of 2 'HostEndpoint' resources:\nmoatctl: hit error: [resource already exists: HostEndpoint(web1)]");
    site.run_on("{", &["apply", "-f", "-"])
        .says(1, "failed to execute command");
    site.run_on(
        &POLICY.replace("order: 100", "tier: missing"),
        &["apply", "-f", "-"],
    )
    .says(1, "the tier missing does not exist");
    site.run(&["apply"]).says(1, "No resources specified");
    site.run(&["delete", "hep", "none"]).says(
        1,
        "failed to delete 'HostEndpoint' resource: resource does not exist",
    );
    site.run(&["delete", "-s", "hep", "none"])
        .says(0, "Successfully");
    site.run(&["delete", "hep", "web3", "-n", "x"])
        .says(1, "HostEndpoint is not namespaced");
    site.run(&[
        "patch",
        "hep",
        "web1",
        "-p",
        r#"{"spec":{"expectedIPs":["10.0.0.9"]}}"#,
    ])
    .says(0, "Successfully patched 1 'HostEndpoint' resource");
    site.run(&[
        "patch",
        "hep",
        "web1",
        "-p",
        r#"{"spec":{"expectedIPs":["x"]}}"#,
    ])
    .says(1, "nothing was written");
    assert_eq!(
        site.stored("hostendpoints/web1")["spec"]["expectedIPs"],
        json!(["10.0.0.9"])
    );
    site.run(&["label", "hep", "web1", "zone=a"])
        .says(0, "Successfully set label zone on hep web1");
    site.run(&["label", "hep", "web1", "zone=b"])
        .says(1, "--overwrite");
    site.run(&["label", "hep", "web1", "zone=b", "--overwrite"])
        .says(0, "Successfully updated label zone");
    site.run(&["label", "hep", "web1", "zone", "--remove"])
        .says(0, "Successfully removed label zone");
    site.run(&["label", "hep", "web1", "zone", "--remove"])
        .says(1, "key zone does not exist");
}

#[test]
fn somebody_elses_change_is_not_overwritten() {
    let site = Site::new();
    site.run_on(ENDPOINTS, &["create", "-f", "-"]).says(0, "");
    let seen = site.run(&["get", "hep", "web1", "-o", "yaml"]).out;
    assert!(seen.contains("resourceVersion: \""), "{seen}");
    site.run(&["label", "hep", "web1", "zone=a"]).says(0, "");
    site.run_on(&seen, &["apply", "-f", "-"])
        .says(1, "update conflict: HostEndpoint(web1)");
    site.run_on(&seen, &["delete", "-f", "-"])
        .says(1, "update conflict");
    let seen = site.run(&["get", "hep", "web1", "-o", "json"]).out;
    site.run_on(&seen, &["replace", "-f", "-"])
        .says(0, "Successfully replaced");
    let exported = site
        .run(&["get", "hep", "web1", "--export", "-o", "yaml"])
        .out;
    assert!(
        !exported.contains("resourceVersion") && !exported.contains("uid"),
        "{exported}"
    );
}

#[test]
fn forms_of_answers() {
    let site = Site::new();
    site.run_on(ENDPOINTS, &["create", "-f", "-"]).says(0, "");
    let out = |arguments: &[&str]| site.run(arguments).out;
    assert_eq!(
        out(&["get", "heps"]),
        "NAME   NODE   \nweb1   h1     \nweb2   h2     \n\n"
    );
    assert!(out(&["get", "hep", "-o", "wide"]).starts_with("NAME   NODE   INTERFACE"));
    assert_eq!(
        out(&["get", "hep", "-o", "name"]),
        "HostEndpoint/web1\nHostEndpoint/web2\n"
    );
    assert_eq!(
        out(&["get", "hep", "-o", "custom-columns=NODE,NAME"]),
        "NODE   NAME   \nh1     web1   \nh2     web2   \n\n"
    );
    assert_eq!(
        out(&["get", "hep", "-o", "template={{.spec.node}};"]),
        "h1;h2;\n"
    );
    let list: Value = serde_json::from_str(&out(&["get", "hep", "-o", "json"])).unwrap();
    assert_eq!(list["kind"], "HostEndpointList");
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    let set = "apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {name: s, namespace: ns}\nspec: {nets: [10.0.0.0/8]}";
    site.run_on(set, &["apply", "-f", "-"]).says(0, "");
    assert_eq!(out(&["get", "netset"]), "NAME   \n\n");
    assert_eq!(
        out(&["get", "netset", "-A"]),
        "NAMESPACE   NAME   \nns          s      \n\n"
    );
    assert_eq!(
        out(&["get", "netset", "-n", "ns"]),
        "NAMESPACE   NAME   \nns          s      \n\n"
    );
}

#[test]
fn calicoctls_configuration_is_understood() {
    let site = Site::new();
    let file = site.host.path("calicoctl.cfg");
    let config = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n  datastoreType: etcdv3\n  etcdEndpoints: http://127.0.0.1:1,http://127.0.0.1:2379\n";
    std::fs::write(&file, config).unwrap();
    let path = file.display().to_string();
    let head = ["--config", path.as_str()];
    site.run_with(&head, ENDPOINTS, &["create", "-f", "-"])
        .says(0, "Successfully created 2");
    std::fs::write(&file, config.replace("etcdEndpoints", "etcdEndpoint")).unwrap();
    site.run_with(&head, "", &["get", "hep"])
        .says(1, "unknown field etcdEndpoint");
    std::fs::write(&file, config.replace(":2379", ":2")).unwrap();
    site.run_with(&head, "", &["get", "hep"])
        .says(1, "http://127.0.0.1:2");
    for words in [
        &["apply", "--bogus"][..],
        &["apply", "-f", "/nonexistent"],
        &["get", "nonsense"],
        &["node", "status"],
        &["ipam"],
        &["--bogus", "delete", "hep", "x"],
    ] {
        site.run_with(&head, "", words).says(1, "");
    }
    site.run_with(&head, "", &["explain", "--bogus"])
        .says(64, "");
}

/// With the file where calicoctl has it, and nothing else in /etc.
#[test]
fn calicoctls_file_of_a_cluster_is_not_in_the_way() {
    let site = Site::new();
    let socket = site.host.path("run/moatd.sock").display().to_string();
    let get = |spec: &str, endpoints: &str| {
        let script = "mount -t tmpfs none /etc && mkdir /etc/calico && printf '%s' \"$1\" > /etc/calico/calicoctl.cfg && exec \"$2\" --socket \"$3\" get hep";
        let file = format!(
            "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata: {{}}\nspec: {{{spec}}}\n"
        );
        let done = Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh", &file, MOATCTL, &socket])
            .env("ETCD_ENDPOINTS", endpoints)
            .output()
            .unwrap();
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    for spec in [
        "datastoreType: kubernetes, kubeconfig: /root/.kube/config",
        "",
    ] {
        let (code, said) = get(spec, "");
        assert!(
            code == Some(69) && said.contains("is moatd running?"),
            "{said}"
        );
    }
    let (code, said) = get("datastoreType: etcdv3", "");
    assert!(
        code == Some(1) && said.contains("etcdEndpoints is missing"),
        "{said}"
    );
    // Where moat's own file is, calicoctl's is not looked at.
    let script = "mount -t tmpfs none /etc && mkdir /etc/calico /etc/moat && echo nonsense > /etc/calico/calicoctl.cfg && printf '%s' \"$1\" > /etc/moat/moatctl.toml && exec \"$2\" --socket \"$3\" get hep";
    for (own, code, text) in [
        (
            "datastoreType = \"etcdv3\"\netcdEndpoints = \"http://127.0.0.1:2379\"",
            0,
            "NAME",
        ),
        ("datastoreType = \"none\"", 69, "is moatd running?"),
    ] {
        let done = Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh", own, MOATCTL, &socket])
            .output()
            .unwrap();
        let said = format!("{done:?}");
        assert!(
            done.status.code() == Some(code) && said.contains(text),
            "{said}"
        );
    }
    // It goes before the environment, as for calicoctl.
    let nowhere = "http://127.0.0.1:1";
    let (code, said) = get(r#"etcdEndpoints: "http://127.0.0.1:2379""#, nowhere);
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

#[test]
fn the_loss_of_the_only_allow_rule_is_told_before() {
    let site = Site::new();
    site.run_on(&format!("{ENDPOINTS}---{POLICY}"), &["apply", "-f", "-"])
        .says(0, "Successfully applied 3");
    let warning = "HostEndpoint/web1 on h1 loses its only ingress rules";
    let denied = POLICY.replace("Allow", "Deny");
    site.run_on(&denied, &["apply", "--dry-run", "-f", "-"])
        .says(0, warning);
    site.run(&["delete", "--dry-run", "gnp", "allow-ssh"])
        .says(0, warning);
    site.run(&["label", "hep", "web1", "role=db", "--overwrite"])
        .says(0, warning);
    site.run(&["label", "hep", "web1", "role=web", "--overwrite"])
        .says(0, "updated");
    let same = site.run_on(POLICY, &["apply", "-f", "-"]);
    assert!(!same.err.contains("warning: HostEndpoint"), "{}", same.err);
}
