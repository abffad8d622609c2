//! Resources from files, directories and standard input, with the settings that apply to them.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::progress::Progress;
use super::{EX_CONFIG, EX_NOINPUT, Failure, Global};
use crate::api::{self, Issue, Resource, ResourceId, Severity, Spec};
use crate::calc::{self, Host, HostPolicy};
use crate::config::{self, Loaded};
use crate::source::{is_policy_file, refusal};

/// Where settings are.
const DEFAULT_CONFIG: &str = "/etc/moat/moat.toml";
/// The vendor's settings.
const VENDOR_DIR: &str = "/usr/lib/moat";
/// The most that is read from one input, in bytes; one more is enough to see that it is too long.
const MAX_INPUT: u64 = (64 << 20) + 1;

/// Inputs of a command.
#[derive(Clone, Debug, Args)]
pub struct Inputs {
    /// Policy file, directory of *.yaml, *.yml and *.json files, or - for standard input; may be repeated
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    pub filenames: Vec<PathBuf>,
}

/// What was read.
pub struct Inspected {
    /// Valid resources, sorted.
    pub resources: Vec<Resource>,
    /// Everything that is wrong or surprising.
    pub issues: Vec<Issue>,
    /// Names and texts of the files.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Inspected {
    /// Whether any input is invalid.
    pub fn is_invalid(&self) -> bool {
        self.issues.iter().any(|i| i.severity == Severity::Error)
    }
}

/// Reads and validates the inputs; without any, the policy directories of the settings.
pub fn read(global: &Global, filenames: &[PathBuf]) -> Result<Inspected, Failure> {
    let defaults;
    let filenames = if filenames.is_empty() {
        defaults = settings(global, &[])?.settings.policy_dirs;
        &defaults
    } else {
        filenames
    };
    let mut files = Vec::new();
    let mut issues = Vec::new();
    for filename in filenames {
        read_input(filename, &mut files, &mut issues)?;
    }
    let mut resources: BTreeMap<ResourceId, Resource> = BTreeMap::new();
    let mut progress = Progress::new("files read", Some(files.len()));
    for (count, (name, bytes)) in files.iter().enumerate() {
        progress.done(count);
        let parsed = api::parse_bytes(name, bytes);
        issues.extend(parsed.issues);
        for resource in parsed.resources {
            if let Some(first) = resources.get(&resource.id) {
                issues.push(duplicate(&resource, first));
            } else {
                resources.insert(resource.id.clone(), resource);
            }
        }
    }
    Ok(Inspected {
        resources: resources.into_values().collect(),
        issues,
        files,
    })
}

fn duplicate(resource: &Resource, first: &Resource) -> Issue {
    Issue {
        severity: Severity::Error,
        file: resource.origin.file.to_string(),
        line: resource.origin.line,
        column: 1,
        object: Some(resource.id.clone()),
        path: "metadata.name".to_owned(),
        value: Some(resource.id.name.clone()),
        message: format!("the same resource is in {} already", first.origin),
        help: Some("remove one of them".to_owned()),
    }
}

fn read_input(
    path: &Path,
    files: &mut Vec<(String, Vec<u8>)>,
    issues: &mut Vec<Issue>,
) -> Result<(), Failure> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        let mut input = std::io::stdin().lock().take(MAX_INPUT);
        input.read_to_end(&mut bytes).map_err(unreadable(path))?;
        files.push(("<stdin>".to_owned(), bytes));
        return Ok(());
    }
    let names = if path.is_dir() {
        policy_files(path, issues)?
    } else {
        vec![path.to_owned()]
    };
    for name in names {
        let bytes = read_file(&name).map_err(unreadable(&name))?;
        files.push((name.display().to_string(), bytes));
    }
    Ok(())
}

/// The files of a directory that moatd would read, sorted; what it would refuse is an issue.
fn policy_files(dir: &Path, issues: &mut Vec<Issue>) -> Result<Vec<PathBuf>, Failure> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable(dir))? {
        let entry = entry.map_err(unreadable(dir))?;
        if is_policy_file(&entry.file_name().to_string_lossy()) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    let mut names = Vec::new();
    for path in paths {
        let shown = path.display().to_string();
        match path.metadata() {
            Ok(data) if data.is_file() => {
                if data.mode() & 0o002 != 0 {
                    let message = "is writable by everyone: moatd refuses it".to_owned();
                    issues.push(refusal(&shown, message, &format!("chmod o-w {shown}")));
                }
                names.push(path);
            }
            Ok(_) => {
                let help = "remove it or give it another ending";
                issues.push(refusal(&shown, "is not a regular file".to_owned(), help));
            }
            Err(error) => {
                let help = "restore what it points to, or remove it";
                issues.push(refusal(&shown, format!("cannot be read: {error}"), help));
            }
        }
    }
    Ok(names)
}

fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |e| Failure::new(EX_NOINPUT, format!("cannot read {}: {e}", path.display()))
}

fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(MAX_INPUT)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The settings, with the FelixConfigurations among these resources.
pub fn settings(global: &Global, resources: &[Resource]) -> Result<Loaded, Failure> {
    let felix = resources.iter().filter_map(|r| match &r.spec {
        Spec::FelixConfiguration(felix) => Some((r.id.name.clone(), &felix.fields)),
        _ => None,
    });
    let input = config::Input {
        config_file: global
            .config
            .as_deref()
            .unwrap_or(Path::new(DEFAULT_CONFIG)),
        explicit: global.config.is_some(),
        vendor_dir: Path::new(VENDOR_DIR),
        env: std::env::vars().collect(),
        node: global.node.as_deref(),
        felix: felix.collect(),
        hostname: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .to_lowercase(),
    };
    config::load(&input).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Failure::new(EX_CONFIG, lines.join("\n"))
    })
}

/// The host policy of these resources for the host that the question is about, without looking at this machine.
pub fn host_policy(loaded: &Loaded, resources: &[Resource]) -> HostPolicy {
    let host = Host {
        node: loaded.settings.felix_hostname.clone(),
        ..Host::default()
    };
    calc::compute(resources, &host, &loaded.settings)
}

/// Prints issues for people on standard error.
pub fn complain(issues: &[Issue]) {
    for issue in issues {
        eprintln!("{issue}");
    }
}
