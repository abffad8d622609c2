//! Offsets in a text to lines and columns.

/// A place in a text that only moves forward, so that many positions cost one pass over the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
    line: u32,
    col: u32,
}

impl<'a> Cursor<'a> {
    /// The start of the text.
    pub(super) fn new(text: &'a str) -> Cursor<'a> {
        Cursor {
            text,
            at: 0,
            line: 1,
            col: 1,
        }
    }

    /// The text that it moves in.
    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// 1-based line and column in characters of that byte, which is not before the last one asked for.
    pub(super) fn position(&mut self, offset: usize) -> (u32, u32) {
        let passed = self
            .text
            .as_bytes()
            .get(self.at..offset)
            .unwrap_or_default();
        let lines = passed.iter().filter(|b| **b == b'\n').count();
        let last = match passed.iter().rposition(|b| *b == b'\n') {
            Some(end) => {
                self.col = 1;
                &passed[end + 1..]
            }
            None => passed,
        };
        self.line += lines as u32;
        self.col += last.iter().filter(|b| is_first(**b)).count() as u32;
        self.at = self.at.max(offset);
        (self.line, self.col)
    }
}

/// Whether a byte of UTF-8 begins a character.
fn is_first(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

#[cfg(test)]
mod tests {
    use super::Cursor;

    #[test]
    fn counts_lines_and_characters() {
        let text = "aü\n\n{€x\r\ny";
        let mut cursor = Cursor::new(text);
        let seen: Vec<_> = text
            .char_indices()
            .map(|(at, _)| cursor.position(at))
            .collect();
        let expected = [
            (1, 1),
            (1, 2),
            (1, 3),
            (2, 1),
            (3, 1),
            (3, 2),
            (3, 3),
            (3, 4),
            (3, 5),
            (4, 1),
        ];
        assert_eq!(seen, expected);
        assert_eq!(cursor.position(text.len()), (4, 2));
    }
}
