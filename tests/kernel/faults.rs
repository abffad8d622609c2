//! What moatd makes of files, directories and disks that are not as they should be. It never opens the host.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::host::{Daemon, Host, wait_until};

const ENDPOINT: &str = "
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: eth0, labels: {role: web}}
spec: {node: h, interfaceName: eth0}
";

const FELIX: &str = "
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {failsafeInboundHostPorts: [{protocol: tcp, port: 2222}]}
";

fn host() -> Host {
    let host = Host::new("nft");
    host.policy("endpoint.yaml", ENDPOINT);
    host
}

/// A second `policyDirs` line would be a duplicate, so the first is replaced.
fn move_policies(host: &Host, dir: &str) {
    let file = host.path("moat.toml");
    let text = fs::read_to_string(&file).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    let line = format!(
        "policyDirs = [{:?}]\n",
        host.path(dir).display().to_string()
    );
    fs::write(file, line + rest).unwrap();
}

fn reload(host: &Host, daemon: &Daemon) {
    let before = host.status()["generation"].as_u64();
    daemon.signal(Signal::SIGHUP);
    wait_until(
        || host.status()["generation"].as_u64() > before,
        || daemon.log(),
    );
}

fn names(status: &Value) -> Vec<&str> {
    let endpoints = status["endpoints"].as_array().unwrap();
    endpoints
        .iter()
        .map(|e| e["name"].as_str().unwrap())
        .collect()
}

#[test]
fn a_mistyped_directory_takes_nothing_away() {
    let host = host();
    let daemon = host.start();
    let rules = host.rules();
    move_policies(&host, "mistyped.d");
    reload(&host, &daemon);
    let status = host.status();
    assert_eq!(status["state"], "degraded");
    assert_eq!(status["sources"][0]["inSync"], false);
    assert_eq!(names(&status), ["eth0"]);
    assert_eq!(host.rules(), rules);
    daemon.stop();
    let daemon = host.start();
    assert_eq!(host.rules(), rules, "nor at the next start");
    fs::create_dir(host.path("mistyped.d")).unwrap();
    wait_until(|| names(&host.status()).is_empty(), || daemon.log());
}

#[test]
fn without_policy_and_snapshot_the_rules_stay() {
    let host = host();
    host.start().stop();
    let rules = host.rules();
    fs::rename(host.path("policy.d"), host.path("away.d")).unwrap();
    for name in ["snapshot", "snapshot.prev"] {
        fs::write(host.path("state").join(name), "garbage").unwrap();
    }
    let daemon = host.spawn(&host.path("nobody"));
    wait_until(
        || daemon.log().contains("no policy can be read"),
        || daemon.log(),
    );
    assert_eq!(host.status()["state"], "starting");
    assert_eq!(host.rules(), rules);
    fs::rename(host.path("away.d"), host.path("policy.d")).unwrap();
    wait_until(|| host.status()["state"] == "enforcing", || daemon.log());
    assert_eq!(host.rules(), rules);
}

/// A set, and a policy whose rule looks into it.
const OFFICE: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: office, labels: {from: office}}
spec: {nets: [198.51.100.0/24]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: office}
spec: {selector: role == 'web', types: [Ingress], ingress: [{action: Allow, source: {selector: from == 'office'}}]}
";

#[test]
fn a_snapshot_damaged_before_its_last_commit_empties_no_set() {
    let host = host();
    host.policy("office.yaml", OFFICE);
    let daemon = host.start();
    wait_until(|| host.path("state/members").exists(), || daemon.log());
    daemon.stop();
    let (rules, sets) = (host.rules(), host.sets());
    fs::rename(host.path("policy.d"), host.path("away.d")).unwrap();
    let snapshot = host.path("state/snapshot");
    let mut bytes = fs::read(&snapshot).unwrap();
    let at = bytes.windows(6).position(|w| w == b"office").unwrap();
    bytes[at] = b'O';
    fs::write(&snapshot, bytes).unwrap();
    let daemon = host.spawn(&host.path("nobody"));
    wait_until(
        || daemon.log().contains("no policy can be read"),
        || daemon.log(),
    );
    assert_eq!((host.rules(), host.sets()), (rules.clone(), sets.clone()));
    fs::rename(host.path("away.d"), host.path("policy.d")).unwrap();
    wait_until(|| host.status()["state"] == "enforcing", || daemon.log());
    assert_eq!((host.rules(), host.sets()), (rules, sets));
}

#[test]
fn a_snapshot_that_cannot_be_written_is_a_problem_that_passes() {
    let host = host();
    // Even root cannot replace a directory by a file.
    fs::create_dir_all(host.path("state/snapshot.new/full")).unwrap();
    let daemon = host.start();
    wait_until(|| host.status()["state"] == "degraded", || daemon.log());
    let problem = &host.status()["degraded"][0];
    assert_eq!(problem["object"], "snapshot");
    assert_eq!(problem["where"], host.path("state").display().to_string());
    assert!(
        problem["reason"].as_str().unwrap().contains("directory"),
        "{problem}"
    );
    fs::remove_dir_all(host.path("state/snapshot.new")).unwrap();
    wait_until(|| host.status()["state"] == "enforcing", || daemon.log());
}

#[test]
fn settings_among_the_policies_count_from_the_first_moment() {
    let has_port = |host: &Host| host.rules().iter().any(|l| l.contains("--dports 2222"));
    let host = host();
    host.policy("felix.yaml", FELIX);
    let daemon = host.start();
    assert!(has_port(&host));
    host.policy("felix.yaml", &FELIX.replace("2222", "70000"));
    wait_until(|| host.status()["state"] == "degraded", || daemon.log());
    assert!(has_port(&host), "the last good one stays");
    fs::remove_file(host.path("policy.d/felix.yaml")).unwrap();
    wait_until(|| !has_port(&host), || daemon.log());
    fs::create_dir(host.path("more.d")).unwrap();
    fs::write(
        host.path("more.d/all.yaml"),
        format!("{ENDPOINT}---{FELIX}"),
    )
    .unwrap();
    move_policies(&host, "more.d");
    reload(&host, &daemon);
    assert!(
        has_port(&host),
        "also in a directory that came with a reload"
    );
}

#[test]
fn a_felix_configuration_may_name_the_backend() {
    let host = Host::new("nft");
    host.policy("endpoint.yaml", ENDPOINT);
    let text = FELIX.replace(
        "{failsafeInboundHostPorts",
        "{iptablesBackend: Legacy, failsafeInboundHostPorts",
    );
    host.policy("felix.yaml", &text);
    // What moat.toml says would win.
    let settings = fs::read_to_string(host.path("moat.toml")).unwrap();
    let settings = settings.replace("iptablesBackend", "#");
    fs::write(host.path("moat.toml"), settings).unwrap();
    let _daemon = host.start();
    assert_eq!(host.status()["backend"], "iptables-legacy");
}

#[test]
fn a_linked_file_is_followed() {
    let host = host();
    fs::create_dir(host.path("tree")).unwrap();
    let target = host.path("tree/policy.yaml");
    fs::write(
        &target,
        ENDPOINT
            .replace("name: eth0", "name: one")
            .replace("eth0}", "eth1}"),
    )
    .unwrap();
    symlink(&target, host.path("policy.d/linked.yaml")).unwrap();
    let daemon = host.start();
    assert_eq!(names(&host.status()), ["eth0", "one"]);
    fs::write(
        &target,
        ENDPOINT
            .replace("name: eth0", "name: two")
            .replace("eth0}", "eth1}"),
    )
    .unwrap();
    wait_until(|| names(&host.status()) == ["eth0", "two"], || daemon.log());
}

#[test]
fn hostile_files_are_named_and_harm_nothing() {
    let host = host();
    let daemon = host.start();
    let rules = host.rules();
    let path = |name: &str| host.path("policy.d").join(name);
    host.run("mkfifo", &[path("pipe.yaml").to_str().unwrap()]);
    fs::create_dir(path("directory.yaml")).unwrap();
    fs::File::create(path("huge.yaml"))
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    fs::write(path("binary.yaml"), [0u8, 159, 146, 150].repeat(1000)).unwrap();
    fs::write(path("deep.yaml"), "[".repeat(1 << 20)).unwrap();
    fs::write(
        path("open.yaml"),
        ENDPOINT.replace("name: eth0", "name: evil"),
    )
    .unwrap();
    fs::set_permissions(path("open.yaml"), fs::Permissions::from_mode(0o666)).unwrap();
    symlink("/nonexistent", path("dangling.yaml")).unwrap();
    for ignored in [
        ".a.yaml.swp",
        "a.yaml~",
        "#a.yaml#",
        "4913",
        "a.yaml.tmp",
        ".#a.yaml",
    ] {
        fs::write(path(ignored), "{").unwrap();
    }
    let count = || host.status()["degraded"].as_array().map_or(0, Vec::len);
    wait_until(|| count() == 7, || format!("{:#}", host.status()));
    assert_eq!(host.rules(), rules);
    drop(daemon);
}

#[test]
fn the_control_socket_is_roots_and_survives_its_clients() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    let host = host();
    let _daemon = host.start();
    let socket = host.path("run/moatd.sock");
    assert_eq!(
        fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let idle: Vec<UnixStream> = (0..100)
        .map(|_| UnixStream::connect(&socket).unwrap())
        .collect();
    let hostile = [
        b"garbage\n".to_vec(),
        b"\0\xff\n".to_vec(),
        b"[".repeat(100_000),
        vec![b'x'; (16 << 20) + 1],
    ];
    for mut request in hostile {
        request.push(b'\n');
        let mut client = UnixStream::connect(&socket).unwrap();
        // The end of a long request may find nobody.
        let _ = client.write_all(&request);
        let mut answer = [0; 64];
        let length = client.read(&mut answer).unwrap();
        let text = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(
            text.starts_with("{\"error\":") || text.starts_with("{\"refused\":"),
            "{text}"
        );
    }
    assert_eq!(host.status()["state"], "enforcing");
    drop(idle);
}
