//! The part of a host policy that can decide some packets: the same verdict from fewer rules.
//!
//! Judging a hundred thousand flows by ten thousand rules each would take a minute; most flows share a few destination ports, and
//! few rules can match a given port.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{Protocol, ResourceId};
use crate::calc::{Direction, HostEp, HostPolicy, Rule, RuleLists, TierBlock, WorkloadEp};

/// What packets have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Traffic {
    /// IP protocol number.
    pub proto: u8,
    /// Destination port after destination NAT.
    pub dport: Option<u16>,
    /// Destination port before it.
    pub original_dport: Option<u16>,
}

/// The host policy without the rules that can match no packet of this traffic.
pub fn prune(policy: &HostPolicy, traffic: Traffic) -> HostPolicy {
    let shorten = |lists: &Arc<RuleLists>| {
        let keep = |rules: &[Rule]| {
            let kept = rules.iter().filter(|r| may_match(r, traffic));
            kept.cloned().collect()
        };
        Arc::new(RuleLists {
            ingress: keep(&lists.ingress),
            egress: keep(&lists.egress),
            ..(**lists).clone()
        })
    };
    let policies: BTreeMap<Arc<ResourceId>, Arc<RuleLists>> = policy
        .policies
        .iter()
        .map(|(id, lists)| (id.clone(), shorten(lists)))
        .collect();
    let blocks = |blocks: &[TierBlock]| blocks.iter().map(|b| block(b, &policies)).collect();
    let host = |ep: &Arc<HostEp>| {
        let tiers = ep.tiers.iter().map(|(c, tiers)| (*c, blocks(tiers)));
        Arc::new(HostEp {
            tiers: tiers.collect(),
            ..(**ep).clone()
        })
    };
    let workload = |ep: &Arc<WorkloadEp>| {
        Arc::new(WorkloadEp {
            tiers: blocks(&ep.tiers),
            ..(**ep).clone()
        })
    };
    HostPolicy {
        node: policy.node.clone(),
        endpoints: map(&policy.endpoints, host),
        workloads: map(&policy.workloads, workload),
        profiles: map(&policy.profiles, shorten),
        sets: policy.sets.clone(),
        options: policy.options.clone(),
        policies,
    }
}

fn map<K: Ord + Clone, V>(from: &BTreeMap<K, V>, with: impl Fn(&V) -> V) -> BTreeMap<K, V> {
    from.iter().map(|(k, v)| (k.clone(), with(v))).collect()
}

/// A tier without the policies that have no rule left. One stays, since a tier in which some policy applies ends in its default.
fn block(block: &TierBlock, policies: &BTreeMap<Arc<ResourceId>, Arc<RuleLists>>) -> TierBlock {
    let keep = |direction: Direction| {
        let all = block.policies(direction);
        let has_rules = |id: &&Arc<ResourceId>| {
            let lists = policies.get(*id);
            lists.is_some_and(|lists| !lists.rules(direction).is_empty())
        };
        let mut kept: Vec<Arc<ResourceId>> = all.iter().filter(has_rules).cloned().collect();
        if kept.is_empty() {
            kept.extend(all.first().cloned());
        }
        kept
    };
    TierBlock {
        ingress: keep(Direction::Ingress),
        egress: keep(Direction::Egress),
        ..block.clone()
    }
}

/// Whether protocol and destination port let the rule match. Only what is certain rules it out.
fn may_match(rule: &Rule, traffic: Traffic) -> bool {
    let ports = &rule.destination;
    let ports_fit = |port: Option<u16>| {
        (ports.ports.is_empty() && ports.named.is_empty())
            || !ports.named.is_empty()
            || port.is_some_and(|p| ports.ports.iter().any(|range| range.contains(p)))
    };
    rule.protocol.is_none_or(|p| p.0 == traffic.proto)
        && rule.not_protocol != Some(Protocol(traffic.proto))
        && (ports_fit(traffic.dport) || ports_fit(traffic.original_dport))
}
