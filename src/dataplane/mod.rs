//! Backends that print a ruleset, compare it with the kernel and apply the difference; and the links of the host.

mod command;
pub mod conntrack;
pub mod events;
pub mod ipset;
pub mod iptables;
pub mod links;
mod plan;
pub mod route;
pub mod sockets;

pub use command::CommandError;
pub use plan::{Changed, FamilyPlan, Found, FoundRule, FoundSet, FoundTable, Plan};

use crate::calc::HostPolicy;
use crate::compile::Ruleset;
use crate::config::Settings;

/// Why the kernel could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// A tool failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Native nft rules hide a table from the tool, so that the kernel cannot be compared with the policy.
    #[error(
        "table {0} holds nft rules that the iptables tool cannot show: move them to a table of their own"
    )]
    Incompatible(String),
    /// Everything wanted is in force, but old chains could not be removed.
    #[error("old chains stay, perhaps because rules that are not moat's lead to them: {0}")]
    OldChains(CommandError),
    /// Sets that cannot be removed.
    #[error(
        "IP sets {} are in use by rules that are not moat's: remove those rules first",
        .0.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    )]
    Held(std::collections::BTreeSet<String>),
}

impl DataplaneError {
    /// Whether a program is not installed.
    pub fn is_missing_tool(&self) -> bool {
        matches!(self, DataplaneError::Command(e) if e.is_missing())
    }
}

/// A way to bring a ruleset into the kernel. All calls block; none of them touches anything that is not moat's.
pub trait Dataplane: Send {
    /// Short name for `status`.
    fn name(&self) -> String;

    /// Other settings, from the next plan on.
    fn configure(&mut self, settings: &Settings);

    /// Looks at the kernel.
    ///
    /// # Errors
    /// When a tool fails.
    fn read(&mut self) -> Result<Found, DataplaneError>;

    /// The difference between the ruleset with the sets of the policy that it was made of and what the kernel is known to hold; looks only if that is not known.
    ///
    /// # Errors
    /// When a tool fails.
    fn plan(&mut self, wanted: &Ruleset, policy: &HostPolicy) -> Result<Plan, DataplaneError>;

    /// Writes the difference: sets, chains, jumps, then removes old chains and old sets. Stopping in between leaves a host
    /// that is at worst stricter. Tries again a few times with a fresh look.
    ///
    /// # Errors
    /// The last error, when every try failed.
    fn apply(&mut self, wanted: &Ruleset, policy: &HostPolicy) -> Result<Plan, DataplaneError>;

    /// Removes every rule of moat. With `dry_run` only says what would be removed.
    ///
    /// # Errors
    /// When a tool fails.
    fn cleanup(&mut self, dry_run: bool) -> Result<Plan, DataplaneError>;
}
