//! In place of the datastore in a build without the feature `etcd`.

use std::net::SocketAddr;

use super::report::{Degraded, Override, SourceReport};
use super::run::Daemon;
use super::start::Parts;
use crate::config::{DatastoreType, Settings};
use crate::store::Store;

/// No datastore can be followed; one that is configured is a problem.
#[derive(Debug, Default)]
pub struct Datastore {
    is_wanted: bool,
}

/// There are none.
#[derive(Debug)]
pub enum News {}

impl Datastore {
    /// Waits for ever.
    pub async fn next(&mut self) -> News {
        std::future::pending().await
    }

    /// There is none.
    pub fn keep_contact(&mut self, _is_last: bool) {}

    /// Never.
    pub fn is_listing(&self) -> bool {
        false
    }

    /// What is configured to be read cannot be.
    pub fn is_awaited(&self, _: &Store) -> bool {
        self.is_wanted
    }

    /// That it is configured in vain.
    pub fn degraded(&self, _: &Store) -> Option<Degraded> {
        self.is_wanted.then(|| Degraded {
            reason: "this moatd was built without etcd: the rules in the kernel stay as they are"
                .to_owned(),
            object: "datastore".to_owned(),
            place: "datastoreType".to_owned(),
        })
    }

    /// None.
    pub fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// None.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    /// None.
    pub fn report(&self) -> Option<SourceReport> {
        None
    }

    fn configure(&mut self, settings: &Settings) {
        self.is_wanted = settings.datastore_type != DatastoreType::None;
    }
}

/// None.
pub fn overrides(_: &Store) -> Vec<Override> {
    Vec::new()
}

impl Parts {
    /// Notes whether one is configured.
    pub fn configure_datastore(&mut self) {
        self.datastore.configure(&self.loaded.settings);
        if !self.datastore.is_wanted {
            self.engine.forget("etcd");
        }
    }
}

impl Daemon<'_> {
    /// Nobody listens.
    pub(super) fn publish(&self) {}

    /// Never called.
    pub(super) fn datastore_news(&mut self, news: News) {
        match news {}
    }
}
