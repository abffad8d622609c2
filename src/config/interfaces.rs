//! Names of interfaces and patterns of them.

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::error::Bad;

/// The kernel's limit for interface names.
const MAX_NAME: usize = 15;
/// Bytes that the program of a pattern may need.
const MAX_PROGRAM: usize = 100_000;

/// A name, or the beginning of one.
pub(super) fn name(text: &str) -> Result<Value, Bad> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    if text.is_empty() || text.len() > MAX_NAME || !text.chars().all(good) {
        let allowed = "1 to 15 letters, digits, `.`, `_`, `-` and `@` are allowed";
        return Err(Bad::new(format!("{text:?} is not an interface name")).help(allowed));
    }
    Ok(text.into())
}

/// A name, or a regular expression between slashes, as Felix has them.
pub(super) fn pattern(text: &str) -> Result<Value, Bad> {
    match expression(text).map(compile) {
        None => name(text),
        Some(Ok(_)) => Ok(text.into()),
        Some(Err(error)) => {
            let error = error.to_string();
            let why = error.lines().last().unwrap_or_default().trim();
            let why = why.trim_start_matches("error: ");
            Err(Bad::new(format!(
                "`{text}` is not a regular expression: {why}"
            )))
        }
    }
}

fn expression(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('/')?.strip_suffix('/')?;
    (!inner.is_empty()).then_some(inner)
}

fn compile(expression: &str) -> Result<Regex, regex::Error> {
    let mut builder = RegexBuilder::new(expression);
    builder.size_limit(MAX_PROGRAM).build()
}

/// Interfaces by name and by regular expression, the value of `interfaceExclude`.
#[derive(Clone, Debug, Default)]
pub struct Interfaces {
    names: Vec<String>,
    patterns: Vec<Regex>,
}

impl Interfaces {
    /// From a list of names and `/EXPRESSIONS/`, which settings have checked.
    pub fn new(list: &[String]) -> Interfaces {
        let patterns = list.iter().filter_map(|text| expression(text));
        Interfaces {
            names: list.to_vec(),
            patterns: patterns.filter_map(|e| compile(e).ok()).collect(),
        }
    }

    /// Whether it is one of them. An expression may match any part of the name.
    pub fn contains(&self, name: &str) -> bool {
        self.names.iter().any(|n| n == name) || self.patterns.iter().any(|p| p.is_match(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole_and_expressions_match_anywhere() {
        let list = ["kube-ipvs0", "/^veth[0-9]+$/", "/tun/"].map(str::to_owned);
        let interfaces = Interfaces::new(&list);
        for name in ["kube-ipvs0", "veth12", "tun0", "mytun"] {
            assert!(interfaces.contains(name), "{name}");
        }
        for name in ["kube-ipvs01", "veth", "veth1a", "eth0", ""] {
            assert!(!interfaces.contains(name), "{name}");
        }
    }

    #[test]
    fn an_expression_is_checked_and_bounded() {
        for text in ["/(/", "/(a{1000}){1000}/", "//"] {
            assert!(pattern(text).is_err(), "{text}");
        }
    }
}
