//! From parts and values to text.

use serde_json::{Value, json};

use super::{Part, Pipe, Word};

type Result<T> = std::result::Result<T, String>;

/// What the parts make of the value.
pub fn text(parts: &[Part], value: &Value) -> Result<String> {
    let mut run = Run {
        out: String::new(),
        variables: vec![(String::new(), value.clone())],
    };
    run.all(parts, value)?;
    Ok(run.out)
}

struct Run {
    out: String,
    /// Innermost last; the nameless one is the whole value.
    variables: Vec<(String, Value)>,
}

impl Run {
    fn all(&mut self, parts: &[Part], dot: &Value) -> Result<()> {
        let outer = self.variables.len();
        for part in parts {
            self.one(part, dot)?;
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn one(&mut self, part: &Part, dot: &Value) -> Result<()> {
        match part {
            Part::Text(text) => self.out.push_str(text),
            Part::Pipe(pipe) => {
                let value = self.pipe(pipe, dot)?;
                self.out.push_str(&shown(&value));
            }
            Part::Let(name, pipe) => {
                let value = self.pipe(pipe, dot)?;
                self.variables.push((name.clone(), value));
            }
            Part::If(pipe, then, otherwise) => {
                let holds = is_true(&self.pipe(pipe, dot)?);
                self.all(if holds { then } else { otherwise }, dot)?;
            }
            Part::With(pipe, then, otherwise) => match self.pipe(pipe, dot)? {
                value if is_true(&value) => self.all(then, &value)?,
                _ => self.all(otherwise, dot)?,
            },
            Part::Range(names, pipe, each, otherwise) => {
                let items = items(self.pipe(pipe, dot)?);
                for (key, value) in &items {
                    self.turn(names, each, key, value)?;
                }
                if items.is_empty() {
                    self.all(otherwise, dot)?;
                }
            }
        }
        Ok(())
    }

    /// Once for an item of a range.
    fn turn(&mut self, names: &[String], each: &[Part], key: &Value, value: &Value) -> Result<()> {
        let outer = self.variables.len();
        match names {
            [] => {}
            [name] => self.variables.push((name.clone(), value.clone())),
            [index, name, ..] => {
                self.variables.push((index.clone(), key.clone()));
                self.variables.push((name.clone(), value.clone()));
            }
        }
        self.all(each, value)?;
        self.variables.truncate(outer);
        Ok(())
    }

    fn pipe(&self, pipe: &Pipe, dot: &Value) -> Result<Value> {
        let mut last = None;
        for words in pipe {
            last = Some(self.call(words, last, dot)?);
        }
        Ok(last.unwrap_or_default())
    }

    fn call(&self, words: &[Word], last: Option<Value>, dot: &Value) -> Result<Value> {
        let (first, rest) = words.split_first().ok_or("a command is empty")?;
        let Word::Name(name) = first else {
            return self.value(first, dot);
        };
        let mut arguments = Vec::new();
        for word in rest {
            arguments.push(self.value(word, dot)?);
        }
        arguments.extend(last);
        function(name, &arguments)
    }

    fn value(&self, word: &Word, dot: &Value) -> Result<Value> {
        match word {
            Word::Literal(value) => Ok(value.clone()),
            Word::Name(name) => function(name, &[]),
            Word::Fields(names) => Ok(field(dot, names)),
            Word::Inner(pipe, names) => Ok(field(&self.pipe(pipe, dot)?, names)),
            Word::Variable(name, names) => {
                let found = self.variables.iter().rev().find(|(n, _)| n == name);
                let (_, value) = found.ok_or_else(|| format!("undefined variable ${name}"))?;
                Ok(field(value, names))
            }
        }
    }
}

/// The value at fields, whose names may be those of Calico's Go types.
fn field(value: &Value, names: &[String]) -> Value {
    let mut at = value;
    for name in names {
        if name == "TypeMeta" {
            continue;
        }
        let name = match name.as_str() {
            "ObjectMeta" | "ListMeta" => "metadata",
            name => name,
        };
        // What is embedded in a Go type can be named without it.
        let inner = at
            .get("metadata")
            .and_then(|metadata| member(metadata, name));
        match member(at, name).or(inner) {
            Some(found) => at = found,
            None => return Value::Null,
        }
    }
    at.clone()
}

fn member<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let map = value.as_object()?;
    let found = map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    map.get(name).or(found.map(|(_, value)| value))
}

fn items(value: Value) -> Vec<(Value, Value)> {
    match value {
        Value::Array(items) => items
            .into_iter()
            .enumerate()
            .map(|(n, v)| (json!(n), v))
            .collect(),
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.into_iter().collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            pairs.into_iter().map(|(k, v)| (k.into(), v)).collect()
        }
        _ => Vec::new(),
    }
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// As Go prints a value.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!(
            "[{}]",
            items.iter().map(shown).collect::<Vec<_>>().join(" ")
        ),
        Value::Object(_) => {
            let pair = |(key, value): &(Value, Value)| format!("{}:{}", shown(key), shown(value));
            let pairs: Vec<String> = items(value.clone()).iter().map(pair).collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

fn function(name: &str, arguments: &[Value]) -> Result<Value> {
    let missing = || format!("{name} needs more arguments");
    let argument = |n: usize| arguments.get(n).ok_or_else(missing);
    let text = |n: usize| argument(n).map(shown);
    let rest = arguments.get(1..).unwrap_or_default();
    Ok(match name {
        "len" => match argument(0)? {
            Value::Array(items) => items.len().into(),
            Value::Object(map) => map.len().into(),
            other => shown(other).len().into(),
        },
        "index" => rest
            .iter()
            .fold(argument(0)?.clone(), |at, key| match key.as_u64() {
                Some(n) => at
                    .get(usize::try_from(n).unwrap_or(usize::MAX))
                    .cloned()
                    .unwrap_or_default(),
                None => at.get(shown(key)).cloned().unwrap_or_default(),
            }),
        "eq" => {
            let first = argument(0)?;
            rest.iter().any(|other| same(first, other)).into()
        }
        "ne" => (!same(argument(0)?, argument(1)?)).into(),
        "not" => (!is_true(argument(0)?)).into(),
        "and" => arguments
            .iter()
            .find(|a| !is_true(a))
            .or(arguments.last())
            .cloned()
            .unwrap_or_default(),
        "or" => arguments
            .iter()
            .find(|a| is_true(a))
            .or(arguments.last())
            .cloned()
            .unwrap_or_default(),
        "lt" | "le" | "gt" | "ge" => compare(name, argument(0)?, argument(1)?).into(),
        "join" => joined(argument(0)?, &text(1)?, 0).into(),
        "joinAndTruncate" => {
            let most = argument(2)?.as_u64().and_then(|n| usize::try_from(n).ok());
            joined(argument(0)?, &text(1)?, most.unwrap_or(0)).into()
        }
        "print" => arguments.iter().map(shown).collect::<String>().into(),
        "println" => (arguments.iter().map(shown).collect::<Vec<_>>().join(" ") + "\n").into(),
        "printf" => format(&text(0)?, rest).into(),
        _ => return Err(format!("function {name:?} is not known")),
    })
}

/// What is missing is as empty as an empty text.
fn same(a: &Value, b: &Value) -> bool {
    a == b || (shown(a) == shown(b) && a.is_null() != b.is_null())
}

fn compare(name: &str, a: &Value, b: &Value) -> bool {
    let order = match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => shown(a).cmp(&shown(b)),
    };
    match name {
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        _ => order.is_ge(),
    }
}

fn joined(value: &Value, separator: &str, most: usize) -> String {
    let all: Vec<String> = match value {
        Value::Array(items) => items.iter().map(shown).collect(),
        Value::Object(_) => {
            let pair = |(key, value): &(Value, Value)| format!("{}={}", shown(key), shown(value));
            items(value.clone()).iter().map(pair).collect()
        }
        other => vec![shown(other)],
    };
    let text = all.join(separator);
    if most < 3 || text.len() <= most {
        return text;
    }
    let mut end = most - 3;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &text[..end])
}

/// `%s`, `%v`, `%d` and `%q`; flags and widths are left out.
fn format(format: &str, arguments: &[Value]) -> String {
    let mut arguments = arguments.iter();
    let mut out = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let end = after
            .find(|c: char| c.is_ascii_alphabetic() || c == '%')
            .unwrap_or(0);
        let verb = after[end..].chars().next().unwrap_or('%');
        match verb {
            '%' => out.push('%'),
            'q' => out += &format!("{:?}", arguments.next().map(shown).unwrap_or_default()),
            _ => out += &arguments.next().map(shown).unwrap_or_default(),
        }
        rest = after.get(end + 1..).unwrap_or("");
    }
    out + rest
}
