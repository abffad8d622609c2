//! What Calico's own programs read from the environment, so that one file of it serves both (facts 6.1 and 7.5).

use serde_json::Value;

use super::error::ConfigError;
use super::layer::{Layer, Origin};
use super::params::Param;

/// Settings and the environment variables of Calico for them, each also with `CALICO_` in front.
const NAMES: [(&str, &[&str]); 7] = [
    ("datastoreType", &["DATASTORE_TYPE", "FELIX_DATASTORETYPE"]),
    ("etcdEndpoints", &["ETCD_ENDPOINTS", "FELIX_ETCDENDPOINTS"]),
    ("etcdDiscoverySrv", &["ETCD_DISCOVERY_SRV"]),
    ("etcdCaFile", &["ETCD_CA_CERT_FILE", "FELIX_ETCDCAFILE"]),
    ("etcdCertFile", &["ETCD_CERT_FILE", "FELIX_ETCDCERTFILE"]),
    ("etcdKeyFile", &["ETCD_KEY_FILE", "FELIX_ETCDKEYFILE"]),
    ("etcdUsername", &["ETCD_USERNAME"]),
];

struct Reading<'a> {
    env: &'a [(String, String)],
    layer: Layer,
    errors: Vec<ConfigError>,
    is_kubernetes: bool,
}

/// The settings of the environment. Endpoints alone say that it is etcd, unless that is said already.
pub(super) fn layer(env: &[(String, String)], is_etcd: bool) -> (Layer, Vec<ConfigError>) {
    let mut reading = Reading {
        env,
        layer: Layer::default(),
        errors: Vec::new(),
        is_kubernetes: false,
    };
    for (setting, names) in NAMES {
        reading.read(setting, names);
    }
    reading.read_address();
    let endpoints = reading.layer.origin("etcdEndpoints");
    let is_said = reading.is_kubernetes || reading.layer.origin("datastoreType").is_some();
    if let (false, Some(origin)) = (is_etcd || is_said, endpoints) {
        reading.set("datastoreType", "etcdv3".to_owned(), origin);
    }
    (reading.layer, reading.errors)
}

impl Reading<'_> {
    /// The variable of that name that is not empty. Felix takes its own names in any case.
    fn variable(&self, name: &str) -> Option<(Origin, String)> {
        let is_felix = name.starts_with("FELIX_");
        let is = |n: &str| n == name || (is_felix && n.eq_ignore_ascii_case(name));
        let is_calico = |n: &str| n.strip_prefix("CALICO_").is_some_and(is);
        let find =
            |is: &dyn Fn(&str) -> bool| self.env.iter().find(|(n, v)| is(n) && !v.is_empty());
        let (name, value) = find(&is_calico).or_else(|| find(&is))?;
        Some((Origin::Env(name.clone()), value.clone()))
    }

    fn set(&mut self, setting: &str, value: String, origin: Origin) {
        let Some(param) = Param::find(setting) else {
            return;
        };
        let set = self.layer.set_at(param, &Value::String(value), origin);
        self.errors.extend(set.err());
    }

    fn read(&mut self, setting: &str, names: &[&str]) {
        let Some((origin, value)) = names.iter().find_map(|name| self.variable(name)) else {
            return;
        };
        // Another program's choice, which is no reason not to start, but to leave its etcd alone.
        match value.eq_ignore_ascii_case("kubernetes") {
            true => self.is_kubernetes = true,
            false => self.set(setting, value, origin),
        }
    }

    /// The one endpoint that Felix has from two variables where it has no list of them.
    fn read_address(&mut self) {
        if self.layer.origin("etcdEndpoints").is_some() {
            return;
        }
        if let Some((origin, address)) = self.variable("FELIX_ETCDADDR") {
            let scheme = self.variable("FELIX_ETCDSCHEME");
            let scheme = scheme.map_or("http".to_owned(), |(_, scheme)| scheme);
            self.set("etcdEndpoints", format!("{scheme}://{address}"), origin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_what_they_set() {
        for (name, value, setting, set) in [
            ("DATASTORE_TYPE", "etcdv3", "datastoreType", "etcdv3"),
            ("FELIX_DATASTORETYPE", "etcdv3", "datastoreType", "etcdv3"),
            ("Felix_DatastoreType", "etcdv3", "datastoreType", "etcdv3"),
            ("CALICO_DATASTORE_TYPE", "etcdv3", "datastoreType", "etcdv3"),
            ("ETCD_ENDPOINTS", "http://a:1", "datastoreType", "etcdv3"),
            (
                "ETCD_DISCOVERY_SRV",
                "a.example",
                "etcdDiscoverySrv",
                "a.example",
            ),
            ("ETCD_CA_CERT_FILE", "/ca", "etcdCaFile", "/ca"),
            ("FELIX_ETCDCAFILE", "/ca", "etcdCaFile", "/ca"),
            ("CALICO_ETCD_CERT_FILE", "/c", "etcdCertFile", "/c"),
            ("FELIX_EtcdCertFile", "/c", "etcdCertFile", "/c"),
            ("ETCD_KEY_FILE", "/k", "etcdKeyFile", "/k"),
            ("FELIX_ETCDKEYFILE", "/k", "etcdKeyFile", "/k"),
            ("CALICO_ETCD_USERNAME", "u", "etcdUsername", "u"),
        ] {
            let (layer, errors) = layer(&[(name.to_owned(), value.to_owned())], false);
            assert!(errors.is_empty(), "{name}: {errors:?}");
            assert_eq!(layer.text(setting), Some(set), "{name}");
        }
    }

    #[test]
    fn endpoints() {
        let of = |env: &[(&str, &str)]| {
            let env: Vec<_> = env
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect();
            let (layer, errors) = layer(&env, false);
            assert!(errors.is_empty(), "{errors:?}");
            format!("{layer:?}")
        };
        let address = ("FELIX_ETCDADDR", "e1:2379");
        assert!(of(&[address]).contains("http://e1:2379"));
        assert!(of(&[address, ("FELIX_ETCDSCHEME", "https")]).contains("https://e1:2379"));
        let list = ("ETCD_ENDPOINTS", "http://e2:2379");
        let both = of(&[address, list]);
        assert!(both.contains("e2") && !both.contains("e1"), "{both}");
        assert!(!of(&[("DATASTORE_TYPE", "kubernetes"), ("ETCD_ENDPOINTS", "")]).contains("etcd"));
        let both = of(&[("DATASTORE_TYPE", "kubernetes"), list]);
        assert!(!both.contains("datastoreType"), "{both}");
    }
}
