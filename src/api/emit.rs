//! JSON values to YAML text, always the same text for the same value.

use serde_json::{Map, Value};

/// The value as a YAML document that ends with a newline. Whatever could be taken for something else is quoted.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(&mut out, map, 0),
        Value::Array(items) if !items.is_empty() => sequence(&mut out, items, 0),
        value => {
            scalar(&mut out, value);
            out.push('\n');
        }
    }
    out
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

fn mapping(out: &mut String, map: &Map<String, Value>, depth: usize) {
    for (n, (key, value)) in map.iter().enumerate() {
        if n > 0 {
            indent(out, depth);
        }
        text(out, key);
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                indent(out, depth + 1);
                mapping(out, inner, depth + 1);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                indent(out, depth);
                sequence(out, items, depth);
            }
            value => {
                out.push(' ');
                scalar(out, value);
                out.push('\n');
            }
        }
    }
}

fn sequence(out: &mut String, items: &[Value], depth: usize) {
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            indent(out, depth);
        }
        out.push_str("- ");
        match item {
            Value::Object(inner) if !inner.is_empty() => mapping(out, inner, depth + 1),
            Value::Array(inner) if !inner.is_empty() => sequence(out, inner, depth + 1),
            item => {
                scalar(out, item);
                out.push('\n');
            }
        }
    }
}

fn scalar(out: &mut String, value: &Value) {
    match value {
        Value::String(s) => text(out, s),
        // Null, truth values, numbers, `{}` and `[]` are written alike in JSON and YAML.
        other => out.push_str(&other.to_string()),
    }
}

fn text(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Whether no reader of YAML, 1.1 or 1.2, takes the bare text for anything but this text.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '/')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'/'))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn layout() {
        let value = json!({"a": {"b": [1, "two", {"c": null, "d": []}, [true]], "e": {}}, "10.0.0.0/8": "x y"});
        let expected = "a:\n  b:\n  - 1\n  - two\n  - c: null\n    d: []\n  - - true\n  e: {}\n\"10.0.0.0/8\": \"x y\"\n";
        assert_eq!(to_yaml(&value), expected);
    }

    #[test]
    fn hostile_strings_come_back() {
        let strings = [
            "",
            "no",
            "0x10",
            "1e3",
            "a: b",
            "- x",
            "#",
            "'",
            "\"\\",
            "line\nline",
            "\u{1}\u{7f}",
            "ü",
            "~",
            "null",
            "a",
            "/x",
        ];
        let value = json!({ "list": strings });
        let (documents, error) = crate::api::yaml::documents(to_yaml(&value).as_bytes());
        assert_eq!(error, None);
        assert_eq!(serde_json::to_value(&documents[0]).unwrap(), value);
    }
}
