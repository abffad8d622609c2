//! The kinds of values. Each turns every accepted spelling into one canonical JSON value.

use std::net::IpAddr;
use std::path::{Component, Path};
use std::time::Duration;

use serde_json::{Value, json};

use super::error::{Bad, did_you_mean};
use super::failsafe;
use super::interfaces;

/// What a setting holds and which spellings it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An absolute path.
    Dir,
    /// A list of absolute paths.
    Dirs,
    /// The name of a host.
    Hostname,
    /// One of these words, in any case.
    Choice(&'static [&'static str]),
    /// A list of the beginnings of interface names.
    Prefixes,
    /// A list of interface names and regular expressions.
    Interfaces,
    /// A 32 bit mask.
    Mask,
    /// A failsafe list, with the meaning of the word `calico`.
    Failsafes(&'static str),
    /// true or false.
    Bool,
    /// The prefix of a kernel log line.
    LogPrefix,
    /// A time.
    Duration,
    /// A number from 1 to 4294967295.
    Count,
    /// An IP address, or `localhost`.
    Address,
    /// A port number.
    Port,
    /// A list of URLs of http or https.
    Urls,
    /// Text in one line.
    Text,
    /// A list of labels, `KEY=VALUE`.
    Labels,
}

/// The kernel cuts log prefixes off after 29 characters; two are ours (`: `).
const MAX_LOG_PREFIX: usize = 27;
/// Policy needs this many bits of a packet mark.
const MIN_MARK_BITS: u32 = 4;
/// More entries than this in a plain list are a mistake.
const MAX_LIST: usize = 1000;
const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

impl Kind {
    /// The accepted values, for people.
    pub fn accepts(self) -> String {
        match self {
            Kind::Dir => "absolute path".into(),
            Kind::Dirs => "list of absolute paths".into(),
            Kind::Hostname => "host name".into(),
            Kind::Choice(words) => words.join(", ").replace(", ", " | "),
            Kind::Prefixes => "list of names, or \"none\"".into(),
            Kind::Interfaces => "list of names and \"/REGULAR EXPRESSIONS/\", or \"none\"".into(),
            Kind::Mask => format!("32 bit mask with at least {MIN_MARK_BITS} bits"),
            Kind::Failsafes(_) => "list of \"PROTOCOL:PORT\", \"PROTOCOL:NET:PORT\" or \
                {protocol, port, net}; or \"calico\", \"none\""
                .into(),
            Kind::Bool => "true | false".into(),
            Kind::LogPrefix => {
                format!("text of at most {MAX_LOG_PREFIX} characters, or \"none\"")
            }
            Kind::Duration => "time like \"90s\" or \"1m30s\", or seconds".into(),
            Kind::Count => "number from 1 to 4294967295".into(),
            Kind::Address => "IP address, or \"localhost\"".into(),
            Kind::Port => "number from 1 to 65535".into(),
            Kind::Urls => "list of URLs such as \"https://etcd1:2379\"".into(),
            Kind::Text => "text".into(),
            Kind::Labels => "list of labels such as \"role=web\"".into(),
        }
    }

    /// The canonical value.
    pub(super) fn canonical(self, value: &Value) -> Result<Value, Bad> {
        match self {
            Kind::Dir => text(value, "a path").and_then(dir),
            Kind::Dirs => match list(value, dir)? {
                dirs if dirs.is_empty() => Err(Bad::new("at least one path is needed")),
                dirs => Ok(dirs.into()),
            },
            Kind::Hostname => text(value, "a host name").and_then(hostname),
            Kind::Choice(words) => text(value, "a word").and_then(|text| choice(text, words)),
            Kind::Prefixes | Kind::Interfaces if value == "none" => Ok(json!([])),
            Kind::Prefixes => list(value, interfaces::name).map(Value::from),
            Kind::Interfaces => list(value, interfaces::pattern).map(Value::from),
            Kind::Mask => mask::parse(value).map(|mask| mask::text(mask).into()),
            Kind::Failsafes(calico) => failsafe::parse(value, calico).map(|list| json!(list)),
            Kind::Bool => boolean(value),
            Kind::LogPrefix => text(value, "a text").and_then(log_prefix),
            Kind::Duration => duration::parse(value).map(|time| duration::text(time).into()),
            Kind::Count => count(value),
            Kind::Address => text(value, "an address").and_then(address),
            Kind::Port => port(value),
            Kind::Urls => list(value, url).map(Value::from),
            Kind::Text => text(value, "a text").and_then(line),
            Kind::Labels => list(value, label).map(Value::from),
        }
    }
}

fn text<'a>(value: &'a Value, what: &str) -> Result<&'a str, Bad> {
    value
        .as_str()
        .ok_or_else(|| Bad::new(format!("expected {what} in quotes, found `{value}`")))
}

/// A list, or one text with commas.
fn list(value: &Value, item: fn(&str) -> Result<Value, Bad>) -> Result<Vec<Value>, Bad> {
    let texts: Vec<&str> = match value {
        Value::String(text) => text.split(',').map(str::trim).collect(),
        Value::Array(items) => {
            let texts = items.iter().enumerate();
            texts
                .map(|(i, v)| text(v, "a text").map_err(|b| b.item(i)))
                .collect::<Result<_, _>>()?
        }
        other => return Err(Bad::new(format!("expected a list, found `{other}`"))),
    };
    if texts.len() > MAX_LIST {
        return Err(Bad::new(format!(
            "{} entries, at most {MAX_LIST} are allowed",
            texts.len()
        )));
    }
    let mut values = Vec::new();
    for (index, text) in texts.into_iter().enumerate() {
        let value = item(text).map_err(|bad| bad.item(index))?;
        if values.contains(&value) {
            return Err(Bad::new(format!("`{text}` is listed twice")).item(index));
        }
        values.push(value);
    }
    Ok(values)
}

fn dir(text: &str) -> Result<Value, Bad> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(Bad::new(format!("`{text}` is not an absolute path")));
    }
    if path.components().any(|c| c == Component::ParentDir) || text.contains('\0') {
        return Err(Bad::new(format!(
            "the path {text:?} may not hold `..` or NUL"
        )));
    }
    Ok(text.into())
}

fn hostname(text: &str) -> Result<Value, Bad> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.is_empty() || text.len() > 253 || !text.chars().all(good) {
        let allowed = "1 to 253 letters, digits, `.`, `_` and `-` are allowed";
        return Err(Bad::new(format!("{text:?} is not a host name")).help(allowed));
    }
    Ok(text.into())
}

fn choice(text: &str, words: &[&str]) -> Result<Value, Bad> {
    match words.iter().find(|word| word.eq_ignore_ascii_case(text)) {
        Some(word) => Ok((*word).into()),
        None => {
            let bad = Bad::new(format!("`{text}` is none of {}", words.join(", ")));
            Err(match did_you_mean(text, words.iter().copied()) {
                Some(help) => bad.help(help),
                None => bad,
            })
        }
    }
}

fn url(text: &str) -> Result<Value, Bad> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let good = |c: char| c.is_ascii_alphanumeric() || "._-:[]".contains(c);
    let host = rest.trim_end_matches('/');
    if !["http", "https"].contains(&scheme) || host.is_empty() || !host.chars().all(good) {
        let form = "write it as https://HOST:PORT, without a path or user";
        return Err(Bad::new(format!("{text:?} is not a URL of etcd")).help(form));
    }
    Ok(format!("{scheme}://{host}").into())
}

fn line(text: &str) -> Result<Value, Bad> {
    match text.chars().any(char::is_control) || text.len() > 1024 {
        true => Err(Bad::new("must be one line of at most 1024 bytes")),
        false => Ok(text.into()),
    }
}

/// Words as Felix reads them from its environment.
fn boolean(value: &Value) -> Result<Value, Bad> {
    let word = match value {
        Value::Bool(_) => return Ok(value.clone()),
        Value::String(text) => text.to_ascii_lowercase(),
        _ => String::new(),
    };
    match word.as_str() {
        "true" | "yes" | "y" | "t" | "1" => Ok(true.into()),
        "false" | "no" | "n" | "f" | "0" => Ok(false.into()),
        _ => Err(Bad::new(format!("`{value}` is neither true nor false"))),
    }
}

/// `none` means an empty prefix, since the empty text means that nothing is set.
fn log_prefix(text: &str) -> Result<Value, Bad> {
    if text == "none" {
        return Ok("".into());
    }
    if text.len() > MAX_LOG_PREFIX {
        let message = format!(
            "{} characters, the kernel has room for {MAX_LOG_PREFIX}",
            text.len()
        );
        return Err(Bad::new(message));
    }
    match text.chars().find(|c| !(' '..='~').contains(c) || *c == '"') {
        Some(c) => Err(Bad::new(format!("the character {c:?} is not allowed"))),
        None => Ok(text.into()),
    }
}

/// A whole number, also when it is written as text in decimal or with `0x`.
fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => match text.strip_prefix("0x") {
            Some(hex) if !hex.starts_with('+') => u64::from_str_radix(hex, 16).ok(),
            None if !text.starts_with('+') => text.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

fn count(value: &Value) -> Result<Value, Bad> {
    whole(value)
        .and_then(|n| u32::try_from(n).ok())
        .filter(|n| *n > 0)
        .map(Value::from)
        .ok_or_else(|| Bad::new(format!("`{value}` is not a number from 1 to {}", u32::MAX)))
}

fn label(text: &str) -> Result<Value, Bad> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| Bad::new(format!("`{text}` is not a label such as `role=web`")))?;
    let is_good = |text: &str| text.chars().all(|c| c.is_ascii_graphic() && c != '=');
    match !key.is_empty() && is_good(key) && is_good(value) {
        true => Ok(text.into()),
        false => Err(Bad::new(format!(
            "`{text}` has characters that no label has"
        ))),
    }
}

fn address(text: &str) -> Result<Value, Bad> {
    if text == "localhost" {
        return Ok("127.0.0.1".into());
    }
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_string().into()),
        Err(_) => Err(Bad::new(format!("`{text}` is not an IP address"))
            .help("names are not looked up; `0.0.0.0` and `::` mean every address")),
    }
}

fn port(value: &Value) -> Result<Value, Bad> {
    whole(value)
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n > 0)
        .map(Value::from)
        .ok_or_else(|| Bad::new(format!("`{value}` is not a port from 1 to {}", u16::MAX)))
}

/// Marks are shown in hexadecimal.
pub(super) mod mask {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::{Bad, MIN_MARK_BITS, Value, whole};

    pub(super) fn parse(value: &Value) -> Result<u32, Bad> {
        let Some(mask) = whole(value).and_then(|n| u32::try_from(n).ok()) else {
            return Err(Bad::new(format!(
                "`{value}` is not a 32 bit mask such as 0xffff0000"
            )));
        };
        match mask.count_ones() {
            bits if bits < MIN_MARK_BITS => Err(Bad::new(format!(
                "the mask has {bits} bits, at least {MIN_MARK_BITS} are needed"
            ))),
            _ => Ok(mask),
        }
    }

    pub(super) fn text(mask: u32) -> String {
        format!("{mask:#010x}")
    }

    pub(in super::super) fn serialize<S: Serializer>(m: &u32, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&text(*m))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<u32, D::Error> {
        parse(&Value::deserialize(from)?).map_err(|bad| D::Error::custom(bad.message))
    }
}

/// Times are shown as Go and systemd write them.
pub(super) mod duration {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::{Bad, Duration, MAX_DURATION, Value};

    /// Longest unit first; `ms` before `m` is for the parser.
    const UNITS: [(&str, f64); 4] = [("ms", 0.001), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];

    pub(super) fn parse(value: &Value) -> Result<Duration, Bad> {
        let seconds = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.parse().ok().or_else(|| parse_units(text)),
            _ => None,
        };
        let Some(time) = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()) else {
            return Err(Bad::new(format!("`{value}` is not a time such as \"90s\"")));
        };
        if time > MAX_DURATION {
            return Err(Bad::new(format!("`{value}` is over a year")));
        }
        Ok(Duration::from_millis(
            time.as_millis().try_into().unwrap_or(u64::MAX),
        ))
    }

    /// `1h2m3.5s`, in seconds.
    fn parse_units(text: &str) -> Option<f64> {
        let mut rest = text;
        let mut sum = 0.0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let number: f64 = rest[..digits].parse().ok()?;
            let (unit, scale) = UNITS
                .iter()
                .find(|(unit, _)| rest[digits..].starts_with(unit))?;
            sum += number * scale;
            rest = &rest[digits + unit.len()..];
        }
        (!text.is_empty()).then_some(sum)
    }

    pub(super) fn text(time: Duration) -> String {
        match time.as_millis() {
            ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
            ms => format!("{ms}ms"),
        }
    }

    pub(in super::super) fn serialize<S: Serializer>(
        time: &Duration,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&text(*time))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Duration, D::Error> {
        parse(&Value::deserialize(from)?).map_err(|bad| D::Error::custom(bad.message))
    }
}
