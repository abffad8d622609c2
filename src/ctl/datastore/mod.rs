//! Commands that write and read a datastore, with calicoctl's verbs, messages and exit codes (facts 10).

mod access;
mod bird;
mod change;
mod cut;
mod db;
mod delete;
mod diff;
mod edit;
mod felix;
mod hosts;
mod ipam;
mod migrate;
mod patch;
mod pool;
mod read;
mod render;
mod template;
mod words;

pub use change::{Change, Verb};
pub use delete::Delete;
pub use diff::Diff;
pub use edit::{Label, Patch};
pub use felix::Import;
pub use hosts::Node;
pub use ipam::Ipam;
pub use migrate::Datastore;
pub use read::{Wanted, is_configured, show};

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;

use super::files::Inspected;
use super::{EX_NO, EX_NOINPUT, Failure, Global, files};
use crate::api::{Kind, Resource, ResourceId, Severity};

/// Files with resources.
#[derive(Clone, Debug, Args)]
pub struct Inputs {
    /// File with resources, directory of *.yaml, *.yml and *.json files, or - for standard input; may be repeated
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    filenames: Vec<PathBuf>,
    /// Also the directories in directories
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Files without resources are no error
    #[arg(long)]
    skip_empty: bool,
}

impl Inputs {
    /// Everything is read and checked before anything is sent. What names no namespace is in this one.
    fn read(&self, global: &Global, namespace: Option<&str>) -> Result<Vec<Resource>, Failure> {
        let read = self.parse(global)?;
        if read.is_invalid() {
            return Err(invalid(&read));
        }
        files::complain(&read.issues);
        self.placed(read.resources, namespace)
    }

    /// Which resources the documents name, and the version of each that is given, the last one first: what protects
    /// endpoints goes after them. What else is wrong in a document does not matter.
    fn named(
        &self,
        global: &Global,
        namespace: Option<&str>,
    ) -> Result<Vec<(ResourceId, String)>, Failure> {
        let read = self.parse(global)?;
        let errors = read.issues.iter().filter(|i| i.severity == Severity::Error);
        let named: Option<BTreeSet<ResourceId>> = errors.map(|i| i.object.clone()).collect();
        let Some(mut named) = named else {
            return Err(invalid(&read));
        };
        named.retain(|id| read.resources.iter().all(|r| r.id != *id));
        let mut invalid: Vec<ResourceId> = named.into_iter().collect();
        for id in &mut invalid {
            let own = Some(id.namespace.clone()).filter(|own| own != "default");
            place(id, &own.unwrap_or_default(), namespace)?;
        }
        let valid = match read.resources.is_empty() && !invalid.is_empty() {
            true => Vec::new(),
            false => self.placed(read.resources, namespace)?,
        };
        let valid = valid.into_iter().map(|r| (r.id, r.meta.version.clone()));
        let mut named: Vec<_> = invalid
            .into_iter()
            .map(|id| (id, String::new()))
            .chain(valid)
            .collect();
        named.sort_by_key(|(id, _)| (rank(id.kind), id.clone()));
        named.reverse();
        Ok(named)
    }

    fn parse(&self, global: &Global) -> Result<Inspected, Failure> {
        if self.filenames.is_empty() {
            return Err(Failure::new(
                super::EX_USAGE,
                "No resources specified: say -f",
            ));
        }
        let mut paths = self.filenames.clone();
        if self.recursive {
            for path in self.filenames.iter().filter(|path| path.is_dir()) {
                directories(path, &mut paths)?;
            }
        }
        let refused =
            |e: Failure| Failure::new(EX_NO, format!("failed to execute command: {}", e.message));
        files::read(global, &paths).map_err(refused)
    }

    fn placed(
        &self,
        mut resources: Vec<Resource>,
        namespace: Option<&str>,
    ) -> Result<Vec<Resource>, Failure> {
        if resources.is_empty() && !self.skip_empty {
            let names: Vec<String> = self
                .filenames
                .iter()
                .map(|f| f.display().to_string())
                .collect();
            let text = format!("No resources specified in {}", names.join(", "));
            return Err(Failure::new(EX_NO, text));
        }
        for resource in &mut resources {
            let document = resource.raw.value();
            let own = document["metadata"]["namespace"]
                .as_str()
                .unwrap_or_default();
            place(&mut resource.id, own, namespace)?;
        }
        resources.sort_by_key(|r| (rank(r.id.kind), r.id.clone()));
        Ok(resources)
    }
}

fn invalid(read: &Inspected) -> Failure {
    files::complain(&read.issues);
    let text = "failed to execute command: the input is invalid, nothing was sent";
    Failure::new(EX_NO, text)
}

/// Puts a resource into the namespace of the command line, unless its document names another one.
fn place(id: &mut ResourceId, own: &str, namespace: Option<&str>) -> Result<(), Failure> {
    let Some(wanted) = namespace else {
        return Ok(());
    };
    if !id.kind.is_namespaced() {
        let text = format!("{} is not namespaced", id.kind);
        return Err(Failure::new(EX_NO, text));
    }
    match own {
        "" => wanted.clone_into(&mut id.namespace),
        own if own == wanted => {}
        own => {
            let text =
                format!("resource namespace does not match client namespace. {own} != {wanted}");
            return Err(Failure::new(EX_NO, text));
        }
    }
    Ok(())
}

/// What others refer to comes first, so that no host is closed for the moment between an endpoint and its policies.
fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::Tier => 0,
        Kind::HostEndpoint | Kind::WorkloadEndpoint => 2,
        _ => 1,
    }
}

fn directories(dir: &std::path::Path, paths: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let wrong = |e| Failure::new(EX_NOINPUT, format!("cannot read {}: {e}", dir.display()));
    for entry in std::fs::read_dir(dir).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        // Not through links, which may lead back.
        if entry.file_type().map_err(wrong)?.is_dir() {
            paths.push(entry.path());
            directories(&entry.path(), paths)?;
        }
    }
    Ok(())
}
