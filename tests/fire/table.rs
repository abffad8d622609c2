//! The outcome of a run: a line for each fault and backend, and a table for `docs/reliability.md`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::faults::{Fault, Promise};
use super::tally::Tally;

/// What became of one fault on one backend, summed over all its tries.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// How often the fault was made.
    pub tries: u64,
    /// Packets and verdicts.
    pub tally: Tally,
    /// The longest time from the end of the fault until everything was as before.
    pub settled: Duration,
    /// What went wrong, other than verdicts.
    pub errors: Vec<String>,
}

impl Row {
    /// Adds another run of the same fault.
    pub fn add(&mut self, other: &Row) {
        self.tries += other.tries;
        self.tally.add(&other.tally);
        self.settled = self.settled.max(other.settled);
        self.errors.extend(other.errors.iter().cloned());
    }

    /// Whether what is promised was kept.
    pub fn is_good(&self, promise: Promise) -> bool {
        self.errors.is_empty() && (promise == Promise::Repaired || self.tally.is_right())
    }

    /// One line.
    pub fn line(&self, fault: &Fault, backend: &str) -> String {
        let verdict = match self.is_good(fault.promise) {
            true => "ok",
            false => "FAILED",
        };
        let mut text = format!(
            "fire {} ({backend}) ... {verdict}: {} tries, {} packets in {:.1} s ({} % of the milliseconds), open {}, cut {}, as wanted {:.1} s later",
            fault.name,
            self.tries,
            self.tally.packets,
            self.tally.time.as_secs_f64(),
            self.tally.density(),
            self.tally.open,
            self.tally.cut,
            self.settled.as_secs_f64()
        );
        if let Some(error) = self
            .tally
            .send_error
            .as_ref()
            .filter(|_| self.tally.cut.count > 0)
        {
            let _ = write!(text, " (the first error of a sender: {error})");
        }
        for error in &self.errors {
            let _ = write!(text, "\n    {error}");
        }
        text
    }
}

/// The rows of all backends by the name of the fault.
pub type Rows = BTreeMap<(&'static str, &'static str), Row>;

/// The table in Markdown.
pub fn markdown(faults: &[&Fault], rows: &Rows) -> String {
    let mut text = "| fault | backend | tries | packets | open | cut | longest wrong | as wanted after |\n|---|---|---|---|---|---|---|---|\n".to_owned();
    for fault in faults {
        let mut about = format!("{}: {}", fault.name, fault.about);
        for backend in ["nft", "legacy"] {
            let Some(row) = rows.get(&(fault.name, backend)) else {
                continue;
            };
            let longest = row.tally.open.longest.max(row.tally.cut.longest);
            let longest = match longest.is_zero() {
                true => "-".to_owned(),
                false => format!("{:.2} s", longest.as_secs_f64()),
            };
            let mark = if row.is_good(fault.promise) {
                ""
            } else {
                " **FAILED**"
            };
            let _ = writeln!(
                text,
                "| {}{mark} | {backend} | {} | {} | {} | {} | {longest} | {:.1} s |",
                std::mem::take(&mut about),
                row.tries,
                row.tally.packets,
                row.tally.open.count,
                row.tally.cut.count,
                row.settled.as_secs_f64()
            );
        }
    }
    text
}
