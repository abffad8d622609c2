//! Three members with TLS, client certificates and roles.

use std::time::Duration;

use crate::cluster::{Cluster, MEMBERS};
use crate::host::{Daemon, Host, wait_until};
use crate::{ENDPOINT, policy};

/// The least that a host needs to enforce: to read policy.
const READ: (&str, &str) = ("read", "/calico/resources/v3/projectcalico.org/");
/// What it needs besides to tell that it is alive and the state of its endpoints.
const STATUS: [(&str, &str); 2] = [
    ("readwrite", "/calico/felix/v2/no-region/host/h/"),
    ("readwrite", "/calico/felix/v1/host/h/endpoint/"),
];

struct Site {
    cluster: Cluster,
    host: Host,
}

impl Site {
    fn new(rights: &[(&str, &str)], lines: &str) -> Site {
        let host = Host::new("nft");
        let cluster = Cluster::start(&host.path("etcd"), true);
        cluster.put("hostendpoints/h-eth0", ENDPOINT);
        cluster.put("globalnetworkpolicies/web", &policy("web", 4001));
        cluster.user("h", rights);
        cluster.enable_roles();
        host.settings(&(cluster.settings("h") + lines));
        Site { cluster, host }
    }

    fn has(&self, port: u16) -> bool {
        let wanted = format!("--dports {port} ");
        self.host
            .rules()
            .iter()
            .any(|rule| format!("{rule} ").contains(&wanted))
    }

    #[track_caller]
    fn wait_port(&self, port: u16, daemon: &Daemon) {
        wait_until(
            || self.has(port),
            || format!("{port}: {:#?}\n{}", self.host.status(), daemon.log()),
        );
    }

    #[track_caller]
    fn wait_warning(&self, text: &str) {
        wait_until(
            || self.host.status()["warnings"].to_string().contains(text),
            || format!("no {text}: {:#}", self.host.status()),
        );
    }

    fn get(&self, key: &str) -> String {
        self.cluster.ctl(&["get", "--print-value-only", key])
    }
}

#[test]
fn reading_is_enough_to_enforce_and_writing_is_refused() {
    let site = Site::new(&[READ], "reportingInterval = \"1s\"");
    let daemon = site.host.start();
    site.wait_port(4001, &daemon);
    site.cluster
        .put("globalnetworkpolicies/web", &policy("web", 4002));
    site.wait_port(4002, &daemon);
    site.wait_warning("the role of this identity does not allow it");
    let status = site.host.status();
    assert_eq!(status["state"], "enforcing", "{status:#}");
    // What the daemon was refused is not there, and the role refuses everything else, too.
    assert_eq!(site.get("/calico/felix/v2/no-region/host/h/status"), "");
    for key in [
        "/calico/resources/v3/projectcalico.org/tiers/x",
        "/calico/felix/v2/no-region/host/h/status",
    ] {
        assert!(
            !site
                .cluster
                .try_as("h", &["put", key, "x"])
                .status
                .success(),
            "{key}"
        );
    }
}

#[test]
fn a_host_with_more_rights_tells_its_status_and_nothing_else() {
    let rights = [&[READ][..], &STATUS].concat();
    let site = Site::new(
        &rights,
        "reportingInterval = \"1s\"\nreportingTTL = \"3s\"\nendpointReportingEnabled = true",
    );
    let stale = "/calico/felix/v1/host/h/endpoint/gone";
    site.cluster.ctl(&["put", stale, "{\"status\":\"up\"}"]);
    let daemon = site.host.start();
    site.wait_port(4001, &daemon);
    let alive = "/calico/felix/v2/no-region/host/h/status";
    wait_until(
        || site.get(alive).contains("\"first_update\":false"),
        || daemon.log(),
    );
    let told: serde_json::Value = serde_json::from_str(&site.get(alive)).unwrap();
    assert!(
        told["uptime"].is_f64() && told["time"].as_str().unwrap().ends_with('Z'),
        "{told}"
    );
    let workload = "/calico/felix/v2/no-region/host/h/workload/k8s/ns1%2fpod1/endpoint/eth0";
    let own = crate::WORKLOAD
        .replace("node1", "h")
        .replace("cali0123456789a", "cali1");
    site.cluster
        .put("workloadendpoints/ns1/h-k8s-pod1-eth0", &own);
    wait_until(
        || site.get(workload).trim() == r#"{"status":"down"}"#,
        || daemon.log(),
    );
    let endpoint = "/calico/felix/v1/host/h/endpoint/h-eth0";
    // eth0 has no carrier: its other end is down.
    wait_until(
        || site.get(endpoint).trim() == r#"{"status":"down"}"#,
        || daemon.log(),
    );
    site.host.run("ip", &["link", "set", "far0", "up"]);
    wait_until(
        || site.get(endpoint).trim() == r#"{"status":"up"}"#,
        || daemon.log(),
    );
    assert_eq!(site.get(stale), "");
    let warnings = site.host.status()["warnings"].to_string();
    assert!(!warnings.contains("datastore"), "{warnings}");
    daemon.stop();
    wait_until(
        || site.get(alive).is_empty(),
        || "the report outlives the host".to_owned(),
    );
    assert!(
        site.get("/calico/felix/v2/no-region/host/h/last_reported_status")
            .contains("uptime")
    );
    for key in [
        "/calico/resources/v3/projectcalico.org/globalnetworkpolicies/web",
        "/calico/resources/v3/projectcalico.org/hostendpoints/h-eth0",
        "/calico/felix/v2/no-region/host/other/status",
        "/calico/felix/v1/host/other/endpoint/e",
        "/calico/ipam/v2/config",
        "/other",
    ] {
        assert!(
            !site
                .cluster
                .try_as("h", &["put", key, "x"])
                .status
                .success(),
            "{key}"
        );
        assert!(
            !site.cluster.try_as("h", &["del", key]).status.success(),
            "{key}"
        );
    }
}

#[test]
fn a_host_registers_itself() {
    let rights = [
        READ,
        (
            "write",
            "/calico/resources/v3/projectcalico.org/hostendpoints/h",
        ),
    ];
    let site = Site::new(
        &rights,
        "reportingInterval = 0\nregisterHostEndpoint = true\nhostEndpointLabels = [\"role=web\"]",
    );
    let daemon = site.host.start();
    let key = "/calico/resources/v3/projectcalico.org/hostendpoints/h";
    wait_until(
        || site.get(key).contains("10.1.0.1"),
        || format!("{:#}\n{}", site.host.status(), daemon.log()),
    );
    let made: serde_json::Value = serde_json::from_str(&site.get(key)).unwrap();
    assert_eq!(made["metadata"]["labels"]["role"], "web");
    assert_eq!(made["spec"]["node"], "h");
    let names = || site.host.status()["endpoints"].to_string();
    wait_until(
        || names().contains("\"name\":\"h\""),
        || format!("{:#}", site.host.status()),
    );
    site.host
        .run("ip", &["address", "add", "10.1.0.77/24", "dev", "eth0"]);
    wait_until(|| site.get(key).contains("10.1.0.77"), || daemon.log());
    site.host
        .run("ip", &["address", "del", "10.1.0.77/24", "dev", "eth0"]);
    wait_until(|| !site.get(key).contains("10.1.0.77"), || daemon.log());
    let after: serde_json::Value = serde_json::from_str(&site.get(key)).unwrap();
    assert_eq!(after["metadata"], made["metadata"]);
    // It can write nobody else's, and writes nothing that it was not asked to.
    let other = format!("{key}2");
    for arguments in [&["put", &other, "x"][..], &["del", "--prefix", key]] {
        assert!(
            !site.cluster.try_as("h", arguments).status.success(),
            "{arguments:?}"
        );
    }
    let told = site.cluster.ctl(&["get", "--prefix", "/calico/felix/"]);
    assert_eq!(told, "", "reportingInterval is 0");
}

#[test]
fn certificates_are_exchanged_without_losing_the_watch() {
    let site = Site::new(&[READ], "reportingInterval = 0");
    let daemon = site.host.start();
    site.wait_port(4001, &daemon);
    let generation = site.host.status()["generation"].clone();
    site.cluster.certificate("h", 5);
    site.wait_warning("expires in");
    // One that is of no use changes nothing: the connection made with the old one goes on.
    std::fs::write(site.cluster.path("h.pem"), "nonsense").unwrap();
    site.wait_warning("the connection made with the old ones goes on");
    assert_eq!(site.host.status()["generation"], generation);
    // Nor does one that etcd refuses: it has expired, which etcd says only after the connection is made.
    site.cluster.certificate("h", 0);
    site.wait_warning("has expired at");
    site.wait_warning("the connection made with the old ones goes on");
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(site.host.status()["degraded"], serde_json::json!([]));
    site.cluster
        .put("globalnetworkpolicies/web", &policy("web", 4003));
    site.wait_port(4003, &daemon);
    site.cluster.certificate("h", 365);
    wait_until(
        || {
            !site.host.status()["warnings"]
                .to_string()
                .contains("etcd: ")
        },
        || format!("{:#}", site.host.status()),
    );
    site.cluster
        .put("globalnetworkpolicies/web", &policy("web", 4004));
    site.wait_port(4004, &daemon);
    assert!(
        !daemon.log().contains("cannot be followed"),
        "{}",
        daemon.log()
    );
}

#[test]
fn an_expired_certificate_is_told_in_words_and_enforcement_goes_on() {
    let mut site = Site::new(&[READ], "reportingInterval = 0");
    let daemon = site.host.start();
    site.wait_port(4001, &daemon);
    wait_until(
        || site.host.status()["snapshot"]["generation"] == site.host.status()["generation"],
        || daemon.log(),
    );
    daemon.stop();
    site.cluster.certificate("h", 0);
    // The last moment of its validity is that of its making.
    std::thread::sleep(Duration::from_secs(1));
    let daemon = site.host.start();
    site.wait_port(4001, &daemon);
    site.wait_warning("has expired at");
    wait_until(
        || {
            site.host.status()["degraded"]
                .to_string()
                .contains("etcd cannot be followed")
        },
        || daemon.log(),
    );
    site.cluster.certificate("h", 365);
    site.cluster
        .put("globalnetworkpolicies/web", &policy("web", 4005));
    site.wait_port(4005, &daemon);
    // Rights that are taken away are no reason to open or to close anything.
    site.cluster.ctl(&["user", "revoke-role", "h", "h"]);
    // A watch under way goes on; the next connection is refused.
    for member in MEMBERS {
        site.cluster.kill(member);
        site.cluster.resume(member);
        site.cluster.wait_healthy();
    }
    wait_until(
        || {
            site.host.status()["degraded"]
                .to_string()
                .contains("permission denied")
        },
        || format!("{:#}", site.host.status()),
    );
    assert!(site.has(4005));
    site.cluster.ctl(&["user", "grant-role", "h", "h"]);
    site.cluster
        .put("globalnetworkpolicies/web", &policy("web", 4006));
    site.wait_port(4006, &daemon);
}
