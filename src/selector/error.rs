//! What is wrong with a selector, and where.

/// An offence against the grammar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Byte offset into the text.
    pub offset: usize,
    /// What is wrong there.
    pub message: String,
}

impl Error {
    /// How many characters are drawn on each side of the place.
    const SIDE: usize = 60;

    pub(super) fn new(offset: usize, message: impl Into<String>) -> Error {
        Error {
            offset,
            message: message.into(),
        }
    }

    /// Two lines: the text (what surrounds the place, when it is long) and a caret under the place.
    pub fn caret(&self, text: &str) -> String {
        let mut before: Vec<char> = text
            .char_indices()
            .take_while(|(at, _)| *at < self.offset)
            .map(|(_, c)| c)
            .collect();
        let cut = before.len().saturating_sub(Error::SIDE);
        before.drain(..cut);
        let mut after = text
            .char_indices()
            .skip_while(|(at, _)| *at < self.offset)
            .map(|(_, c)| c);
        let shown = after.by_ref().take(Error::SIDE).collect::<Vec<_>>();
        let head = if cut > 0 { "..." } else { "" };
        let tail = if after.next().is_some() { "..." } else { "" };
        // Control characters would spoil the alignment, or the terminal.
        let visible: String = (before.iter().chain(&shown))
            .map(|c| if c.is_control() { ' ' } else { *c })
            .collect();
        let blanks = " ".repeat(head.len() + before.len());
        format!("{head}{visible}{tail}\n{blanks}^")
    }
}
