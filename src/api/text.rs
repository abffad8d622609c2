//! Bytes to text: what a policy file must be before anyone looks for structure in it.

use std::borrow::Cow;

use super::yaml::{MAX_BYTES, MAX_NODES, Place, SyntaxError};

/// Most punctuation marks in one text. The parser keeps all tokens of a `[]` or `{}` before it hands out the first, so
/// they are bounded before it starts; a value of JSON has about three marks.
const MAX_MARKS: usize = 3 * MAX_NODES;
/// The same for a document that is one pair of brackets and yet no JSON: tokens of about 60 MB.
const MAX_MARKS_IN_BRACKETS: usize = 300_000;

/// The text of a file: UTF-8 without binary content, not too large, byte order mark removed.
pub(super) fn decode(bytes: &[u8]) -> Result<&str, SyntaxError> {
    if bytes.len() > MAX_BYTES {
        let message = format!("the file is larger than {} MiB", MAX_BYTES >> 20);
        return Err(refuse(&[], message, Some("split it into several files")));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(refuse(
            &[],
            "the file is UTF-16".into(),
            Some("save it as UTF-8"),
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let (good, bad) = bytes.split_at(e.valid_up_to());
        let message = format!(
            "byte 0x{:02x} is not UTF-8",
            bad.first().copied().unwrap_or_default()
        );
        refuse(good, message, Some("save the file as UTF-8"))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if may_be_binary(text)
        && let Some((at, c)) = text.char_indices().find(|(_, c)| is_binary(*c))
    {
        let message = format!(
            "control character U+{:04X}: this is not a text file",
            u32::from(c)
        );
        return Err(refuse(&text.as_bytes()[..at], message, None));
    }
    Ok(text)
}

/// Whether the first document of a text is so large that the parser must not get it in one pair of brackets.
pub(super) fn is_too_large_for_brackets(text: &str) -> bool {
    let end = text.find("\n---").unwrap_or(text.len());
    marks(&text[..end]) > MAX_MARKS_IN_BRACKETS
}

/// What the YAML parser gets of a text that stands at that place.
pub(super) fn for_yaml(text: &str, place: Place) -> Result<Cow<'_, str>, SyntaxError> {
    if marks(text) > MAX_MARKS {
        let message = format!("the file has more than {MAX_NODES} values");
        return Err(SyntaxError::new(place.start, message).help("split it into several files"));
    }
    match place.in_json {
        true => Ok(json_as_yaml(text)),
        false => Ok(Cow::Borrowed(text)),
    }
}

/// JSON that YAML would not take for itself: tabs between tokens (a raw tab cannot be part of a JSON string), and
/// characters beyond the first plane written as two escapes.
fn json_as_yaml(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    if text.contains('\t') {
        text = Cow::Owned(text.replace('\t', " "));
    }
    if text.contains("\\ud") || text.contains("\\uD") {
        text = Cow::Owned(join_surrogates(&text));
    }
    text
}

fn join_surrogates(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let pair = escape(rest).zip(rest.get(6..).and_then(escape));
        let joined = pair.and_then(|(high, low)| char::decode_utf16([high, low]).next()?.ok());
        let length = match joined {
            Some(c) if u32::from(c) > 0xffff => {
                out.push_str(&format!("\\U{:08X}", u32::from(c)));
                12
            }
            // Any other escape passes whole, so that an escaped backslash starts nothing.
            _ => {
                let escaped = rest.chars().nth(1).map_or(0, char::len_utf8);
                out.push_str(&rest[..1 + escaped]);
                1 + escaped
            }
        };
        rest = &rest[length..];
    }
    out + rest
}

/// The code unit of an escape `\uXXXX` at the start of the text.
fn escape(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    u16::from_str_radix(digits, 16).ok().filter(|_| hex)
}

fn marks(text: &str) -> usize {
    const MARKS: &[u8] = b"[]{},\"'&*!?";
    let single = text.bytes().filter(|b| MARKS.contains(b)).count();
    single + text.matches(": ").count()
}

/// A quick look that only spares texts without such bytes the careful one.
fn may_be_binary(text: &str) -> bool {
    // 0xef begins U+FFFE and U+FFFF, among others.
    let suspect = |b: u8| (b < b' ' && !b"\t\n\r".contains(&b)) || b == 0x7f || b == 0xef;
    let mut chunks = text.as_bytes().chunks(4096);
    chunks.any(|chunk| chunk.iter().fold(false, |found, b| found | suspect(*b)))
}

fn is_binary(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{fffe}' | '\u{ffff}')
}

/// An error just behind the good bytes.
fn refuse(good: &[u8], message: String, help: Option<&str>) -> SyntaxError {
    let line = good.iter().filter(|b| **b == b'\n').count() as u32 + 1;
    let last = good.rsplit(|b| *b == b'\n').next().unwrap_or_default();
    let col = String::from_utf8_lossy(last)
        .trim_start_matches('\u{feff}')
        .chars()
        .count() as u32
        + 1;
    SyntaxError {
        line,
        col,
        message,
        help: help.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::join_surrogates;

    #[test]
    fn only_pairs_are_joined() {
        let same = [
            "",
            "\\",
            "\\\\ud83d\\\\ude00",
            "\\ud83d",
            "\\ud83d\\u0041",
            "\\u00e9",
            "ü\\ü",
        ];
        for text in same {
            assert_eq!(join_surrogates(text), text);
        }
        assert_eq!(join_surrogates("a\\ud83d\\ude00b"), "a\\U0001F600b");
    }
}
