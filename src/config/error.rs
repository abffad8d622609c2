//! What is wrong with a setting, where, and what to write instead.

use std::fmt;

/// One bad setting. Displayed as `FILE:LINE:COLUMN: key: message (help)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// File, environment variable, option or resource that holds it.
    pub place: String,
    /// 1-based line, 0 where lines mean nothing.
    pub line: u32,
    /// 1-based column in characters, 0 where columns mean nothing.
    pub column: u32,
    /// The setting as it was spelled; empty when the place as a whole is wrong.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl ConfigError {
    /// An error about a place as a whole.
    pub(super) fn at(place: impl Into<String>, message: impl Into<String>) -> ConfigError {
        ConfigError {
            place: place.into(),
            line: 0,
            column: 0,
            key: String::new(),
            message: message.into(),
            help: None,
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> ConfigError {
        self.help = Some(help.into());
        self
    }

    pub(super) fn key(mut self, key: impl Into<String>) -> ConfigError {
        self.key = clip(&key.into());
        self
    }

    pub(super) fn position(mut self, (line, column): (u32, u32)) -> ConfigError {
        (self.line, self.column) = (line, column);
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// What is wrong with a value, wherever it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    /// The list item that is wrong, counted from 0.
    pub(super) item: Option<usize>,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Bad {
    pub(super) fn new(message: impl Into<String>) -> Bad {
        Bad {
            item: None,
            message: clip(&message.into()),
            help: None,
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Bad {
        self.help = Some(help.into());
        self
    }

    pub(super) fn item(mut self, item: usize) -> Bad {
        self.item = Some(item);
        self
    }
}

/// Text that quotes a user's file, made fit for one line of a log: short and without controls.
fn clip(text: &str) -> String {
    const MAX: usize = 300;
    let mut clipped = String::new();
    for c in text.chars().take(MAX) {
        if c.is_control() {
            clipped.extend(c.escape_default());
        } else {
            clipped.push(c);
        }
    }
    if text.chars().nth(MAX).is_some() {
        clipped.push_str("...");
    }
    clipped
}

/// Of `known`, the name that was most likely meant by `found`, as help for an error.
pub(super) fn did_you_mean<'a>(
    found: &str,
    known: impl Iterator<Item = &'a str>,
) -> Option<String> {
    let plain = |text: &str| text.replace(['_', '-'], "").to_lowercase();
    let wanted = plain(&found.chars().take(64).collect::<String>());
    known
        .map(|name| (strsim::damerau_levenshtein(&wanted, &plain(name)), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 5)
        .min()
        .map(|(_, name)| format!("did you mean `{name}`?"))
}
