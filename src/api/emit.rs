//! JSON values to YAML text, always the same text for the same value.

use serde_json::{Map, Value};

/// The value as a YAML document that ends with a newline. Whatever could be taken for something else is quoted.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(&mut out, map, 0),
        Value::Array(items) if !items.is_empty() => sequence(&mut out, items, 0),
        value => {
            scalar(&mut out, value, 1);
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
        text(out, key, depth + 1);
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
                scalar(out, value, depth + 1);
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
                scalar(out, item, depth + 1);
                out.push('\n');
            }
        }
    }
}

fn scalar(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::String(s) => text(out, s, depth),
        // Null, truth values, numbers, `{}` and `[]` are written alike in JSON and YAML.
        other => out.push_str(&other.to_string()),
    }
}

/// In Go's style: bare where that is safe, as lines where there are several, otherwise in quotes.
fn text(out: &mut String, text: &str, depth: usize) {
    let is_odd = |c: char| (c.is_control() && c != '\n') || "\u{2028}\u{2029}\u{feff}".contains(c);
    let has_lines = text.contains('\n');
    if text.chars().any(is_odd) || (has_lines && !is_block(text)) {
        quoted(out, text);
    } else if has_lines {
        block(out, text, depth);
    } else if is_other_value(text) {
        out.push_str(&format!("\"{text}\""));
    } else if is_plain(text) {
        out.push_str(text);
    } else {
        out.push_str(&format!("'{}'", text.replace('\'', "''")));
    }
}

fn quoted(out: &mut String, text: &str) {
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

/// Whether a reader gets these lines back from a block: no blanks where they begin or end, and one line break at most behind them.
fn is_block(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    !body.ends_with('\n')
        && !text.starts_with([' ', '\n'])
        && !body.lines().any(|l| l.ends_with(' '))
}

fn block(out: &mut String, text: &str, depth: usize) {
    out.push_str(if text.ends_with('\n') { "|" } else { "|-" });
    for line in text.lines() {
        out.push('\n');
        if !line.is_empty() {
            indent(out, depth);
            out.push_str(line);
        }
    }
}

/// Whether a reader of YAML, 1.1 or 1.2, takes the bare text for something that is no text.
fn is_other_value(text: &str) -> bool {
    const WORDS: [&str; 15] = [
        "", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", ".inf", ".nan", "<<",
        "=",
    ];
    let lower = text.to_ascii_lowercase();
    let bare = lower.trim_start_matches(['-', '+']);
    if WORDS.contains(&lower.as_str()) || bare == ".inf" {
        return true;
    }
    let is_number = |c: char| c.is_ascii_digit() || "_.:-+e".contains(c);
    let is_based = ["0x", "0o", "0b"].iter().any(|base| bare.starts_with(base));
    let looks_so = bare.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let is_numeric = match bare.contains(':') {
        true => is_base_60(bare),
        false => bare.chars().all(is_number) && !is_address(bare),
    };
    looks_so && (is_based || is_numeric || is_day(bare))
}

fn is_address(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok()
}

/// Whether it is a number to the base of 60, as times are in YAML 1.1: `10:59`, but no range such as `80:90`.
fn is_base_60(text: &str) -> bool {
    let is_digits = |part: &str| part.chars().all(|c| c.is_ascii_digit() || c == '_');
    let whole = text.split_once('.').map_or(
        text,
        |(whole, fraction)| {
            if is_digits(fraction) { whole } else { "" }
        },
    );
    let mut places = whole.split(':');
    let first = places.next().unwrap_or_default();
    let is_place = |part: &str| part.len() <= 2 && part.parse().is_ok_and(|n: u8| n < 60);
    !first.is_empty() && is_digits(first) && places.all(is_place)
}

/// Whether it begins as a time does: `2026-01-02`.
fn is_day(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let is_year = |part: &str| part.len() == 4 && part.bytes().all(|b| b.is_ascii_digit());
    let is_month = |part: &str| part.len() <= 2 && part.bytes().all(|b| b.is_ascii_digit());
    parts.next().is_some_and(is_year)
        && parts.next().is_some_and(is_month)
        && parts.next().is_some()
}

/// Whether the bare text has nothing in it that means something in YAML.
fn is_plain(text: &str) -> bool {
    let starts_well = match text.as_bytes() {
        [] => false,
        [b'-' | b'?' | b':', rest @ ..] => !rest.starts_with(b" ") && !rest.is_empty(),
        [first, ..] => !b"#,[]{}&*!|>'\"%@` ".contains(first),
    };
    starts_well
        && !text.starts_with("---")
        && !text.starts_with("...")
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn layout() {
        let value = json!({"a": {"b": [1, "two", {"c": null, "d": []}, [true]], "e": {}}, "10.0.0.0/8": "x y"});
        let expected = "a:\n  b:\n  - 1\n  - two\n  - c: null\n    d: []\n  - - true\n  e: {}\n10.0.0.0/8: x y\n";
        assert_eq!(to_yaml(&value), expected);
    }

    #[test]
    fn ranges_of_ports_are_bare_and_times_are_not() {
        for (text, expected) in [
            ("80:90", "80:90"),
            ("30000:32767", "30000:32767"),
            ("1:59", "\"1:59\""),
            ("10:20:30.5", "\"10:20:30.5\""),
            ("10:", "'10:'"),
        ] {
            assert_eq!(to_yaml(&json!([text])), format!("- {expected}\n"));
        }
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
            "line\nline\n",
            "line\n\nline\n\n",
            " line\nline ",
            "\n",
            "a\n b\n",
            "tab\there",
            "10.0.0.1",
            "1:20",
            "12_3",
            "2026-01-02",
            ".5",
            "-.inf",
            "fd00::/8",
            "::",
            "a:",
            "it's \"so\"",
            "' x",
            "-",
            "--- x",
            " x ",
            "x #y",
            "!has(x) && y in {'a'}",
            "all()",
            "\u{1}\u{7f}",
            "ü",
            "~",
            "null",
            "a",
            "/x",
        ];
        let value = json!({ "list": strings.to_vec() });
        let (documents, error) = crate::api::yaml::documents(to_yaml(&value).as_bytes());
        assert_eq!(error, None);
        assert_eq!(serde_json::to_value(&documents[0]).unwrap(), value);
    }
}
