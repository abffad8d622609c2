//! The table that is printed at the end.

use std::time::Duration;

/// Lines so far.
#[derive(Default)]
pub struct Table {
    lines: Vec<String>,
}

impl Table {
    /// A part of the table.
    pub fn begin(&mut self, title: &str) {
        self.lines.push(format!("\n### {title}\n"));
        self.lines
            .push("| work | moat | raw | ratio | target | |".to_owned());
        self.lines.push("|---|---|---|---|---|---|".to_owned());
    }

    /// A time, and if there is one the raw time and how many times that is allowed.
    pub fn row(&mut self, work: &str, time: Duration, raw: Option<(Duration, f64)>) {
        let text = match raw {
            None => format!("| {work} | {} | | | | |", show(time)),
            Some((raw, target)) => {
                let ratio = time.as_secs_f64() / raw.as_secs_f64();
                format!(
                    "| {work} | {} | {} | {ratio:.2} | {target} | {} |",
                    show(time),
                    show(raw),
                    word(ratio <= target)
                )
            }
        };
        self.add(text);
    }

    /// A time and the most it may be.
    pub fn limit(&mut self, work: &str, time: Duration, most: Duration) {
        let good = word(time <= most);
        let (time, most) = (show(time), show(most));
        self.add(format!("| {work} | {time} | | | {most} | {good} |"));
    }

    /// Memory in bytes; at most 64 MB is promised.
    pub fn memory(&mut self, what: &str, bytes: usize) {
        let good = word(bytes <= 64 << 20);
        let megabytes = bytes >> 20;
        self.add(format!("| {what} | {megabytes} MB | | | 64 MB | {good} |"));
    }

    /// How often any thread woke up in an idle minute in which no watchdog asked for it, and the time that cost.
    pub fn idle(&mut self, woken: u64, cpu: Duration) {
        let (good, cpu) = (word(woken == 0), show(cpu));
        self.add(format!(
            "| idle for a minute: wake-ups of all threads (CPU: {cpu}) | {woken} | | | none | {good} |"
        ));
    }

    fn add(&mut self, line: String) {
        eprintln!("{line}");
        self.lines.push(line);
    }

    /// Everything.
    pub fn print(&self) {
        for line in &self.lines {
            println!("{line}");
        }
    }
}

fn word(good: bool) -> &'static str {
    if good { "pass" } else { "falls short" }
}

fn show(time: Duration) -> String {
    match time.as_micros() {
        n if n < 1000 => format!("{:.1} µs", time.as_nanos() as f64 / 1000.0),
        n if n < 1_000_000 => format!("{:.1} ms", n as f64 / 1000.0),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}
