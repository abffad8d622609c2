//! What the loop knows of the kernel, and what it is to do there next: apply, compare or look.

use std::pin::Pin;
use std::time::{Duration, Instant};

use super::connections::Suspects;
use super::report::ApplyReport;
use super::run::NEVER;
use crate::dataplane::{Applied, DataplaneError};

/// Pause before a failed apply is tried again; doubles up to the longest.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// The longest pause between two tries.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// A change of rules by others is looked at after this, when its transaction is over.
const VERIFY_DELAY: Duration = Duration::from_millis(100);
/// The least time between two comparisons with the kernel that changes of others cause.
const VERIFY_PAUSE: Duration = Duration::from_millis(700);

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Brings a change into the kernel.
    Apply,
    /// Compares everything and repairs.
    Verify,
    /// Looks cheaply whether somebody changed something.
    Check,
    /// Removes what moat left in the backend that is not in use.
    Clear,
}

/// How a job ended.
pub(super) enum Done {
    /// The kernel is as wanted, after these changes.
    Applied(Applied),
    /// No policy could be read, and the kernel holds one of an earlier run: nothing was touched.
    Blind,
    /// Whether the kernel may have been changed.
    Checked(bool),
    /// Whether anything had to be removed.
    Cleared(bool),
}

/// Its end, or why it failed.
pub(super) type Outcome = Result<Done, DataplaneError>;
/// What the dataplane's thread will answer.
pub(super) type Job = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A job under way.
pub(super) struct Running {
    pub(super) work: Work,
    pub(super) job: Job,
    pub(super) began: Instant,
    pub(super) generation: u64,
    /// When the first of the changes in it was noticed.
    pub(super) noticed: Instant,
    pub(super) suspects: Suspects,
}

/// What the loop knows of the kernel and what it is to do there next.
pub struct Kernel {
    pub(super) running: Option<Running>,
    /// Whether the next apply must compare everything, because the kernel may hold anything.
    pub(super) whole: bool,
    /// When the first change that is not in the kernel was noticed.
    pub(super) noticed: Option<Instant>,
    /// After a failure: when to try again, and the pause after that.
    pub(super) retry_at: Option<Instant>,
    pub(super) pause: Duration,
    pub(super) verify_at: Instant,
    pub(super) compared_at: Instant,
    pub(super) check_due: bool,
    pub(super) clear_due: bool,
    /// Why the last change is not in force.
    pub apply_error: Option<String>,
    /// Why the kernel cannot be compared with the policy, if it cannot.
    pub compare_error: Option<String>,
    /// What the kernel refused: object and reason.
    pub refused: Vec<(String, String)>,
    /// Generation in force.
    pub generation: u64,
    /// The last apply.
    pub last_apply: Option<ApplyReport>,
    /// When the kernel was last known to be as wanted.
    pub verified_at: Option<String>,
    /// Times that somebody else's changes were repaired.
    pub repairs: u64,
}

impl Kernel {
    /// Nothing is known.
    pub fn new(generation: u64) -> Kernel {
        Kernel {
            running: None,
            whole: true,
            noticed: Some(Instant::now()),
            retry_at: None,
            pause: RETRY,
            verify_at: Instant::now() + NEVER,
            compared_at: Instant::now(),
            check_due: false,
            clear_due: true,
            apply_error: None,
            compare_error: None,
            refused: Vec::new(),
            generation,
            last_apply: None,
            verified_at: None,
            repairs: 0,
        }
    }

    /// Something changed that is not in the kernel yet.
    pub fn changed(&mut self, noticed: Instant) {
        self.noticed.get_or_insert(noticed);
    }

    /// Somebody, perhaps moat itself, changed rules: compare soon, but not more often than a comparison may cost.
    pub fn rules_changed(&mut self) {
        let soon = Instant::now() + VERIFY_DELAY;
        let not_before = self.compared_at + VERIFY_PAUSE;
        self.verify_at = self.verify_at.min(soon.max(not_before));
    }

    /// Whether the kernel has everything that was calculated.
    pub fn is_in_step(&self) -> bool {
        self.noticed.is_none() && !self.is_applying()
    }

    /// Whether a change is being written.
    pub fn is_applying(&self) -> bool {
        self.running.as_ref().is_some_and(|r| r.work == Work::Apply)
    }

    /// A look is due.
    pub fn check_soon(&mut self) {
        self.check_due = true;
    }

    /// When [`Daemon::work`] is to be called although nothing happened.
    pub fn due(&self) -> Instant {
        match (&self.running, self.retry_at) {
            (Some(_), _) => Instant::now() + NEVER,
            (None, Some(at)) => at.min(self.verify_at),
            (None, None) => self.verify_at,
        }
    }

    /// Waits until the job under way ends; for ever, when there is none. Nothing is lost when the wait is cancelled.
    pub async fn ended(&mut self) -> Ended {
        let Some(running) = &mut self.running else {
            return std::future::pending().await;
        };
        let outcome = running.job.as_mut().await;
        match self.running.take() {
            Some(running) => Ended { running, outcome },
            None => std::future::pending().await,
        }
    }

    /// What to do now.
    pub(super) fn next(&self, ready: bool) -> Option<Work> {
        let time = Instant::now();
        if self.running.is_some() || self.retry_at.is_some_and(|at| at > time) {
            return None;
        }
        if self.noticed.is_some() {
            return Some(Work::Apply);
        }
        if self.verify_at <= time {
            return Some(Work::Verify);
        }
        if self.clear_due && ready {
            return Some(Work::Clear);
        }
        self.check_due.then_some(Work::Check)
    }

    /// A job failed: everything is compared and written anew, after a pause.
    pub(super) fn failed(&mut self) {
        self.whole = true;
        self.noticed.get_or_insert_with(Instant::now);
        self.retry_at = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_RETRY);
    }
}

/// A job that ended.
pub struct Ended {
    pub(super) running: Running,
    pub(super) outcome: Outcome,
}
