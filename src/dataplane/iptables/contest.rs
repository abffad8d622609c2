//! Two programs that both want to be first in a chain must not fight without end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many repairs of jumps within this time are made at once;
const FREE: usize = 5;
const MINUTE: Duration = Duration::from_secs(60);
/// after that only one in this time.
const PAUSE: Duration = Duration::from_secs(10);

/// When jumps of ours were put back.
#[derive(Debug, Default)]
pub struct Contest {
    repairs: VecDeque<Instant>,
}

impl Contest {
    /// Whether jumps may be put back now; if so it counts as done.
    pub fn may_repair(&mut self, now: Instant) -> bool {
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > MINUTE;
        while self.repairs.front().is_some_and(is_old) {
            self.repairs.pop_front();
        }
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < PAUSE;
        if self.repairs.len() >= FREE && self.repairs.back().is_some_and(is_recent) {
            return false;
        }
        self.repairs.push_back(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_few_repairs_there_are_pauses() {
        let mut contest = Contest::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert!((0..5).all(|n| contest.may_repair(at(n))));
        assert!((5..14).all(|n| !contest.may_repair(at(n))));
        assert!(contest.may_repair(at(14)));
        assert!(!contest.may_repair(at(20)));
        assert!((200..205).all(|n| contest.may_repair(at(n))), "it is over");
    }
}
