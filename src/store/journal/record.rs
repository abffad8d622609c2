//! What the records of a journal say.

use super::Spot;
use super::codec::{Take, put, put_signed, put_text};
use crate::source::Stamp;

/// What is saved of a file besides its documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedFile {
    /// Name of the source that delivered it.
    pub source: String,
    /// Its path there.
    pub path: String,
    /// The version of the file that holds exactly these objects and gives no reason to complain, if there is one.
    pub stamp: Option<Stamp>,
    /// Its objects in order.
    pub objects: Vec<SavedObject>,
}

/// One object of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedObject {
    /// Where its document is.
    pub spot: Spot,
    /// Its line in the file.
    pub line: u32,
}

/// How the saved state was come by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Name of the node it was written for.
    pub node: String,
    /// The settings in effect, as JSON.
    pub settings: String,
    /// The dataplane backend in use, if one was chosen.
    pub backend: Option<String>,
    /// Version of moat that wrote it.
    pub version: String,
}

/// The end of a consistent state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Generation of the host policy that was in force.
    pub generation: u64,
    /// When it was written, in seconds since 1970.
    pub written: u64,
    /// The meta record that counts.
    pub meta: Spot,
}

impl SavedFile {
    /// Most objects refer to the document right behind the one before, and to a line not far below.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = encode_name(&self.source, &self.path);
        match &self.stamp {
            Some(stamp) => {
                out.push(1);
                let words = stamp.to_words();
                words.iter().for_each(|word| put(&mut out, *word));
            }
            None => out.push(0),
        }
        put(&mut out, self.objects.len() as u64);
        let (mut end, mut line) = (0, 0);
        for object in &self.objects {
            put(&mut out, object.spot.length());
            put_signed(&mut out, object.spot.offset() as i64 - end);
            put_signed(&mut out, i64::from(object.line) - line);
            end = object.spot.end() as i64;
            line = i64::from(object.line);
        }
        out
    }

    /// `limit` is where the record itself begins: documents are before it.
    pub fn decode(body: &[u8], limit: u64) -> Option<SavedFile> {
        let mut take = Take(body);
        let (source, path) = (take.text()?.to_owned(), take.text()?.to_owned());
        let stamp = match take.byte()? {
            0 => None,
            1 => {
                let mut words = [0; Stamp::WORDS];
                for word in &mut words {
                    *word = take.number()?;
                }
                Some(Stamp::from_words(words))
            }
            _ => return None,
        };
        let count = take.count()?;
        // An object takes three bytes at least.
        let mut objects = Vec::with_capacity(count.min(take.0.len() / 3));
        let (mut end, mut line) = (0i64, 0i64);
        for _ in 0..count {
            let length = take.number()?;
            let offset = u64::try_from(end.checked_add(take.signed()?)?).ok()?;
            line = line.checked_add(take.signed()?)?;
            let spot = Spot::new(offset, length).filter(|spot| spot.end() <= limit)?;
            end = spot.end() as i64;
            let line = line.try_into().ok()?;
            objects.push(SavedObject { spot, line });
        }
        let file = SavedFile {
            source,
            path,
            stamp,
            objects,
        };
        take.is_empty().then_some(file)
    }
}

/// A file's name; all of a record that says it was removed.
pub fn encode_name(source: &str, path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, source);
    put_text(&mut out, path);
    out
}

/// Source and path.
pub fn decode_name(body: &[u8]) -> Option<(String, String)> {
    let mut take = Take(body);
    let name = (take.text()?.to_owned(), take.text()?.to_owned());
    take.is_empty().then_some(name)
}

impl Meta {
    /// The body of its record.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_text(&mut out, &self.node);
        put_text(&mut out, &self.settings);
        out.push(u8::from(self.backend.is_some()));
        put_text(&mut out, self.backend.as_deref().unwrap_or_default());
        put_text(&mut out, &self.version);
        out
    }

    /// What a record says.
    pub fn decode(body: &[u8]) -> Option<Meta> {
        let mut take = Take(body);
        let (node, settings) = (take.text()?.to_owned(), take.text()?.to_owned());
        let has_backend = take.byte()? == 1;
        let backend = take.text()?.to_owned();
        let meta = Meta {
            node,
            settings,
            backend: has_backend.then_some(backend),
            version: take.text()?.to_owned(),
        };
        take.is_empty().then_some(meta)
    }
}

impl Commit {
    /// The body of its record.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [
            self.generation,
            self.written,
            self.meta.offset(),
            self.meta.length(),
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out
    }

    /// What a record says.
    pub fn decode(body: &[u8]) -> Option<Commit> {
        let mut take = Take(body);
        let mut number = || take.array().map(u64::from_le_bytes);
        let commit = Commit {
            generation: number()?,
            written: number()?,
            meta: Spot::new(number()?, number()?)?,
        };
        take.is_empty().then_some(commit)
    }
}
