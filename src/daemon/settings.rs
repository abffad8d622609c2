//! Loading settings for the daemon, with the last good ones to fall back on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::args::{Args, DEFAULT_CONFIG};
use crate::api::FelixConfiguration;
use crate::config::{ConfigError, Input, Loaded, load};

/// The vendor's settings.
pub const VENDOR_DIR: &str = "/usr/lib/moat";
/// A file that was not written to for so long is complete.
const SETTLED: Duration = Duration::from_millis(500);
/// Where state is when no setting says otherwise.
const DEFAULT_STATE_DIR: &str = "/var/lib/moat";

/// Loads all layers.
///
/// # Errors
/// Everything that is wrong with them.
pub fn load_all(
    args: &Args,
    felix: Vec<(String, Arc<FelixConfiguration>)>,
) -> Result<Loaded, Vec<ConfigError>> {
    let hostname = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .to_lowercase();
    load(&Input {
        config_file: config_file(args),
        explicit: args.config.is_some(),
        vendor_dir: Path::new(VENDOR_DIR),
        env: std::env::vars().collect(),
        node: args.node.as_deref(),
        felix: felix
            .iter()
            .map(|(name, felix)| (name.clone(), &felix.fields))
            .collect(),
        hostname,
    })
}

/// How long to wait before the settings files are read, because one of them was written just now and may be written still: the
/// first half of a file is settings, too, and not those that were meant.
pub fn unsettled(args: &Args) -> Option<Duration> {
    let file = config_file(args);
    let dir = file.with_extension("d");
    let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    let age = |path: PathBuf| {
        std::fs::metadata(path)
            .ok()?
            .modified()
            .ok()?
            .elapsed()
            .ok()
    };
    let youngest = files
        .chain([file.to_owned(), dir.clone()])
        .filter_map(age)
        .min()?;
    SETTLED.checked_sub(youngest).filter(|wait| !wait.is_zero())
}

/// The settings file in use.
pub fn config_file(args: &Args) -> &Path {
    args.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG))
}

/// One line per error.
pub fn errors_text(errors: &[ConfigError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Where the first error is, as `FILE:LINE:COLUMN` or the name of a resource or variable.
pub fn errors_place(errors: &[ConfigError]) -> String {
    errors.first().map_or(String::new(), |e| match e.line {
        0 => e.place.clone(),
        line => format!("{}:{line}:{}", e.place, e.column),
    })
}

/// Where the snapshot may be although the settings cannot be loaded: the environment, the line in the broken file, the default.
pub fn guess_state_dir(args: &Args) -> PathBuf {
    let from_env =
        std::env::vars().find(|(k, _)| matches!(k.as_str(), "MOAT_STATE_DIR" | "MOAT_STATEDIR"));
    if let Some((_, dir)) = from_env.filter(|(_, v)| !v.is_empty()) {
        return dir.into();
    }
    let text = std::fs::read_to_string(config_file(args)).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|l| l.trim().strip_prefix("stateDir")?.trim().strip_prefix('='));
    let dir = line
        .map(|v| v.trim().trim_matches(['"', '\'']))
        .filter(|v| v.starts_with('/') && !v.contains(['"', '\'', '#']));
    dir.map_or_else(|| DEFAULT_STATE_DIR.into(), PathBuf::from)
}
