//! Policy rules with their selectors turned into IP sets.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::effective::side_selectors;
use super::model::{Rule, RuleLists, SetId, Side};
use crate::api::{
    self, Action, Entity, Family, Kind, Origin, Policy, Port, Profile, Protocol, ResourceId,
};
use crate::selector::Selector;

/// The sets that rule lists use, with the selector that decides membership.
pub type UsedSets = BTreeMap<SetId, Selector>;

/// The rules of a policy, and the sets they use.
pub fn policy_rules(id: &ResourceId, origin: &Origin, policy: &Policy) -> (RuleLists, UsedSets) {
    let mut used = UsedSets::new();
    // Rules of a direction that `types` does not list are inactive (facts 1.3).
    let ingress = if policy.applies_ingress {
        convert_all(id, &policy.ingress, &mut used)
    } else {
        Vec::new()
    };
    let egress = if policy.applies_egress {
        convert_all(id, &policy.egress, &mut used)
    } else {
        Vec::new()
    };
    let lists = RuleLists {
        id: id.clone(),
        tier: policy.tier.clone(),
        origin: origin.clone(),
        ingress,
        egress,
    };
    (lists, used)
}

/// The rules of a profile, and the sets they use.
pub fn profile_rules(id: &ResourceId, origin: &Origin, profile: &Profile) -> (RuleLists, UsedSets) {
    let mut used = UsedSets::new();
    let ingress = convert_all(id, &profile.ingress, &mut used);
    let egress = convert_all(id, &profile.egress, &mut used);
    (
        RuleLists {
            id: id.clone(),
            tier: String::new(),
            origin: origin.clone(),
            ingress,
            egress,
        },
        used,
    )
}

/// Name of the built-in profile that allows everything.
pub const DEFAULT_ALLOW: &str = "projectcalico-default-allow";

/// A profile that is not in the store: the built-in one allows, any other denies both ways until it appears (facts 3.3).
pub fn absent_profile(name: &str) -> RuleLists {
    let action = if name == DEFAULT_ALLOW {
        Action::Allow
    } else {
        Action::Deny
    };
    let rule = Rule {
        action,
        index: 0,
        line: 0,
        family: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: Side::default(),
        destination: Side::default(),
        never: None,
        annotations: BTreeMap::new(),
    };
    let file = if action == Action::Allow {
        "built in"
    } else {
        "missing profile"
    };
    RuleLists {
        id: ResourceId {
            kind: Kind::Profile,
            namespace: String::new(),
            name: name.to_owned(),
        },
        tier: String::new(),
        origin: Origin {
            file: file.into(),
            line: 0,
        },
        ingress: vec![rule.clone()],
        egress: vec![rule],
    }
}

fn convert_all(id: &ResourceId, rules: &[api::Rule], used: &mut UsedSets) -> Vec<Rule> {
    rules
        .iter()
        .enumerate()
        .map(|(index, rule)| convert(id, index, rule, used))
        .collect()
}

fn convert(id: &ResourceId, index: usize, rule: &api::Rule, used: &mut UsedSets) -> Rule {
    // Prefixes of one family bind the whole rule to it, negated ones too (facts 4.7: a list that filtering by family leaves
    // empty omits the rule for that family).
    let nets = [
        &rule.source.nets,
        &rule.source.not_nets,
        &rule.destination.nets,
        &rule.destination.not_nets,
    ];
    let by_nets = nets
        .iter()
        .flat_map(|l| l.iter())
        .next()
        .map(Family::of_net);
    Rule {
        action: rule.action,
        index,
        line: rule.line,
        family: rule.ip_version.or(by_nets),
        protocol: rule.protocol,
        not_protocol: rule.not_protocol,
        icmp: rule.icmp,
        not_icmp: rule.not_icmp,
        source: side(id, &rule.source, rule.protocol, used),
        destination: side(id, &rule.destination, rule.protocol, used),
        never: never(rule),
        annotations: rule.annotations.clone(),
    }
}

/// Conditions that this host has no data for match nothing: leaving them out would widen the rule.
fn never(rule: &api::Rule) -> Option<String> {
    if rule.has_http {
        return Some("a packet filter cannot see HTTP".to_owned());
    }
    let service = rule
        .source
        .services
        .as_ref()
        .or(rule.destination.services.as_ref())?;
    Some(format!(
        "no endpoints of service {}/{} are known",
        service.namespace, service.name
    ))
}

fn side(id: &ResourceId, entity: &Entity, protocol: Option<Protocol>, used: &mut UsedSets) -> Side {
    let selectors = side_selectors(id, entity);
    let scope = selectors.positive.clone().unwrap_or_else(Selector::all);
    let mut side = Side {
        nets: entity.nets.clone(),
        not_nets: entity.not_nets.clone(),
        ..Side::default()
    };
    if let Some(positive) = selectors.positive {
        side.sets.push(selector_set(&positive, used));
    }
    if let Some(negative) = selectors.negative {
        side.not_sets.push(selector_set(&negative, used));
    }
    (side.ports, side.named) = split_ports(&entity.ports, &scope, protocol, used);
    (side.not_ports, side.not_named) = split_ports(&entity.not_ports, &scope, protocol, used);
    side
}

fn selector_set(selector: &Selector, used: &mut UsedSets) -> SetId {
    let id = SetId::Selector(selector.canonical().into());
    used.insert(id.clone(), selector.clone());
    id
}

fn split_ports(
    ports: &[Port],
    scope: &Selector,
    protocol: Option<Protocol>,
    used: &mut UsedSets,
) -> (Vec<api::PortRange>, Vec<SetId>) {
    let mut ranges = Vec::new();
    let mut named = Vec::new();
    for port in ports {
        match port {
            Port::Range(range) => ranges.push(*range),
            Port::Named(name) => {
                let id = SetId::NamedPort {
                    selector: scope.canonical().into(),
                    protocol,
                    port: name.as_str().into(),
                };
                used.insert(id.clone(), scope.clone());
                named.push(id);
            }
        }
    }
    (ranges, named)
}

/// Rule lists in use with the sets they hold.
#[derive(Debug)]
pub struct ActiveRules {
    /// Shared with the host policy.
    pub lists: Arc<RuleLists>,
    /// To be released when the lists go.
    pub used: UsedSets,
}
