//! Files with certificates and secrets: reading them, and noticing that they changed.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::EtcdError;

/// The largest file that is read, in bytes: a bundle of all public CAs is a quarter of it.
const MAX_BYTES: u64 = 1 << 20;

/// What tells one version of a file from another; none for a file that cannot be looked at.
pub type Version = Option<(u64, u64, i64, i64)>;

/// The version of a file as it is now.
pub fn version(path: &Path) -> Version {
    let data = path.metadata().ok()?;
    Some((data.ino(), data.size(), data.mtime(), data.mtime_nsec()))
}

/// The text of a file.
///
/// # Errors
/// It cannot be read, is too large or no text; without its content.
pub fn read(path: &Path) -> Result<String, EtcdError> {
    let wrong = |what: String| EtcdError::Local(format!("{}: {what}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let read = file.take(MAX_BYTES + 1).read_to_string(&mut text);
    read.map_err(|e| wrong(format!("cannot be read: {e}")))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(wrong(format!("is larger than {MAX_BYTES} bytes")));
    }
    Ok(text)
}
