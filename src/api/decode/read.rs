//! Readers of single values: each turns a node into a value or says what is wrong with it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::at::{At, Message};
use super::names;
use crate::api::issue::{did_you_mean, shorten};
use crate::api::net::{parse_net, parse_strict_net};
use crate::api::yaml::{Plain, Scalar, Value};
use crate::selector::Selector;

/// Longest selector in characters (facts 1.3, 1.7).
pub const MAX_SELECTOR: usize = 1024;

/// Text. Numbers and truth values must be quoted, as in Kubernetes.
pub fn text(at: &At<'_>) -> Option<String> {
    borrowed(at).map(str::to_owned)
}

/// The same without a copy.
pub fn borrowed<'a>(at: &At<'a>) -> Option<&'a str> {
    let Value::Scalar(scalar) = &at.node.value else {
        return at.wrong_type("text");
    };
    match scalar.plain() {
        Plain::Text => Some(&scalar.text),
        Plain::Null => Some(""),
        Plain::Bool(_) | Plain::Int(_) | Plain::Float(_) => at.error(Message::with(
            "must be text, not a number or truth value",
            format!("write it in quotes: \"{}\"", shorten(&scalar.text)),
        )),
    }
}

/// Text that a check accepts; the check returns a sentence about what is wrong.
pub fn checked(at: &At<'_>, check: impl FnOnce(&str) -> Result<(), Message>) -> Option<String> {
    valid(at, check).map(str::to_owned)
}

/// The same without a copy.
pub fn valid<'a>(at: &At<'a>, check: impl FnOnce(&str) -> Result<(), Message>) -> Option<&'a str> {
    let text = borrowed(at)?;
    match check(text) {
        Ok(()) => Some(text),
        Err(message) => at.error(message),
    }
}

/// `true` or `false`.
pub fn boolean(at: &At<'_>) -> Option<bool> {
    let Value::Scalar(scalar) = &at.node.value else {
        return at.wrong_type("true or false");
    };
    match scalar.plain() {
        Plain::Bool(b) => Some(b),
        Plain::Text if scalar.is_plain => {
            let help = match scalar.text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" => Some("write true".to_owned()),
                "no" | "off" | "n" => Some("write false".to_owned()),
                _ => None,
            };
            at.error(Message::with("must be true or false", help))
        }
        _ => unquoted(at, scalar, "true or false"),
    }
}

/// Complains about the type, and about the quotes when they are all that is wrong.
fn unquoted<T>(at: &At<'_>, scalar: &Scalar<'_>, wanted: &str) -> Option<T> {
    let bare = Scalar {
        is_plain: true,
        ..scalar.clone()
    };
    if scalar.is_plain || bare.plain() == Plain::Text || bare.plain() == Plain::Null {
        return at.wrong_type(wanted);
    }
    let rule = format!("must be {wanted}, not text");
    at.error(Message::with(rule, "remove the quotes".to_owned()))
}

/// A whole number of that range.
pub fn integer(at: &At<'_>, range: RangeInclusive<i64>) -> Option<i64> {
    let Value::Scalar(scalar) = &at.node.value else {
        return at.wrong_type("a whole number");
    };
    let n = match scalar.plain() {
        Plain::Int(n) => n,
        // Whole numbers beyond all that a range may hold are read as decimal ones.
        Plain::Float(f) if f.abs() > u64::MAX as f64 => i128::MAX,
        _ => return unquoted(at, scalar, "a whole number"),
    };
    if has_leading_zero(&scalar.text) {
        return at.error(LEADING_ZERO);
    }
    match i64::try_from(n).ok().filter(|n| range.contains(n)) {
        Some(n) => Some(n),
        None => at.error(format!(
            "must be between {} and {}",
            range.start(),
            range.end()
        )),
    }
}

/// A whole number that fits 8 bits and the range.
pub fn byte(at: &At<'_>, range: RangeInclusive<u8>) -> Option<u8> {
    let n = integer(at, i64::from(*range.start())..=i64::from(*range.end()))?;
    u8::try_from(n).ok()
}

const LEADING_ZERO: &str = "leading zeros are ambiguous (octal or decimal)";

fn has_leading_zero(text: &str) -> bool {
    text.len() > 1 && text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit())
}

/// Any finite number.
pub fn number(at: &At<'_>) -> Option<f64> {
    let Value::Scalar(scalar) = &at.node.value else {
        return at.wrong_type("a number");
    };
    if has_leading_zero(&scalar.text) {
        return at.error(LEADING_ZERO);
    }
    match scalar.plain() {
        Plain::Int(n) => Some(n as f64),
        Plain::Float(f) if f.is_finite() => Some(f),
        Plain::Float(_) => at.error("must be a finite number"),
        _ => unquoted(at, scalar, "a number"),
    }
}

/// One of the words, which is translated.
pub fn choice<T: Clone>(at: &At<'_>, words: &[(&str, T)]) -> Option<T> {
    let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let wanted = one_of(&all);
    let Some(text) = at.node.text() else {
        return at.wrong_type(&wanted);
    };
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Some(value.clone());
    }
    let help = did_you_mean(text, all.iter().copied());
    at.error(Message::with(format!("must be {wanted}"), help))
}

/// `a`, `a or b`, `one of a, b, c`.
pub fn one_of(words: &[&str]) -> String {
    match words {
        [one] => (*one).to_owned(),
        [one, two] => format!("{one} or {two}"),
        more => format!("one of {}", more.join(", ")),
    }
}

/// A port number.
pub fn port(at: &At<'_>) -> Option<u16> {
    integer(at, 1..=65535).and_then(|n| u16::try_from(n).ok())
}

/// A plain address without a mask.
pub fn ip(at: &At<'_>) -> Option<IpAddr> {
    let text = borrowed(at)?;
    match text.parse() {
        Ok(ip) => Some(ip),
        Err(_) if text.contains('/') && parse_net(text).is_ok() => at.error(Message::with(
            "must be an address without a mask",
            text.split('/').next().map(|ip| format!("write {ip}")),
        )),
        Err(_) => at.error("is not an IPv4 or IPv6 address"),
    }
}

/// A prefix or address without host bits.
pub fn strict_net(at: &At<'_>) -> Option<IpNet> {
    let text = borrowed(at)?;
    parse_strict_net(text).map_or_else(|e| at.error(net_message(text, &e)), Some)
}

/// A prefix or address; host bits are masked.
pub fn masked_net(at: &At<'_>) -> Option<IpNet> {
    net(at).map(|net| net.trunc())
}

/// A prefix or address; host bits are kept.
pub fn net(at: &At<'_>) -> Option<IpNet> {
    let text = borrowed(at)?;
    parse_net(text).map_or_else(|e| at.error(net_message(text, &e)), Some)
}

/// The sentence without the value in front, which the issue shows anyway.
fn net_message(text: &str, error: &str) -> String {
    let quoted = format!("`{text}`");
    error
        .replace(&format!(" of {quoted}"), "")
        .replace(&format!("{quoted} "), "")
}

/// A selector of at most [`MAX_SELECTOR`] characters. Empty text is no selector.
pub fn selector(at: &At<'_>) -> Option<Selector> {
    let text = borrowed(at)?;
    let length = text.chars().count();
    let most = at.most(MAX_SELECTOR);
    if length > most {
        return at.error(format!(
            "is {length} characters long, at most {most} are allowed"
        ));
    }
    if text.trim().is_empty() {
        return None;
    }
    match Selector::parse(text) {
        Ok(selector) => Some(selector),
        Err(e) => {
            let offset = text
                .get(..e.offset)
                .map_or(0, |before| before.chars().count());
            let caret = e.caret(text);
            at.error_within(offset, Message::with(e.message, caret))
        }
    }
}

/// A mapping from text to text.
pub fn text_map(at: &At<'_>) -> Option<BTreeMap<String, String>> {
    let entries = at.entries()?;
    let pairs = entries
        .iter()
        .filter_map(|(key, node)| Some((key.name.to_string(), text(&at.entry(&key.name, node))?)));
    Some(pairs.collect())
}

/// Labels: keys and values as Kubernetes has them.
pub fn labels(at: &At<'_>) -> Option<BTreeMap<String, String>> {
    let entries = at.entries()?;
    for (key, node) in entries {
        let at = at.entry(&key.name, node);
        if let Err(message) = names::label_key(&key.name) {
            at.complain_key(key, message);
        }
        if let Err(message) = node.text().map_or(Ok(()), names::label_value) {
            at.complain(message);
        }
    }
    text_map(at)
}

/// A duration such as `90s`.
pub fn duration(at: &At<'_>) -> Option<String> {
    if at.node.is_number() {
        return at.error(Message::with(
            "needs a unit",
            format!("write {}s for seconds", at.node.text().unwrap_or_default()),
        ));
    }
    checked(at, names::duration)
}

/// A DNS-1123 subdomain.
pub fn name(at: &At<'_>) -> Option<String> {
    checked(at, names::subdomain)
}

/// An interface name of at most 15 characters.
pub fn interface(at: &At<'_>) -> Option<String> {
    checked(at, names::interface)
}
