//! A document as it is kept: compact JSON text.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use super::yaml::Node;

/// A document as it was given, as compact JSON text. Cheap to clone: the text is shared.
///
/// Equal documents have equal text. [`Document::says_the_same`] does not mind the order of fields.
#[derive(Clone)]
pub struct Document(Arc<RawValue>);

impl Document {
    /// The document of a tree.
    ///
    /// # Errors
    /// None that a tree can cause: mappings have text for keys and numbers that JSON cannot hold become text.
    pub(super) fn of(node: &Node) -> serde_json::Result<Document> {
        to_raw_value(node).map(|raw| Document(raw.into()))
    }

    /// The text: one line of JSON without blanks between tokens when moat wrote it.
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// The document as a JSON value.
    pub fn value(&self) -> serde_json::Value {
        serde_json::from_str(self.text()).expect("the text was checked or written as JSON")
    }

    /// Whether both have the same values under the same names. The order of fields does not matter.
    pub fn says_the_same(&self, other: &Document) -> bool {
        // Both are written alike, so another order of fields leaves the length as it is.
        let length = self.text().len() == other.text().len();
        self == other || (length && self.value() == other.value())
    }
}

impl From<&serde_json::Value> for Document {
    fn from(value: &serde_json::Value) -> Document {
        let raw = to_raw_value(value).expect("a JSON value can be written as JSON");
        Document(raw.into())
    }
}

impl PartialEq for Document {
    fn eq(&self, other: &Document) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.text() == other.text()
    }
}

impl Eq for Document {}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The JSON itself, not text with JSON in it.
impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Document, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|raw| Document(raw.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::parse_value;

    #[test]
    fn a_value_that_json_cannot_hold_is_an_error() {
        let key: std::sync::Arc<str> = "key".into();
        for text in [
            "[".repeat(300) + &"]".repeat(300),
            "1e999".to_owned(),
            r#"{"kind":"Tier","a":1e999}"#.to_owned(),
        ] {
            let document: Document = serde_json::from_str(&text).unwrap();
            let parsed = parse_value(&key, &document);
            assert!(parsed.resources.is_empty() && parsed.has_errors(), "{text}");
            assert!(
                parsed.issues[0].message.starts_with("cannot be read: "),
                "{:?}",
                parsed.issues
            );
        }
    }

    #[test]
    fn longer_lists_are_taken_from_a_datastore() {
        let policy = |count: usize| {
            let nets: Vec<String> = (0..count)
                .map(|n| format!("10.0.{}.{}", n / 256, n % 256))
                .collect();
            serde_json::json!({
                "kind": "GlobalNetworkPolicy", "apiVersion": "projectcalico.org/v3",
                "metadata": {"name": "blocked"},
                "spec": {"selector": "all()", "ingress": [{"action": "Deny", "source": {"nets": nets}}]},
            })
        };
        let stored = |count| parse_value(&"key".into(), &Document::from(&policy(count)));
        assert!(!stored(301).has_errors(), "{:?}", stored(301).issues);
        assert!(stored(5000).has_errors());
        let written = crate::api::parse_bytes("file", policy(301).to_string().as_bytes());
        assert!(written.has_errors());
    }
}
