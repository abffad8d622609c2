//! `moatctl datastore migrate import`.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::{OTHERS, SEPARATOR, change};
use crate::api::{self, Kind, Resource};
use crate::ctl::datastore::change::CLUSTER_TIERS;
use crate::ctl::datastore::db::Db;
use crate::ctl::files::complain;
use crate::ctl::progress::Progress;
use crate::ctl::{EX_NO, EX_NOINPUT, EX_OK, Failure, Outcome, output};
use crate::etcd::{Condition, Write, document, keys};

/// An export that was read and checked.
struct Export {
    resources: Vec<Resource>,
    information: Value,
    /// Keys of address management, and their values.
    addresses: Vec<(String, Value)>,
}

/// Fills an empty datastore, which stays locked.
pub fn run(db: &mut Db, filename: &Path) -> Outcome {
    let export = Export::read(filename)?;
    check_empty(db)?;
    // Hosts wait until everything is there.
    let mut fields = vec![("datastoreReady", false.into())];
    for field in ["clusterGUID", "calicoVersion"] {
        let value = &export.information["spec"][field];
        fields.extend(value.is_string().then(|| (field, value.clone())));
    }
    let is_policy = |r: &&Resource| document::is_policy(r.id.kind);
    let mut policies = export.resources.iter().filter(is_policy);
    let is_old = policies.any(|p| p.raw.value()["spec"]["tier"].is_null());
    db.prefer_old_names(is_old);
    change(db, &fields)?;
    output::print_text("Datastore locked.")?;
    // Now the datastore may say it itself.
    db.prefer_old_names(is_old);
    let mut progress = Progress::new("resources written", Some(export.resources.len()));
    for (count, resource) in export.resources.iter().enumerate() {
        progress.done(count);
        let key = db.new_key(resource)?;
        let stored = document::complete(resource, None, &key);
        db.put(&key, Condition::Always, &stored)?;
    }
    drop(progress);
    let count = export.resources.len();
    output::print_text(&format!("Successfully applied {count} resource(s)"))?;
    for (key, value) in &export.addresses {
        let value = value.to_string().into_bytes();
        db.write(key, Condition::Always, Write::Put { value, lease: 0 })?;
    }
    output::print_text(&format!(
        "Importing IPAM resources\nSuccessfully applied {} IPAM resource(s)\nDatastore information successfully imported. Hosts wait for `moatctl datastore migrate unlock`.",
        export.addresses.len()
    ))?;
    Ok(EX_OK)
}

impl Export {
    fn read(filename: &Path) -> Result<Export, Failure> {
        let shown = filename.display();
        let mut text = String::new();
        let read = match filename == Path::new("-") {
            true => std::io::stdin().lock().read_to_string(&mut text).map(drop),
            false => std::fs::read_to_string(filename).map(|read| text = read),
        };
        read.map_err(|e| Failure::new(EX_NOINPUT, format!("cannot read {shown}: {e}")))?;
        let wrong = |what: &str| {
            let text = format!("{shown} is no export of moatctl or calicoctl: {what}");
            Failure::new(EX_NO, text)
        };
        let parts: Vec<&str> = text.split(SEPARATOR).collect();
        let [resources, information, addresses] = parts[..] else {
            return Err(wrong("it has not three parts"));
        };
        let json = |text| serde_json::from_str::<Value>(text).map_err(|e| wrong(&e.to_string()));
        let (information, addresses) = (json(information)?, json(addresses)?);
        let others = addresses.get(OTHERS).cloned().unwrap_or_default();
        let mut all = parse(&shown.to_string(), resources.as_bytes())?;
        if let Value::Array(_) = others {
            all.extend(parse(&shown.to_string(), others.to_string().as_bytes())?);
        }
        Ok(Export {
            resources: all,
            information,
            addresses: entries(&addresses).ok_or_else(|| wrong("a key is no key of addresses"))?,
        })
    }
}

fn parse(name: &str, bytes: &[u8]) -> Result<Vec<Resource>, Failure> {
    let parsed = api::parse_bytes(name, bytes);
    complain(&parsed.issues);
    if parsed.has_errors() {
        let text = format!("{name} is invalid: nothing was imported");
        return Err(Failure::new(EX_NO, text));
    }
    Ok(parsed.resources)
}

/// Every key of address management and its value; none if there is another one among them.
fn entries(addresses: &Value) -> Option<Vec<(String, Value)>> {
    let lists = ["block_affinities", "blocks", "handles"];
    let lists = lists.iter().filter_map(|name| addresses[name].as_array());
    let config = addresses.get("config").filter(|config| !config.is_null());
    let entry = |entry: &Value| {
        let key = entry["Key"].as_str()?;
        let is_address = key.starts_with(keys::IPAM) && entry["Value"].is_object();
        is_address.then(|| (key.to_owned(), entry["Value"].clone()))
    };
    lists.flatten().chain(config).map(entry).collect()
}

/// What the lock and Calico's programs make themselves is no resource of anybody.
fn check_empty(db: &mut Db) -> Result<(), Failure> {
    let is_usual = |key: &[u8]| {
        let id = std::str::from_utf8(key).ok().and_then(keys::parse);
        id.is_some_and(|id| match id.kind {
            Kind::ClusterInformation => true,
            Kind::Tier => CLUSTER_TIERS.iter().any(|tier| tier.0 == id.name),
            _ => false,
        })
    };
    let mut found = db.scan(keys::RESOURCES)?;
    found.retain(|kv| !is_usual(&kv.key));
    found.extend(db.scan(keys::IPAM)?);
    match found.first() {
        None => Ok(()),
        Some(first) => {
            let key = String::from_utf8_lossy(&first.key).into_owned();
            let text = format!("the datastore is not empty: it holds {key}; nothing was imported");
            Err(Failure::new(EX_NO, text))
        }
    }
}
