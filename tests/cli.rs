//! moatctl as scripts use it: exit codes, standard input, JSON, pipes. Nothing here needs root or a daemon.

#[path = "common/feed.rs"]
mod feed;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use feed::feed;
use serde_json::Value;

const MOATCTL: &str = env!("CARGO_BIN_EXE_moatctl");
const MOATD: &str = env!("CARGO_BIN_EXE_moatd");

const FILES: &str = r#"
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: web, labels: {role: web}}
spec: {node: h1, interfaceName: eth0, expectedIPs: [10.0.0.1, "fd00::1"]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: far, labels: {role: far}}
spec: {node: h2, interfaceName: eth0, expectedIPs: [10.0.0.2]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: web}
spec:
  selector: role == 'web'
  types: [Ingress, Egress]
  ingress:
  - {action: Log}
  - {action: Allow, protocol: TCP, destination: {ports: [80]}}
  - {action: Allow, protocol: ICMPv6, icmp: {type: 128}}
  - {action: Deny, protocol: UDP, source: {ports: [53]}}
  - {action: Allow, protocol: 47}
  egress:
  - {action: Allow, protocol: TCP, destination: {ports: [443]}}
"#;

/// Settings that say nothing, whatever this machine has in /etc.
static CONFIG: LazyLock<PathBuf> = LazyLock::new(|| {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli.toml");
    std::fs::write(&file, "").unwrap();
    file
});

struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Done {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}{}", self.out, self.err))
    }
}

fn run_on(input: &str, arguments: &[&str]) -> Done {
    let mut command = Command::new(MOATCTL);
    command
        .env("MOAT_CONFIG", &*CONFIG)
        .env("MOAT_SOCKET", "/nonexistent/sock")
        .args(arguments);
    let done = feed(&mut command, input);
    Done {
        code: done.status.code(),
        out: String::from_utf8(done.stdout).unwrap(),
        err: String::from_utf8(done.stderr).unwrap(),
    }
}

fn run(arguments: &[&str]) -> Done {
    run_on("", arguments)
}

fn explain(arguments: &[&str]) -> Done {
    let head = ["explain", "--offline", "-f", "-", "-o", "json"];
    run_on(FILES, &[&head[..], arguments].concat())
}

#[test]
fn exit_codes() {
    let cases: &[(&str, &[&str], i32)] = &[
        (FILES, &["validate", "-f", "-"], 0),
        ("{", &["validate", "-f", "-"], 1),
        (FILES, &["plan", "--offline", "--node", "h1", "-f", "-"], 2),
        (FILES, &["plan", "--offline", "--node", "h3", "-f", "-"], 0),
        ("{", &["plan", "--offline", "-f", "-"], 1),
        ("", &["bogus"], 64),
        ("", &["explain", "--from", "1.1.1.1"], 64),
        ("", &["validate", "-f", "/nonexistent"], 66),
        ("", &["status"], 69),
        ("", &["get", "hep"], 69),
        ("", &["get", "nonsense"], 64),
        (
            "",
            &["--config", "/nonexistent", "config", "show", "--offline"],
            78,
        ),
        ("", &["version"], 0),
        ("", &["--help"], 0),
    ];
    for (input, arguments, wanted) in cases {
        let done = run_on(input, arguments).code;
        assert_eq!(done, Some(*wanted), "{arguments:?}");
    }
    let usage = Command::new(MOATD).arg("--bogus").output().unwrap();
    assert_eq!(usage.status.code(), Some(64));
}

#[test]
fn explain_names_the_rule_that_decides_last() {
    // Arguments, verdict, index of the deciding rule, its line.
    type Case<'a> = (&'a [&'a str], &'a str, Option<u64>, Option<u64>);
    let cases: &[Case<'_>] = &[
        (
            &["--from", "1.1.1.1", "--to", "web", "--port", "80"],
            "allow",
            Some(1),
            Some(20),
        ),
        (
            &[
                "--from", "1.1.1.1", "--to", "10.0.0.1", "--proto", "6", "--port", "80",
            ],
            "allow",
            Some(1),
            Some(20),
        ),
        (
            &["--from", "1.1.1.1", "--to", "web", "--port", "81"],
            "deny",
            None,
            None,
        ),
        (
            &["--from", "fd00::2", "--to", "web", "--proto", "icmp"],
            "allow",
            Some(2),
            Some(21),
        ),
        (
            &[
                "--from", "far", "--to", "web", "--proto", "udp", "--port", "9", "--sport", "53",
            ],
            "deny",
            Some(3),
            Some(22),
        ),
        (
            &["--from", "far", "--to", "web", "--proto", "47"],
            "allow",
            Some(4),
            Some(23),
        ),
        (
            &["--from", "web", "--to", "far", "--port", "443"],
            "allow",
            Some(0),
            Some(25),
        ),
        (
            &["--from", "web", "--to", "far", "--port", "444"],
            "deny",
            None,
            None,
        ),
    ];
    for (arguments, verdict, rule, line) in cases {
        let done = explain(&[&["--node", "h1"][..], arguments].concat());
        let answer = done.json();
        assert_eq!(answer["verdict"], *verdict, "{arguments:?}");
        assert_eq!(
            done.code,
            Some(i32::from(*verdict == "deny")),
            "{arguments:?}"
        );
        let last = answer["trace"].as_array().unwrap().last().unwrap();
        assert_eq!(last["rule"].as_u64(), *rule, "{arguments:?} {last}");
        assert_eq!(last["action"], *verdict, "{arguments:?} {last}");
        assert_eq!(last["line"].as_u64(), *line, "{arguments:?} {last}");
        for key in ["tier", "policy", "rule", "action", "file", "line", "why"] {
            assert!(last.get(key).is_some(), "{key} is missing in {last}");
        }
        if rule.is_some() {
            assert_eq!(last["policy"], "GlobalNetworkPolicy/web");
            assert_eq!(last["tier"], "default");
            assert_eq!(last["file"], "<stdin>");
        }
    }
}

#[test]
fn questions_that_make_no_sense_are_usage_errors() {
    for arguments in [
        &["--from", "nobody", "--to", "web", "--port", "1"][..],
        &["--from", "1.1.1.1", "--to", "fd00::1", "--port", "1"],
        &[
            "--from", "1.1.1.1", "--to", "web", "--proto", "icmp", "--port", "1",
        ],
        &["--from", "1.1.1.1", "--to", "web", "--proto", "foo"],
        &["--from", "1.1.1.1", "--to", "web", "--proto", "256"],
        &["--from", "1.1.1.1", "--to", "web", "--port", "65536"],
    ] {
        let done = explain(arguments);
        assert_eq!(
            (done.code, done.out.as_str()),
            (Some(64), ""),
            "{arguments:?}"
        );
        assert!(!done.err.is_empty());
    }
}

#[test]
fn output_is_plain_in_pipes_and_the_same_in_json_and_yaml() {
    let done = run_on(FILES, &["validate", "-f", "-"]);
    assert!(!done.out.contains('\u{1b}'), "{}", done.out);
    let report = run_on(FILES, &["validate", "-f", "-", "-o", "json"]).json();
    assert_eq!(
        (&report["valid"], &report["resources"]),
        (&true.into(), &3.into())
    );
    let yaml = run(&["config", "show", "--offline", "-o", "yaml"]).out;
    for key in [
        "policyDirs",
        "stateDir",
        "runDir",
        "iptablesBackend",
        "felixHostname",
    ] {
        assert!(
            yaml.contains(&format!("name: {key}")),
            "{key} is missing in {yaml}"
        );
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    for arguments in [
        &["completion", "bash"][..],
        &["--help"],
        &["config", "show", "--offline"],
    ] {
        let mut child = Command::new(MOATCTL)
            .args(arguments)
            .env("MOAT_CONFIG", &*CONFIG)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let done = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success() && errors.is_empty(),
            "{arguments:?}: {errors}"
        );
    }
}

#[test]
fn a_directory_is_read_as_the_daemon_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("a.YAML"), FILES).unwrap();
    for ignored in [".hidden.yaml", "a.yaml~", "#a.yaml", "a.yaml.swp"] {
        std::fs::write(path(ignored), "{").unwrap();
    }
    let validate = || {
        let done = run(&["validate", "-o", "json", "-f", dir.path().to_str().unwrap()]);
        (done.code, done.json())
    };
    let (code, report) = validate();
    assert_eq!((code, &report["files"]), (Some(0), &1.into()));
    std::fs::create_dir(path("b.yaml")).unwrap();
    std::os::unix::fs::symlink("/nonexistent", path("c.json")).unwrap();
    let (code, report) = validate();
    let messages: Vec<&str> = report["issues"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|i| i["severity"] == "error")
        .map(|i| i["message"].as_str().unwrap())
        .collect();
    assert_eq!((code, messages.len()), (Some(1), 2), "{messages:?}");
}
