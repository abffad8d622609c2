//! `moatctl datastore migrate` and `moatctl import`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::change::initialize;
use super::db::Db;

use crate::api::{self, Kind, ResourceId};
use crate::config::Param;
use crate::ctl::{EX_NO, EX_NOINPUT, EX_OK, Failure, Global, Outcome, output};
use crate::etcd::{Condition, Write};
use crate::etcd::{document, keys};

/// Between the resources and the addresses of an export.
const SEPARATOR: &str = "\n---- IPAM\n";

/// Commands about the datastore as a whole.
#[derive(Debug, Subcommand)]
pub enum Datastore {
    /// Move a datastore to another place
    #[command(subcommand)]
    Migrate(Migrate),
}

/// Steps of a move.
#[derive(Debug, Subcommand)]
pub enum Migrate {
    /// Print everything that the datastore holds
    Export,
    /// Fill an empty datastore with an export
    Import {
        /// The export
        #[arg(short = 'f', long = "filename", value_name = "FILE")]
        filename: PathBuf,
    },
    /// Make all hosts keep what they have, whatever happens to the datastore
    Lock,
    /// Make all hosts follow the datastore again
    Unlock,
}

impl Datastore {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Outcome {
        let Datastore::Migrate(step) = self;
        let mut db = Db::open(global)?;
        match step {
            Migrate::Export => export(&mut db),
            Migrate::Import { filename } => import(&mut db, filename),
            Migrate::Lock => ready(&mut db, false, "Datastore locked."),
            Migrate::Unlock => ready(&mut db, true, "Datastore unlocked."),
        }
    }
}

/// All resources as a list in JSON, which is YAML, and then the keys of IP address management.
fn export(db: &mut Db) -> Outcome {
    let mut items = Vec::new();
    for kind in Kind::all() {
        for stored in db.list(kind, None)? {
            items.push(document::exported(stored.document));
        }
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let mut addresses = BTreeMap::new();
    for found in db.scan(keys::IPAM)? {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        addresses.insert(text(&found.key), text(&found.value));
    }
    let text = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
    output::print_text(&format!(
        "{}{SEPARATOR}{}",
        text(&list),
        text(&json!(addresses))
    ))?;
    Ok(EX_OK)
}

fn import(db: &mut Db, filename: &PathBuf) -> Outcome {
    let shown = filename.display();
    let text = std::fs::read_to_string(filename);
    let text = text.map_err(|e| Failure::new(EX_NOINPUT, format!("cannot read {shown}: {e}")))?;
    let (resources, addresses) = text.split_once(SEPARATOR).unwrap_or((&text, "{}"));
    let parsed = api::parse_bytes(&shown.to_string(), resources.as_bytes());
    crate::ctl::files::complain(&parsed.issues);
    let addresses: BTreeMap<String, String> = serde_json::from_str(addresses)
        .map_err(|e| Failure::new(EX_NO, format!("{shown}: addresses: {e}")))?;
    if parsed.has_errors() {
        return Err(Failure::new(
            EX_NO,
            format!("{shown} is invalid: nothing was imported"),
        ));
    }
    let is_other = |key: &[u8]| !key.starts_with(keys::CLUSTER_INFORMATION.as_bytes());
    if db
        .scan(keys::RESOURCES)?
        .iter()
        .any(|found| is_other(&found.key))
    {
        return Err(Failure::new(
            EX_NO,
            "the datastore is not empty: nothing was imported",
        ));
    }
    // Hosts wait until everything is there.
    ready(db, false, "Datastore locked.")?;
    let mut count = 0;
    for resource in &parsed.resources {
        if resource.id.kind == Kind::ClusterInformation {
            continue;
        }
        let key = keys::key(&resource.id);
        let stored = document::complete(resource, None, &key);
        db.put(&key, Condition::Always, &stored)?;
        count += 1;
    }
    for (key, value) in &addresses {
        if !key.starts_with(keys::IPAM) {
            return Err(Failure::new(
                EX_NO,
                format!("{shown}: {key} is no key of addresses"),
            ));
        }
        let value = value.clone().into_bytes();
        db.write(key, Condition::Always, Write::Put { value, lease: 0 })?;
    }
    output::print_text(&format!(
        "Successfully imported {count} resource(s) and {} keys of addresses. Hosts wait for `moatctl datastore migrate unlock`.",
        addresses.len()
    ))?;
    Ok(EX_OK)
}

fn ready(db: &mut Db, ready: bool, said: &str) -> Outcome {
    let id = ResourceId {
        kind: Kind::ClusterInformation,
        namespace: String::new(),
        name: "default".to_owned(),
    };
    let found = match db.get(&id)? {
        Some(found) => Some(found),
        None => {
            initialize(db)?;
            db.get(&id)?
        }
    };
    let Some(found) = found else {
        return Err(Failure::new(
            EX_NO,
            "ClusterInformation/default cannot be written",
        ));
    };
    let mut stored = found.document.clone();
    if let Some(metadata) = stored["metadata"].as_object_mut() {
        metadata.shift_remove("resourceVersion");
    }
    stored["spec"]["datastoreReady"] = ready.into();
    match db.put(&found.key, Condition::Revision(found.revision), &stored)? {
        Some(_) => output::print_text(said).map(|()| EX_OK),
        None => Err(Failure::new(
            EX_NO,
            "somebody else changed it meanwhile: try again",
        )),
    }
}

/// Command line of `import`.
#[derive(Debug, Args)]
pub struct Import {
    /// Felix's settings file
    #[arg(value_name = "felix.cfg")]
    file: PathBuf,
}

impl Import {
    /// Prints Felix's settings in the form of moat.toml.
    pub fn run(&self) -> Outcome {
        let shown = self.file.display();
        let text = std::fs::read_to_string(&self.file);
        let text =
            text.map_err(|e| Failure::new(EX_NOINPUT, format!("cannot read {shown}: {e}")))?;
        output::print_text(&convert(&text))?;
        Ok(EX_OK)
    }
}

/// Lines of moat.toml; what has no place there becomes a comment.
fn convert(text: &str) -> String {
    // Felix's names of what a FelixConfiguration calls otherwise.
    const RENAMED: [(&str, &str); 2] = [
        ("ETCDCAFILE", "etcdCaFile"),
        ("LOGSEVERITYSCREEN", "logSeverityScreen"),
    ];
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim) {
        let is_blank = line.is_empty() || line.starts_with(['#', ';', '[']);
        let Some((name, value)) = line.split_once(['=', ':']).filter(|_| !is_blank) else {
            continue;
        };
        let (name, value) = (name.trim(), value.trim());
        let upper = name.to_ascii_uppercase();
        let renamed = RENAMED
            .iter()
            .find(|(felix, _)| *felix == upper)
            .map(|r| r.1);
        // Times are numbers of seconds there.
        let short = name.to_ascii_lowercase();
        let short = short.strip_suffix("secs").unwrap_or(&short);
        let same = |p: &&Param| p.name.eq_ignore_ascii_case(short);
        let known = renamed
            .and_then(Param::find)
            .or(crate::config::PARAMS.iter().find(same));
        lines.push(match known {
            Some(param) => format!("{} = {}", param.name, Value::from(value)),
            None => format!("# moat has no setting for: {name} = {value}"),
        });
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::convert;

    #[test]
    fn felix_settings() {
        let text = "# c\n[global]\nEtcdEndpoints = https://e1:2379\netcdcafile=/ca.pem\nFelixHostname: h1\nReportingIntervalSecs = 60\nBpfEnabled = true\n";
        let expected = "etcdEndpoints = \"https://e1:2379\"\netcdCaFile = \"/ca.pem\"\nfelixHostname = \"h1\"\nreportingInterval = \"60\"\n# moat has no setting for: BpfEnabled = true";
        assert_eq!(convert(text), expected);
    }
}
