//! Settings files: TOML with the line and column of every value.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;

/// The largest settings file.
const MAX_SIZE: u64 = 1 << 20;

/// One broken line can break all that follow; more errors than this help nobody.
const MAX_ERRORS: usize = 20;

/// Positions are kept of so many list items, to bound the time for a huge list in one line.
const MAX_ITEMS: usize = 1000;

/// One `key = value` of a file.
pub(super) struct Line {
    pub(super) key: String,
    pub(super) value: Value,
    /// Line and column of the key, both from 1.
    pub(super) key_at: (u32, u32),
    /// Of the value.
    pub(super) value_at: (u32, u32),
    /// Of each of the first items when the value is a list.
    pub(super) items_at: Vec<(u32, u32)>,
}

/// Reads one file; `Ok(None)` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<Line>>, Vec<ConfigError>> {
    let place = path.display().to_string();
    match read_text(path) {
        Ok(text) => parse(&place, &text).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(vec![ConfigError::at(place, error.to_string())]),
    }
}

/// The `*.toml` files of a directory in order of their names; none when there is no directory.
pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let place = dir.display().to_string();
    let failed = |error: io::Error| ConfigError::at(&place, error.to_string());
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    refuse_world_writable(&std::fs::metadata(dir).map_err(failed)?).map_err(failed)?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|e| e == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_text(path: &Path) -> io::Result<String> {
    // Without NONBLOCK, a named pipe in place of the file would hold us up for ever.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    refuse_world_writable(&meta)?;
    let mut text = String::new();
    file.take(MAX_SIZE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(io::Error::other(format!("larger than {MAX_SIZE} bytes")));
    }
    Ok(text)
}

fn refuse_world_writable(meta: &std::fs::Metadata) -> io::Result<()> {
    if meta.mode() & 0o002 != 0 {
        return Err(io::Error::other(
            "everybody may write to it, so it is not used (chmod o-w)",
        ));
    }
    Ok(())
}

/// Splits a file into its settings; all syntax errors are reported.
pub(super) fn parse(place: &str, text: &str) -> Result<Vec<Line>, Vec<ConfigError>> {
    let places = Places::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let describe = |error: toml::de::Error| {
            let at = error.span().map_or((1, 1), |span| places.find(span.start));
            ConfigError::at(place, error.message().replace('\n', ", ")).position(at)
        };
        return Err(errors.into_iter().take(MAX_ERRORS).map(describe).collect());
    }
    let mut lines = Vec::new();
    for (key, value) in table.into_inner() {
        let items_at = match value.get_ref() {
            DeValue::Array(items) => items
                .iter()
                .take(MAX_ITEMS)
                .map(|item| places.find(item.span().start))
                .collect(),
            _ => Vec::new(),
        };
        lines.push(Line {
            key_at: places.find(key.span().start),
            value_at: places.find(value.span().start),
            items_at,
            key: key.into_inner().into_owned(),
            value: json(value.into_inner()),
        });
    }
    lines.sort_by_key(|line| line.key_at);
    Ok(lines)
}

/// Numbers that JSON cannot hold become texts, which no setting accepts.
fn json(value: DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => number.into(),
            Err(_) => Value::String(number.to_string()),
        },
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(float) if float.is_finite() => float.into(),
            _ => Value::String(number.to_string()),
        },
        DeValue::Boolean(flag) => flag.into(),
        DeValue::Datetime(time) => Value::String(time.to_string()),
        DeValue::Array(items) => items
            .into_iter()
            .map(|item| json(item.into_inner()))
            .collect(),
        DeValue::Table(table) => table
            .into_iter()
            .map(|(key, value)| (key.into_inner().into_owned(), json(value.into_inner())))
            .collect(),
    }
}

/// Lines and columns of byte offsets.
struct Places<'a> {
    text: &'a str,
    /// Offset at which each line starts.
    starts: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(text: &'a str) -> Places<'a> {
        let ends = text
            .bytes()
            .enumerate()
            .filter(|(_, b)| *b == b'\n')
            .map(|(at, _)| at + 1);
        Places {
            text,
            starts: std::iter::once(0).chain(ends).collect(),
        }
    }

    fn find(&self, offset: usize) -> (u32, u32) {
        let line = self.starts.partition_point(|start| *start <= offset);
        let before = self
            .text
            .get(self.starts[line - 1]..offset)
            .unwrap_or_default();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        (number(line), number(before.chars().count() + 1))
    }
}
