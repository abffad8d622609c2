//! Host policy to ruleset: pure, the same bytes for the same policy, and judged against `verdict`.
//!
//! Every hook jumps to one chain of ours, which dispatches by interface to the chain of an endpoint, which walks through tiers to
//! the chains of policies. An Allow rule goes to a chain that sets the accept mark and so returns to the endpoint chain;
//! a Pass rule likewise with the pass mark; a Deny rule ends the packet. Hooks that no policy needs are absent. Where the policies
//! of a tier have many rules together, one port tree stands for all their chains.

mod builder;
mod compiler;
mod dispatch;
mod endpoint;
mod entry;
mod hooks;
mod members;
mod memo;
mod names;
mod policy;
mod ruleset;
mod sets;
#[cfg(test)]
mod tests;
mod tiers;
mod tree;
mod union;

use std::sync::Arc;

use crate::api::Family;
use crate::calc::HostPolicy;
pub use compiler::Compiler;
pub use endpoint::KNOWN;
pub use members::storable;
pub use names::{set_prefix, short_hash};
pub use ruleset::*;

/// Sets the accept mark.
pub const ALLOW_CHAIN: &str = "moat-allow";
/// Sets the pass mark.
const PASS_CHAIN: &str = "moat-pass";

/// See [`Options::tree_from`].
const TREE_FROM: usize = 12;
/// See [`Options::leaf`].
const LEAF: usize = 4;

/// Settings that change how policy is written down, not what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Families to render.
    pub families: Vec<Family>,
    /// Bits of the packet mark that are ours; three are used.
    pub mark_mask: u32,
    /// Own jumps at the head of the hooks (else at the end).
    pub insert: bool,
    /// Accepted packets leave the filter table (else they go on to the host's rules).
    pub filter_accept: bool,
    /// Accepted packets leave the mangle table.
    pub mangle_accept: bool,
    /// Denied packets are answered in the filter table.
    pub reject: bool,
    /// Prefix of kernel log lines of Log rules.
    pub log_prefix: String,
    /// Policies of a tier that together have more rules than this become a port tree.
    pub tree_from: usize,
    /// A chain of a port tree with more rules than this is split, if ports can tell them apart.
    pub leaf: usize,
    /// See `mergeRulesFrom` in `moat.toml`.
    pub merge_from: usize,
}

impl Options {
    /// From the settings.
    pub fn new(settings: &crate::config::Settings, ipv6: bool) -> Options {
        use crate::config::{AllowAction, ChainInsertMode, DenyAction};
        let mut families = vec![Family::V4];
        if ipv6 && settings.ipv6_support {
            families.push(Family::V6);
        }
        Options {
            families,
            mark_mask: settings.iptables_mark_mask,
            insert: settings.chain_insert_mode == ChainInsertMode::Insert,
            filter_accept: settings.iptables_filter_allow_action == AllowAction::Accept,
            mangle_accept: settings.iptables_mangle_allow_action == AllowAction::Accept,
            reject: settings.iptables_filter_deny_action == DenyAction::Reject,
            log_prefix: settings.log_prefix.clone(),
            tree_from: TREE_FROM,
            leaf: LEAF,
            merge_from: settings.merge_rules_from as usize,
        }
    }

    /// Accept, pass and "decide after DNAT" bits: the lowest three of the mask.
    fn marks(&self) -> Marks {
        let mut bits = (0..32)
            .map(|n| 1u32 << n)
            .filter(|bit| self.mark_mask & bit != 0);
        let mut next = || bits.next().unwrap_or(0);
        Marks {
            accept: next(),
            pass: next(),
            later: next(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Marks {
    accept: u32,
    pass: u32,
    later: u32,
}

/// Compiles the whole host policy from scratch.
pub fn compile(policy: &HostPolicy, options: &Options) -> Ruleset {
    let ruleset = Compiler::new(options.clone()).compile(policy, options);
    Arc::unwrap_or_clone(ruleset)
}
