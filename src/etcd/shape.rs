//! The form in which Calico's client writes a `spec`: its order of fields, what it leaves out, its spelling of values, its JSON.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Number, Value, json};

use crate::api::Kind;

const TEXT: &str = include_str!("shapes.txt");
static SHAPES: LazyLock<BTreeMap<&str, Vec<Field>>> = LazyLock::new(|| shapes(TEXT));

/// When a field is written.
#[derive(Debug, PartialEq)]
enum Written {
    /// When it says something.
    Filled,
    /// When it is there.
    Given,
    /// Always, with this value if there is none.
    Always(Value),
}

/// A field of an object.
#[derive(Debug, PartialEq)]
struct Field {
    name: &'static str,
    written: Written,
    /// What is in it.
    of: &'static str,
}

fn shapes(text: &'static str) -> BTreeMap<&'static str, Vec<Field>> {
    let mut shapes: BTreeMap<&str, Vec<Field>> = BTreeMap::new();
    let mut current = "";
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, fields) = match line.strip_prefix("  ") {
            Some(more) => (current, more),
            None => line.split_once(':').unwrap_or((line, "")),
        };
        current = name;
        let fields = fields.split_whitespace().map(field);
        shapes.entry(name).or_default().extend(fields);
    }
    shapes
}

fn field(word: &'static str) -> Field {
    let (word, of) = word.split_once(':').unwrap_or((word, ""));
    let (name, written) = match (word.split_once('='), word.strip_suffix('?')) {
        (Some((name, value)), _) => {
            let value = serde_json::from_str(value).unwrap_or_default();
            (name, Written::Always(value))
        }
        (None, Some(name)) => (name, Written::Given),
        (None, None) => (word, Written::Filled),
    };
    Field { name, written, of }
}

/// The `spec` of a resource of this kind as Calico's client would write it.
pub fn arrange(kind: Kind, spec: &Value) -> Value {
    object(kind.name(), spec)
}

fn object(name: &str, value: &Value) -> Value {
    let Value::Object(given) = value else {
        return value.clone();
    };
    let fields = SHAPES.get(name).map_or(&[][..], Vec::as_slice);
    let mut out = Map::new();
    for field in fields {
        let value = given.get(field.name).filter(|value| !value.is_null());
        let value = value.map(|value| spelled(field.of, value));
        let value = match &field.written {
            Written::Filled => value.filter(|value| !is_zero(value)),
            Written::Given => value,
            Written::Always(other) => Some(value.unwrap_or_else(|| other.clone())),
        };
        if let Some(value) = value {
            out.insert(field.name.to_owned(), value);
        }
    }
    for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
        if !fields.iter().any(|field| field.name == name) {
            out.insert(name.clone(), spelled("", value));
        }
    }
    out.into()
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn spelled(of: &str, value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| spelled(of, item)).collect(),
        Value::Object(_) if SHAPES.contains_key(of) => object(of, value),
        Value::Object(map) => sorted(map),
        Value::Number(number) => plain(number),
        Value::String(text) => match of {
            "Duration" => duration(text).map_or_else(|| value.clone(), Value::from),
            "Protocol" | "Port" | "ASNumber" => number_or_name(of, text),
            _ => value.clone(),
        },
        _ => value.clone(),
    }
}

/// Mappings from any name are written in the order of their names.
pub fn sorted(map: &Map<String, Value>) -> Value {
    let sorted: BTreeMap<&String, Value> = map
        .iter()
        .map(|(name, value)| (name, spelled("", value)))
        .collect();
    json!(sorted)
}

/// A whole number has no decimal point.
fn plain(number: &Number) -> Value {
    match number.as_f64() {
        Some(float)
            if !number.is_i64()
                && !number.is_u64()
                && float.fract() == 0.0
                && float.abs() < 1e15 =>
        {
            json!(float as i64)
        }
        _ => number.clone().into(),
    }
}

fn number_or_name(of: &str, text: &str) -> Value {
    let high_and_low = |(high, low): (&str, &str)| {
        let high: u32 = high.parse().ok()?;
        let low: u32 = low.parse().ok()?;
        Some(u64::from(high) << 16 | u64::from(low))
    };
    let ends = text.split_once(':').filter(|_| of == "Port");
    let text = match ends {
        Some((first, last)) if first == last => first,
        _ => text,
    };
    let number = text.parse().ok();
    let dotted = (of == "ASNumber").then(|| text.split_once('.').and_then(high_and_low));
    match number.or(dotted.flatten()) {
        Some(number) => json!(number),
        None if of == "Protocol" => known_protocol(text).into(),
        None => text.into(),
    }
}

/// Calico's spelling of a protocol.
fn known_protocol(text: &str) -> String {
    let known = ["TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite"];
    let found = known.iter().find(|name| name.eq_ignore_ascii_case(text));
    found.map_or(text, |name| *name).to_owned()
}

/// `90s` as `1m30s`; none if it is no duration.
fn duration(text: &str) -> Option<String> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 6e10),
        ("h", 3.6e12),
    ];
    // The only number that needs no unit.
    let mut rest = if text == "0" { "0s" } else { text };
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit = UNITS.iter().find(|(unit, _)| *unit == &rest[..end])?;
        nanos += number * unit.1;
        rest = &rest[end..];
    }
    let nanos = nanos.round() as u64;
    if nanos < 1_000_000_000 {
        let (unit, size) = match nanos {
            0 => ("s", 1.0),
            1..1_000 => ("ns", 1.0),
            1_000..1_000_000 => ("µs", 1e3),
            _ => ("ms", 1e6),
        };
        return Some(format!("{}{unit}", nanos as f64 / size));
    }
    let (minutes, seconds) = (
        nanos / 60_000_000_000,
        (nanos % 60_000_000_000) as f64 / 1e9,
    );
    Some(match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    })
}

/// JSON as Go's encoder writes it: what could end a script in a web page is escaped.
pub fn escape_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_complete() {
        for (name, fields) in SHAPES.iter() {
            let mut names: Vec<&str> = fields.iter().map(|field| field.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), fields.len(), "{name}");
            for field in fields {
                let is_value = ["", "Duration", "Protocol", "Port", "ASNumber"].contains(&field.of);
                assert!(is_value || SHAPES.contains_key(field.of), "{}", field.of);
            }
        }
    }

    #[test]
    fn order_omission_and_spelling() {
        let spec = json!({"selector": "all()", "other": 1, "order": 100.0, "doNotTrack": false, "ingress": [
            {"destination": {"ports": ["22", "80:90"], "nets": []}, "protocol": "tcp", "action": "Allow"}]});
        assert_eq!(
            arrange(Kind::GlobalNetworkPolicy, &spec).to_string(),
            r#"{"order":100,"ingress":[{"action":"Allow","protocol":"TCP","source":{},"destination":{"ports":[22,"80:90"]}}],"selector":"all()","other":1}"#
        );
        let spec = json!({"labelsToApply": {"b": "2", "a": "1"}});
        assert_eq!(
            arrange(Kind::Profile, &spec).to_string(),
            r#"{"labelsToApply":{"a":"1","b":"2"}}"#
        );
        let spec = json!({"asNumber": "1.10", "nodeToNodeMeshEnabled": false});
        assert_eq!(
            arrange(Kind::BGPConfiguration, &spec),
            json!({"nodeToNodeMeshEnabled": false, "asNumber": 65546})
        );
    }

    #[test]
    fn durations() {
        for (given, written) in [
            ("90s", "1m30s"),
            ("1.5h", "1h30m0s"),
            ("0s", "0s"),
            ("100ms", "100ms"),
            ("1500ms", "1.5s"),
            ("2h", "2h0m0s"),
        ] {
            assert_eq!(duration(given).as_deref(), Some(written));
        }
        assert_eq!(duration("x"), None);
        assert_eq!(duration("1y"), None);
    }

    #[test]
    fn escapes() {
        assert_eq!(
            escape_json("\"a<b>&\u{2028}\""),
            r#""a\u003cb\u003e\u0026\u2028""#
        );
    }
}
