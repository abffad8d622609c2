//! Scalars: what a piece of YAML text means under the YAML 1.2 core schema.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use super::node::{Key, Node, Value};

/// A scalar as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar<'a> {
    /// The text, quotes and escapes resolved.
    pub text: Cow<'a, str>,
    /// Written without quotes, so that it may be a number, a truth value or null.
    pub is_plain: bool,
    /// How many columns behind the node's column the text starts, where every character of the text is one
    /// column of the file; `None` where it is not (escapes, several lines).
    pub body: Option<u32>,
}

/// What a scalar means.
#[derive(Clone, Debug, PartialEq)]
pub enum Plain {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number; those beyond 128 bits are [`Plain::Float`].
    Int(i128),
    /// Any other number, infinities and NaN included.
    Float(f64),
    /// Everything else, and whatever is quoted.
    Text,
}

impl<'a> Scalar<'a> {
    /// Text in quotes.
    pub(super) fn quoted(text: impl Into<Cow<'a, str>>) -> Scalar<'a> {
        Scalar {
            text: text.into(),
            is_plain: false,
            body: None,
        }
    }

    /// A number, truth value or null, in the form in which JSON has it.
    pub(super) fn bare(text: impl Into<Cow<'a, str>>) -> Scalar<'a> {
        Scalar {
            is_plain: true,
            ..Scalar::quoted(text)
        }
    }

    /// What the scalar means.
    pub fn plain(&self) -> Plain {
        if !self.is_plain {
            return Plain::Text;
        }
        match self.text.as_bytes().first() {
            None | Some(b'~' | b'n' | b'N') if self.is_null() => Plain::Null,
            Some(b't' | b'T') if matches!(&*self.text, "true" | "True" | "TRUE") => {
                Plain::Bool(true)
            }
            Some(b'f' | b'F') if matches!(&*self.text, "false" | "False" | "FALSE") => {
                Plain::Bool(false)
            }
            Some(b'0'..=b'9' | b'+' | b'-' | b'.') => number(&self.text).unwrap_or(Plain::Text),
            _ => Plain::Text,
        }
    }

    /// Whether the scalar is null or nothing.
    pub(super) fn is_null(&self) -> bool {
        self.is_plain && matches!(&*self.text, "" | "~" | "null" | "Null" | "NULL")
    }
}

fn number(text: &str) -> Option<Plain> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let sign = if negative { -1.0 } else { 1.0 };
    match digits {
        ".inf" | ".Inf" | ".INF" => return Some(Plain::Float(sign * f64::INFINITY)),
        ".nan" | ".NaN" | ".NAN" => {
            return (digits.len() == text.len()).then_some(Plain::Float(f64::NAN));
        }
        _ => {}
    }
    if let Some(radix) = [("0x", 16), ("0o", 8)]
        .iter()
        .find_map(|(p, r)| text.strip_prefix(p).map(|d| (d, *r)))
    {
        return i128::from_str_radix(radix.0, radix.1)
            .ok()
            .filter(|_| !radix.0.starts_with(['+', '-']))
            .map(Plain::Int);
    }
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return text
            .parse()
            .map(Plain::Int)
            .or_else(|_| text.parse().map(Plain::Float))
            .ok();
    }
    is_float(digits).then(|| text.parse().ok().map(Plain::Float))?
}

/// `[0-9]*[.]?[0-9]*([eE][-+]?[0-9]+)?` with at least one digit before the exponent.
fn is_float(digits: &str) -> bool {
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((m, e)) => (m, Some(e.strip_prefix(['-', '+']).unwrap_or(e))),
        None => (digits, None),
    };
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    all_digits(whole)
        && all_digits(fraction)
        && whole.len() + fraction.len() > 0
        && exponent.is_none_or(|e| !e.is_empty() && all_digits(e))
}

/// As JSON. Numbers that JSON cannot hold (infinities, NaN) become their text.
impl Serialize for Node<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Seq(items) => serializer.collect_seq(items),
            Value::Map(entries) => {
                serializer.collect_map(entries.iter().map(|(key, node)| (&key.name, node)))
            }
            Value::Scalar(scalar) => scalar.serialize(serializer),
        }
    }
}

impl Serialize for Scalar<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.plain() {
            Plain::Null => serializer.serialize_unit(),
            Plain::Bool(b) => serializer.serialize_bool(b),
            Plain::Int(n) => match (i64::try_from(n), u64::try_from(n)) {
                (Ok(n), _) => serializer.serialize_i64(n),
                (_, Ok(n)) => serializer.serialize_u64(n),
                // As every reader of JSON takes a number of that size.
                _ => serializer.serialize_f64(n as f64),
            },
            Plain::Float(f) if f.is_finite() => serializer.serialize_f64(f),
            Plain::Float(_) | Plain::Text => serializer.serialize_str(&self.text),
        }
    }
}

impl Node<'_> {
    /// JSON as a tree without positions.
    pub(super) fn from_json(json: &Json) -> Node<'_> {
        Node::nowhere(match json {
            Json::Null => Value::Scalar(Scalar::bare("null")),
            Json::Bool(true) => Value::Scalar(Scalar::bare("true")),
            Json::Bool(false) => Value::Scalar(Scalar::bare("false")),
            Json::Number(n) => Value::Scalar(Scalar::bare(n.to_string())),
            Json::String(text) => Value::Scalar(Scalar::quoted(text)),
            Json::Array(items) => Value::Seq(items.iter().map(Node::from_json).collect()),
            Json::Object(map) => Value::Map(
                map.iter()
                    .map(|(name, value)| (key(name), Node::from_json(value)))
                    .collect(),
            ),
        })
    }
}

fn key(name: &str) -> Key<'_> {
    Key {
        name: name.into(),
        line: 0,
        col: 0,
    }
}
