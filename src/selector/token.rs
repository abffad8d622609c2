//! Words of the label language, one at a time.

use super::Error;

/// What stands between a label and its operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Eq,
    Ne,
    Contains,
    StartsWith,
    EndsWith,
    In,
    NotIn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Open,
    Close,
    BraceOpen,
    BraceClose,
    Comma,
    Not,
    And,
    Or,
    Op(Op),
    Str(&'a str),
    Label(&'a str),
    /// `has(`: the parenthesis belongs to the word.
    Has,
    /// `all(`.
    All,
    /// `global(`.
    Global,
    End,
}

/// Operator words, which are ordinary labels anywhere but behind a label.
const WORDS: [(&[&str], Op); 5] = [
    (&["contains"], Op::Contains),
    (&["starts", "with"], Op::StartsWith),
    (&["ends", "with"], Op::EndsWith),
    (&["not", "in"], Op::NotIn),
    (&["in"], Op::In),
];

/// Reads tokens from the left, remembering whether it has just passed a label.
pub(super) struct Lexer<'a> {
    text: &'a str,
    pos: usize,
    label: Option<&'a str>,
    max_label: usize,
}

fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_./-".contains(&byte)
}

/// Length of the label characters at the start of `text`.
fn label_len(text: &str) -> usize {
    text.bytes().take_while(|b| is_label_byte(*b)).count()
}

/// Whether a selector can name this label.
pub(super) fn is_label(text: &str) -> bool {
    !text.is_empty() && label_len(text) == text.len()
}

fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str, max_label: usize) -> Lexer<'a> {
        Lexer {
            text,
            pos: 0,
            label: None,
            max_label,
        }
    }

    /// The next token and the byte offset at which it starts.
    pub(super) fn next(&mut self) -> Result<(Token<'a>, usize), Error> {
        let rest = skip_blanks(&self.text[self.pos..]);
        let start = self.text.len() - rest.len();
        let label = self.label.take();
        let (token, len) = match punctuation(rest, start)? {
            Some(found) => found,
            None => self.word(rest, start, label)?,
        };
        self.pos = start + len;
        if let Token::Label(name) = token {
            self.label = Some(name);
        }
        Ok((token, start))
    }

    fn word(
        &self,
        rest: &'a str,
        start: usize,
        label: Option<&'a str>,
    ) -> Result<(Token<'a>, usize), Error> {
        if let Some(label) = label {
            return operator(rest)
                .map(|(op, len)| (Token::Op(op), len))
                .ok_or_else(|| {
                    Error::new(start, format!("expected operator after label \"{label}\""))
                });
        }
        for (word, token) in [
            ("has(", Token::Has),
            ("all(", Token::All),
            ("global(", Token::Global),
        ] {
            if rest.starts_with(word) {
                return Ok((token, word.len()));
            }
        }
        let len = label_len(rest);
        match rest.chars().next() {
            _ if len > self.max_label => Err(Error::new(
                start,
                format!(
                    "label name of {len} characters, at most {} are allowed",
                    self.max_label
                ),
            )),
            _ if len > 0 => Ok((Token::Label(&rest[..len]), len)),
            Some(c) => Err(Error::new(start, format!("unexpected character {c:?}"))),
            None => Ok((Token::End, 0)),
        }
    }
}

/// A token that is known by its first character, with its length.
fn punctuation<'a>(rest: &'a str, start: usize) -> Result<Option<(Token<'a>, usize)>, Error> {
    let bytes = rest.as_bytes();
    let Some(first) = bytes.first() else {
        return Ok(Some((Token::End, 0)));
    };
    let second = bytes.get(1);
    let double = |token, text: &str| {
        if second == Some(first) {
            Ok(Some((token, 2)))
        } else {
            Err(Error::new(start, format!("expected {text}")))
        }
    };
    match first {
        b'(' => Ok(Some((Token::Open, 1))),
        b')' => Ok(Some((Token::Close, 1))),
        b'{' => Ok(Some((Token::BraceOpen, 1))),
        b'}' => Ok(Some((Token::BraceClose, 1))),
        b',' => Ok(Some((Token::Comma, 1))),
        b'!' if second == Some(&b'=') => Ok(Some((Token::Op(Op::Ne), 2))),
        b'!' => Ok(Some((Token::Not, 1))),
        b'=' => double(Token::Op(Op::Eq), "=="),
        b'&' => double(Token::And, "&&"),
        b'|' => double(Token::Or, "||"),
        b'"' | b'\'' => match rest[1..].find(*first as char) {
            Some(len) => Ok(Some((Token::Str(&rest[1..=len]), len + 2))),
            None => Err(Error::new(start, "unterminated string")),
        },
        _ => Ok(None),
    }
}

/// The operator word at the start of `rest` and its length; its parts may be joined or apart.
fn operator(rest: &str) -> Option<(Op, usize)> {
    WORDS.iter().find_map(|(words, op)| {
        let mut tail = rest;
        for word in *words {
            tail = skip_blanks(tail).strip_prefix(word)?;
        }
        (label_len(tail) == 0).then_some((*op, rest.len() - tail.len()))
    })
}
