//! Case files and resources as JSON values. A reader of its own, so that a fault in moat's reader
//! cannot hide in its tests.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

/// All documents of a text; empty ones are left out.
///
/// # Errors
/// The first syntax error with its place.
pub fn documents(text: &str) -> Result<Vec<Value>, String> {
    let mut events = Parser::new_from_str(text);
    let mut documents = Vec::new();
    while let Some(event) = events.next() {
        if let (Event::DocumentStart(_), _) = event.map_err(|e| e.to_string())? {
            documents.push(node(&mut events)?.ok_or("a document without content")?);
        }
    }
    documents.retain(|d| !d.is_null());
    Ok(documents)
}

/// The next node, `None` at the end of the collection around it.
fn node(events: &mut Parser<'_, saphyr_parser::StrInput<'_>>) -> Result<Option<Value>, String> {
    let Some(event) = events.next() else {
        return Ok(None);
    };
    Ok(match event.map_err(|e| e.to_string())?.0 {
        Event::Scalar(text, ScalarStyle::Plain, _, None) => Some(plain(&text)),
        Event::Scalar(text, ..) => Some(Value::String(text.into_owned())),
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            while let Some(item) = node(events)? {
                items.push(item);
            }
            Some(Value::Array(items))
        }
        Event::MappingStart(..) => {
            let mut map = Map::new();
            while let Some(key) = node(events)? {
                let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                let value = node(events)?.ok_or("a key without value")?;
                if map.insert(key.clone(), value).is_some() {
                    return Err(format!("the key `{key}` stands twice in one mapping"));
                }
            }
            Some(Value::Object(map))
        }
        Event::Alias(_) => return Err("aliases have no place in a case".into()),
        _ => None,
    })
}

/// The core schema, as far as cases need it.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => text
            .parse::<i64>()
            .map(Value::from)
            .ok()
            .or_else(|| {
                text.parse::<f64>()
                    .ok()
                    .and_then(Number::from_f64)
                    .map(Value::Number)
            })
            .unwrap_or_else(|| Value::String(text.to_owned())),
    }
}
