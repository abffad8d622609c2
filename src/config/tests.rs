//! Precedence, positions, and the files made from the parameter table.

mod saved;
mod values;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;

/// A directory with settings files and everything else that settings can come from.
struct Host {
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
    node: Option<&'static str>,
    felix: Vec<(String, BTreeMap<String, Value>)>,
    explicit: bool,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        Host {
            dir,
            env: Vec::new(),
            node: None,
            felix: Vec::new(),
            explicit: false,
        }
    }

    fn with(text: &str) -> Host {
        let host = Host::new();
        host.write("moat.toml", text);
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn env(&mut self, name: &str, value: &str) {
        self.env.push((name.into(), value.into()));
    }

    fn felix(&mut self, name: &str, fields: Value) {
        let fields = fields.as_object().unwrap().clone().into_iter().collect();
        self.felix.push((name.into(), fields));
    }

    fn load(&self) -> Result<Loaded, Vec<ConfigError>> {
        load(&Input {
            config_file: &self.path("moat.toml"),
            explicit: self.explicit,
            vendor_dir: &self.path("vendor"),
            env: self.env.clone(),
            node: self.node,
            felix: self
                .felix
                .iter()
                .map(|(name, fields)| (name.clone(), fields))
                .collect(),
            hostname: "Web1".into(),
        })
    }

    fn good(&self) -> Loaded {
        self.load()
            .unwrap_or_else(|errors| panic!("{}", texts(&errors).join("\n")))
    }

    /// The errors, with the directory cut off their paths.
    fn errors(&self) -> Vec<String> {
        let dir = format!("{}/", self.dir.path().display());
        let errors = self.load().expect_err("settings should be bad");
        texts(&errors)
            .into_iter()
            .map(|text| text.replace(&dir, ""))
            .collect()
    }
}

fn texts(errors: &[ConfigError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn failsafes(list: &[Failsafe]) -> String {
    list.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

#[test]
fn defaults() {
    let loaded = Host::new().good();
    let expected: Value = serde_json::from_str(include_str!("tests/defaults.json")).unwrap();
    assert_eq!(serde_json::to_value(&loaded.settings).unwrap(), expected);
    assert!(
        loaded
            .origins
            .values()
            .all(|origin| *origin == Origin::Default)
    );
    assert!(loaded.notes.is_empty());
}

#[test]
fn table_and_struct_agree() {
    let loaded = Host::new().good();
    let value = serde_json::to_value(&loaded.settings).unwrap();
    let fields: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let names: Vec<&str> = PARAMS.iter().map(|param| param.name).collect();
    assert_eq!(fields, names);
    let rows = loaded.rows();
    for (row, param) in rows.iter().zip(PARAMS) {
        let has_default = !param.default.is_empty() || param.name == "felixHostname";
        assert_eq!(row.value.is_null(), !has_default, "{}", row.name);
        assert_eq!(row.origin, "default");
    }
    assert_eq!(rows.len(), PARAMS.len());
}

#[test]
fn the_environment_of_calico() {
    let mut host = Host::with("etcdCaFile = '/file/ca.pem'");
    host.env("ETCD_ENDPOINTS", "https://e1:2379,https://e2:2379/");
    host.env("ETCD_CA_CERT_FILE", "/env/ca.pem");
    host.env("CALICO_ETCD_KEY_FILE", "/calico/key.pem");
    host.env("ETCD_KEY_FILE", "/plain/key.pem");
    let settings = host.good().settings;
    // Endpoints alone say what they are of.
    assert_eq!(settings.datastore_type, DatastoreType::EtcdV3);
    let endpoints = ["https://e1:2379", "https://e2:2379"];
    assert_eq!(settings.etcd_endpoints, endpoints);
    assert_eq!(settings.etcd_ca_file, Some("/env/ca.pem".into()));
    assert_eq!(settings.etcd_key_file, Some("/calico/key.pem".into()));
    host.env("MOAT_ETCD_ENDPOINTS", "http://e3:2379");
    assert_eq!(host.good().settings.etcd_endpoints, ["http://e3:2379"]);
    host.env("DATASTORE_TYPE", "kubernetes");
    assert_eq!(
        host.good().settings.datastore_type,
        DatastoreType::None,
        "Calico's programs do not use that etcd"
    );
    host.env("MOAT_DATASTORE_TYPE", "etcdv3");
    assert_eq!(host.good().settings.datastore_type, DatastoreType::EtcdV3);
    assert!(!Host::with("etcdEndpoints = 'ftp://x'").errors().is_empty());
}

#[test]
fn each_layer_wins_over_the_one_below() {
    let mut host = Host::new();
    let check = |host: &Host, value: &str, origin: &str| {
        let loaded = host.good();
        let dir = format!("{}/", host.dir.path().display());
        assert_eq!(loaded.settings.log_prefix, value);
        assert_eq!(
            loaded.origins["logPrefix"].to_string().replace(&dir, ""),
            origin
        );
    };
    host.felix("node.other", json!({"logPrefix": "x"}));
    check(&host, "calico-packet", "default");
    host.felix("node.web1", json!({"logPrefix": "c"}));
    check(&host, "c", "FelixConfiguration/node.web1");
    host.felix("default", json!({"logPrefix": "b"}));
    check(&host, "c", "FelixConfiguration/node.web1");
    host.write("vendor/b.toml", "\nlogPrefix = 'd2'");
    host.write("vendor/a.toml", "logPrefix = 'd1'");
    check(&host, "d2", "vendor/b.toml:2");
    host.write("moat.toml", "# x\n\nlogPrefix = 'e'");
    check(&host, "e", "moat.toml:3");
    host.write("moat.d/10.toml", "logPrefix = 'f1'");
    host.write("moat.d/20.toml", "logPrefix = 'f2'");
    host.write("moat.d/.30.toml", "logPrefix = 'hidden'");
    host.write("moat.d/30.toml~", "logPrefix = 'backup'");
    check(&host, "f2", "moat.d/20.toml:1");
    host.env("MOAT_LOG_PREFIX", "g");
    check(&host, "g", "environment MOAT_LOG_PREFIX");
}

#[test]
fn the_host_is_named_by_its_own_layers_only() {
    let mut host = Host::with("felixHostname = 'File'");
    host.felix("node.File", json!({"maxIpsetSize": 1}));
    host.felix("node.env", json!({"maxIpsetSize": 2}));
    host.felix("node.flag", json!({"maxIpsetSize": 3}));
    host.felix(
        "default",
        json!({"felixHostname": "flag", "policyDirs": ["/x"]}),
    );
    let loaded = host.good();
    assert_eq!(
        (
            loaded.settings.felix_hostname.as_str(),
            loaded.settings.max_ipset_size
        ),
        ("File", 1)
    );
    assert_eq!(
        loaded.notes,
        ["FelixConfiguration/default: moat does not use felixHostname, policyDirs"]
    );
    host.env("MOAT_FELIXHOSTNAME", "env");
    assert_eq!(host.good().settings.max_ipset_size, 2);
    host.node = Some("flag");
    let loaded = host.good();
    assert_eq!(loaded.settings.max_ipset_size, 3);
    assert_eq!(
        loaded.origins["felixHostname"],
        Origin::Flag("--node".into())
    );
    host.node = Some("");
    assert_eq!(
        host.errors(),
        ["option --node: felixHostname: the name is empty"]
    );
}

#[test]
fn system_name_unusable() {
    let dir = tempfile::tempdir().unwrap();
    let mut input = Input {
        config_file: &dir.path().join("moat.toml"),
        explicit: false,
        vendor_dir: dir.path(),
        env: Vec::new(),
        node: None,
        felix: Vec::new(),
        hostname: String::new(),
    };
    let errors = load(&input).unwrap_err();
    assert_eq!(errors[0].key, "felixHostname");
    input.node = Some("n");
    assert_eq!(load(&input).unwrap().settings.felix_hostname, "n");
}

#[test]
fn felix_notes() {
    let mut host = Host::new();
    host.felix(
        "default",
        json!({"wireguardEnabled": true, "bpfEnabled": false, "ipv6Support": null}),
    );
    host.felix("other", json!({}));
    assert_eq!(
        host.good().notes,
        [
            "FelixConfiguration/default: moat does not use bpfEnabled, wireguardEnabled",
            "FelixConfiguration/other has no effect: only `default` and `node.NAME` are used",
        ]
    );
    host.felix(
        "node.web1",
        json!({"maxIpsetSize": "many", "chainInsertMode": ""}),
    );
    assert_eq!(
        host.errors(),
        [
            "FelixConfiguration/node.web1: maxIpsetSize: `\"many\"` is not a number from 1 to 4294967295"
        ]
    );
}

#[test]
fn a_value_that_means_nothing_is_no_error_where_the_host_has_its_own() {
    let mut host = Host::with("interfaceExclude = ['kube-ipvs0']");
    host.felix(
        "default",
        json!({"interfaceExclude": "/^veth(/", "logPrefix": "a"}),
    );
    let loaded = host.good();
    assert_eq!(loaded.settings.log_prefix, "a");
    assert_eq!(loaded.settings.interface_exclude, ["kube-ipvs0"]);
    let note = &loaded.notes[0];
    assert!(
        note.contains(": no effect, ") && note.ends_with("moat.toml:1 sets it"),
        "{note}"
    );
    host.felix("node.web1", json!({"maxIpsetSize": "many"}));
    assert_eq!(host.errors().len(), 1);
}

#[test]
fn environment() {
    let mut host = Host::new();
    host.env("MOAT_STATE_DIR", "/s");
    host.env("MOAT_RUNDIR", "/r");
    host.env("MOAT_POLICY_DIRS", "/a, /b");
    host.env("MOAT_IPV6_SUPPORT", "No");
    host.env("MOAT_IPTABLES_MARK_MASK", "0xf0");
    host.env("MOAT_IPTABLES_REFRESH_INTERVAL", "90");
    host.env("MOAT_FAILSAFE_INBOUND_HOST_PORTS", "none");
    host.env("MOAT_LOG_PREFIX", "");
    host.env("MOAT_LOG", "debug");
    host.env("MOAT_TEST_PROGRAM", "/bin/true");
    host.env("PATH", "/bin");
    let s = host.good().settings;
    assert_eq!(
        (s.state_dir, s.run_dir),
        (PathBuf::from("/s"), PathBuf::from("/r"))
    );
    assert_eq!(s.policy_dirs, [PathBuf::from("/a"), PathBuf::from("/b")]);
    assert_eq!((s.ipv6_support, s.iptables_mark_mask), (false, 0xf0));
    assert_eq!(s.iptables_refresh_interval, Duration::from_secs(90));
    assert!(s.failsafe_inbound_host_ports.is_empty());
    assert_eq!(s.log_prefix, "calico-packet");
    host.env("MOAT_STATEDIR", "/t");
    host.env("MOAT_STAT_DIR", "/t");
    assert_eq!(
        host.errors(),
        [
            "environment MOAT_STATE_DIR: stateDir: MOAT_STATEDIR sets the same",
            "environment MOAT_STAT_DIR: unknown setting (did you mean `stateDir`?)",
        ]
    );
}

#[test]
fn positions_and_suggestions() {
    let host = Host::with(
        "statedir = '/x'\n\
         ipv6Suport = true\n\
         wireguardMTU = 9\n\
         [logging]\n\
         level = 'x'\n",
    );
    host.write(
        "moat.d/a.toml",
        "policyDirs = [\n  '/a',\n  'b',\n]\nchainInsertMode =   'inert'\nstateDir='x' # y\n",
    );
    assert_eq!(
        host.errors(),
        [
            "moat.toml:1:1: statedir: unknown setting (did you mean `stateDir`?)",
            "moat.toml:2:1: ipv6Suport: unknown setting (did you mean `ipv6Support`?)",
            "moat.toml:3:1: wireguardMTU: unknown setting (`moatctl config show` lists all settings)",
            "moat.toml:4:2: logging: unknown setting \
             (there are no sections: all settings stand at the top level)",
            "moat.d/a.toml:3:3: policyDirs: `b` is not an absolute path",
            "moat.d/a.toml:5:21: chainInsertMode: `inert` is none of insert, append \
             (did you mean `insert`?)",
            "moat.d/a.toml:6:10: stateDir: `x` is not an absolute path",
        ]
    );
}

#[test]
fn broken_files() {
    let errors = Host::with("ipv6Support = true\nmaxIpsetSize = = 1\nipv6Support = 1\n").errors();
    assert!(
        errors.iter().any(|e| e.starts_with("moat.toml:2:16: ")),
        "{errors:?}"
    );
    assert!(
        errors.iter().any(|e| e.starts_with("moat.toml:3:1: ")),
        "{errors:?}"
    );

    let mut host = Host::new();
    host.explicit = true;
    assert_eq!(host.errors(), ["moat.toml: there is no such file"]);
    fs::create_dir(host.path("moat.toml")).unwrap();
    assert_eq!(host.errors(), ["moat.toml: not a regular file"]);

    let host = Host::with(&"#".repeat((1 << 20) + 1));
    assert_eq!(host.errors(), ["moat.toml: larger than 1048576 bytes"]);

    let host = Host::with("");
    let mode = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(host.path("moat.toml"), mode(0o666)).unwrap();
    assert!(host.errors()[0].starts_with("moat.toml: everybody may write to it"));
    fs::set_permissions(host.path("moat.toml"), mode(0o644)).unwrap();
    host.write("moat.d/a.toml", "");
    fs::set_permissions(host.path("moat.d"), mode(0o777)).unwrap();
    assert!(host.errors()[0].starts_with("moat.d: everybody may write to it"));
    fs::set_permissions(host.path("moat.d"), mode(0o755)).unwrap();
    fs::write(host.path("moat.d/a.toml"), b"logPrefix = '\xff'").unwrap();
    assert_eq!(
        host.errors(),
        ["moat.d/a.toml: stream did not contain valid UTF-8"]
    );
    let deep = format!("policyDirs = {}", "[".repeat(100_000));
    assert!(!Host::with(&deep).errors().is_empty());
}

#[test]
fn hostile_files_end_in_short_messages() {
    let wide = format!("policyDirs = [{}]", "1,".repeat(500_000));
    assert_eq!(
        Host::with(&wide).errors(),
        ["moat.toml:1:15: policyDirs: expected a text in quotes, found `1`"]
    );
    assert!(Host::with(&"=\n".repeat(500_000)).errors().len() <= 20);
    let long = format!("chainInsertMode = '{}'", "x".repeat(1_000_000));
    assert!(Host::with(&long).errors()[0].len() < 500);
    assert_eq!(
        Host::with("\"a\\n\\u001b\" = 1").errors(),
        ["moat.toml:1:1: a\\n\\u{1b}: unknown setting \
             (`moatctl config show` lists all settings)"]
    );
}

#[test]
fn installed_file() {
    let installed = include_str!("../../etc/moat/moat.toml");
    assert_eq!(installed, example_file());
    let defaults = Host::new().good();
    assert_eq!(Host::with(installed).good(), defaults);
    let uncommented: String = installed
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| !rest.starts_with(' '))
                .unwrap_or(line)
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert!(
        PARAMS
            .iter()
            .all(|param| uncommented.contains(&format!("\n{} = ", param.name)))
    );
    assert_eq!(Host::with(&uncommented).good().settings, defaults.settings);
    assert!(installed.lines().all(|line| line.len() <= 100));
}

#[test]
fn manual_names_every_setting() {
    let manual = reference_markdown();
    for param in PARAMS {
        assert!(manual.contains(&format!("### {}\n", param.name)) && param.doc.ends_with('.'));
    }
}
