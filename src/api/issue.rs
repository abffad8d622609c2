//! What is wrong with a document, said to the person who must mend it.

use std::fmt;

use serde::{Serialize, Serializer};

use super::types::ResourceId;

/// How bad an [`Issue`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The resource cannot be used.
    Error,
    /// The resource is used, but does hardly what its author meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

/// One thing wrong at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Issue {
    /// Error or warning.
    pub severity: Severity,
    /// File (or datastore key) as it was given to the parser.
    pub file: String,
    /// 1-based line; 0 when lines mean nothing.
    pub line: u32,
    /// 1-based column in characters; 0 when columns mean nothing.
    pub column: u32,
    /// The resource, as far as it could be identified; serialized as `Kind/name`.
    #[serde(serialize_with = "displayed")]
    pub object: Option<ResourceId>,
    /// Field within the resource: `spec.ingress[0].source.nets[1]`. Empty for the whole document.
    pub path: String,
    /// The offending value, fit to print: see [`shorten`].
    pub value: Option<String>,
    /// The rule that is broken.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

fn displayed<S: Serializer>(object: &Option<ResourceId>, serializer: S) -> Result<S::Ok, S::Error> {
    object
        .as_ref()
        .map(ResourceId::to_string)
        .serialize(serializer)
}

impl fmt::Display for Issue {
    /// `FILE:LINE:COL: error: HostEndpoint/web1: spec.node: ``x``: message (help)`; parts that are unknown are left out.
    /// Help of several lines follows on lines of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}: ", self.severity)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        if let Some(value) = &self.value {
            write!(f, "`{value}`: ")?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) if help.contains('\n') => {
                help.lines().try_for_each(|line| write!(f, "\n    {line}"))
            }
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

/// Longest value quoted in a message, in characters.
pub const MAX_VALUE: usize = 80;

/// The text made fit for a message: control characters escaped, cut at 80 characters.
pub fn shorten(text: &str) -> String {
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == MAX_VALUE {
            out.push('…');
            break;
        }
        if is_unprintable(c) {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
    }
    out
}

/// Control characters, and those that reorder or hide text around them.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// `did you mean ...?` when one of the candidates is close to the text.
pub fn did_you_mean<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(text, candidates).map(|best| format!("did you mean `{best}`?"))
}

/// The candidate closest to the text, when one is close enough to be meant.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 64;
    if text.len() > LONGEST {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    let distance =
        |candidate: &str| strsim::damerau_levenshtein(&lower, &candidate.to_ascii_lowercase());
    let allowed = (text.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(candidate), candidate))
        .filter(|(d, _)| *d <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}
