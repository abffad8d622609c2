//! Warnings about valid policies that hardly do what their author meant.

use ipnet::IpNet;

use super::at::{At, Fields, Message};
use crate::api::net::{Family, Port, Protocol};
use crate::api::types::{Action, Entity, Policy, Rule};

/// Warns about a policy without errors.
pub fn policy(fields: &Fields<'_>, policy: &Policy) {
    if policy.selector.never_matches()
        && let Some(at) = fields.get("selector")
    {
        at.warn("can never match, so the policy applies to no endpoint");
    }
    direction(
        fields,
        "ingress",
        "Ingress",
        &policy.ingress,
        policy.applies_ingress,
    );
    direction(
        fields,
        "egress",
        "Egress",
        &policy.egress,
        policy.applies_egress,
    );
    let ingress = policy.ingress.iter().filter(|_| policy.applies_ingress);
    let egress = policy.egress.iter().filter(|_| policy.applies_egress);
    let mut active = ingress.chain(egress).peekable();
    if active.peek().is_some() && active.all(|rule| rule.action == Action::Log) {
        let text = "every rule only logs: traffic that no later policy of the tier decides meets the tier's default action";
        let help = "end with an Allow, Deny or Pass rule".to_owned();
        fields.at.warn(Message::with(text, help));
    }
}

fn direction(fields: &Fields<'_>, name: &'static str, kind: &str, list: &[Rule], active: bool) {
    match fields.get(name) {
        Some(at) if !active && !list.is_empty() => at.warn(Message::with(
            "rules in a direction that types does not list are inactive",
            format!("add {kind} to types"),
        )),
        _ => rules(fields, name, list),
    }
}

/// Warns about the rules of one direction. `rules` are those of the list `name`, one for one.
pub fn rules(fields: &Fields<'_>, name: &'static str, rules: &[Rule]) {
    let Some(list) = fields.get(name) else { return };
    let Some(items) = list.items() else { return };
    let mut ended = None;
    for (n, (rule, node)) in rules.iter().zip(items).enumerate() {
        let at = list.item(n, node);
        if let Some(by) = ended {
            let rest = match items.len() - n {
                1 => "it has".to_owned(),
                more => format!("it and {} more have", more - 1),
            };
            let before = format!("is never reached: {name}[{by}] decides all traffic before");
            at.warn(format!("{before}, so {rest} no effect"));
            return;
        }
        empty_matches(&at);
        if rule.has_http {
            at.warn("has an http match, which a packet filter cannot see: the rule never matches");
        } else if let Some(why) = why_never(rule) {
            at.warn(format!("can never match: {why}"));
        } else if rule.action != Action::Log && is_unconditional(rule) {
            ended = Some(n);
        }
    }
}

/// A match that is there and empty restricts nothing, which widens a rule when a template had no value for it.
fn empty_matches(rule: &At<'_>) {
    for (side, node) in rule.entries().unwrap_or_default() {
        let matches = ["source", "destination"].contains(&&*side.name);
        let side = rule.entry(&side.name, node);
        for (key, node) in node.entries().filter(|_| matches).unwrap_or_default() {
            let at = side.entry(&key.name, node);
            if node.is_null() || node.text() == Some("") || at.is_empty_list() {
                at.warn("is empty, so it restricts nothing");
            }
        }
    }
}

fn is_unconditional(rule: &Rule) -> bool {
    let open = |e: &Entity| {
        e.nets.is_empty()
            && e.not_nets.is_empty()
            && e.ports.is_empty()
            && e.not_ports.is_empty()
            && e.selector.is_none()
            && e.not_selector.is_none()
            && e.namespace_selector.is_none()
            && e.service_accounts.is_none()
            && e.services.is_none()
    };
    rule.ip_version.is_none()
        && rule.protocol.is_none()
        && rule.not_protocol.is_none()
        && rule.icmp.is_none()
        && rule.not_icmp.is_none()
        && !rule.has_http
        && open(&rule.source)
        && open(&rule.destination)
}

/// Why a rule can never match, when that can be seen from the rule alone.
fn why_never(rule: &Rule) -> Option<&'static str> {
    if rule.protocol.is_some() && rule.protocol == rule.not_protocol {
        return Some("protocol and notProtocol are the same");
    }
    if rule.icmp.is_some() && rule.icmp == rule.not_icmp {
        return Some("icmp and notICMP are the same");
    }
    let family = match rule.protocol {
        Some(Protocol::ICMP) => Some(Family::V4),
        Some(Protocol::ICMPV6) => Some(Family::V6),
        _ => None,
    };
    [&rule.source, &rule.destination]
        .into_iter()
        .find_map(|entity| never_entity(entity, family))
}

fn never_entity(entity: &Entity, family: Option<Family>) -> Option<&'static str> {
    let accounts = entity
        .service_accounts
        .as_ref()
        .and_then(|accounts| accounts.selector.as_ref());
    let selectors = [
        entity.selector.as_ref(),
        entity.namespace_selector.as_ref(),
        accounts,
    ];
    if selectors
        .into_iter()
        .flatten()
        .any(|selector| selector.never_matches())
    {
        return Some("its selector matches nothing");
    }
    if family.is_some_and(|family| entity.nets.iter().any(|net| Family::of_net(net) != family)) {
        return Some("its protocol and its prefixes are of different IP versions");
    }
    let excluded = |net: &IpNet| entity.not_nets.iter().any(|not| not.contains(net));
    if !entity.nets.is_empty() && entity.nets.iter().all(excluded) {
        return Some("notNets excludes all of nets");
    }
    if !entity.ports.is_empty()
        && entity
            .ports
            .iter()
            .all(|port| is_excluded(port, &entity.not_ports))
    {
        return Some("notPorts excludes all of ports");
    }
    None
}

fn is_excluded(port: &Port, not_ports: &[Port]) -> bool {
    not_ports.iter().any(|not| match (port, not) {
        (Port::Range(port), Port::Range(not)) => not.first <= port.first && port.last <= not.last,
        (port, not) => port == not,
    })
}
