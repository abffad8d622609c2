//! Patches of documents: JSON merge patch and JSON patch.

use serde_json::{Map, Value};

/// What a strategic merge patch says about the mapping that it is in.
const DIRECTIVE: &str = "$patch";
/// Which fields stay; the others go.
const RETAIN: &str = "$retainKeys";
/// In front of the name of a list, with the items that go from it.
const DELETE_ITEMS: &str = "$deleteFromPrimitiveList/";
/// In front of the name of a list, with an order of its items that only lists with keys to merge by have.
const ORDER: &str = "$setElementOrder/";

/// RFC 7386, with the directives of a strategic merge patch.
///
/// # Errors
/// A directive that is not known: as a field it would be stored.
pub fn merge(target: &mut Value, patch: &Value) -> Result<(), String> {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    if !target.is_object() || patch.contains_key(DIRECTIVE) {
        *target = Map::new().into();
    }
    let Some(map) = target.as_object_mut() else {
        return Ok(());
    };
    if let Some(names) = patch.get(RETAIN) {
        let names = names.as_array().ok_or(format!("{RETAIN} is no list"))?;
        map.retain(|name, _| names.iter().any(|kept| kept == name));
    }
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix(DELETE_ITEMS) {
            let gone = value.as_array().ok_or(format!("{name} is no list"))?;
            if let Some(items) = map.get_mut(list).and_then(Value::as_array_mut) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if [DIRECTIVE, RETAIN].contains(&name.as_str()) || name.starts_with(ORDER) {
            continue;
        }
        if name.starts_with('$') {
            return Err(format!("{name} is no directive that is known"));
        }
        let is_deleted = value.get(DIRECTIVE).is_some_and(|word| word == "delete");
        if value.is_null() || is_deleted {
            map.shift_remove(name);
        } else {
            merge(map.entry(name.clone()).or_insert(Value::Null), value)?;
        }
    }
    Ok(())
}

/// RFC 6902; an error leaves the document in between.
pub fn operations(document: &mut Value, patch: &Value) -> Result<(), String> {
    let operations = patch.as_array();
    let operations = operations.ok_or("a JSON patch is a list of operations")?;
    for operation in operations {
        one(document, operation).map_err(|what| format!("{operation}: {what}"))?;
    }
    Ok(())
}

fn one(document: &mut Value, operation: &Value) -> Result<(), &'static str> {
    const NOWHERE: &str = "there is no such place";
    let path = operation["path"].as_str().ok_or("has no path")?;
    let from = operation["from"].as_str();
    let value = &operation["value"];
    match operation["op"].as_str() {
        Some("test") if document.pointer(path) == Some(value) => Ok(()),
        Some("test") => Err("does not hold"),
        Some(op @ ("add" | "replace" | "remove")) => {
            operate(document, op, path, value).ok_or(NOWHERE)
        }
        Some(op @ ("move" | "copy")) => {
            let from = from.ok_or("has no from")?;
            if op == "move" && path.starts_with(&format!("{from}/")) {
                return Err("cannot move into itself");
            }
            let value = document.pointer(from).cloned().ok_or(NOWHERE)?;
            if op == "move" {
                operate(document, "remove", from, &Value::Null).ok_or(NOWHERE)?;
            }
            operate(document, "add", path, &value).ok_or(NOWHERE)
        }
        _ => Err("has no op that is known"),
    }
}

fn operate(document: &mut Value, op: &str, path: &str, value: &Value) -> Option<()> {
    let (parent, name) = path.rsplit_once('/')?;
    let name = name.replace("~1", "/").replace("~0", "~");
    match document.pointer_mut(parent)? {
        Value::Object(map) => {
            if op != "add" {
                map.get(&name)?;
            }
            match op {
                "remove" => drop(map.shift_remove(&name)),
                _ => drop(map.insert(name, value.clone())),
            }
        }
        Value::Array(items) => {
            let at = match name.as_str() {
                "-" if op == "add" => items.len(),
                index => index.parse().ok()?,
            };
            let inside = at < items.len() || (op == "add" && at == items.len());
            match (inside, op) {
                (false, _) => return None,
                (true, "remove") => drop(items.remove(at)),
                (true, "replace") => items[at] = value.clone(),
                (true, _) => items.insert(at, value.clone()),
            }
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merging() {
        let mut value = json!({"a": {"b": 1, "c": [1, 2]}, "d": 1, "h": {"i": 1}, "j": {"k": 1}});
        merge(
            &mut value,
            &json!({"a": {"b": null, "c": [3]}, "e": {"f": null, "g": 1}, "h": {"$patch": "replace", "l": 2}, "j": {"$patch": "delete"}}),
        )
        .unwrap();
        assert_eq!(
            value,
            json!({"a": {"c": [3]}, "d": 1, "h": {"l": 2}, "e": {"g": 1}})
        );
    }

    #[test]
    fn operating() {
        let mut value = json!({"a/b": [1, 2], "c": 1});
        let patch = json!([
            {"op": "test", "path": "/c", "value": 1},
            {"op": "add", "path": "/a~1b/-", "value": 3},
            {"op": "add", "path": "/a~1b/0", "value": 0},
            {"op": "copy", "from": "/c", "path": "/d"},
            {"op": "move", "from": "/c", "path": "/a~1b/0"},
            {"op": "replace", "path": "/a~1b/2", "value": 9},
        ]);
        operations(&mut value, &patch).unwrap();
        assert_eq!(value, json!({"a/b": [1, 0, 9, 2, 3], "d": 1}));
        for bad in [
            json!({}),
            json!([{"op": "remove", "path": "/none"}]),
            json!([{"op": "move", "from": "/none", "path": "/x"}]),
            json!([{"op": "copy", "path": "/x"}]),
            json!([{"op": "move", "from": "/a~1b", "path": "/a~1b/0"}]),
            json!([{"op": "add", "path": "/a~1b/9", "value": 1}]),
            json!([{"op": "test", "path": "/a~1b/0", "value": 0}]),
            json!([{"op": "fly", "path": "/a~1b"}]),
        ] {
            assert!(operations(&mut value, &bad).is_err(), "{bad}");
        }
    }
}
