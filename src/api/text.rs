//! Bytes to text: what a policy file must be before anyone looks for structure in it.

use std::borrow::Cow;

use super::yaml::{MAX_BYTES, SyntaxError};

/// The text of a file: UTF-8 without binary content, not too large, byte order mark removed, and the tabs by which
/// JSON may be indented turned into blanks (a raw tab cannot be part of a JSON string).
pub(super) fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, SyntaxError> {
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
    if let Some((at, c)) = text.char_indices().find(|(_, c)| is_binary(*c)) {
        let message = format!(
            "control character U+{:04X}: this is not a text file",
            u32::from(c)
        );
        return Err(refuse(&text.as_bytes()[..at], message, None));
    }
    if text.trim_start().starts_with(['{', '[']) && text.contains('\t') {
        return Ok(Cow::Owned(text.replace('\t', " ")));
    }
    Ok(Cow::Borrowed(text))
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
