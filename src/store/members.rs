//! What a start needs to enforce before it has read the whole snapshot: which documents matter to this host, and who is in which set.
//!
//! A cache, `members`, beside the journal. It counts only if it was written by this version for the journal's last commit; losing it
//! costs time, nothing else. `moat-members 1`, a line end, the content, and the CRC-32 of all that.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;

use super::Store;
use super::document::{self, Doc};
use super::journal::codec::{Take, put, put_text};
use super::journal::{CommitId, Journal, Meta, Spot, open_at, open_trusted};
use crate::api::{Protocol, Resource, ResourceId};
use crate::calc::{IpSet, SetId};
use crate::source::DirDigest;

/// Largest cache that is read, in bytes.
const MAX_BYTES: u64 = 256 << 20;
const NAME: &str = "members";
const NEW: &str = "members.new";
const MAGIC: &[u8] = b"moat-members 1\n";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// The commit it belongs to.
    pub commit: CommitId,
    /// The policy directories and all that their files' versions come to; none for a directory that was away.
    pub dirs: Vec<(String, Option<DirDigest>)>,
    /// The documents that matter to this host.
    pub documents: Vec<Located>,
    /// Members of every IP set in use.
    pub sets: BTreeMap<SetId, Arc<IpSet>>,
}

/// A document in the journal, and where its object was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The record.
    pub spot: Spot,
    /// The file it came from.
    pub file: Arc<str>,
    /// Its line there.
    pub line: u32,
}

impl Store {
    /// Where the documents of these resources are; none unless all of them are in the journal.
    pub fn locate<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a ResourceId>,
    ) -> Option<Vec<Located>> {
        let one = |id: &ResourceId| {
            let entry = self.table.entry(self.table.find(id)?);
            let Doc::Disk(spot) = entry.doc else {
                return None;
            };
            Some(Located {
                spot,
                file: self.files[entry.file as usize].key.path.clone(),
                line: entry.line,
            })
        };
        let mut found = ids.into_iter().map(one).collect::<Option<Vec<Located>>>()?;
        found.sort_by_key(|document| document.spot);
        Some(found)
    }
}

/// Writes the cache of a state directory.
///
/// # Errors
/// The operation that failed; there is no cache then, or the one before.
pub fn write(dir: &Path, members: &Members) -> io::Result<()> {
    let new = dir.join(NEW);
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    let mut out = Out {
        file: BufWriter::new(file),
        check: crc32fast::Hasher::new(),
    };
    let written = encode(members, &mut |bytes| out.put(bytes)).and_then(|()| out.finish());
    if let Err(error) = written {
        // The space is better used by others.
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    fs::rename(&new, dir.join(NAME))
}

struct Out {
    file: BufWriter<File>,
    check: crc32fast::Hasher,
}

impl Out {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.check.update(bytes);
        self.file.write_all(bytes)
    }

    fn finish(mut self) -> io::Result<()> {
        let check = self.check.finalize();
        self.file.write_all(&check.to_le_bytes())?;
        self.file.flush()
    }
}

fn encode(members: &Members, out: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    out(MAGIC)?;
    let mut part = Vec::new();
    put_text(&mut part, VERSION);
    members.commit.put(&mut part);
    put(&mut part, members.dirs.len() as u64);
    for (path, digest) in &members.dirs {
        put_text(&mut part, path);
        part.push(u8::from(digest.is_some()));
        part.extend_from_slice(&digest.unwrap_or_default());
    }
    put_documents(&mut part, &members.documents);
    put(&mut part, members.sets.len() as u64);
    out(&part)?;
    for (id, set) in &members.sets {
        part.clear();
        put_id(&mut part, id);
        put_set(&mut part, set);
        out(&part)?;
    }
    Ok(())
}

/// Paths once, then the documents with the number of their path.
fn put_documents(out: &mut Vec<u8>, documents: &[Located]) {
    let mut paths: Vec<&Arc<str>> = documents.iter().map(|d| &d.file).collect();
    paths.sort_unstable();
    paths.dedup();
    put(out, paths.len() as u64);
    paths.iter().for_each(|path| put_text(out, path));
    put(out, documents.len() as u64);
    for document in documents {
        document.spot.put(out);
        put(out, paths.partition_point(|p| **p < document.file) as u64);
        put(out, document.line.into());
    }
}

fn put_id(out: &mut Vec<u8>, id: &SetId) {
    match id {
        SetId::Selector(selector) => {
            out.push(0);
            put_text(out, selector);
        }
        SetId::NamedPort {
            selector,
            protocol,
            port,
        } => {
            out.push(1);
            put_text(out, selector);
            out.push(u8::from(protocol.is_some()));
            out.push(protocol.map_or(0, |p| p.0));
            put_text(out, port);
        }
    }
}

fn put_set(out: &mut Vec<u8>, set: &IpSet) {
    match set {
        IpSet::Nets(nets) => {
            out.push(0);
            put(out, nets.len() as u64);
            for net in nets {
                put_address(out, net.addr());
                out.push(net.prefix_len());
            }
        }
        IpSet::Ports(ports) => {
            out.push(1);
            put(out, ports.len() as u64);
            for (address, protocol, port) in ports {
                put_address(out, *address);
                out.push(protocol.0);
                out.extend_from_slice(&port.to_le_bytes());
            }
        }
    }
}

fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            out.push(4);
            out.extend_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            out.push(6);
            out.extend_from_slice(&v6.octets());
        }
    }
}

/// The start that the cache makes possible.
#[derive(Debug)]
pub struct Quick {
    /// The cache.
    pub members: Members,
    /// How the snapshot was come by.
    pub meta: Meta,
    journal: Journal,
}

impl Quick {
    /// The resources that matter to this host; none if one of them cannot be had, so that the whole snapshot must be read first.
    pub fn resources(&self) -> Option<Vec<Resource>> {
        let mut peek = self.journal.peek();
        let one = |document: &Located| {
            let body = peek.document(document.spot).ok()?;
            document::decode(body, &document.file, document.line).ok()
        };
        self.members.documents.iter().map(one).collect()
    }
}

/// The cache of a state directory and the snapshot it belongs to, if both are there and belong together.
/// A few milliseconds whatever the size of the snapshot.
pub fn read(dir: &Path) -> Option<Quick> {
    let (file, size, _) = open_trusted(&dir.join(NAME)).ok()??;
    if size > MAX_BYTES {
        return None;
    }
    let mut bytes = Vec::with_capacity(size.try_into().ok()?);
    file.take(size).read_to_end(&mut bytes).ok()?;
    let members = decode(&bytes)?;
    let (journal, meta) = open_at(dir, &members.commit)?;
    Some(Quick {
        members,
        meta,
        journal,
    })
}

fn decode(bytes: &[u8]) -> Option<Members> {
    let (content, check) = bytes.split_last_chunk()?;
    // A fuzzer cannot make checksums, and what is behind them must bear everything.
    if !cfg!(fuzzing) && crc32fast::hash(content) != u32::from_le_bytes(*check) {
        return None;
    }
    let mut take = Take(content.strip_prefix(MAGIC)?);
    if take.text()? != VERSION {
        return None;
    }
    let commit = CommitId::take(&mut take)?;
    let mut dirs = Vec::new();
    for _ in 0..take.count()? {
        let path = take.text()?.to_owned();
        let is_there = take.byte()? == 1;
        let digest = take.array()?;
        dirs.push((path, is_there.then_some(digest)));
    }
    let documents = take_documents(&mut take)?;
    let mut sets = BTreeMap::new();
    for _ in 0..take.count()? {
        sets.insert(take_id(&mut take)?, Arc::new(take_set(&mut take)?));
    }
    take.is_empty().then_some(Members {
        commit,
        dirs,
        documents,
        sets,
    })
}

fn take_documents(take: &mut Take<'_>) -> Option<Vec<Located>> {
    let paths = take.count()?;
    let paths = (0..paths).map(|_| take.text().map(Arc::from));
    let paths = paths.collect::<Option<Vec<Arc<str>>>>()?;
    let documents = take.count()?;
    let one = |_| {
        Some(Located {
            spot: Spot::take(take)?,
            file: paths.get(usize::try_from(take.number()?).ok()?)?.clone(),
            line: take.small()?,
        })
    };
    (0..documents).map(one).collect()
}

fn take_id(take: &mut Take<'_>) -> Option<SetId> {
    match take.byte()? {
        0 => Some(SetId::Selector(take.text()?.into())),
        1 => {
            let selector = take.text()?.into();
            let has_protocol = take.byte()? == 1;
            let protocol = Protocol(take.byte()?);
            Some(SetId::NamedPort {
                selector,
                protocol: has_protocol.then_some(protocol),
                port: take.text()?.into(),
            })
        }
        _ => None,
    }
}

fn take_set(take: &mut Take<'_>) -> Option<IpSet> {
    let kind = take.byte()?;
    let count = take.count()?;
    match kind {
        0 => {
            let net = |_| IpNet::new(take_address(take)?, take.byte()?).ok();
            (0..count).map(net).collect::<Option<_>>().map(IpSet::Nets)
        }
        1 => {
            let port = |_| {
                let address = take_address(take)?;
                let protocol = Protocol(take.byte()?);
                Some((address, protocol, u16::from_le_bytes(take.array()?)))
            };
            (0..count)
                .map(port)
                .collect::<Option<_>>()
                .map(IpSet::Ports)
        }
        _ => None,
    }
}

fn take_address(take: &mut Take<'_>) -> Option<IpAddr> {
    match take.byte()? {
        4 => take.array::<4>().map(IpAddr::from),
        6 => take.array::<16>().map(IpAddr::from),
        _ => None,
    }
}
