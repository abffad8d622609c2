//! Where the datastore is: `/etc/moat/moatctl.toml`, calicoctl's configuration, or the settings of moatd and the environment.

use std::path::Path;

use serde_json::{Map, Value};

use crate::api::yaml;
use crate::config::DatastoreType;
use crate::ctl::{EX_CONFIG, Failure, Global, files};
use crate::etcd::{Access, Material};

const MOATCTL: &str = "/etc/moat/moatctl.toml";
const CALICOCTL: &str = "/etc/calico/calicoctl.cfg";
const FIELDS: [&str; 12] = [
    "datastoreType",
    "etcdEndpoints",
    "etcdDiscoverySrv",
    "etcdUsername",
    "etcdPassword",
    "etcdKeyFile",
    "etcdCertFile",
    "etcdCACertFile",
    "etcdKey",
    "etcdCert",
    "etcdCACert",
    "etcdPasswordFile",
];

/// How the datastore is reached; none if no datastore is configured.
pub fn find(global: &Global) -> Result<Option<Access>, Failure> {
    if let Some(file) = &global.config {
        if !is_calicoctl(file) {
            return of_settings(global, Some(file));
        }
        let text = "its datastore is not etcdv3 with etcdEndpoints, the one that moatctl can use";
        let found = calicoctl(file)?;
        return found.ok_or_else(|| wrong(file, text)).map(Some);
    }
    let (own, theirs) = (Path::new(MOATCTL), Path::new(CALICOCTL));
    if own.exists() {
        return of_settings(global, Some(own));
    }
    // As for calicoctl, the file goes before the environment. It is the administrator's, the settings of moatd are the host's.
    if theirs.exists()
        && let Some(access) = calicoctl(theirs)?
    {
        return Ok(Some(access));
    }
    of_settings(global, None)
}

fn of_settings(global: &Global, config: Option<&Path>) -> Result<Option<Access>, Failure> {
    let global = Global {
        config: config.map(Path::to_owned),
        ..global.clone()
    };
    let settings = files::settings(&global, &[])?.settings;
    let is_etcd = settings.datastore_type == DatastoreType::EtcdV3;
    Ok(is_etcd.then(|| crate::daemon::access(&settings)))
}

/// As [`find`], where there must be one.
pub fn require(global: &Global) -> Result<Access, Failure> {
    find(global)?.ok_or_else(|| {
        let text = format!(
            "no datastore is configured: set etcdEndpoints and datastoreType in {MOATCTL} or /etc/moat/moat.toml, or ETCD_ENDPOINTS in the environment, or write {CALICOCTL}"
        );
        Failure::new(EX_CONFIG, text)
    })
}

/// Whether the file is in calicoctl's format, which is YAML with a kind.
fn is_calicoctl(file: &Path) -> bool {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let is_kind = |line: &str| line.trim_start().starts_with("kind:");
    text.lines().any(is_kind)
}

fn wrong(file: &Path, what: &str) -> Failure {
    let text = format!("Error reading config file: {}: {what}", file.display());
    Failure::new(EX_CONFIG, text)
}

/// What calicoctl's file says; none if it is about a cluster's own datastore.
fn calicoctl(file: &Path) -> Result<Option<Access>, Failure> {
    let spec = specification(file)?;
    let is_other = |name: &&String| {
        !FIELDS.contains(&name.as_str()) && !name.starts_with("k8s") && *name != "kubeconfig"
    };
    if let Some(other) = spec.keys().find(is_other) {
        return Err(wrong(file, &format!("unknown field {other}")));
    }
    let is_given = |name: &str| spec.get(name).is_some_and(|value| *value != "");
    let is_somewhere = is_given("etcdEndpoints") || is_given("etcdDiscoverySrv");
    match spec.get("datastoreType").and_then(Value::as_str) {
        Some("etcdv3") if !is_somewhere => Err(wrong(file, "etcdEndpoints is missing")),
        Some("etcdv3") => Ok(Some(access(&spec))),
        None | Some("") if is_somewhere => Ok(Some(access(&spec))),
        _ => Ok(None),
    }
}

fn specification(file: &Path) -> Result<Map<String, Value>, Failure> {
    let text = std::fs::read(file).map_err(|e| wrong(file, &e.to_string()))?;
    let (documents, error) = yaml::documents(&text);
    if let Some(error) = error {
        let what = format!("line {}: {}", error.line, error.message);
        return Err(wrong(file, &what));
    }
    let document = documents.first().map(serde_json::to_value);
    let document = document.and_then(Result::ok).unwrap_or_default();
    if document["apiVersion"] != "projectcalico.org/v3" || document["kind"] != "CalicoAPIConfig" {
        let what = "is no CalicoAPIConfig of projectcalico.org/v3";
        return Err(wrong(file, what));
    }
    Ok(document["spec"].as_object().cloned().unwrap_or_default())
}

fn access(spec: &Map<String, Value>) -> Access {
    let text = |name: &str| {
        let text = spec.get(name).and_then(Value::as_str);
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let material = |inline: &str, file: &str| {
        let inline = text(inline).map(Material::Inline);
        inline.or_else(|| text(file).map(|path| Material::File(path.into())))
    };
    let endpoints = text("etcdEndpoints").unwrap_or_default();
    let endpoints = endpoints
        .split(',')
        .map(str::trim)
        .filter(|e| !e.is_empty());
    Access {
        endpoints: endpoints.map(str::to_owned).collect(),
        discovery: text("etcdDiscoverySrv"),
        ca: material("etcdCACert", "etcdCACertFile"),
        certificate: material("etcdCert", "etcdCertFile"),
        key: material("etcdKey", "etcdKeyFile"),
        username: text("etcdUsername"),
        password: material("etcdPassword", "etcdPasswordFile"),
    }
}
