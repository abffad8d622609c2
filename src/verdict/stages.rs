//! The decision procedure of one endpoint in one category and direction (facts 3.3).

use super::matching::rule_matches;
use super::{Conntrack, Packet, Step};
use crate::api::{Action, Family};
use crate::calc::{
    Category, Direction, Failsafe, HostEp, HostPolicy, RuleLists, TierBlock, WorkloadEp,
};

/// What a stage says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Accepted by policy: stages of the same endpoint that follow are skipped.
    Accept,
    /// Accepted as part of an accepted flow: nothing else is asked.
    Established,
    /// Denied.
    Deny,
    /// Nothing said: the packet goes on.
    Continue,
}

/// One evaluation: the policy, the packet and the trace so far.
pub struct Stage<'a> {
    /// The host policy.
    pub policy: &'a HostPolicy,
    /// The packet, with the addresses that this stage sees.
    pub packet: &'a Packet,
    /// Where the steps are written.
    pub trace: &'a mut Vec<Step>,
}

impl Stage<'_> {
    /// A host endpoint in one category and direction.
    pub fn host(&mut self, ep: &HostEp, category: Category, direction: Direction) -> Outcome {
        let tiers = ep.tiers(category);
        // Without policy in any direction a category has no stage at all; normal always has one.
        if tiers.is_empty() && category != Category::Normal {
            return Outcome::Continue;
        }
        let place = format!(
            "{} {} of host endpoint {}",
            category.word(),
            direction.word(),
            ep.name
        );
        let failsafes = category != Category::Forward;
        if let Some(outcome) = self.before_policy(&place, category, direction, failsafes) {
            return outcome;
        }
        if let Some(outcome) = self.tiers(tiers, direction) {
            return outcome;
        }
        match category {
            Category::Normal => self.profiles(&ep.profiles, direction, &place),
            Category::Forward if tiers.iter().all(|t| t.policies(direction).is_empty()) => {
                self.say(
                    "allow",
                    format!("{place}: no policy in this direction, forwarded traffic is allowed"),
                );
                Outcome::Accept
            }
            _ => Outcome::Continue,
        }
    }

    /// A workload endpoint in one direction.
    pub fn workload(&mut self, ep: &WorkloadEp, direction: Direction) -> Outcome {
        let place = format!("{} of workload endpoint {}", direction.word(), ep.id);
        if let Some(outcome) = self.before_policy(&place, Category::Normal, direction, false) {
            return outcome;
        }
        if let Some(outcome) = self.tiers(&ep.tiers, direction) {
            return outcome;
        }
        self.profiles(&ep.profiles, direction, &place)
    }

    /// Whether a workload uses a source that is not its own; asked before anything else, because a forged packet may fit a flow
    /// of somebody else.
    pub fn is_forged(&mut self, ep: &WorkloadEp) -> bool {
        let forged = !source_is_own(ep, self.packet);
        if forged {
            let why = format!("source {} is not an address of {}", self.packet.src, ep.id);
            self.say("deny", why);
        }
        forged
    }

    /// Connection tracking and failsafes, which come before any policy.
    fn before_policy(
        &mut self,
        place: &str,
        category: Category,
        direction: Direction,
        failsafes: bool,
    ) -> Option<Outcome> {
        let tracked = category != Category::Untracked;
        if tracked && self.packet.conntrack == Conntrack::Established {
            self.say("allow", format!("{place}: part of an established flow"));
            return Some(Outcome::Established);
        }
        if failsafes && is_ipv6_essential(self.packet) {
            self.say(
                "allow",
                format!("{place}: failsafe, IPv6 neighbour discovery and path MTU"),
            );
            return Some(after_failsafe(category));
        }
        if tracked
            && self.policy.options.drop_invalid
            && self.packet.conntrack == Conntrack::Invalid
        {
            self.say(
                "deny",
                format!("{place}: connection tracking says the packet fits no flow"),
            );
            return Some(Outcome::Deny);
        }
        if failsafes && let Some(why) = self.failsafe(category, direction) {
            self.say("allow", format!("{place}: {why}"));
            return Some(after_failsafe(category));
        }
        None
    }

    fn failsafe(&self, category: Category, direction: Direction) -> Option<String> {
        let options = &self.policy.options;
        let (ours, replies) = match direction {
            Direction::Ingress => (&options.failsafe_in, &options.failsafe_out),
            Direction::Egress => (&options.failsafe_out, &options.failsafe_in),
        };
        let peer = match direction {
            Direction::Ingress => self.packet.src,
            Direction::Egress => self.packet.dst,
        };
        let hit = |f: &&Failsafe, port: Option<u16>| {
            f.protocol.0 == self.packet.proto
                && port == Some(f.port)
                && f.net.is_none_or(|n| n.contains(&peer))
        };
        if let Some(f) = ours.iter().find(|f| hit(f, self.packet.dport)) {
            return Some(format!("failsafe {} {}", f.protocol, f.port));
        }
        // Before connection tracking replies are not known by state, only by their source port (facts 3.8).
        if category != Category::Untracked {
            return None;
        }
        let f = replies.iter().find(|f| hit(f, self.packet.sport))?;
        Some(format!("reply from failsafe {} {}", f.protocol, f.port))
    }

    /// All tiers in order; `None` when none decided.
    fn tiers(&mut self, tiers: &[TierBlock], direction: Direction) -> Option<Outcome> {
        'tiers: for tier in tiers {
            let policies = tier.policies(direction);
            for id in policies {
                let Some(lists) = self.policy.policies.get(id) else {
                    continue;
                };
                match self.rules(lists, direction) {
                    Some(Action::Allow) => return Some(Outcome::Accept),
                    Some(Action::Deny) => return Some(Outcome::Deny),
                    Some(Action::Pass) => continue 'tiers,
                    Some(Action::Log) | None => {}
                }
            }
            if !policies.is_empty() && tier.default_deny {
                self.trace.push(Step {
                    tier: Some(tier.tier.clone()),
                    action: "deny".to_owned(),
                    why: format!(
                        "end of tier {}: no policy decided, the tier's default action is Deny",
                        tier.tier
                    ),
                    ..Step::default()
                });
                return Some(Outcome::Deny);
            }
        }
        None
    }

    fn profiles(&mut self, profiles: &[String], direction: Direction, place: &str) -> Outcome {
        for name in profiles {
            let Some(lists) = self.policy.profiles.get(name) else {
                continue;
            };
            match self.rules(lists, direction) {
                Some(Action::Allow) => return Outcome::Accept,
                Some(Action::Deny) => return Outcome::Deny,
                _ => {}
            }
        }
        self.say(
            "deny",
            format!("{place}: no policy and no profile allowed the packet"),
        );
        Outcome::Deny
    }

    /// The first rule that ends the list: Allow, Deny or Pass. Log is noted and goes on.
    fn rules(&mut self, lists: &RuleLists, direction: Direction) -> Option<Action> {
        for rule in lists.rules(direction) {
            if !rule_matches(self.policy, rule, self.packet) {
                continue;
            }
            self.trace.push(Step {
                tier: (!lists.tier.is_empty()).then(|| lists.tier.clone()),
                policy: Some(lists.id.to_string()),
                rule: Some(rule.index),
                action: format!("{:?}", rule.action).to_lowercase(),
                file: Some(lists.origin.file.to_string()),
                line: if rule.line > 0 { Some(rule.line) } else { None },
                why: format!("{} rule {} matches", direction.word(), rule.index),
            });
            if rule.action != Action::Log {
                return Some(rule.action);
            }
        }
        self.trace.push(Step {
            tier: (!lists.tier.is_empty()).then(|| lists.tier.clone()),
            policy: Some(lists.id.to_string()),
            rule: None,
            action: "none".to_owned(),
            file: Some(lists.origin.file.to_string()),
            line: (lists.origin.line > 0).then_some(lists.origin.line),
            why: format!("no {} rule decides the packet", direction.word()),
        });
        None
    }

    /// A step without policy.
    pub fn say(&mut self, action: &str, why: String) {
        self.trace.push(Step {
            action: action.to_owned(),
            why,
            ..Step::default()
        });
    }
}

/// A failsafe of an early stage ends that stage only; the normal stage has the same failsafes, forwarded traffic has none.
fn after_failsafe(category: Category) -> Outcome {
    match category {
        Category::Untracked | Category::PreDnat => Outcome::Continue,
        Category::Normal | Category::Forward => Outcome::Accept,
    }
}

/// A workload may only use its own addresses; IPv6 link-local ones and the unspecified address belong to everybody.
fn source_is_own(ep: &WorkloadEp, packet: &Packet) -> bool {
    if ep.sources.is_empty() {
        return true;
    }
    let everybodys = match packet.src {
        std::net::IpAddr::V4(a) => a.is_unspecified(),
        std::net::IpAddr::V6(a) => a.is_unspecified() || a.is_unicast_link_local(),
    };
    everybodys || ep.sources.iter().any(|n| n.contains(&packet.src))
}

/// ICMPv6 types that a host loses IPv6 without: router and neighbour discovery (only with hop limit 255, RFC 4861, so never
/// from beyond the link), multicast listener messages (hop limit 1, RFC 3810: switches forward discovery by them) and packet
/// too big (RFC 8201).
pub fn is_ipv6_essential(packet: &Packet) -> bool {
    if Family::of(packet.src) != Family::V6 || packet.proto != 58 {
        return false;
    }
    match packet.icmp {
        Some((2, _)) => true,
        Some((133..=136, _)) => packet.hop_limit == 255,
        Some((130..=132 | 143, _)) => packet.hop_limit == 1,
        _ => false,
    }
}
