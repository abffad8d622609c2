//! The packet filters of this host, moat's and everybody else's: which of them can deny what policy accepts, or accept before
//! policy is asked.

mod legacy;
mod owner;
mod published;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use super::iptables::{Backend, CHAIN_PREFIX};
use super::nft;
pub use published::{Published, published};

/// Where in the kernel a base chain is called (`enum nf_inet_hooks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// All that comes in.
    Prerouting,
    /// What is for this host.
    Input,
    /// What goes through this host.
    Forward,
    /// What this host sends.
    Output,
    /// All that goes out.
    Postrouting,
}

impl Hook {
    const ALL: [Hook; 5] = [
        Hook::Prerouting,
        Hook::Input,
        Hook::Forward,
        Hook::Output,
        Hook::Postrouting,
    ];

    /// By the kernel's number. The hook of a device (`ingress`) is none of these.
    pub fn from_number(number: u32) -> Option<Hook> {
        Hook::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// By the name of the built-in chain of the iptables tools.
    fn from_chain(name: &str) -> Option<Hook> {
        Hook::ALL
            .into_iter()
            .find(|hook| name == hook.to_string().to_uppercase())
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        })
    }
}

/// What a rule can do with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It goes on.
    None,
    /// Accepts it for this base chain.
    Accept,
    /// Denies it, for good.
    Deny,
    /// Looks the verdict up: anything.
    Map,
    /// Hands it to a chain of the table.
    Jump(String),
}

impl Step {
    /// That of a target of the iptables tools; nothing for one that decides nothing.
    pub fn of_target(target: &str) -> Option<Step> {
        match target {
            "ACCEPT" => Some(Step::Accept),
            "DROP" | "REJECT" | "TARPIT" => Some(Step::Deny),
            _ => None,
        }
    }
}

/// A chain of any program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Which of the kernel's two packet filters it is in: `nft` or `legacy`.
    pub tool: &'static str,
    /// `ip`, `ip6`, or `inet` for both.
    pub family: &'static str,
    /// Name of its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Of a base chain: where it is called, and its priority there.
    pub hook: Option<(Hook, i32)>,
    /// Whether it denies what no rule decides.
    pub denies_at_end: bool,
    /// What its rules can do, in order, each thing once: a chain of a million rules is as short as one of five.
    pub steps: Vec<Step>,
}

impl Chain {
    /// Adds what the next rule can do.
    pub fn push(&mut self, step: Step) {
        if step != Step::None && !self.steps.contains(&step) {
            self.steps.push(step);
        }
    }
}

/// What can come between a packet and its policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The base chain: tool, family, table and name.
    pub chain: String,
    /// Its hook.
    pub hook: String,
    /// Its priority among those of the same hook; the least comes first.
    pub priority: i32,
    /// Who made it, as far as the names tell.
    pub owner: String,
    /// What it can do.
    pub effect: Effect,
    /// The chain with the rule that does it, if it is another one.
    pub through: Option<String>,
    /// What to do about it.
    pub advice: String,
}

/// What a base chain can do to policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// Deny a packet that policy accepts.
    Deny,
    /// Accept a packet before policy is asked.
    AcceptFirst,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Effect::Deny => "can deny what policy accepts",
            Effect::AcceptFirst => "accepts before policy is asked",
        })
    }
}

/// Looks at every base chain of this network namespace.
///
/// # Errors
/// nf_tables cannot be asked. Rules of the legacy tool that cannot be read are none.
pub fn examine() -> io::Result<Vec<Finding>> {
    let mut chains = nft::survey::chains()?;
    if Backend::Legacy.may_hold_rules() {
        chains.extend(legacy::chains());
    }
    Ok(findings(&chains))
}

/// What the base chains among these chains can do to policy, in order of hook and priority.
fn findings(chains: &[Chain]) -> Vec<Finding> {
    let by_name: HashMap<_, _> = chains.iter().map(|c| (key(c, &c.name), c)).collect();
    let mut bases: Vec<_> = chains.iter().filter_map(|c| Some((c.hook?, c))).collect();
    bases.sort_by_key(|((hook, priority), c)| {
        (*hook as u8, *priority, c.tool, c.family, &c.table, &c.name)
    });
    let mut findings = Vec::new();
    for ((hook, priority), base) in bases {
        if base.table == nft::fallback::TABLE {
            continue;
        }
        let ours = base.steps.iter().position(is_ours);
        let all = &base.steps[..];
        let before = &all[..ours.unwrap_or(all.len())];
        // What comes behind policy in its own chain sees only what policy leaves to the host. But what is forwarded is accepted
        // at the end of the chain.
        let seen_first = if hook == Hook::Forward { all } else { before };
        let at_end = (ours.is_none() && base.denies_at_end).then_some(None);
        let deny = at_end.or_else(|| {
            reach(base, seen_first, &by_name, |s| {
                matches!(s, Step::Deny | Step::Map)
            })
        });
        let accept = ours.and_then(|_| {
            reach(base, before, &by_name, |s| {
                matches!(s, Step::Accept | Step::Map)
            })
        });
        for (effect, through) in [(Effect::Deny, deny), (Effect::AcceptFirst, accept)] {
            if let Some(through) = through {
                findings.push(finding(base, hook, priority, effect, through));
            }
        }
    }
    findings
}

type Key<'a> = (&'static str, &'static str, &'a str, &'a str);

fn key<'a>(chain: &'a Chain, name: &'a str) -> Key<'a> {
    (chain.tool, chain.family, &chain.table, name)
}

/// Whether a rule leads to moat.
fn is_ours(step: &Step) -> bool {
    matches!(step, Step::Jump(to) if to.starts_with(CHAIN_PREFIX))
}

/// Whether these rules of a base chain, or chains that they lead to, can do this; and the other chain that does.
fn reach<'a>(
    base: &'a Chain,
    steps: &'a [Step],
    chains: &HashMap<Key<'a>, &'a Chain>,
    does: impl Fn(&Step) -> bool,
) -> Option<Option<String>> {
    if steps.iter().any(&does) {
        return Some(None);
    }
    let mut seen = HashSet::new();
    let mut next: Vec<&Step> = steps.iter().rev().collect();
    while let Some(step) = next.pop() {
        let Step::Jump(to) = step else { continue };
        if is_ours(step) || !seen.insert(to) {
            continue;
        }
        let Some(chain) = chains.get(&key(base, to)) else {
            continue;
        };
        if chain.steps.iter().any(&does) {
            return Some(Some(to.clone()));
        }
        next.extend(chain.steps.iter().rev());
    }
    None
}

fn finding(
    base: &Chain,
    hook: Hook,
    priority: i32,
    effect: Effect,
    through: Option<String>,
) -> Finding {
    let owner = owner::of(base, through.as_deref());
    Finding {
        chain: format!("{} {} {} {}", base.tool, base.family, base.table, base.name),
        hook: hook.to_string(),
        priority,
        owner: owner.name.to_owned(),
        effect,
        through,
        advice: owner.advice(effect).to_owned(),
    }
}
