//! Whether one rule matches one packet.

use std::net::IpAddr;

use super::Packet;
use crate::api::{Family, Icmp, Protocol};
use crate::calc::{HostPolicy, Rule, Side};

/// Whether every condition of the rule holds.
pub fn rule_matches(policy: &HostPolicy, rule: &Rule, packet: &Packet) -> bool {
    rule.never.is_none()
        && rule.family.is_none_or(|f| f == Family::of(packet.src))
        && rule.protocol.is_none_or(|p| p.0 == packet.proto)
        && rule.not_protocol.is_none_or(|p| p.0 != packet.proto)
        && icmp_holds(rule, packet)
        && side_matches(policy, &rule.source, packet, packet.src, packet.sport)
        && side_matches(policy, &rule.destination, packet, packet.dst, packet.dport)
}

/// ICMP conditions bind the rule to the family whose ICMP the protocol is.
fn icmp_holds(rule: &Rule, packet: &Packet) -> bool {
    if rule.icmp.is_none() && rule.not_icmp.is_none() {
        return true;
    }
    let native = match Family::of(packet.src) {
        Family::V4 => Protocol::ICMP,
        Family::V6 => Protocol::ICMPV6,
    };
    packet.proto == native.0
        && rule.icmp.is_none_or(|i| icmp_is(i, packet))
        && rule.not_icmp.is_none_or(|i| !icmp_is(i, packet))
}

fn icmp_is(icmp: Icmp, packet: &Packet) -> bool {
    let Some((kind, code)) = packet.icmp else {
        return false;
    };
    icmp.kind.is_none_or(|k| k == kind) && icmp.code.is_none_or(|c| c == code)
}

fn side_matches(
    policy: &HostPolicy,
    side: &Side,
    packet: &Packet,
    addr: IpAddr,
    port: Option<u16>,
) -> bool {
    let in_set = |id| policy.sets.get(id).is_some_and(|s| s.contains(addr));
    let in_named = |id| {
        port.is_some_and(|p| {
            policy
                .sets
                .get(id)
                .is_some_and(|s| s.contains_port(addr, Protocol(packet.proto), p))
        })
    };
    let in_ranges = |ranges: &[crate::api::PortRange]| {
        port.is_some_and(|p| ranges.iter().any(|r| r.contains(p)))
    };
    let any_port = side.ports.is_empty() && side.named.is_empty();
    (any_port || in_ranges(&side.ports) || side.named.iter().any(in_named))
        && (side.nets.is_empty() || side.nets.iter().any(|n| n.contains(&addr)))
        && !side.not_nets.iter().any(|n| n.contains(&addr))
        && side.sets.iter().all(in_set)
        && !side.not_sets.iter().any(in_set)
        && !in_ranges(&side.not_ports)
        && !side.not_named.iter().any(in_named)
}
