//! What the task that follows etcd tells the daemon.

use crate::etcd::{KeyValue, Moment};

/// What the task tells.
#[derive(Debug)]
pub enum News {
    /// A complete list follows. One that began before and has not ended is void.
    Listing,
    /// The next part of the list.
    Page(Part),
    /// The list is complete: it was the state of this moment.
    Listed(Moment),
    /// Changes after the list.
    Changes(Vec<Item>),
    /// Nothing else happened up to this revision.
    UpTo(i64),
    /// Connected to this endpoint.
    Connected(String),
    /// Etcd cannot be followed now, because of this; tried again.
    Away(String),
    /// `datastoreReady` is false.
    Paused,
    /// What is or will soon be wrong with the certificates.
    Warnings(Vec<String>),
}

/// A part of a list: all keys from where the last part ended.
#[derive(Debug)]
pub struct Part {
    /// Sorted by key.
    pub items: Vec<Item>,
    /// The part ends before this key; none for the last part.
    pub end: Option<Vec<u8>>,
}

/// News about one key.
#[derive(Debug)]
pub struct Item {
    /// The key.
    pub key: Vec<u8>,
    /// What was found there.
    pub value: Value,
    /// By which revision it was written.
    pub revision: i64,
}

/// What a key holds.
#[derive(Debug)]
pub enum Value {
    /// This.
    Is(Vec<u8>),
    /// More than moat reads.
    TooLarge,
    /// Nothing any more.
    Gone,
}

/// A change as the watch tells it.
pub fn item((kv, is_gone): (KeyValue, bool)) -> Item {
    Item {
        key: kv.key,
        revision: kv.revision,
        value: if is_gone {
            Value::Gone
        } else {
            Value::Is(kv.value)
        },
    }
}
