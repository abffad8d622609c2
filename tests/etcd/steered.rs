//! The original calicoctl steers a running moatd: what it creates, patches, labels, replaces and deletes is in the kernel.
//! `MOAT_TEST_CALICOCTL=PATH cargo test --test etcd -- --ignored steered` names the program; without it there is nothing to test with.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use crate::Site;
use crate::feed::feed;
use crate::host::wait_until;

const CALICOCTL: &str = "MOAT_TEST_CALICOCTL";

/// The host's endpoint and a policy, as an administrator of Calico writes them.
const FIRST: &str = r#"
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: h}
spec: {bgp: {ipv4Address: 10.1.0.1/24}}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: h-eth0, labels: {role: web}}
spec: {node: h, interfaceName: eth0, expectedIPs: [10.1.0.1], profiles: [p1], ports: [{name: admin, protocol: TCP, port: 4300}]}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: p1}
spec: {egress: [{action: Allow, protocol: TCP, destination: {ports: [4200]}}], labelsToApply: {from: profile}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: g1}
spec:
  order: 10
  selector: role == 'web' && from == 'profile'
  types: [Ingress]
  ingress: [{action: Allow, protocol: TCP, source: {selector: kind == 'friend'}, destination: {ports: [4001]}}]
"#;
/// Who may come in: sets and a workload of another host.
const FRIENDS: &str = r#"
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: friends, labels: {kind: friend}}
spec: {nets: [192.0.2.0/24]}
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: friends, namespace: ns1, labels: {kind: friend}}
spec: {nets: [198.51.100.7]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: other-k8s-pod1-eth0, namespace: ns1, labels: {kind: friend}}
spec: {node: other, orchestrator: k8s, pod: pod1, endpoint: eth0, interfaceName: cali9, ipNetworks: [10.65.0.2/32]}
"#;
/// A workload of this host with a policy of its namespace.
const WORKLOAD: &str = r#"
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: h-k8s-pod2-eth0, namespace: ns1, labels: {app: a}}
spec: {node: h, orchestrator: k8s, pod: pod2, endpoint: eth0, interfaceName: cali2, ipNetworks: [10.65.0.3/32]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: np1, namespace: ns1}
spec: {selector: app == 'a', types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {ports: [4020]}}]}
"#;

/// A host that follows an etcd which only calicoctl writes.
struct Steered {
    site: Site,
    calicoctl: String,
    moatd: Child,
}

impl Drop for Steered {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.moatd.kill();
        let _ = self.moatd.wait();
    }
}

impl Steered {
    fn new() -> Steered {
        let calicoctl = std::env::var(CALICOCTL);
        let calicoctl = calicoctl.unwrap_or_else(|_| panic!("{CALICOCTL} names no calicoctl"));
        let site = Site::new();
        let moatd = Command::new(env!("CARGO_BIN_EXE_moatd"))
            .arg("--config")
            .arg(site.host.path("moat.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(site.host.path("moatd.log")).unwrap())
            .spawn()
            .unwrap();
        let socket = site.host.path("run/moatd.sock");
        wait_until(|| socket.exists(), || "moatd does not start".to_owned());
        Steered {
            site,
            calicoctl,
            moatd,
        }
    }

    fn calicoctl(&self, arguments: &[&str], input: &str) -> String {
        self.run(&self.calicoctl, arguments, input)
    }

    fn moatctl(&self, arguments: &[&str], input: &str) -> String {
        self.run(env!("CARGO_BIN_EXE_moatctl"), arguments, input)
    }

    fn run(&self, program: &str, arguments: &[&str], input: &str) -> String {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("ETCD_ENDPOINTS", "http://127.0.0.1:2379")
            .env("DATASTORE_TYPE", "etcdv3");
        let output = feed(&mut command, input);
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {output:?}"
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn wait(&self, holds: impl Fn(&Site) -> bool, what: &str) {
        let complaint = || {
            let host = &self.site.host;
            let log = fs::read_to_string(host.path("moatd.log")).unwrap();
            format!("{what}\n{:#}\n{:#?}\n{log}", host.status(), host.sets())
        };
        wait_until(|| holds(&self.site), complaint);
    }

    fn wait_member(&self, address: &str, wanted: bool) {
        let member = |site: &Site| {
            site.host
                .sets()
                .iter()
                .any(|line| line.contains(&format!(" {address}")))
        };
        self.wait(|site| member(site) == wanted, address);
    }

    /// Whether a rule names the port; nobody knows while the tool trips over a set that goes.
    fn has(port: u16) -> Option<bool> {
        let saved = Command::new("iptables-nft-save").output().unwrap();
        let text = String::from_utf8(saved.stdout).unwrap();
        let names = |line: &str| line.split(' ').any(|word| word == port.to_string());
        saved.status.success().then(|| text.lines().any(names))
    }

    fn wait_port(&self, port: u16, wanted: bool) {
        self.wait(|_| Self::has(port) == Some(wanted), &port.to_string());
    }

    fn wait_setting(&self, name: &str, value: &str) {
        let shown = |site: &Site| {
            let socket = site.host.path("run/moatd.sock").display().to_string();
            let arguments = ["--socket", &socket, "-o", "json", "config", "show"];
            let text = site.host.run(env!("CARGO_BIN_EXE_moatctl"), &arguments);
            let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
            let rows = shown["settings"].as_array().unwrap().clone();
            let row = rows.into_iter().find(|row| row["name"] == name).unwrap();
            format!("{} {}", row["value"], row["origin"])
        };
        self.wait(
            |site| shown(site).contains(value),
            &format!("{name} {value}"),
        );
    }

    fn is_well(&self) {
        self.wait(|site| site.problems() == "[]", "no problem");
        assert_eq!(self.site.host.status()["state"], "enforcing");
    }
}

#[test]
#[ignore = "needs a calicoctl: MOAT_TEST_CALICOCTL=PATH"]
fn policies_sets_and_endpoints() {
    let steered = Steered::new();
    steered.calicoctl(&["create", "-f", "-"], FIRST);
    steered.wait_port(4001, true);
    steered.wait_port(4200, true);
    steered.calicoctl(&["apply", "-f", "-"], FRIENDS);
    for address in ["192.0.2.0/24", "198.51.100.7", "10.65.0.2"] {
        steered.wait_member(address, true);
    }
    let nets = r#"{"spec":{"nets":["203.0.113.0/24"]}}"#;
    steered.calicoctl(&["patch", "globalnetworkset", "friends", "-p", nets], "");
    steered.wait_member("203.0.113.0/24", true);
    steered.wait_member("192.0.2.0/24", false);
    let set = ["label", "networkset", "friends", "-n", "ns1", "kind"];
    steered.calicoctl(&[&set[..], &["--remove"]].concat(), "");
    steered.wait_member("198.51.100.7", false);
    let other = ["delete", "wep", "-n", "ns1", "other-k8s-pod1-eth0"];
    steered.calicoctl(&other, "");
    steered.wait_member("10.65.0.2", false);
    let rules = r#"{"spec":{"ingress":[{"action":"Allow","protocol":"TCP","destination":{"ports":[4002]}}]}}"#;
    steered.calicoctl(&["patch", "gnp", "g1", "-p", rules], "");
    steered.wait_port(4002, true);
    steered.wait_port(4001, false);
    let changed = FIRST.replace("4001", "4003");
    steered.calicoctl(&["replace", "-f", "-"], &changed);
    steered.wait_port(4003, true);
    steered.wait_port(4002, false);
    steered.calicoctl(&["label", "hep", "h-eth0", "role=db", "--overwrite"], "");
    steered.wait_port(4003, false);
    steered.calicoctl(&["label", "hep", "h-eth0", "role=web", "--overwrite"], "");
    steered.wait_port(4003, true);
    steered.calicoctl(&["apply", "-f", "-"], WORKLOAD);
    steered.wait_port(4020, true);
    steered.is_well();
    steered.calicoctl(&["delete", "np", "np1", "-n", "ns1"], "");
    steered.wait_port(4020, false);
    steered.calicoctl(&["delete", "gnp", "g1"], "");
    steered.wait_port(4003, false);
    steered.calicoctl(&["delete", "hep", "h-eth0"], "");
    steered.wait_port(4200, false);
    steered.is_well();
}

#[test]
#[ignore = "needs a calicoctl: MOAT_TEST_CALICOCTL=PATH"]
fn settings_and_the_lock() {
    let steered = Steered::new();
    steered.calicoctl(&["create", "-f", "-"], FIRST);
    steered.calicoctl(&["apply", "-f", "-"], WORKLOAD);
    steered.wait_port(4020, true);
    let felix = |name: &str, fields: &str| {
        let text = format!(
            "{{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {{name: {name}}}, spec: {{{fields}}}}}"
        );
        steered.calicoctl(&["apply", "-f", "-"], &text);
    };
    let failsafe =
        |port: u16| format!("failsafeInboundHostPorts: [{{protocol: tcp, port: {port}}}]");
    felix(
        "default",
        &format!("{}, defaultEndpointToHostAction: Accept", failsafe(4101)),
    );
    steered.wait_setting("failsafeInboundHostPorts", "4101");
    steered.wait_setting("defaultEndpointToHostAction", "FelixConfiguration/default");
    steered.wait_port(4101, true);
    felix("node.h", &failsafe(4102));
    steered.wait_port(4102, true);
    steered.wait_port(4101, false);
    steered.calicoctl(&["delete", "felixconfig", "node.h"], "");
    steered.wait_port(4101, true);
    felix(
        "default",
        "iptablesRefreshInterval: 90s, logSeverityScreen: Debug, reportingInterval: 10s, chainInsertMode: Append, ipsetsRefreshInterval: 10s",
    );
    steered.wait_setting("chainInsertMode", "FelixConfiguration/default");
    steered.wait_setting("failsafeInboundHostPorts", "default");
    steered.is_well();

    steered.calicoctl(&["datastore", "migrate", "lock"], "");
    steered.site.wait_problem("datastoreReady is false");
    steered.calicoctl(&["delete", "np", "np1", "-n", "ns1"], "");
    // Time in which a daemon that followed would have done so.
    std::thread::sleep(std::time::Duration::from_secs(1));
    steered.wait_port(4020, true);
    steered.calicoctl(&["datastore", "migrate", "unlock"], "");
    steered.wait_port(4020, false);
    steered.is_well();
}

#[test]
#[ignore = "needs a calicoctl: MOAT_TEST_CALICOCTL=PATH"]
fn both_tools_change_the_same_policy() {
    let steered = Steered::new();
    steered.calicoctl(&["create", "-f", "-"], FIRST);
    steered.wait_port(4001, true);
    let second = FIRST
        .replace("name: g1", "name: g2")
        .replace("4001", "4004");
    steered.moatctl(&["apply", "-f", "-"], &second);
    steered.wait_port(4004, true);
    let rules = r#"{"spec":{"ingress":[{"action":"Allow","protocol":"TCP","destination":{"ports":[4005]}}]}}"#;
    steered.calicoctl(&["patch", "gnp", "g2", "-p", rules], "");
    steered.wait_port(4005, true);
    steered.wait_port(4004, false);
    steered.moatctl(
        &["patch", "gnp", "g1", "-p", &rules.replace("4005", "4006")],
        "",
    );
    steered.wait_port(4006, true);
    steered.wait_port(4001, false);
    steered.calicoctl(&["replace", "-f", "-"], FIRST);
    steered.wait_port(4001, true);
    steered.calicoctl(&["delete", "gnp", "g1", "g2"], "");
    for port in [4001, 4005, 4006] {
        steered.wait_port(port, false);
    }
    steered.is_well();
}

#[test]
#[ignore = "needs a calicoctl: MOAT_TEST_CALICOCTL=PATH"]
fn an_export_of_moatctl_is_one_for_calicoctl() {
    let steered = Steered::new();
    steered.calicoctl(&["create", "-f", "-"], &format!("{FIRST}---{FRIENDS}"));
    steered.moatctl(&["datastore", "migrate", "lock"], "");
    let export = steered.moatctl(&["datastore", "migrate", "export"], "");
    // Its import applies the first part, and wants a Kubernetes for it, which there is not.
    let parts: Vec<&str> = export.split("===\n").collect();
    assert_eq!(parts.len(), 3);
    let applied = steered.calicoctl(&["apply", "-f", "-"], parts[0]);
    assert_eq!(applied, "Successfully applied 5 resource(s)\n");
}

#[test]
#[ignore = "needs a calicoctl: MOAT_TEST_CALICOCTL=PATH"]
fn what_one_tool_prints_the_other_one_takes() {
    let steered = Steered::new();
    let all = [FIRST, FRIENDS, WORKLOAD].join("---");
    steered.calicoctl(&["create", "-f", "-"], &all);
    let kinds = [
        "node",
        "hep",
        "gnp",
        "np",
        "globalnetworkset",
        "networkset",
        "wep",
    ];
    for kind in kinds {
        for form in ["yaml", "json"] {
            let namespaced = ["np", "networkset", "wep"].contains(&kind);
            let everywhere: &[&str] = if namespaced { &["-A"] } else { &[] };
            let get = [&["get", kind, "-o", form], everywhere].concat();
            let apply = ["apply", "-f", "-"];
            let theirs = steered.calicoctl(&get, "");
            let ours = steered.moatctl(&get, "");
            assert_eq!(ours, theirs, "{kind}");
            let said = steered.moatctl(&apply, &theirs);
            assert_eq!(said, steered.calicoctl(&apply, &steered.moatctl(&get, "")));
        }
    }
    steered.wait_port(4001, true);
    steered.is_well();
}
