//! Loading settings for the daemon, with the last good ones to fall back on.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::args::{Args, DEFAULT_CONFIG};
use crate::api::FelixConfiguration;
use crate::config::{ConfigError, Input, Loaded, load};

/// The vendor's settings.
pub const VENDOR_DIR: &str = "/usr/lib/moat";
/// A file that was not written to for so long is complete.
const SETTLED: Duration = Duration::from_millis(500);
/// So many times a start waits for files to be complete.
const START_WAITS: usize = 4;
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

/// Loads all layers, unless a file was written to just now or meanwhile: the first half of a file is settings, too, and not
/// those that were meant.
///
/// # Errors
/// After how long to try again, because a file may not be complete. Inside: everything that is wrong with the settings.
pub fn read_settled(
    args: &Args,
    felix: Vec<(String, Arc<FelixConfiguration>)>,
) -> Result<Result<Loaded, Vec<ConfigError>>, Duration> {
    let before = Versions::now(args);
    if let Some(wait) = before.unsettled() {
        return Err(wait);
    }
    let loaded = load_all(args, felix);
    if Versions::now(args) == before {
        Ok(loaded)
    } else {
        Err(SETTLED)
    }
}

/// Loads all layers for a start, which waits for files that are being written, but not for ever: the rules of the last run
/// stay in the kernel meanwhile.
///
/// # Errors
/// Everything that is wrong with them.
pub async fn read_for_start(args: &Args) -> Result<Loaded, Vec<ConfigError>> {
    for _ in 0..START_WAITS {
        match read_settled(args, Vec::new()) {
            Ok(loaded) => return loaded,
            Err(wait) => tokio::time::sleep(wait).await,
        }
    }
    load_all(args, Vec::new())
}

/// Which versions of the settings files there are.
#[derive(PartialEq, Eq)]
pub struct Versions(Vec<Version>);

#[derive(PartialEq, Eq)]
struct Version {
    path: PathBuf,
    inode: u64,
    size: u64,
    modified: Option<SystemTime>,
    /// Time of the last change of anything, which nobody can set back.
    changed: (i64, i64),
}

impl Versions {
    /// Those that are there now. The directory of drop-ins is among them, since files come and go there.
    pub fn now(args: &Args) -> Versions {
        let file = config_file(args);
        let dir = file.with_extension("d");
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort_unstable();
        paths.extend([file.to_owned(), dir]);
        let version = |path: PathBuf| {
            let meta = std::fs::metadata(&path).ok()?;
            Some(Version {
                path,
                inode: meta.ino(),
                size: meta.len(),
                modified: meta.modified().ok(),
                changed: (meta.ctime(), meta.ctime_nsec()),
            })
        };
        Versions(paths.into_iter().filter_map(version).collect())
    }

    /// How long until the file written last is taken for complete; none if it is. Times in the future say nothing.
    pub fn unsettled(&self) -> Option<Duration> {
        let ages = self.0.iter().filter_map(|v| v.modified?.elapsed().ok());
        SETTLED
            .checked_sub(ages.min()?)
            .filter(|wait| !wait.is_zero())
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn args(config: PathBuf) -> Args {
        Args {
            config: Some(config),
            node: Some("host".to_owned()),
            command: None,
        }
    }

    fn age(path: &Path, by: Duration) {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - by).unwrap();
    }

    #[test]
    fn settings_written_just_now_are_read_later() {
        let dir = tempfile::tempdir().unwrap();
        let args = args(dir.path().join("moat.toml"));
        std::fs::write(config_file(&args), "").unwrap();
        let wait = read_settled(&args, Vec::new()).unwrap_err();
        assert!(wait <= SETTLED);
        age(config_file(&args), SETTLED);
        assert!(read_settled(&args, Vec::new()).unwrap().is_ok());
    }

    #[test]
    fn a_drop_in_written_just_now_is_waited_for_too() {
        let dir = tempfile::tempdir().unwrap();
        let args = args(dir.path().join("moat.toml"));
        std::fs::write(config_file(&args), "").unwrap();
        age(config_file(&args), SETTLED);
        std::fs::create_dir(dir.path().join("moat.d")).unwrap();
        assert!(read_settled(&args, Vec::new()).is_err());
    }

    #[test]
    fn versions_differ_by_contents_and_by_file() {
        let dir = tempfile::tempdir().unwrap();
        let args = args(dir.path().join("moat.toml"));
        std::fs::write(config_file(&args), "").unwrap();
        let first = Versions::now(&args);
        assert!(first == Versions::now(&args));
        std::fs::write(config_file(&args), "interfacePrefix = \"cali\"").unwrap();
        let second = Versions::now(&args);
        assert!(first != second);
        let other = dir.path().join("other");
        std::fs::copy(config_file(&args), &other).unwrap();
        std::fs::rename(other, config_file(&args)).unwrap();
        assert!(second != Versions::now(&args));
    }
}
