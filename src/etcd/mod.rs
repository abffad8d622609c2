//! A client of etcd v3, no larger than moat needs it, and Calico's layout of keys there (facts 7).
//!
//! One [`Client`] talks to one endpoint. Whoever uses it decides what to do when that fails: the source follows all
//! endpoints in turn, moatctl tries each once.

mod access;
mod certificate;
mod client;
pub mod document;
mod error;
mod files;
pub mod keys;
mod proto;
pub mod shape;
mod srv;
mod watch;

pub use access::{Access, Material, Password};
pub use certificate::Validity;
pub use client::{Client, Condition, Moment, Page, Write};
pub use error::EtcdError;
pub use files::Version;
pub use watch::{Watch, WatchNews};

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// The revision that wrote it.
    pub revision: i64,
}

/// The key after all keys with this prefix.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // All keys.
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::prefix_end;

    #[test]
    fn end_of_a_prefix() {
        assert_eq!(prefix_end(b"/calico/"), b"/calico0");
        assert_eq!(prefix_end(b"a\xff"), b"b");
        assert_eq!(prefix_end(b"\xff"), b"\0");
    }
}
