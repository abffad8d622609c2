//! Which packets arrived, against which ones had to.

use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use super::flows::Flow;

/// What was sent from one begin to one end, and what arrived of it.
pub struct Window {
    /// Number of the window, in every packet.
    pub run: u32,
    /// When it began.
    pub begin: Instant,
    /// When each tick was sent, and whether nothing can arrive at that time for a reason that is not a verdict.
    pub ticks: Vec<(Instant, bool)>,
    /// For each flow and tick what became of the packet.
    pub marks: Vec<Vec<Mark>>,
    /// The first error of a sender whose packets are allowed.
    pub send_error: Option<String>,
    /// Outcomes of TCP connects.
    pub connects: Vec<Connect>,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It was not its flow's turn.
    NotSent,
    /// It has not arrived.
    Missing,
    /// It has.
    Arrived,
}

/// One TCP connect that is over.
#[derive(Clone, Copy, Debug)]
pub struct Connect {
    /// When it began.
    pub at: Instant,
    /// Whether policy allows it.
    pub allowed: bool,
    /// Whether it was answered.
    pub answered: bool,
    /// Whether nothing could be answered for a reason that is not a verdict.
    pub excused: bool,
}

impl Window {
    /// An empty one.
    pub fn new(run: u32, flows: usize) -> Window {
        Window {
            run,
            begin: Instant::now(),
            ticks: Vec::new(),
            marks: vec![Vec::new(); flows],
            send_error: None,
            connects: Vec::new(),
        }
    }
}

/// Wrong verdicts of one kind.
#[derive(Clone, Debug, Default)]
pub struct Wrong {
    /// How many packets and connects.
    pub count: u64,
    /// The first one: time since the window began, and the flow.
    pub first: Option<(Duration, String)>,
    /// The flows concerned, with the number of each.
    pub flows: Vec<(String, u64)>,
    /// The longest time in which every packet of one flow was judged wrong.
    pub longest: Duration,
}

/// The sum of one window, or of several.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Packets and connects sent.
    pub packets: u64,
    /// How long packets were sent.
    pub time: Duration,
    /// Milliseconds of that in which packets were sent; fewer when the machine had other work.
    pub ticks: u64,
    /// Denied and arrived.
    pub open: Wrong,
    /// Allowed and not arrived.
    pub cut: Wrong,
    /// The first error of a sender.
    pub send_error: Option<String>,
}

impl Tally {
    /// Counts a window. With `all_allowed` nothing is enforced, and every packet must arrive.
    pub fn of(window: &Window, flows: &[Flow], all_allowed: bool) -> Tally {
        let sent = window
            .marks
            .iter()
            .flatten()
            .filter(|m| **m != Mark::NotSent);
        let mut tally = Tally {
            packets: (sent.count() + window.connects.len()) as u64,
            time: window.begin.elapsed(),
            ticks: window.ticks.len() as u64,
            send_error: window.send_error.clone(),
            ..Tally::default()
        };
        for (flow, marks) in flows.iter().zip(&window.marks) {
            let allowed = flow.class.allowed || all_allowed;
            let wrong = if allowed {
                &mut tally.cut
            } else {
                &mut tally.open
            };
            wrong.add_flow(window, flow, marks, allowed);
        }
        for connect in &window.connects {
            tally.add_connect(window.begin, connect, all_allowed);
        }
        tally
    }

    fn add_connect(&mut self, begin: Instant, connect: &Connect, all_allowed: bool) {
        let allowed = connect.allowed || all_allowed;
        if connect.answered == allowed || (allowed && connect.excused) {
            return;
        }
        let wrong = if allowed {
            &mut self.cut
        } else {
            &mut self.open
        };
        wrong.add("TCP", 1, connect.at.saturating_duration_since(begin));
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Tally) {
        self.packets += other.packets;
        self.time += other.time;
        self.ticks += other.ticks;
        self.open.join(&other.open);
        self.cut.join(&other.cut);
        self.send_error = self.send_error.take().or_else(|| other.send_error.clone());
    }

    /// In how many of a hundred milliseconds packets were sent.
    pub fn density(&self) -> u64 {
        self.ticks * 100
            / u64::try_from(self.time.as_millis())
                .unwrap_or(u64::MAX)
                .max(1)
    }

    /// Whether there is any wrong verdict.
    pub fn is_right(&self) -> bool {
        self.open.count + self.cut.count == 0
    }
}

impl Wrong {
    fn add_flow(&mut self, window: &Window, flow: &Flow, marks: &[Mark], allowed: bool) {
        let mut span: Option<Instant> = None;
        let mut count = 0;
        let mut first = None;
        let sent = window
            .ticks
            .iter()
            .zip(marks)
            .filter(|(_, mark)| **mark != Mark::NotSent);
        for ((at, excused), mark) in sent {
            let arrived = *mark == Mark::Arrived;
            if arrived == allowed || (allowed && *excused) {
                span = None;
                continue;
            }
            count += 1;
            let begin = *span.get_or_insert(*at);
            first.get_or_insert(*at);
            self.longest = self.longest.max(*at - begin + Duration::from_millis(1));
        }
        if let Some(at) = first {
            self.add(
                &flow.name(),
                count,
                at.saturating_duration_since(window.begin),
            );
        }
    }

    fn add(&mut self, flow: &str, count: u64, at: Duration) {
        self.count += count;
        match self.flows.iter_mut().find(|(name, _)| name == flow) {
            Some((_, sum)) => *sum += count,
            None => self.flows.push((flow.to_owned(), count)),
        }
        if self.first.as_ref().is_none_or(|(first, _)| at < *first) {
            self.first = Some((at, flow.to_owned()));
        }
    }

    fn join(&mut self, other: &Wrong) {
        self.count += other.count;
        self.longest = self.longest.max(other.longest);
        self.first = self.first.take().or_else(|| other.first.clone());
        for (flow, count) in &other.flows {
            match self.flows.iter_mut().find(|(name, _)| name == flow) {
                Some((_, sum)) => *sum += count,
                None => self.flows.push((flow.clone(), *count)),
            }
        }
    }
}

impl Display for Wrong {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.count)?;
        if let Some((at, flow)) = &self.first {
            let flows: Vec<String> = self
                .flows
                .iter()
                .map(|(n, c)| format!("{n}: {c}"))
                .collect();
            write!(
                f,
                " (first {flow} after {:.3} s, longest {:.3} s; {})",
                at.as_secs_f64(),
                self.longest.as_secs_f64(),
                flows.join(", ")
            )?;
        }
        Ok(())
    }
}
