//! Policy rules with their selectors turned into IP sets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::effective::side_selectors;
use super::ipset::SetId;
use super::model::{Rule, RuleLists, Side};
use super::sets::{SetNumber, Sets};
use crate::api::{
    self, Action, Entity, Family, Origin, Policy, Port, Profile, Protocol, ResourceId,
};
use crate::selector::Selector;

/// The rules of one resource and the sets that they name.
#[derive(Debug)]
pub struct Named {
    /// Shared with the host policy when they are in force.
    pub lists: Arc<RuleLists>,
    /// Each once.
    pub sets: Box<[SetNumber]>,
}

/// Collects the sets that rules name.
struct Namer<'a> {
    owner: &'a ResourceId,
    sets: &'a mut Sets,
    named: BTreeSet<SetNumber>,
}

impl Namer<'_> {
    /// The shared id of a set.
    fn id(&mut self, id: SetId, selector: &Selector) -> SetId {
        let number = self.sets.name(id, selector);
        if !self.named.insert(number) {
            self.sets.unname(number);
        }
        self.sets.id(number).clone()
    }

    fn selected(&mut self, selector: Option<Selector>) -> Box<[SetId]> {
        let id = selector.map(|s| self.id(SetId::Selector(s.text()), &s));
        id.into_iter().collect()
    }
}

/// The rules of a policy.
pub fn policy_rules(
    id: &Arc<ResourceId>,
    origin: &Origin,
    policy: &Policy,
    sets: &mut Sets,
) -> Named {
    // Rules of a direction that `types` does not list are inactive (facts 1.3).
    let active = |applies: bool, rules| if applies { rules } else { &[][..] };
    let ingress = active(policy.applies_ingress, &policy.ingress[..]);
    let egress = active(policy.applies_egress, &policy.egress[..]);
    named(id, &policy.tier, origin, [ingress, egress], sets)
}

/// The rules of a profile.
pub fn profile_rules(
    id: &Arc<ResourceId>,
    origin: &Origin,
    profile: &Profile,
    sets: &mut Sets,
) -> Named {
    named(id, "", origin, [&profile.ingress, &profile.egress], sets)
}

fn named(
    id: &Arc<ResourceId>,
    tier: &str,
    origin: &Origin,
    directions: [&[api::Rule]; 2],
    sets: &mut Sets,
) -> Named {
    let mut namer = Namer {
        owner: id,
        sets,
        named: BTreeSet::new(),
    };
    let [ingress, egress] = directions.map(|rules| convert_all(rules, &mut namer));
    Named {
        sets: namer.named.into_iter().collect(),
        lists: Arc::new(RuleLists {
            id: id.clone(),
            tier: tier.to_owned(),
            origin: origin.clone(),
            ingress,
            egress,
        }),
    }
}

/// Name of the built-in profile that allows everything.
pub const DEFAULT_ALLOW: &str = "projectcalico-default-allow";

/// A profile that is not in the store: the built-in one allows, any other denies both ways until it appears (facts 3.3).
pub fn absent_profile(id: &Arc<ResourceId>) -> Named {
    let action = if id.name == DEFAULT_ALLOW {
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
    let lists = RuleLists {
        id: id.clone(),
        tier: String::new(),
        origin: Origin {
            file: file.into(),
            line: 0,
        },
        ingress: vec![rule.clone()],
        egress: vec![rule],
    };
    Named {
        lists: Arc::new(lists),
        sets: Box::default(),
    }
}

fn convert_all(rules: &[api::Rule], namer: &mut Namer<'_>) -> Vec<Rule> {
    rules
        .iter()
        .enumerate()
        .map(|(index, rule)| convert(index, rule, namer))
        .collect()
}

fn convert(index: usize, rule: &api::Rule, namer: &mut Namer<'_>) -> Rule {
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
        source: side(&rule.source, rule.protocol, namer),
        destination: side(&rule.destination, rule.protocol, namer),
        never: never(rule).map(Into::into),
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

fn side(entity: &Entity, protocol: Option<Protocol>, namer: &mut Namer<'_>) -> Side {
    let selectors = side_selectors(namer.owner, entity);
    let scope = selectors.positive.clone();
    let mut named = |ports| named_ports(ports, scope.as_ref(), protocol, namer);
    let (named, not_named) = (named(&entity.ports), named(&entity.not_ports));
    Side {
        nets: entity.nets.as_slice().into(),
        not_nets: entity.not_nets.as_slice().into(),
        sets: namer.selected(selectors.positive),
        not_sets: namer.selected(selectors.negative),
        ports: ranges(&entity.ports),
        named,
        not_ports: ranges(&entity.not_ports),
        not_named,
    }
}

fn ranges(ports: &[Port]) -> Box<[api::PortRange]> {
    let range = |port: &Port| match port {
        Port::Range(range) => Some(*range),
        Port::Named(_) => None,
    };
    ports.iter().filter_map(range).collect()
}

/// The sets of the ports that are given by name, of the endpoints in scope or of all.
fn named_ports(
    ports: &[Port],
    scope: Option<&Selector>,
    protocol: Option<Protocol>,
    namer: &mut Namer<'_>,
) -> Box<[SetId]> {
    let set = |port: &Port| match port {
        Port::Range(_) => None,
        Port::Named(name) => {
            let scope = scope.cloned().unwrap_or_else(Selector::all);
            let id = SetId::NamedPort {
                selector: scope.text(),
                protocol,
                port: name.as_str().into(),
            };
            Some(namer.id(id, &scope))
        }
    };
    ports.iter().filter_map(set).collect()
}
