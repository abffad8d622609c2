//! Documents as files hold them.

use std::fmt::Write as _;

/// A `kind: List` of documents.
pub fn list(documents: impl Iterator<Item = String>) -> String {
    let mut text = String::from(r#"{"apiVersion":"projectcalico.org/v3","kind":"List","items":["#);
    for (n, document) in documents.enumerate() {
        if n > 0 {
            text.push_str(",\n");
        }
        text.push_str(&document);
    }
    text.push_str("]}\n");
    text
}

/// Documents as YAML, in the block style that people and tools write.
pub fn yaml(documents: impl Iterator<Item = String>) -> String {
    let mut text = String::new();
    for document in documents {
        text.push_str("---\n");
        let value: serde_json::Value = serde_json::from_str(&document).expect("our own JSON");
        block(&value, 0, &mut text);
    }
    text
}

fn block(value: &serde_json::Value, indent: usize, out: &mut String) {
    use serde_json::Value;
    let pad = " ".repeat(indent);
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let _ = write!(out, "{pad}{key}:");
                nested(value, indent + 2, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut inner = String::new();
                block(item, indent + 2, &mut inner);
                let _ = write!(out, "{pad}- {}", inner.trim_start());
            }
        }
        scalar => {
            let _ = writeln!(out, "{pad}{scalar}");
        }
    }
}

fn nested(value: &serde_json::Value, indent: usize, out: &mut String) {
    if value.is_object() || value.is_array() {
        out.push('\n');
        block(value, indent, out);
    } else {
        let _ = writeln!(out, " {value}");
    }
}
