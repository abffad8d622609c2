//! One document as the store keeps it: compact text with the lines of its rules, in the journal where possible.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::journal::codec::{Take, put, put_signed};
use super::journal::{Journal, ReadError, Spot};
use crate::api::{self, Issue, Origin, Parsed, Resource, RuleLines};

/// Where a document is.
#[derive(Clone, Debug)]
pub enum Doc {
    /// In the journal.
    Disk(Spot),
    /// In memory, because it has not been written yet.
    Memory(Arc<[u8]>),
    /// Nowhere: the journal was damaged behind our back.
    Lost,
}

impl Doc {
    /// Whether both are the very same, not only of the same content.
    pub fn is(&self, other: &Doc) -> bool {
        match (self, other) {
            (Doc::Disk(a), Doc::Disk(b)) => a == b,
            (Doc::Memory(a), Doc::Memory(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// The bytes of the document.
    ///
    /// # Errors
    /// It is in a journal that cannot be read or was changed behind our back.
    pub fn body(&self, journal: Option<&Journal>) -> Result<Arc<[u8]>, ReadError> {
        match (self, journal) {
            (Doc::Memory(body), _) => Ok(body.clone()),
            (Doc::Disk(spot), Some(journal)) => Ok(journal.document(*spot)?.into()),
            (Doc::Disk(_), None) | (Doc::Lost, _) => Err(ReadError::Lost),
        }
    }
}

/// What tells one content from another.
pub type Hash = [u8; 16];

/// Hash of a document's bytes: nobody can make two documents that share it, so it stands for the content.
pub fn hash(body: &[u8]) -> Hash {
    let digest = Sha256::digest(body);
    let mut hash = Hash::default();
    hash.copy_from_slice(&digest[..16]);
    hash
}

/// The bytes of a document. Lines of rules are counted from the line of the object, so that they stay the same when the object moves
/// within its file.
pub fn encode(resource: &Resource) -> Vec<u8> {
    let mut out = Vec::new();
    let lines = resource.rule_lines();
    for list in [&lines.ingress, &lines.egress] {
        put(&mut out, list.len() as u64);
        for line in list {
            put_line(&mut out, *line, resource.origin.line);
        }
    }
    out.extend_from_slice(resource.raw.text().as_bytes());
    out
}

/// 0 for an unknown line; others begin at 1.
fn put_line(out: &mut Vec<u8>, line: u32, origin: u32) {
    match line {
        0 => out.push(0),
        line => {
            let below = i64::from(line) - i64::from(origin);
            out.push(1);
            put_signed(out, below);
        }
    }
}

fn take_line(take: &mut Take<'_>, origin: u32) -> Option<u32> {
    match take.byte()? {
        0 => Some(0),
        1 => i64::from(origin)
            .checked_add(take.signed()?)?
            .try_into()
            .ok(),
        _ => None,
    }
}

/// The resource that a document tells of; validated again, so that an upgrade cannot misread it.
///
/// # Errors
/// Why the present rules do not accept it.
pub fn decode(body: &[u8], file: &Arc<str>, line: u32) -> Result<Resource, Vec<Issue>> {
    let origin = Origin {
        file: file.clone(),
        line,
    };
    let Some((lines, text)) = split(body, line) else {
        return Err(vec![complaint(origin, "has no lines of rules".to_owned())]);
    };
    match serde_json::from_slice(text) {
        Ok(document) => api::parse_document(&document, &origin, &lines),
        Err(error) => Err(vec![complaint(origin, format!("is no JSON: {error}"))]),
    }
}

/// The resource in a value of a datastore, whose lines mean nothing, and what there is to say of it.
///
/// # Errors
/// Why it is not accepted, or not under this key.
pub fn from_value(value: &[u8], path: &Arc<str>) -> Result<(Resource, Vec<Issue>), Vec<Issue>> {
    let refuse = |message: String| {
        let help = "what was in force before stays until it is mended";
        vec![crate::source::refusal(path, message, help)]
    };
    let document = serde_json::from_slice(value);
    let document = document.map_err(|e| refuse(format!("is no JSON: {e}")))?;
    let Parsed { resources, issues } = api::parse_value(path, &document);
    let Some(resource) = resources.into_iter().next() else {
        return Err(issues);
    };
    match crate::source::fits(path, &resource.id) {
        true => Ok((resource, issues)),
        false => Err(refuse(format!(
            "holds {}, which has another key",
            resource.id
        ))),
    }
}

fn split(body: &[u8], origin: u32) -> Option<(RuleLines, &[u8])> {
    let mut take = Take(body);
    let mut list = || {
        let count = take.count()?;
        let lines = (0..count).map(|_| take_line(&mut take, origin));
        lines.collect::<Option<Vec<u32>>>()
    };
    let lines = RuleLines {
        ingress: list()?,
        egress: list()?,
    };
    Some((lines, take.0))
}

fn complaint(origin: Origin, what: String) -> Issue {
    let message = format!("the document of the snapshot {what}");
    let mut issue = crate::source::refusal(&origin.file, message, "write the file again");
    issue.line = origin.line;
    issue
}
