//! Sources: each turns its world into updates of named files, which the store merges.

pub mod dir;
#[cfg(feature = "etcd")]
pub mod etcd;
mod file;
mod list;
mod walk;
pub mod watch;

pub use dir::DirSource;
pub use file::Stamp;
pub use list::{DirDigest, is_policy_file, survey};
pub use watch::{News, Watcher};

use crate::api::{Issue, ResourceId, Severity};

/// News about one file (or about a directory as a whole, whose path then stands for the file).
#[derive(Debug)]
pub struct FileUpdate {
    /// The file's path as users know it: the configured directory, a slash, the name.
    pub path: String,
    /// What is known about it now.
    pub content: FileContent,
}

/// What a source found where a file is, was or should be.
#[derive(Debug)]
pub enum FileContent {
    /// It was read: its bytes, and what tells this version from others.
    Text(Vec<u8>, Option<Stamp>),
    /// The value of a key in a datastore, which holds one object, and its version.
    Value(Vec<u8>, Stamp),
    /// It is the version that the reader said it holds already ([`DirSource::expect`]).
    Unchanged,
    /// It is there, or may be there, but could not be read or is not to be trusted. Never the same as removed.
    Unreadable(Issue),
    /// It is known to be gone.
    Removed,
}

/// Whether a key in a datastore may hold this resource.
pub(crate) fn fits(path: &str, id: &ResourceId) -> bool {
    #[cfg(feature = "etcd")]
    if let Some(key) = path.strip_prefix(etcd::SCHEME) {
        return crate::etcd::keys::fits(key, id);
    }
    let _ = (path, id);
    false
}

/// An error about a file or directory as a whole.
pub(crate) fn refusal(path: &str, message: String, help: &str) -> Issue {
    Issue {
        severity: Severity::Error,
        file: path.to_owned(),
        line: 0,
        column: 0,
        object: None,
        path: String::new(),
        value: None,
        message,
        help: Some(help.to_owned()),
    }
}
