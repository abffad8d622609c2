//! Which of the flows that are under way the policy denies.

use std::collections::HashMap;
use std::net::IpAddr;

use super::prune::{Traffic, prune};
use super::{Conntrack, Packet, Path, decide};
use crate::calc::HostPolicy;
use crate::dataplane::conntrack::Tuple;
use crate::dataplane::links::Links;

/// More shortened policies than this are not kept.
const MAX_PRUNED: usize = 1024;

/// Judges flows by their first packet, as if it came now.
pub struct FlowJudge<'a, R> {
    policy: &'a HostPolicy,
    links: &'a Links,
    /// The interface towards an address.
    route: R,
    pruned: HashMap<Traffic, HostPolicy>,
}

impl<'a, R: FnMut(IpAddr) -> Option<String>> FlowJudge<'a, R> {
    /// A judge by this policy on a host with these interfaces.
    pub fn new(policy: &'a HostPolicy, links: &'a Links, route: R) -> FlowJudge<'a, R> {
        FlowJudge {
            policy,
            links,
            route,
            pruned: HashMap::new(),
        }
    }

    /// Whether the policy denies a flow with such a first packet and such answers. Flows of the host with itself, and those whose
    /// way nobody can tell, are left alone.
    pub fn denies(&mut self, original: &Tuple, reply: &Tuple) -> bool {
        let (from, to) = (original.src, reply.src);
        let path = match (self.is_own(from), self.is_own(to)) {
            (true, true) => return false,
            (false, true) => self.interface(from).map(|iface| Path::In { iface }),
            (true, false) => self.interface(to).map(|iface| Path::Out { iface }),
            (false, false) => {
                self.interface(from)
                    .zip(self.interface(to))
                    .map(|(in_iface, out_iface)| Path::Forward {
                        in_iface,
                        out_iface,
                    })
            }
        };
        let Some(path) = path else {
            return false;
        };
        let packet = first_packet(original, reply);
        !self.decide(&packet, &path)
    }

    fn decide(&mut self, packet: &Packet, path: &Path) -> bool {
        let traffic = Traffic {
            proto: packet.proto,
            dport: packet.dport,
            original_dport: packet.original.map_or(packet.dport, |(_, port)| port),
        };
        if self.pruned.len() >= MAX_PRUNED && !self.pruned.contains_key(&traffic) {
            self.pruned.clear();
        }
        let policy = self.policy;
        let pruned = self
            .pruned
            .entry(traffic)
            .or_insert_with(|| prune(policy, traffic));
        decide(pruned, packet, path).allow
    }

    fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.links.values().any(|l| l.addresses.contains(&address))
    }

    /// The interface towards an address. Where one endpoint governs all of them any will do, and the kernel is not asked.
    fn interface(&mut self, address: IpAddr) -> Option<String> {
        let mut endpoints = self.policy.endpoints.values();
        if let (Some(only), None) = (endpoints.next(), endpoints.next())
            && only.attach.others
            && only.attach.interfaces.is_empty()
            && self.policy.workloads.is_empty()
        {
            let is_other = |name: &&String| *name != "lo" && !self.policy.is_workload_iface(name);
            return self.links.keys().find(is_other).cloned();
        }
        (self.route)(address)
    }
}

/// The first packet of a flow after destination NAT, which the source of its answers tells.
fn first_packet(original: &Tuple, reply: &Tuple) -> Packet {
    let before = (original.dst, original.dport);
    let after = (reply.src, reply.sport.or(original.dport));
    Packet {
        src: original.src,
        dst: after.0,
        proto: original.proto,
        sport: original.sport,
        dport: after.1,
        icmp: original.icmp,
        hop_limit: 64,
        conntrack: Conntrack::New,
        original: (before != after).then_some(before),
    }
}
