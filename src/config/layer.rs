//! The layers in which settings are given, and how they are put on top of each other.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{Bad, ConfigError};
use super::file::Line;
use super::params::{PARAMS, Param, suggestion};
use super::settings::Settings;

/// Where the value of a setting was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// Nowhere.
    Default,
    /// The FelixConfiguration resource of this name.
    Felix(String),
    /// A settings file.
    File {
        /// Its path.
        path: String,
        /// 1-based.
        line: u32,
    },
    /// An environment variable.
    Env(String),
    /// An option of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Felix(name) => write!(f, "FelixConfiguration/{name}"),
            Origin::File { path, line } => write!(f, "{path}:{line}"),
            Origin::Env(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "option {name}"),
        }
    }
}

impl Param {
    /// Whether the setting can have this value.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&'static self, value: &Value) -> Result<(), String> {
        let set = Layer::default().set(self, value, Origin::Default);
        set.map_err(|bad| bad.message)
    }
}

/// What one source sets: canonical values by setting.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer(BTreeMap<&'static str, (Value, Origin)>);

impl Layer {
    /// Sets `param`. Empty text means, as everywhere in Calico, that nothing is set.
    pub(super) fn set(
        &mut self,
        param: &'static Param,
        value: &Value,
        origin: Origin,
    ) -> Result<(), Bad> {
        if value != "" {
            self.0
                .insert(param.name, (param.kind.canonical(value)?, origin));
        }
        Ok(())
    }

    /// The layer of a settings file.
    pub(super) fn from_file(path: &str, lines: Vec<Line>) -> (Layer, Vec<ConfigError>) {
        let mut layer = Layer::default();
        let mut errors = Vec::new();
        for line in lines {
            let at = |message: String| ConfigError::at(path, message).key(&line.key);
            let Some(param) = Param::find(&line.key) else {
                let error = at("unknown setting".into()).position(line.key_at);
                errors.push(error.help(unknown_help(&line)));
                continue;
            };
            let origin = Origin::File {
                path: path.into(),
                line: line.key_at.0,
            };
            if let Err(bad) = layer.set(param, &line.value, origin) {
                let item = bad.item.and_then(|item| line.items_at.get(item));
                let error = at(bad.message).position(*item.unwrap_or(&line.value_at));
                errors.push(ConfigError {
                    help: bad.help,
                    ..error
                });
            }
        }
        (layer, errors)
    }

    /// Sets `param` from a source without lines.
    pub(super) fn set_at(
        &mut self,
        param: &'static Param,
        value: &Value,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        let place = origin.to_string();
        self.set(param, value, origin).map_err(|bad| {
            let error = ConfigError::at(place, bad.message).key(param.name);
            ConfigError {
                help: bad.help,
                ..error
            }
        })
    }

    /// Where this layer has `name` from.
    pub(super) fn origin(&self, name: &str) -> Option<Origin> {
        self.0.get(name).map(|(_, origin)| origin.clone())
    }

    /// The text that this layer sets for `name`.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|(value, _)| value.as_str())
    }
}

fn unknown_help(line: &Line) -> String {
    if line.value.is_object() {
        "there are no sections: all settings stand at the top level".into()
    } else {
        suggestion(&line.key)
    }
}

/// The crate `config` lays one source over another and keeps with each value where it came from.
impl config::Source for Layer {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<config::Map<String, config::Value>, config::ConfigError> {
        let foreign = |e: serde_json::Error| config::ConfigError::Foreign(Box::new(e));
        let mut values = config::Map::new();
        for (name, (value, origin)) in &self.0 {
            let value: config::Value = serde_json::from_value(value.clone()).map_err(foreign)?;
            let origin = serde_json::to_string(origin).map_err(foreign)?;
            values.insert(
                (*name).to_string(),
                config::Value::new(Some(&origin), value.kind),
            );
        }
        Ok(values)
    }
}

/// Lays the layers over each other, the lowest first.
pub(super) fn merge(
    layers: Vec<Layer>,
) -> Result<(Settings, BTreeMap<String, Origin>), config::ConfigError> {
    let builder = layers
        .into_iter()
        .fold(config::Config::builder(), |b, l| b.add_source(l));
    let merged = builder.build()?;
    let values = config::Source::collect(&merged)?;
    let mut origins = BTreeMap::new();
    for param in PARAMS {
        let origin = values.get(param.name).and_then(|value| value.origin());
        let origin = origin.and_then(|text| serde_json::from_str(text).ok());
        origins.insert(param.name.to_string(), origin.unwrap_or(Origin::Default));
    }
    Ok((merged.try_deserialize()?, origins))
}
