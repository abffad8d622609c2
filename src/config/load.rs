//! Collects the layers and merges them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::calico_env;
use super::error::ConfigError;
use super::file;
use super::layer::{Layer, Origin, merge};
use super::params::{PARAMS, Param, suggestion};
use super::settings::Settings;

/// Everything that settings can come from.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// The settings file. Drop-ins are the `*.toml` files of the directory with the same name
    /// but `.d` in place of `.toml`.
    pub config_file: &'a Path,
    /// Whether the user named the file, so that it must exist.
    pub explicit: bool,
    /// Directory of the vendor's `*.toml` files.
    pub vendor_dir: &'a Path,
    /// The environment; only variables that start with `MOAT_` matter, and Calico's own
    /// for its datastore.
    pub env: Vec<(String, String)>,
    /// The command line's `--node`.
    pub node: Option<&'a str>,
    /// FelixConfiguration resources: name and fields. Any but `default` and `node.HOST` are skipped.
    pub felix: Vec<(String, &'a BTreeMap<String, Value>)>,
    /// The name of the host according to the system.
    pub hostname: String,
}

impl<'a> Input<'a> {
    /// Nothing but the name of the host: every setting has its default.
    pub fn bare(host: &'a str) -> Input<'a> {
        let nowhere = Path::new("/nonexistent/moat.toml");
        Input {
            config_file: nowhere,
            explicit: false,
            vendor_dir: nowhere,
            env: Vec::new(),
            node: Some(host),
            felix: Vec::new(),
            hostname: host.to_owned(),
        }
    }
}

/// The settings in force, and where each came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Origin of each setting, by name.
    pub origins: BTreeMap<String, Origin>,
    /// What the user should know: fields of FelixConfigurations that have no effect.
    pub notes: Vec<String>,
}

/// One line of `moatctl config show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Name of the setting.
    pub name: &'static str,
    /// Its value in JSON form.
    pub value: Value,
    /// Where it was given, for people.
    pub origin: String,
}

/// Environment variables of moat that are no settings.
pub const RESERVED_ENV: [&str; 3] = ["MOAT_LOG", "MOAT_CONFIG", "MOAT_SOCKET"];
/// What the names of variables begin with that are for moat's own tests.
const TESTS_ENV: &str = "MOAT_TEST_";

/// Loads the settings from all layers.
///
/// # Errors
/// Every bad value, unknown name and unreadable file of any layer, also of values that a higher
/// layer overrides.
pub fn load(input: &Input<'_>) -> Result<Loaded, Vec<ConfigError>> {
    let mut gathered = Gathered::default();
    gathered.defaults(&input.hostname);
    let local_from = gathered.layers.len();
    gathered.files(input);
    gathered.calico_env(&input.env);
    gathered.env(&input.env);
    gathered.flags(input.node);
    let host = gathered
        .layers
        .iter()
        .rev()
        .find_map(|layer| layer.text("felixHostname"));
    let host = host.map(str::to_string);
    // Only the host's own layers name it, and the name chooses which resources count.
    let local = gathered.layers.split_off(local_from);
    gathered.felix(&input.felix, host.as_deref(), &local);
    gathered.layers.extend(local);
    if host.is_none() && gathered.errors.is_empty() {
        let message = format!("the system's name {:?} is not usable", input.hostname);
        let error = ConfigError::at(input.config_file.display().to_string(), message);
        gathered.errors.push(
            error
                .key("felixHostname")
                .help("set felixHostname or use --node"),
        );
    }
    gathered.finish()
}

/// The settings that a run of this or another version of moat has saved as JSON of [`Loaded`]. What that version did not know
/// has its default; what this one does not know is left out, and a note says so.
///
/// # Errors
/// The text is not what moat saves, or a value means nothing to this version.
pub fn load_saved(text: &str, hostname: &str) -> Result<Loaded, Vec<ConfigError>> {
    let saved: Saved = serde_json::from_str(text)
        .map_err(|e| vec![ConfigError::at("saved settings", e.to_string())])?;
    let mut gathered = Gathered::default();
    gathered.defaults(hostname);
    gathered.notes = saved.notes;
    let mut layer = Layer::default();
    for (name, value) in saved.settings.iter().filter(|(_, value)| !value.is_null()) {
        let Some(param) = Param::find(name) else {
            gathered.notes.push(format!(
                "{name} of the saved settings has no effect: this version does not know it"
            ));
            continue;
        };
        let origin = saved.origins.get(name).cloned();
        let origin = origin.and_then(|origin| serde_json::from_value(origin).ok());
        let set = layer.set_at(param, value, origin.unwrap_or(Origin::Default));
        gathered.errors.extend(set.err());
    }
    gathered.layers.push(layer);
    gathered.finish()
}

/// [`Loaded`] of any version.
#[derive(Deserialize)]
struct Saved {
    settings: BTreeMap<String, Value>,
    /// Of kinds that this version may not know.
    origins: BTreeMap<String, Value>,
    notes: Vec<String>,
}

/// What has been read so far.
#[derive(Default)]
struct Gathered {
    layers: Vec<Layer>,
    errors: Vec<ConfigError>,
    notes: Vec<String>,
}

impl Gathered {
    fn defaults(&mut self, hostname: &str) {
        let text: String = PARAMS
            .iter()
            .filter(|param| !param.default.is_empty())
            .map(|param| format!("{} = {}\n", param.name, param.default))
            .collect();
        let mut layer = Layer::default();
        for line in file::parse("defaults", &text).unwrap_or_default() {
            if let Some(param) = Param::find(&line.key) {
                self.errors
                    .extend(layer.set_at(param, &line.value, Origin::Default).err());
            }
        }
        if let Some(param) = Param::find("felixHostname") {
            // An unusable name of the system matters only when nothing else names the host.
            let _ = layer.set(param, &hostname.to_lowercase().into(), Origin::Default);
        }
        self.layers.push(layer);
    }

    fn files(&mut self, input: &Input<'_>) {
        self.dir(input.vendor_dir);
        if !self.file(input.config_file) && input.explicit {
            let place = input.config_file.display().to_string();
            self.errors
                .push(ConfigError::at(place, "there is no such file"));
        }
        self.dir(&input.config_file.with_extension("d"));
    }

    fn dir(&mut self, dir: &Path) {
        match file::list(dir) {
            Ok(paths) => paths.iter().for_each(|path| {
                self.file(path);
            }),
            Err(error) => self.errors.push(error),
        }
    }

    /// Adds the layer of a file, if there is such a file.
    fn file(&mut self, path: &Path) -> bool {
        match file::read(path) {
            Ok(None) => return false,
            Ok(Some(lines)) => {
                let (layer, errors) = Layer::from_file(&path.display().to_string(), lines);
                self.layers.push(layer);
                self.errors.extend(errors);
            }
            Err(errors) => self.errors.extend(errors),
        }
        true
    }

    fn felix(
        &mut self,
        resources: &[(String, &BTreeMap<String, Value>)],
        host: Option<&str>,
        local: &[Layer],
    ) {
        let node = host.map(|host| format!("node.{host}"));
        for wanted in std::iter::once("default").chain(node.as_deref()) {
            for (name, fields) in resources.iter().filter(|(name, _)| name == wanted) {
                self.felix_one(name, fields, local);
            }
        }
        let others = resources.iter().map(|(name, _)| name.as_str());
        for name in others.filter(|n| *n != "default" && !n.starts_with("node.")) {
            self.notes.push(format!(
                "FelixConfiguration/{name} has no effect: only `default` and `node.NAME` are used"
            ));
        }
    }

    fn felix_one(&mut self, name: &str, fields: &BTreeMap<String, Value>, local: &[Layer]) {
        let mut layer = Layer::default();
        let mut ignored = Vec::new();
        for (field, value) in fields {
            match Param::find(field).filter(|param| param.felix) {
                None => ignored.push(field.as_str()),
                Some(_) if value.is_null() => {}
                Some(param) => {
                    let set = layer.set_at(param, value, Origin::Felix(name.into()));
                    let own = local.iter().rev().find_map(|l| l.origin(param.name));
                    match (set, own) {
                        (Ok(()), _) => {}
                        // What the host says itself holds, whatever stands here.
                        (Err(error), Some(own)) => {
                            self.notes
                                .push(format!("{error}: no effect, {own} sets it"));
                        }
                        (Err(error), None) => self.errors.push(error),
                    }
                }
            }
        }
        if !ignored.is_empty() {
            let list = ignored.join(", ");
            self.notes.push(format!(
                "FelixConfiguration/{name}: moat does not use {list}"
            ));
        }
        self.layers.push(layer);
    }

    fn env(&mut self, env: &[(String, String)]) {
        let plain = |name: &str| name.replace('_', "").to_lowercase();
        let mut layer = Layer::default();
        let mut seen = BTreeMap::new();
        let mut variables: Vec<_> = env.iter().collect();
        variables.sort();
        for (name, value) in variables {
            let Some(setting) = name.strip_prefix("MOAT_") else {
                continue;
            };
            let is_reserved = RESERVED_ENV.contains(&name.as_str()) || name.starts_with(TESTS_ENV);
            if is_reserved || value.is_empty() {
                continue;
            }
            let origin = Origin::Env(name.clone());
            let Some(param) = PARAMS.iter().find(|p| plain(p.name) == plain(setting)) else {
                let error = ConfigError::at(origin.to_string(), "unknown setting");
                self.errors.push(error.help(suggestion(setting)));
                continue;
            };
            if let Some(first) = seen.insert(param.name, name) {
                let message = format!("{first} sets the same");
                self.errors
                    .push(ConfigError::at(origin.to_string(), message).key(param.name));
                continue;
            }
            let value = Value::String(value.clone());
            self.errors
                .extend(layer.set_at(param, &value, origin).err());
        }
        self.layers.push(layer);
    }

    fn calico_env(&mut self, env: &[(String, String)]) {
        let is_etcd = |layer: &Layer| layer.text("datastoreType") == Some("etcdv3");
        let (layer, errors) = calico_env::layer(env, self.layers.iter().any(is_etcd));
        self.errors.extend(errors);
        self.layers.push(layer);
    }

    fn flags(&mut self, node: Option<&str>) {
        let Some((node, param)) = node.zip(Param::find("felixHostname")) else {
            return;
        };
        let mut layer = Layer::default();
        let origin = Origin::Flag("--node".into());
        if node.is_empty() {
            let error = ConfigError::at(origin.to_string(), "the name is empty");
            self.errors.push(error.key(param.name));
        }
        self.errors
            .extend(layer.set_at(param, &node.into(), origin).err());
        self.layers.push(layer);
    }

    fn finish(self) -> Result<Loaded, Vec<ConfigError>> {
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        match merge(self.layers) {
            Ok((settings, origins)) => Ok(Loaded {
                settings,
                origins,
                notes: self.notes,
            }),
            Err(error) => Err(vec![ConfigError::at("settings", error.to_string())]),
        }
    }
}

impl Loaded {
    /// Every setting with its value and origin, in the order of the parameter table.
    pub fn rows(&self) -> Vec<Row> {
        let values = serde_json::to_value(&self.settings).unwrap_or_default();
        PARAMS
            .iter()
            .map(|param| Row {
                name: param.name,
                value: values[param.name].clone(),
                origin: self
                    .origins
                    .get(param.name)
                    .unwrap_or(&Origin::Default)
                    .to_string(),
            })
            .collect()
    }
}
