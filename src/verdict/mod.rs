//! The reference meaning of a host policy: (host policy, packet) to verdict and trace. Slow, obvious, right.
//!
//! Everything that renders policy for a kernel is judged against [`decide`].

mod flows;
mod matching;
mod packet;
mod prune;
mod query;
mod stages;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use flows::FlowJudge;
pub use packet::{Conntrack, Packet, Path};
pub use prune::{Traffic, prune};
pub use query::{Answer, Query, explain};
pub use stages::is_ipv6_essential;

use crate::api::Family;
use crate::calc::{Category, Direction, HostEp, HostPolicy, ToHost};
use stages::{Outcome, Stage};

/// One step that led to a verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Tier of the policy.
    pub tier: Option<String>,
    /// Policy or profile, as `Kind/[namespace/]name`.
    pub policy: Option<String>,
    /// Position of the rule in its list, from 0.
    pub rule: Option<usize>,
    /// `allow`, `deny`, `pass`, `log`, or `none` when nothing was decided.
    pub action: String,
    /// File of the policy.
    pub file: Option<String>,
    /// Line of the rule.
    pub line: Option<u32>,
    /// The reason in words.
    pub why: String,
}

/// What policy says of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether it may pass (as far as moat is concerned).
    pub allow: bool,
    /// Every step, the deciding one last.
    pub trace: Vec<Step>,
}

/// The verdict on one packet on its way through the host.
pub fn decide(policy: &HostPolicy, packet: &Packet, path: &Path) -> Verdict {
    let mut trace = Vec::new();
    let outcome = if policy.is_empty() {
        trace.push(Step {
            action: "allow".to_owned(),
            why: format!(
                "no endpoint belongs to node {}: nothing is enforced",
                policy.node
            ),
            ..Step::default()
        });
        Outcome::Continue
    } else {
        Walk {
            policy,
            packet: packet.clone(),
            trace: &mut trace,
        }
        .walk(path)
    };
    Verdict {
        allow: outcome != Outcome::Deny,
        trace,
    }
}

/// The way of one packet through the stages.
struct Walk<'a> {
    policy: &'a HostPolicy,
    /// As the stages to come see it.
    packet: Packet,
    trace: &'a mut Vec<Step>,
}

impl Walk<'_> {
    fn walk(&mut self, path: &Path) -> Outcome {
        match path {
            Path::In { iface } => self.input(iface),
            Path::Out { iface } => self.output(iface),
            Path::Forward {
                in_iface,
                out_iface,
            } => self.forward(in_iface, out_iface),
        }
    }

    fn input(&mut self, iface: &str) -> Outcome {
        let early = self.before_routing(iface);
        if early == Outcome::Deny {
            return early;
        }
        if self.policy.is_workload_iface(iface) {
            return self.workload_to_host(iface);
        }
        if early == Outcome::Accept {
            return early;
        }
        match governs_local(self.policy, iface, self.packet.dst) {
            Some(ep) => self.stage().host(ep, Category::Normal, Direction::Ingress),
            None => self.untouched(iface),
        }
    }

    fn output(&mut self, iface: &str) -> Outcome {
        if self.policy.is_workload_iface(iface) {
            self.stage().say(
                "allow",
                format!("traffic of the host to its own workload on {iface} is not policed"),
            );
            return Outcome::Continue;
        }
        // The raw stage sees the destination before DNAT of local traffic.
        if let Some(ep) = governs(self.policy, iface) {
            let seen = self.before_dnat();
            let outcome = Stage {
                policy: self.policy,
                packet: &seen,
                trace: self.trace,
            }
            .host(ep, Category::Untracked, Direction::Egress);
            if outcome != Outcome::Continue {
                return outcome;
            }
        }
        match governs_local(self.policy, iface, self.packet.src) {
            Some(ep) => self.stage().host(ep, Category::Normal, Direction::Egress),
            None => self.untouched(iface),
        }
    }

    fn forward(&mut self, in_iface: &str, out_iface: &str) -> Outcome {
        let early = self.before_routing(in_iface);
        if early == Outcome::Deny {
            return early;
        }
        if self.is_forged(in_iface) {
            return Outcome::Deny;
        }
        let governs_in = if early == Outcome::Accept {
            None
        } else {
            governs(self.policy, in_iface)
        };
        let mut outcomes = Vec::new();
        if let Some(ep) = governs_in {
            outcomes.push(self.stage().host(ep, Category::Forward, Direction::Ingress));
        }
        if !is_final(&outcomes) && self.policy.is_workload_iface(in_iface) {
            outcomes.push(self.workload(in_iface, Direction::Egress));
        }
        if !is_final(&outcomes) && self.policy.is_workload_iface(out_iface) {
            outcomes.push(self.workload(out_iface, Direction::Ingress));
        }
        if !is_final(&outcomes)
            && let Some(ep) = governs(self.policy, out_iface)
        {
            outcomes.push(self.stage().host(ep, Category::Forward, Direction::Egress));
        }
        if outcomes.iter().all(|o| *o == Outcome::Continue) && early != Outcome::Accept {
            self.stage().say(
                "allow",
                "no policy applies to this forwarded traffic: left to the host's own rules"
                    .to_owned(),
            );
        }
        outcomes.last().copied().unwrap_or(early)
    }

    /// Untracked policy, then preDNAT policy, of the interface a packet arrives on. Both see the original destination.
    fn before_routing(&mut self, iface: &str) -> Outcome {
        let seen = self.before_dnat();
        let Some(ep) = governs(self.policy, iface) else {
            return Outcome::Continue;
        };
        let mut stage = Stage {
            policy: self.policy,
            packet: &seen,
            trace: self.trace,
        };
        if !self.policy.is_workload_iface(iface) {
            let outcome = stage.host(ep, Category::Untracked, Direction::Ingress);
            if outcome == Outcome::Accept {
                // Whatever flow it belongs to, the stages behind do not know it.
                self.packet.conntrack = Conntrack::Untracked;
            }
            if outcome != Outcome::Continue {
                return outcome;
            }
        }
        match stage.host(ep, Category::PreDnat, Direction::Ingress) {
            // A known flow passes this stage; the stages behind accept it again.
            Outcome::Established => Outcome::Continue,
            outcome => outcome,
        }
    }

    fn workload_to_host(&mut self, iface: &str) -> Outcome {
        if Family::of(self.packet.src) == Family::V6
            && self.packet.proto == 58
            && matches!(self.packet.icmp, Some((130..=133 | 135 | 136, _)))
        {
            self.stage().say(
                "allow",
                format!("IPv6 discovery from the workload on {iface}"),
            );
            return Outcome::Accept;
        }
        if self.is_forged(iface) {
            return Outcome::Deny;
        }
        match self.workload(iface, Direction::Egress) {
            Outcome::Established => return Outcome::Established,
            Outcome::Deny => return Outcome::Deny,
            Outcome::Accept | Outcome::Continue => {}
        }
        match self.policy.options.workload_to_host {
            ToHost::Drop => {
                self.stage()
                    .say("deny", "defaultEndpointToHostAction is Drop".to_owned());
                Outcome::Deny
            }
            ToHost::Accept => {
                self.stage()
                    .say("allow", "defaultEndpointToHostAction is Accept".to_owned());
                Outcome::Accept
            }
            ToHost::Return => {
                self.stage().say(
                    "allow",
                    "defaultEndpointToHostAction is Return: left to the host's own rules"
                        .to_owned(),
                );
                Outcome::Continue
            }
        }
    }

    fn workload(&mut self, iface: &str, direction: Direction) -> Outcome {
        let Some(ep) = self.policy.workloads.get(iface) else {
            self.stage().say(
                "deny",
                format!("no workload endpoint is known for workload interface {iface}"),
            );
            return Outcome::Deny;
        };
        self.stage().workload(ep, direction)
    }

    fn is_forged(&mut self, iface: &str) -> bool {
        let workload = self.policy.workloads.get(iface);
        workload.is_some_and(|ep| self.stage().is_forged(ep))
    }

    fn untouched(&mut self, iface: &str) -> Outcome {
        self.stage().say(
            "allow",
            format!("no endpoint governs {iface}: left to the host's own rules"),
        );
        Outcome::Continue
    }

    fn before_dnat(&self) -> Packet {
        let mut seen = self.packet.clone();
        if let Some((dst, dport)) = seen.original.take() {
            seen.dst = dst;
            seen.dport = dport;
        }
        seen
    }

    fn stage(&mut self) -> Stage<'_> {
        Stage {
            policy: self.policy,
            packet: &self.packet,
            trace: self.trace,
        }
    }
}

/// The endpoint of an interface: its own, or the `*` endpoint. Loopback is governed only by an endpoint that names it.
fn governs<'p>(policy: &'p HostPolicy, iface: &str) -> Option<&'p HostEp> {
    policy
        .named(iface)
        .or_else(|| if iface == "lo" { None } else { policy.others() })
}

/// Like [`governs`] for local traffic, where an endpoint that waits for an interface governs its addresses.
fn governs_local<'p>(policy: &'p HostPolicy, iface: &str, own: IpAddr) -> Option<&'p HostEp> {
    if iface == "lo" {
        return policy.named(iface);
    }
    let by_address = || {
        policy
            .endpoints
            .values()
            .find(|e| e.attach.addresses.contains(&own))
            .map(|e| &**e)
    };
    policy
        .named(iface)
        .or_else(by_address)
        .or_else(|| policy.others())
}

fn is_final(outcomes: &[Outcome]) -> bool {
    matches!(outcomes.last(), Some(Outcome::Deny | Outcome::Established))
}
