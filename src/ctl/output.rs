//! Printing: readable text, or JSON and YAML with stable keys.

use std::io::{ErrorKind, IsTerminal, Write};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{EX_UNAVAILABLE, Failure};
use crate::api;

/// Form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// For people
    Text,
    /// For people, with more columns
    Wide,
    /// Names only
    Name,
    /// JSON with stable keys
    Json,
    /// YAML with the same keys
    Yaml,
    /// These columns
    Columns(&'static str),
    /// This template for each resource
    Template(&'static str),
    /// This template in Go's language for all resources
    GoTemplate(&'static str),
}

impl Output {
    /// The form that a word of the command line means, in calicoctl's words and moat's own.
    pub fn parse(text: &str) -> Result<Output, String> {
        let (word, rest) = text.split_once('=').unwrap_or((text, ""));
        // Once in the life of the program.
        let keep = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
        let rest = || keep(rest.to_owned());
        match word {
            "text" | "ps" => Ok(Output::Text),
            "wide" => Ok(Output::Wide),
            "name" => Ok(Output::Name),
            "json" => Ok(Output::Json),
            "yaml" | "yml" => Ok(Output::Yaml),
            "go-template" | "go-template-file" | "custom-columns" if rest().is_empty() => {
                Err(format!("{word} needs a value behind ="))
            }
            "custom-columns" => Ok(Output::Columns(rest())),
            "template" => Ok(Output::Template(rest())),
            "go-template" => Ok(Output::GoTemplate(rest())),
            "go-template-file" => {
                let read = std::fs::read_to_string(rest());
                let text = read.map_err(|e| format!("cannot read {}: {e}", rest()))?;
                Ok(Output::GoTemplate(keep(text)))
            }
            _ => Err("say text, wide, name, json, yaml, custom-columns=A,B, go-template=T, go-template-file=FILE or template={{.metadata.name}}".to_owned()),
        }
    }
}

/// Prints a value in the form asked for.
pub fn print<T: Serialize>(
    output: Output,
    value: &T,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let broken = |e: serde_json::Error| Failure::new(EX_UNAVAILABLE, e.to_string());
    let text = match output {
        Output::Json => serde_json::to_string_pretty(value).map_err(broken)?,
        Output::Yaml => api::to_yaml(&serde_json::to_value(value).map_err(broken)?)
            .trim_end()
            .to_owned(),
        _ => text(),
    };
    print_text(&text)
}

/// Prints a value as JSON in one line, for streams.
pub fn print_line<T: Serialize>(value: &T) -> Result<(), Failure> {
    let line = serde_json::to_string(value);
    print_text(&line.map_err(|e| Failure::new(EX_UNAVAILABLE, e.to_string()))?)
}

/// Prints a text as it is.
pub fn print_raw(text: &str) -> Result<(), Failure> {
    written(std::io::stdout().lock().write_all(text.as_bytes()))
}

/// Prints a text and a line break.
pub fn print_text(text: &str) -> Result<(), Failure> {
    written(writeln!(std::io::stdout().lock(), "{}", text.trim_end()))
}

fn written(result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        // A reader that has seen enough (`| head`) is no error.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(EX_UNAVAILABLE, error.to_string()))
        }
        _ => Ok(()),
    }
}

/// Columns as wide as their content, separated by two blanks.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(c, w)| format!("{c:<w$}", w = *w));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(header.to_vec())];
    lines.extend(
        rows.iter()
            .map(|row| line(row.iter().map(String::as_str).collect())),
    );
    lines.join("\n")
}

/// Green for good, red for bad, on a terminal only.
pub fn tint(good: bool, text: &str) -> String {
    if !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some() {
        return text.to_owned();
    }
    let colour = if good { 32 } else { 31 };
    format!("\u{1b}[1;{colour}m{text}\u{1b}[0m")
}

/// How long ago a time in RFC 3339 was, in whole seconds.
pub fn ago(time: &str) -> Option<Duration> {
    let time = humantime::parse_rfc3339(time).ok()?;
    let age = SystemTime::now().duration_since(time).ok()?;
    Some(Duration::from_secs(age.as_secs()))
}

/// Text from files and sockets, without control characters that could steer a terminal.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
