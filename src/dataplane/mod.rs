//! Backends that print a ruleset, compare it with the kernel and apply the difference; and the links of the host.

mod applier;
mod command;
pub mod conntrack;
mod content;
pub mod events;
mod existing;
pub mod firewalls;
pub mod ipset;
pub mod iptables;
pub mod links;
pub mod nft;
mod plan;
pub mod route;
pub mod sockets;
mod wanted;

use std::collections::BTreeSet;

pub use applier::Applier;
pub use command::{CommandError, Tools};
pub use content::{Content, PolicySets};
pub use plan::{Applied, Changed, Plan, Refused};
pub use wanted::{Handover, Members, Update, Wanted};

use crate::config::Settings;

/// Why the kernel could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// A tool failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// IP sets cannot be read or written.
    #[error(transparent)]
    Sets(#[from] ipset::SetError),
    /// What changed was handed over, but not everything before. Hand over all members.
    #[error("what the kernel holds is not known any more, everything must be compared")]
    OutOfStep,
    /// Native nft rules hide a table from the tool, so that the kernel cannot be compared with the policy.
    #[error(
        "table {0} holds nft rules that the iptables tool cannot show: move them to a table of their own"
    )]
    Incompatible(String),
    /// Chains that cannot be removed.
    #[error(
        "old chains stay, because rules that are not moat's lead to them: {}",
        .0.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    )]
    OldChains(BTreeSet<String>),
    /// Sets that cannot be removed.
    #[error(
        "IP sets {} are in use by rules that are not moat's: remove those rules first",
        .0.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    )]
    Held(BTreeSet<String>),
    /// The table of a failed boot cannot be removed.
    #[error("table inet moat-boot of a failed boot cannot be removed: {0}")]
    Fallback(std::io::Error),
    /// The thread that writes to the kernel has ended.
    #[error("the thread that writes to the kernel has ended")]
    Ended,
}

impl DataplaneError {
    /// Whether a program is not installed.
    pub fn is_missing_tool(&self) -> bool {
        matches!(self, DataplaneError::Command(e) if e.is_missing())
    }

    /// Whether trying again at once is of no use.
    pub fn is_final(&self) -> bool {
        match self {
            DataplaneError::Command(error) => {
                error.is_missing()
                    || error.is_locked()
                    || matches!(
                        error,
                        CommandError::Hung { .. } | CommandError::Nonsense { .. }
                    )
            }
            DataplaneError::Sets(ipset::SetError::Silent) => true,
            DataplaneError::Sets(_) => false,
            _ => true,
        }
    }
}

impl From<ipset::PlanError> for DataplaneError {
    fn from(error: ipset::PlanError) -> DataplaneError {
        match error {
            ipset::PlanError::OutOfStep => DataplaneError::OutOfStep,
            ipset::PlanError::Kernel(error) => DataplaneError::Sets(error),
        }
    }
}

/// A way to bring a ruleset into the kernel. All calls block; none of them touches anything that is not moat's.
pub trait Dataplane: Send {
    /// Short name for `status`.
    fn name(&self) -> String;

    /// Other settings, from the next apply on.
    fn configure(&mut self, settings: &Settings);

    /// Brings the kernel from what it is known to hold to what is wanted; looks only if that is not known. Stopping in between
    /// leaves a host that is at worst stricter. Tries again a few times with a fresh look. One rule or set that is refused
    /// does not stop the others.
    ///
    /// # Errors
    /// The last error, when every try failed. The next call must bring all members.
    fn apply(&mut self, wanted: &Wanted) -> Result<Applied, DataplaneError>;

    /// Compares the kernel with what is wanted, which must be all that is in force, and repairs it: what was changed is what
    /// somebody else had changed.
    ///
    /// # Errors
    /// As [`Dataplane::apply`], and when something cannot be compared.
    fn verify(&mut self, wanted: &Wanted) -> Result<Applied, DataplaneError>;

    /// Forgets what the kernel is known to hold. The next call must bring all members.
    fn distrust(&mut self);

    /// A cheap look whether the kernel may hold something else than it is known to. It does not see a change of rules that the
    /// kernel tells about by itself, nor one of members that leaves their number the same.
    ///
    /// # Errors
    /// When it cannot look.
    fn check(&mut self) -> Result<bool, DataplaneError>;

    /// What an apply of this, with all its members, would change now.
    ///
    /// # Errors
    /// When a tool fails.
    fn plan(&mut self, wanted: &Wanted) -> Result<Plan, DataplaneError>;

    /// Removes every rule of moat. With `dry_run` only says what would be removed.
    ///
    /// # Errors
    /// When a tool fails.
    fn cleanup(&mut self, dry_run: bool) -> Result<Plan, DataplaneError>;
}
