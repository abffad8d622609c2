//! Resources in the datastore, one after the other, for commands.

use std::collections::BTreeSet;

use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::access;

use crate::api::{Kind, Resource, ResourceId};
use crate::ctl::output::plain;
use crate::ctl::progress::Progress;
use crate::ctl::{EX_NO, EX_UNAVAILABLE, Failure, Global};
use crate::etcd::{Access, Client, Condition, EtcdError, KeyValue, Write, prefix_end};
use crate::etcd::{document, keys, shape};

/// Calico's first version that stores policies under their own names.
const NEW_NAMES: (u32, u32) = (3, 32);
/// Keys of one page of a list.
const PAGE: i64 = 500;

/// A connection to the datastore.
pub struct Db {
    runtime: Runtime,
    client: Client,
    access: Access,
    global: Global,
    /// The revision that the last scan is of.
    seen: i64,
    /// Whether others look for policies under the keys of old clients, once that is known.
    old_names: Option<bool>,
    old_fallback: bool,
    /// Keys that were said to hold no JSON.
    complained: BTreeSet<String>,
}

/// A resource as it is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its key.
    pub key: String,
    /// The document; null where the value is no JSON.
    pub document: Value,
    /// The revision that wrote it.
    pub revision: i64,
}

impl Db {
    /// Connects to the datastore that is configured.
    pub fn open(global: &Global) -> Result<Db, Failure> {
        let access = access::require(global)?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::new(EX_UNAVAILABLE, e.to_string()))?;
        let client = runtime.block_on(Client::connect_any(&access));
        let client = client.map_err(|e| failure(&e))?;
        Ok(Db {
            runtime,
            client,
            access,
            global: global.clone(),
            seen: 0,
            old_names: None,
            old_fallback: false,
            complained: BTreeSet::new(),
        })
    }

    /// How the datastore is reached.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The options of the command line.
    pub fn global(&self) -> &Global {
        &self.global
    }

    /// The resource of that name, also under the key that old clients used.
    pub fn get(&mut self, id: &ResourceId) -> Result<Option<Stored>, Failure> {
        match self.find(id)? {
            Some(found) if found.document.is_null() => Err(Failure::new(
                EX_NO,
                format!("{}: delete it, or apply it anew", broken(&found)),
            )),
            found => Ok(found),
        }
    }

    /// As [`Db::get`], also where the value is no JSON.
    pub fn find(&mut self, id: &ResourceId) -> Result<Option<Stored>, Failure> {
        let candidates = [Some(keys::key(id)), keys::old_key(id)];
        for key in candidates.into_iter().flatten() {
            if let Some(found) = self.get_key(&key)? {
                return Ok(Some(stored(found)));
            }
        }
        Ok(None)
    }

    /// The key under which a resource that is new will be found by the other clients of this datastore.
    pub fn new_key(&mut self, resource: &Resource) -> Result<String, Failure> {
        let usual = keys::key(&resource.id);
        let tier = &resource.raw.value()["spec"]["tier"];
        let is_default = tier.is_null() || tier == "default";
        match keys::old_key(&resource.id).filter(|_| is_default) {
            Some(old) if self.has_old_names()? => Ok(old),
            _ => Ok(usual),
        }
    }

    /// Calico says which version it is; where only calicoctl is used, the policies that it wrote tell.
    pub fn has_old_names(&mut self) -> Result<bool, Failure> {
        if let Some(known) = self.old_names {
            return Ok(known);
        }
        let information = self.get_key(keys::CLUSTER_INFORMATION)?;
        let information = information
            .and_then(|found| serde_json::from_slice::<Value>(&found.value).ok())
            .unwrap_or_default();
        let version = information["spec"]["calicoVersion"].as_str();
        let old = match version.and_then(minor) {
            Some(version) => version < NEW_NAMES,
            None => self.holds_old_names()?,
        };
        self.old_names = Some(old);
        Ok(old)
    }

    /// What holds where neither a version nor a policy tells, as in an empty datastore.
    pub fn prefer_old_names(&mut self, old: bool) {
        (self.old_fallback, self.old_names) = (old, None);
    }

    fn holds_old_names(&mut self) -> Result<bool, Failure> {
        for kind in [Kind::GlobalNetworkPolicy, Kind::NetworkPolicy] {
            let found = self.scan(&keys::prefix(kind, None))?;
            if found.iter().any(|kv| keys::is_old(&kv.key)) {
                return Ok(true);
            }
        }
        Ok(self.old_fallback)
    }

    /// The value of a key.
    pub fn get_key(&mut self, key: &str) -> Result<Option<KeyValue>, Failure> {
        let got = self.runtime.block_on(self.client.get(key.as_bytes()));
        got.map(|(found, _)| found).map_err(|e| failure(&e))
    }

    /// All resources of a kind; of one namespace, if one is named. What is no JSON is left out, and that is said.
    pub fn list(&mut self, kind: Kind, namespace: Option<&str>) -> Result<Vec<Stored>, Failure> {
        let found = self.scan(&keys::prefix(kind, namespace))?;
        let mut resources: Vec<Stored> = found.into_iter().map(stored).collect();
        resources.retain(|r| keys::parse(&r.key).is_some());
        for wrong in resources.iter().filter(|r| r.document.is_null()) {
            if self.complained.insert(wrong.key.clone()) {
                eprintln!("moatctl: warning: {}: left out", broken(wrong));
            }
        }
        resources.retain(|r| !r.document.is_null());
        Ok(resources)
    }

    /// The revision that the last list is of.
    pub fn seen(&self) -> i64 {
        self.seen
    }

    /// All keys with a prefix, of one revision.
    pub fn scan(&mut self, prefix: &str) -> Result<Vec<KeyValue>, Failure> {
        let end = prefix_end(prefix.as_bytes());
        let mut from = prefix.as_bytes().to_vec();
        let (mut found, mut revision) = (Vec::new(), 0);
        let mut progress = Progress::new("keys read", None);
        loop {
            progress.done(found.len());
            let page = self.client.range(&from, &end, PAGE, revision);
            let page = self.runtime.block_on(page).map_err(|e| failure(&e))?;
            revision = page.now.revision;
            self.seen = revision;
            let last = page.items.last().filter(|_| page.more);
            let next = last.map(|last| [&last.key[..], b"\0"].concat());
            found.extend(page.items);
            match next {
                Some(next) => from = next,
                None => return Ok(found),
            }
        }
    }

    /// Writes a document under a condition; says at which revision, or none if the condition does not hold.
    pub fn put(
        &mut self,
        key: &str,
        condition: Condition,
        document: &Value,
    ) -> Result<Option<i64>, Failure> {
        let value = shape::escape_json(&document.to_string()).into_bytes();
        self.write(key, condition, Write::Put { value, lease: 0 })
    }

    /// Writes or removes a key.
    pub fn write(
        &mut self,
        key: &str,
        condition: Condition,
        write: Write,
    ) -> Result<Option<i64>, Failure> {
        let written = self.client.write(key.as_bytes(), condition, write);
        self.runtime.block_on(written).map_err(|e| failure(&e))
    }
}

/// Major and minor number of a version such as `v3.28.5`.
fn minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.trim_start_matches('v').split('.');
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

fn failure(error: &EtcdError) -> Failure {
    match error {
        EtcdError::Refused { .. } => Failure::new(EX_NO, error.to_string()),
        _ => Failure::new(
            EX_UNAVAILABLE,
            format!("the datastore cannot be used: {error}"),
        ),
    }
}

fn stored(found: KeyValue) -> Stored {
    let document: Value = serde_json::from_slice(&found.value).unwrap_or_default();
    Stored {
        document: document::shown(document, found.revision),
        key: String::from_utf8_lossy(&found.key).into_owned(),
        revision: found.revision,
    }
}

fn broken(stored: &Stored) -> String {
    let (key, revision) = (plain(&stored.key), stored.revision);
    format!("{key} (revision {revision}) holds no JSON")
}

#[cfg(test)]
mod tests {
    use super::minor;

    #[test]
    fn versions() {
        assert_eq!(minor("v3.28.5"), Some((3, 28)));
        assert_eq!(minor("3.32.0-0.dev-12"), Some((3, 32)));
        assert_eq!(minor("master"), None);
    }
}
