//! Records in a frame: length, CRC-32, kind, body. The checksum begins with the journal's identity, so that a record of another
//! journal, left on the disk by a file that is gone, is none of this one.

use super::{MAX_RECORD, Spot};

/// Length and checksum before the kind and the body.
pub const HEAD: usize = 8;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A document.
    Object = 1,
    /// All of a file: which documents are in it and where.
    File = 2,
    /// A file is no longer there.
    Removed = 3,
    /// Node, settings, backend, version.
    Meta = 4,
    /// All records up to here count.
    Commit = 5,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        use Kind::*;
        [Object, File, Removed, Meta, Commit]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// Appends a record to a buffer that will begin at `base` in the journal; says where the record will be.
/// `None` if the record is too large, or would end too far behind to be addressed.
pub fn put(
    buffer: &mut Vec<u8>,
    base: u64,
    identity: u64,
    kind: Kind,
    body: &[u8],
) -> Option<Spot> {
    let length = u32::try_from(body.len() + 1).ok()?;
    let spot = Spot::new(base + buffer.len() as u64, HEAD as u64 + u64::from(length))?;
    if length as usize > MAX_RECORD {
        return None;
    }
    let check = checksum(identity, length, kind as u8, body);
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&check.to_le_bytes());
    buffer.push(kind as u8);
    buffer.extend_from_slice(body);
    Some(spot)
}

/// Length of the record (kind and body) and its checksum, if the length can be one.
pub fn head(bytes: [u8; HEAD]) -> Option<(usize, u32)> {
    let [a, b, c, d, e, f, g, h] = bytes;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let check = u32::from_le_bytes([e, f, g, h]);
    (1..=MAX_RECORD)
        .contains(&length)
        .then_some((length, check))
}

/// The kind and body of a record, if the checksum fits.
pub fn open(identity: u64, record: &[u8], check: u32) -> Option<(Kind, &[u8])> {
    let (kind, body) = record.split_first()?;
    let length = u32::try_from(record.len()).ok()?;
    // A fuzzer cannot make checksums, and what is behind them must bear everything.
    if !cfg!(fuzzing) && checksum(identity, length, *kind, body) != check {
        return None;
    }
    Some((Kind::of(*kind)?, body))
}

fn checksum(identity: u64, length: u32, kind: u8, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&identity.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.update(&[kind]);
    hasher.update(body);
    hasher.finalize()
}
