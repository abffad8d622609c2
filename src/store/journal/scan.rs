//! Reading a journal from its beginning: what the last whole commit leaves in force.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::frame::{self, HEAD, Kind};
use super::record::{self, Commit, Meta, SavedFile};
use super::{HEADER, Journal, ReadError, Spot};

/// Bytes that are read at once.
const WINDOW: usize = 256 << 10;

/// The state of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The commit.
    pub commit: Commit,
    /// Where its record is.
    pub at: Spot,
    /// How the state was come by.
    pub meta: Meta,
    /// The content held of every file, sorted by path.
    pub files: Vec<SavedFile>,
}

/// How the records of a journal end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a commit or records without one, perhaps one that was cut off: what a crash leaves.
    Clean,
    /// With something at this byte that is no record.
    Damaged(u64),
}

/// A file that is read in order through a window.
pub struct Window<'a> {
    file: &'a File,
    bytes: Vec<u8>,
    begin: u64,
}

impl<'a> Window<'a> {
    /// Begins anywhere.
    pub fn new(file: &'a File) -> Window<'a> {
        Window {
            file,
            bytes: Vec::new(),
            begin: 0,
        }
    }

    /// These bytes; fewer at the end of the file.
    pub fn get(&mut self, offset: u64, length: usize) -> std::io::Result<&[u8]> {
        let inside = |w: &Window<'_>| {
            let from = usize::try_from(offset.checked_sub(w.begin)?).ok()?;
            (from + length <= w.bytes.len()).then_some(from)
        };
        if let Some(from) = inside(self) {
            return Ok(&self.bytes[from..from + length]);
        }
        self.begin = offset;
        self.bytes.resize(length.max(WINDOW), 0);
        let mut filled = 0;
        while filled < length {
            match self
                .file
                .read_at(&mut self.bytes[filled..], offset + filled as u64)?
            {
                0 => break,
                count => filled += count,
            }
        }
        self.bytes.truncate(filled);
        Ok(&self.bytes[..length.min(filled)])
    }
}

/// What is read of a journal so far.
#[derive(Default)]
struct State {
    files: BTreeMap<(String, String), SavedFile>,
    /// Files since the last commit, and those removed.
    pending: Vec<((String, String), Option<SavedFile>)>,
    last: Option<(Commit, Spot)>,
}

impl State {
    /// `None` if the record does not say what one of its kind says.
    fn take(&mut self, kind: Kind, body: &[u8], spot: Spot) -> Option<()> {
        match kind {
            Kind::Object => {}
            Kind::Meta => drop(Meta::decode(body)?),
            Kind::File => {
                let file = SavedFile::decode(body, spot.offset())?;
                let name = (file.path.clone(), file.source.clone());
                self.pending.push((name, Some(file)));
            }
            Kind::Removed => {
                let (source, path) = record::decode_name(body)?;
                self.pending.push(((path, source), None));
            }
            Kind::Commit => {
                let commit = Commit::decode(body)?;
                (commit.meta.end() <= spot.offset()).then_some(())?;
                for (name, file) in self.pending.drain(..) {
                    match file {
                        Some(file) => drop(self.files.insert(name, file)),
                        None => drop(self.files.remove(&name)),
                    }
                }
                self.last = Some((commit, spot));
            }
        }
        Some(())
    }
}

/// Reads all records of `file`, whose first line is known to be good.
///
/// # Errors
/// The file cannot be read.
pub fn scan(file: &File, identity: u64, size: u64) -> Result<(Option<Saved>, End), ReadError> {
    let mut state = State::default();
    let mut window = Window::new(file);
    let mut offset = HEADER as u64;
    let end = loop {
        match next(
            &mut window,
            identity,
            offset,
            size,
            &mut |kind, body, spot| state.take(kind, body, spot),
        )? {
            Step::Record(spot) => offset = spot.end(),
            Step::End(end) => break end,
        }
    };
    let Some((commit, at)) = state.last else {
        return Ok((None, end));
    };
    let Some(meta) = meta(&mut window, identity, commit.meta)? else {
        return Ok((None, End::Damaged(commit.meta.offset())));
    };
    let saved = Saved {
        commit,
        at,
        meta,
        files: state.files.into_values().collect(),
    };
    Ok((Some(saved), end))
}

/// The meta record of a commit.
pub fn meta(window: &mut Window<'_>, identity: u64, spot: Spot) -> Result<Option<Meta>, ReadError> {
    let mut meta = None;
    next(
        window,
        identity,
        spot.offset(),
        spot.end(),
        &mut |kind, body, _| {
            meta = (kind == Kind::Meta).then(|| Meta::decode(body))?;
            meta.as_ref().map(|_| ())
        },
    )?;
    Ok(meta)
}

/// Takes a record; `None` if it does not say what one of its kind says.
pub type Taker<'a> = dyn FnMut(Kind, &[u8], Spot) -> Option<()> + 'a;

/// One step of reading.
pub enum Step {
    /// A good record was there.
    Record(Spot),
    /// There is none.
    End(End),
}

/// Reads the record at `at`.
pub fn next(
    window: &mut Window<'_>,
    identity: u64,
    at: u64,
    size: u64,
    take: &mut Taker<'_>,
) -> Result<Step, ReadError> {
    if size < at + HEAD as u64 {
        return Ok(Step::End(End::Clean));
    }
    let damaged = Ok(Step::End(End::Damaged(at)));
    let Some((length, check)) = window
        .get(at, HEAD)?
        .first_chunk()
        .and_then(|bytes| frame::head(*bytes))
    else {
        return damaged;
    };
    let whole = HEAD + length;
    if size < at + whole as u64 {
        return Ok(Step::End(End::Clean));
    }
    let Some(spot) = Spot::new(at, whole as u64) else {
        return damaged;
    };
    let bytes = window.get(at, whole)?;
    let record = bytes.get(HEAD..).unwrap_or_default();
    let taken =
        frame::open(identity, record, check).and_then(|(kind, body)| take(kind, body, spot));
    match taken {
        Some(()) => Ok(Step::Record(spot)),
        None => damaged,
    }
}

/// Documents of a journal, to be read in the order of the journal: then it is read only once.
pub struct Peek<'a> {
    journal: &'a Journal,
    window: Window<'a>,
}

impl Journal {
    /// Reads documents one after the other.
    pub fn peek(&self) -> Peek<'_> {
        Peek {
            journal: self,
            window: Window::new(&self.0.file),
        }
    }
}

impl Peek<'_> {
    /// The body of an object's record.
    ///
    /// # Errors
    /// It cannot be read, or is not what was written.
    pub fn document(&mut self, spot: Spot) -> Result<&[u8], ReadError> {
        let bytes = self.window.get(spot.offset(), spot.length as usize)?;
        self.journal.check(spot, bytes)
    }
}
