//! How far work is that takes longer than a moment, told on a terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Work that is done sooner says nothing.
const QUIET: Duration = Duration::from_secs(1);
/// So often the line changes.
const REFRESH: Duration = Duration::from_millis(200);
const CLEAR: &str = "\r\u{1b}[K";

/// One line on standard error, which goes when the work is done. Nothing is written where that is no terminal.
pub struct Progress {
    what: &'static str,
    total: Option<usize>,
    next: Instant,
    is_shown: bool,
    is_terminal: bool,
}

impl Progress {
    /// Work on things of this name, of which there are so many, if that is known.
    pub fn new(what: &'static str, total: Option<usize>) -> Progress {
        Progress {
            what,
            total,
            next: Instant::now() + QUIET,
            is_shown: false,
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// So many are done.
    pub fn done(&mut self, count: usize) {
        if !self.is_terminal {
            return;
        }
        if let Some(line) = self.line(count, Instant::now()) {
            // That nobody can see it does not stop the work.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn line(&mut self, count: usize, now: Instant) -> Option<String> {
        if now < self.next {
            return None;
        }
        self.next = now + REFRESH;
        self.is_shown = true;
        let total = self.total.map_or(String::new(), |t| format!(" of {t}"));
        Some(format!("{CLEAR}{count}{total} {} ...", self.what))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown && self.is_terminal {
            let _ = std::io::stderr().write_all(CLEAR.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_after_a_second_and_not_too_often() {
        let start = Instant::now();
        let mut progress = Progress::new("resources", Some(30));
        let mut at = |ms, count| progress.line(count, start + Duration::from_millis(ms));
        assert_eq!(at(500, 10), None);
        assert_eq!(at(1500, 20).unwrap(), "\r\u{1b}[K20 of 30 resources ...");
        assert_eq!(at(1600, 22), None);
        assert_eq!(at(1800, 25).unwrap(), "\r\u{1b}[K25 of 30 resources ...");
        let mut unknown = Progress::new("keys read", None);
        let line = unknown.line(500, start + Duration::from_secs(9));
        assert_eq!(line.unwrap(), "\r\u{1b}[K500 keys read ...");
    }
}
