//! From text to parts.

use serde_json::Value;

use super::{Part, Pipe, Word};

type Result<T> = std::result::Result<T, String>;

/// The parts of a template.
pub fn parse(text: &str) -> Result<Vec<Part>> {
    let mut actions = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let end = action_end(after).ok_or("an action is not closed with }}")?;
        let action = &after[..end];
        let trims_left = action.starts_with("- ");
        let trims_right = action.ends_with(" -");
        let before = if trims_left {
            before.trim_end()
        } else {
            before
        };
        actions.push(Piece::Text(before.to_owned()));
        let action = action.strip_prefix("- ").unwrap_or(action);
        let action = action.strip_suffix(" -").unwrap_or(action);
        actions.push(Piece::Action(action.trim().to_owned()));
        rest = &after[end + 2..];
        if trims_right {
            rest = rest.trim_start();
        }
    }
    actions.push(Piece::Text(rest.to_owned()));
    let mut pieces = actions.into_iter();
    let (parts, end) = block(&mut pieces)?;
    match end {
        None => Ok(parts),
        Some(word) => Err(format!("{word} without a beginning")),
    }
}

enum Piece {
    Text(String),
    Action(String),
}

/// Where the action ends, which may hold quoted braces.
fn action_end(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '"' | '`') => quote = Some(c),
            (None, '}') if text[at..].starts_with("}}") => return Some(at),
            (Some('"'), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(q), c) if q == c && !escaped => quote = None,
            _ => {}
        }
        escaped = false;
    }
    None
}

/// Parts up to an `else` or `end`, and which of them it was.
fn block(pieces: &mut std::vec::IntoIter<Piece>) -> Result<(Vec<Part>, Option<String>)> {
    let mut parts = Vec::new();
    while let Some(piece) = pieces.next() {
        let action = match piece {
            Piece::Text(text) => {
                parts.push(Part::Text(text));
                continue;
            }
            Piece::Action(action) => action,
        };
        let (word, rest) = action
            .split_once(char::is_whitespace)
            .unwrap_or((&action, ""));
        match word {
            "else" | "end" => return Ok((parts, Some(action))),
            "if" | "with" | "range" => parts.push(branch(word, rest, pieces)?),
            _ if action.starts_with("/*") => {}
            _ => parts.push(simple(&action)?),
        }
    }
    Ok((parts, None))
}

fn branch(word: &str, rest: &str, pieces: &mut std::vec::IntoIter<Piece>) -> Result<Part> {
    let (names, pipe) = declared(rest)?;
    let (then, end) = block(pieces)?;
    let end = end.ok_or_else(|| format!("{word} is not closed with end"))?;
    let otherwise = match end.strip_prefix("else").map(str::trim) {
        None => Vec::new(),
        Some("") => match block(pieces)? {
            (parts, Some(end)) if end == "end" => parts,
            _ => return Err("else is not closed with end".to_owned()),
        },
        Some(more) => {
            let (word, rest) = more.split_once(char::is_whitespace).unwrap_or((more, ""));
            vec![branch(word, rest, pieces)?]
        }
    };
    match word {
        "if" => Ok(Part::If(pipe, then, otherwise)),
        "with" => Ok(Part::With(pipe, then, otherwise)),
        "range" => Ok(Part::Range(names, pipe, then, otherwise)),
        other => Err(format!("else {other} is not known")),
    }
}

fn simple(action: &str) -> Result<Part> {
    match declared(action)? {
        (names, pipe) if names.is_empty() => Ok(Part::Pipe(pipe)),
        (mut names, pipe) => Ok(Part::Let(names.swap_remove(0), pipe)),
    }
}

/// `$a, $b := pipeline`.
fn declared(text: &str) -> Result<(Vec<String>, Pipe)> {
    let Some((names, rest)) = text.split_once(":=").filter(|_| text.starts_with('$')) else {
        return Ok((Vec::new(), pipeline(&mut text.trim())?));
    };
    let names = names
        .split(',')
        .map(|name| name.trim().trim_start_matches('$').to_owned());
    Ok((names.collect(), pipeline(&mut rest.trim())?))
}

/// Reads a pipeline, up to the end or a closing bracket.
fn pipeline(rest: &mut &str) -> Result<Pipe> {
    let mut pipe = vec![Vec::new()];
    loop {
        *rest = rest.trim_start();
        match rest.chars().next() {
            None | Some(')') => break,
            Some('|') => {
                *rest = &rest[1..];
                pipe.push(Vec::new());
            }
            Some(_) => {
                let word = word(rest)?;
                if let Some(call) = pipe.last_mut() {
                    call.push(word);
                }
            }
        }
    }
    match pipe.iter().any(Vec::is_empty) {
        true => Err("a command is empty".to_owned()),
        false => Ok(pipe),
    }
}

fn word(rest: &mut &str) -> Result<Word> {
    let first = rest.chars().next().unwrap_or(' ');
    match first {
        '(' => {
            *rest = &rest[1..];
            let inner = pipeline(rest)?;
            *rest = rest.strip_prefix(')').ok_or("a bracket is not closed")?;
            Ok(Word::Inner(inner, fields(take(rest))))
        }
        '"' => {
            let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<String>();
            let text = stream.next().and_then(std::result::Result::ok);
            let text = text.ok_or("a text is not closed")?;
            let end = stream.byte_offset();
            *rest = &rest[end..];
            Ok(Word::Literal(text.into()))
        }
        '`' => {
            let (text, after) = rest[1..].split_once('`').ok_or("a text is not closed")?;
            *rest = after;
            Ok(Word::Literal(text.into()))
        }
        '.' => Ok(Word::Fields(fields(take(rest)))),
        '$' => {
            let all = take(rest);
            let (name, more) = all[1..].split_once('.').unwrap_or((&all[1..], ""));
            Ok(Word::Variable(name.to_owned(), fields(more)))
        }
        _ => Ok(match take(rest) {
            "nil" => Word::Literal(Value::Null),
            word => match serde_json::from_str(word) {
                Ok(literal) => Word::Literal(literal),
                Err(_) => Word::Name(word.to_owned()),
            },
        }),
    }
}

/// Takes what has no blank, bracket or bar in it.
fn take<'a>(rest: &mut &'a str) -> &'a str {
    let end = rest.find(|c: char| c.is_whitespace() || "()|".contains(c));
    let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
    *rest = after;
    word
}

fn fields(text: &str) -> Vec<String> {
    let names = text.split('.').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}
