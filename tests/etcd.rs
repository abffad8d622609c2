//! moatd with a real etcd, which holds resources as Calico's own programs write them. Each test has a network namespace of its
//! own; root only.

#[path = "etcd/addresses.rs"]
mod addresses;
#[path = "etcd/boot.rs"]
mod boot;
#[path = "etcd/calicoctl.rs"]
mod calicoctl;
#[path = "etcd/cluster.rs"]
mod cluster;
#[path = "etcd/ctl.rs"]
mod ctl;
#[path = "etcd/cut_off.rs"]
mod cut_off;
#[path = "etcd/discovery.rs"]
mod discovery;
#[path = "etcd/emptied.rs"]
mod emptied;
#[path = "etcd/faults.rs"]
mod faults;
#[path = "common/feed.rs"]
mod feed;
#[path = "etcd/golden.rs"]
mod golden;
#[path = "common/host.rs"]
mod host;
#[path = "etcd/hostile.rs"]
mod hostile;
#[path = "etcd/identity.rs"]
mod identity;
#[path = "etcd/moves.rs"]
mod moves;
#[path = "etcd/names.rs"]
mod names;
#[path = "etcd/odd.rs"]
mod odd;
#[path = "etcd/password.rs"]
mod password;
#[path = "etcd/prober.rs"]
mod prober;
#[path = "etcd/readme.rs"]
mod readme;
#[path = "etcd/scale.rs"]
mod scale;
#[path = "etcd/secure.rs"]
mod secure;
#[path = "etcd/server.rs"]
mod server;
#[path = "etcd/steered.rs"]
mod steered;

use std::time::Duration;

use host::{Daemon, Host, wait_until};
use server::Etcd;

/// Values in the very form in which Calico stores them.
const ENDPOINT: &str = r#"{"kind":"HostEndpoint","apiVersion":"projectcalico.org/v3","metadata":{"name":"h-eth0","uid":"0f6c2b1e-6c1f-4a4e-8f57-0d7a3f9b2c11","creationTimestamp":"2026-01-02T03:04:05Z","labels":{"role":"web"}},"spec":{"node":"h","interfaceName":"eth0","expectedIPs":["10.1.0.1"],"ports":[{"name":"http","protocol":"TCP","port":80}]}}"#;
const WORKLOAD: &str = r#"{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{"name":"node1-k8s-pod1-eth0","namespace":"ns1","creationTimestamp":null,"labels":{"projectcalico.org/namespace":"ns1","projectcalico.org/orchestrator":"k8s"}},"spec":{"orchestrator":"k8s","node":"node1","pod":"pod1","endpoint":"eth0","ipNetworks":["192.168.1.2/32"],"profiles":["kns.ns1"],"interfaceName":"cali0123456789a"}}"#;
const CALICOCTL_POLICY: &str = r#"{"kind":"GlobalNetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"default.g1","uid":"ad27183d-7cd4-41d6-b245-7183ed2eeeb7","creationTimestamp":"2026-11-26T07:37:34Z"},"spec":{"order":10.5,"ingress":[{"action":"Allow","protocol":"TCP","source":{},"destination":{"ports":[4003]}}],"selector":"role == 'web' \u0026\u0026 has(role)","types":["Ingress"]}}"#;
const INFORMATION: &str = r#"{"kind":"ClusterInformation","apiVersion":"projectcalico.org/v3","metadata":{"name":"default","uid":"1","creationTimestamp":"2026-01-02T03:04:05Z"},"spec":{"clusterGUID":"00112233445566778899aabbccddeeff","clusterType":"typha","calicoVersion":"v3.32.0","datastoreReady":READY}}"#;

/// A policy in the form of today, which allows one port.
fn policy(name: &str, port: u16) -> String {
    format!(
        r#"{{"kind":"GlobalNetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}","uid":"a3","creationTimestamp":"2026-01-02T03:04:05Z","labels":{{"projectcalico.org/tier":"default"}},"annotations":{{"projectcalico.org/metadata":"{{\"name\":\"{name}\"}}"}}}},"spec":{{"tier":"default","order":100,"selector":"role == 'web'","types":["Ingress"],"ingress":[{{"action":"Allow","protocol":"TCP","source":{{"nets":["10.0.0.0/8"]}},"destination":{{"ports":[{port}]}}}}]}}}}"#
    )
}

fn information(ready: bool) -> String {
    INFORMATION.replace("READY", &ready.to_string())
}

/// A host that follows an etcd.
struct Site {
    etcd: Etcd,
    host: Host,
}

impl Site {
    fn new() -> Site {
        let host = Host::new("nft");
        host.settings("datastoreType = \"etcdv3\"\netcdEndpoints = [\"http://127.0.0.1:2379\"]\nreportingInterval = 0");
        let etcd = Etcd::start(&host.path("etcd"));
        Site { etcd, host }
    }

    /// With an endpoint and a policy that allows port 4001.
    fn filled() -> Site {
        let site = Site::new();
        site.etcd
            .put("clusterinformations/default", &information(true));
        site.etcd.put("hostendpoints/h-eth0", ENDPOINT);
        site.etcd
            .put("globalnetworkpolicies/web", &policy("web", 4001));
        site
    }

    fn has(&self, port: u16) -> bool {
        let wanted = format!("--dports {port} ");
        self.host
            .rules()
            .iter()
            .any(|rule| format!("{rule} ").contains(&wanted))
    }

    fn wait_port(&self, port: u16, daemon: &Daemon) {
        wait_until(
            || self.has(port),
            || format!("{port}: {:#?}\n{}", self.host.status(), daemon.log()),
        );
    }

    fn source(&self) -> serde_json::Value {
        let status = self.host.status();
        let sources = status["sources"].as_array().unwrap();
        let etcd = sources
            .iter()
            .find(|s| s["name"].as_str().unwrap().starts_with("etcd:"));
        etcd.unwrap_or_else(|| panic!("{status:#}")).clone()
    }

    fn problems(&self) -> String {
        self.host.status()["degraded"].to_string()
    }

    fn wait_problem(&self, text: &str) {
        wait_until(
            || self.problems().contains(text),
            || format!("no {text}: {:#}", self.host.status()),
        );
    }

    fn wait_sync(&self) {
        wait_until(
            || self.source()["inSync"] == true,
            || format!("{:#}", self.host.status()),
        );
    }
}

#[test]
fn what_calico_wrote_is_enforced_and_followed() {
    let site = Site::filled();
    site.etcd
        .put("workloadendpoints/ns1/node1-k8s-pod1-eth0", WORKLOAD);
    site.etcd.put("nodes/node1", r#"{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"node1"},"spec":{}}"#);
    let daemon = site.host.start();
    site.wait_port(4001, &daemon);
    site.wait_sync();
    assert_eq!(site.source()["ignored"], 1);
    // However often it is written; and keys of which nobody knows what they are.
    for revision in 0..3 {
        let node = format!(
            r#"{{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{{"name":"node1"}},"spec":{{"x":{revision}}}}}"#
        );
        site.etcd.put("nodes/node1", &node);
    }
    site.etcd.put("livemigrations/x", "{}");
    site.etcd.put("nonsense", "\u{1}");
    wait_until(
        || site.source()["ignored"] == 3,
        || format!("{:#}", site.host.status()),
    );
    site.etcd.delete("nonsense");
    wait_until(
        || site.source()["ignored"] == 2,
        || format!("{:#}", site.host.status()),
    );
    // A policy under the name that old clients gave it, without the annotation of new ones.
    let old = policy("old", 4002)
        .replace(r#""name":"old","#, r#""name":"default.old","#)
        .replace(
            r#","annotations":{"projectcalico.org/metadata":"{\"name\":\"old\"}"}"#,
            "",
        );
    site.etcd.put("globalnetworkpolicies/default.old", &old);
    site.wait_port(4002, &daemon);
    let policies = site.host.status()["endpoints"][0]["policies"].to_string();
    assert!(policies.contains("GlobalNetworkPolicy/old\""), "{policies}");
    site.etcd.delete("globalnetworkpolicies/default.old");
    wait_until(|| !site.has(4002), || daemon.log());
    assert!(site.has(4001));
    // What calicoctl 3.28 stored when it applied a policy, then when it patched and when it deleted it.
    site.etcd
        .put("globalnetworkpolicies/default.g1", CALICOCTL_POLICY);
    site.wait_port(4003, &daemon);
    let patched = CALICOCTL_POLICY.replace("4003", "4004");
    site.etcd.put("globalnetworkpolicies/default.g1", &patched);
    site.wait_port(4004, &daemon);
    assert!(!site.has(4003));
    site.etcd.delete("globalnetworkpolicies/default.g1");
    wait_until(|| !site.has(4004), || daemon.log());
}

#[test]
fn an_invalid_object_keeps_its_last_good_version() {
    let site = Site::filled();
    let daemon = site.host.start();
    site.wait_port(4001, &daemon);
    let invalid = policy("web", 4003).replace("\"Allow\"", "\"Perhaps\"");
    site.etcd.put("globalnetworkpolicies/web", &invalid);
    site.wait_problem("Perhaps");
    let problems = site.problems();
    assert!(
        problems.contains("/calico/resources/v3/projectcalico.org/globalnetworkpolicies/web"),
        "{problems}"
    );
    assert!(problems.contains("(revision 5)"), "{problems}");
    assert!(site.has(4001));
    for hostile in ["", "[", "{}", "null", &policy("other", 4004)] {
        site.etcd.put("globalnetworkpolicies/web", hostile);
    }
    site.wait_problem("which has another key");
    assert!(site.has(4001) && !site.has(4004));
    site.etcd
        .put("globalnetworkpolicies/web", &policy("web", 4005));
    site.wait_port(4005, &daemon);
    assert_eq!(site.problems(), "[]");
}

#[test]
fn what_a_newer_calico_has_is_told_and_the_rest_counts() {
    let site = Site::filled();
    let endpoint = ENDPOINT.replacen("\"spec\":{", "\"spec\":{\"ofTheYear2031\":[],", 1);
    site.etcd.put("hostendpoints/h-eth0", &endpoint);
    let felix = r#"{"kind":"FelixConfiguration","apiVersion":"projectcalico.org/v3","metadata":{"name":"default"},"spec":{"failsafeInboundHostPorts":[{"protocol":"tcp","port":4077}],"ofTheYear2030":{"a":[1]}}}"#;
    site.etcd.put("felixconfigurations/default", felix);
    let told = |daemon: &Daemon| {
        site.wait_port(4077, daemon);
        site.wait_sync();
        let status = site.host.status();
        let warnings = status["warnings"].to_string();
        for year in [2030, 2031] {
            let says = format!("unknown field `ofTheYear{year}`: it has no effect here");
            assert!(warnings.contains(&says), "{warnings}");
        }
        assert_eq!(site.problems(), "[]");
    };
    let daemon = site.host.start();
    told(&daemon);
    wait_until(
        || site.host.status()["snapshot"]["generation"] == site.host.status()["generation"],
        || daemon.log(),
    );
    daemon.stop();
    told(&site.host.start());
}

#[test]
fn a_local_file_wins() {
    let site = Site::filled();
    let daemon = site.host.start();
    site.wait_port(4001, &daemon);
    site.host.policy("web.yaml", &policy("web", 4010));
    site.wait_port(4010, &daemon);
    wait_until(|| !site.has(4001), || daemon.log());
    let status = site.host.status();
    let overrides = &status["localOverrides"];
    assert_eq!(
        overrides[0]["object"], "GlobalNetworkPolicy/web",
        "{status:#}"
    );
    assert!(
        overrides[0]["key"]
            .as_str()
            .unwrap()
            .ends_with("/globalnetworkpolicies/web")
    );
    assert_eq!(status["state"], "enforcing", "{status:#}");
    std::fs::remove_file(site.host.path("policy.d/web.yaml")).unwrap();
    site.wait_port(4001, &daemon);
}

#[test]
fn without_etcd_the_snapshot_is_enforced() {
    let mut site = Site::filled();
    let daemon = site.host.start();
    site.wait_port(4001, &daemon);
    wait_until(
        || site.host.status()["snapshot"]["generation"] == site.host.status()["generation"],
        || daemon.log(),
    );
    site.etcd.kill();
    site.wait_problem("etcd cannot be followed");
    assert!(site.has(4001));
    let contact = site.source()["lastContact"].clone();
    daemon.stop();
    // A reboot.
    site.host.both(&["-F"]);
    site.host.both(&["-X"]);
    assert!(!site.has(4001));
    // Some time passes.
    std::thread::sleep(Duration::from_secs(3));
    let daemon = site.host.start();
    site.wait_port(4001, &daemon);
    site.wait_problem("the policy of the snapshot is in force, as etcd had it at 20");
    assert_eq!(site.source()["inSync"], false);
    // The new generation is saved, and no younger for it.
    let status = || site.host.status();
    wait_until(
        || status()["snapshot"]["generation"] == status()["generation"],
        || daemon.log(),
    );
    assert!(
        status()["snapshot"]["age"].as_u64() >= Some(3),
        "{}",
        status()
    );
    assert_eq!(site.source()["lastContact"], contact);
    let socket = site.host.path("run/moatd.sock").display().to_string();
    let text = site.host.run(
        env!("CARGO_BIN_EXE_moatctl"),
        &["--socket", &socket, "status"],
    );
    assert!(
        text.contains("from the snapshot, read 20") && text.contains("s ago)"),
        "{text}"
    );
    site.etcd.resume();
    site.wait_sync();
    // Etcd confirmed it.
    wait_until(
        || status()["snapshot"]["age"].as_u64() < Some(3),
        || daemon.log(),
    );
    site.etcd
        .put("globalnetworkpolicies/web", &policy("web", 4020));
    site.wait_port(4020, &daemon);
}

#[test]
fn without_snapshot_and_etcd_nothing_is_touched() {
    let mut site = Site::filled();
    site.etcd.kill();
    site.host.policy("local.yaml", ENDPOINT);
    let daemon = site.host.start();
    site.wait_problem("nothing was ever read from it");
    assert_eq!(site.host.status()["state"], "starting");
    let ours = || site.host.rules().iter().any(|rule| rule.contains("moat"));
    assert!(!ours(), "{}", daemon.log());
    site.etcd.resume();
    site.wait_port(4001, &daemon);
}

#[test]
fn compacted_history_leads_to_a_list_that_is_compared() {
    let mut site = Site::filled();
    let daemon = site.host.start();
    site.wait_port(4001, &daemon);
    let generation = || site.host.status()["generation"].clone();
    site.etcd
        .put("globalnetworkpolicies/more", &policy("more", 4030));
    site.wait_port(4030, &daemon);
    // The daemon sees none of what follows.
    daemon.signal(nix::sys::signal::Signal::SIGSTOP);
    site.etcd.kill();
    site.etcd.resume();
    site.etcd.delete("globalnetworkpolicies/more");
    site.etcd
        .put("globalnetworkpolicies/web", &policy("web", 4031));
    site.etcd.compact();
    daemon.signal(nix::sys::signal::Signal::SIGCONT);
    site.wait_port(4031, &daemon);
    wait_until(|| !site.has(4030), || daemon.log());
    site.wait_sync();
    // Nothing else changed, so a further loss of the connection changes nothing.
    let before = generation();
    site.etcd.kill();
    site.wait_problem("etcd cannot be followed");
    site.etcd.resume();
    site.wait_sync();
    assert_eq!(generation(), before);
}

#[test]
fn a_restored_backup_is_taken_over_and_an_empty_etcd_is_not() {
    let mut site = Site::filled();
    let daemon = site.host.start();
    site.wait_port(4001, &daemon);
    let backup = site.etcd.backup();
    for port in 4040..4045 {
        site.etcd
            .put("globalnetworkpolicies/web", &policy("web", port));
    }
    site.etcd
        .put("globalnetworkpolicies/later", &policy("later", 4046));
    site.wait_port(4046, &daemon);
    site.etcd.kill();
    site.etcd.restore(&backup);
    site.etcd.resume();
    site.wait_port(4001, &daemon);
    wait_until(|| !site.has(4046) && !site.has(4044), || daemon.log());
    site.etcd.kill();
    site.etcd.wipe();
    site.etcd.resume();
    site.wait_problem("etcd holds no resource any more");
    assert!(site.has(4001));
}

#[test]
fn a_locked_datastore_pauses() {
    let site = Site::filled();
    let daemon = site.host.start();
    site.wait_port(4001, &daemon);
    site.etcd
        .put("clusterinformations/default", &information(false));
    site.wait_problem("datastoreReady is false");
    site.etcd
        .put("globalnetworkpolicies/web", &policy("web", 4050));
    site.etcd.delete("hostendpoints/h-eth0");
    // Time in which a daemon that followed would have done so.
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(site.has(4001) && !site.has(4050));
    site.etcd.put("hostendpoints/h-eth0", ENDPOINT);
    site.etcd
        .put("clusterinformations/default", &information(true));
    site.wait_port(4050, &daemon);
    site.wait_sync();
}
