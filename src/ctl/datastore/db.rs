//! Resources in the datastore, one after the other, for commands.

use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::access;

use crate::api::{Kind, ResourceId};
use crate::ctl::{EX_NO, EX_UNAVAILABLE, Failure, Global};
use crate::etcd::{Access, Client, Condition, EtcdError, KeyValue, Write, prefix_end};
use crate::etcd::{document, keys, shape};

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
}

/// A resource as it is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its key.
    pub key: String,
    /// The document.
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
        let candidates = [Some(keys::key(id)), keys::old_key(id)];
        for key in candidates.into_iter().flatten() {
            if let Some(found) = self.get_key(&key)? {
                return stored(found).map(Some);
            }
        }
        Ok(None)
    }

    /// The value of a key.
    pub fn get_key(&mut self, key: &str) -> Result<Option<KeyValue>, Failure> {
        let got = self.runtime.block_on(self.client.get(key.as_bytes()));
        got.map(|(found, _)| found).map_err(|e| failure(&e))
    }

    /// All resources of a kind; of one namespace, if one is named.
    pub fn list(&mut self, kind: Kind, namespace: Option<&str>) -> Result<Vec<Stored>, Failure> {
        let found = self.scan(&keys::prefix(kind, namespace))?;
        let mut resources = found
            .into_iter()
            .map(stored)
            .collect::<Result<Vec<_>, _>>()?;
        resources.retain(|r| keys::parse(&r.key).is_some());
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
        loop {
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

fn failure(error: &EtcdError) -> Failure {
    match error {
        EtcdError::Refused { .. } => Failure::new(EX_NO, error.to_string()),
        _ => Failure::new(
            EX_UNAVAILABLE,
            format!("the datastore cannot be used: {error}"),
        ),
    }
}

fn stored(found: KeyValue) -> Result<Stored, Failure> {
    let key = String::from_utf8_lossy(&found.key).into_owned();
    let document = serde_json::from_slice(&found.value);
    let document =
        document.map_err(|e| Failure::new(EX_NO, format!("{key} holds no JSON: {e}")))?;
    Ok(Stored {
        document: document::shown(document, found.revision),
        key,
        revision: found.revision,
    })
}
