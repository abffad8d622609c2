//! Policy rules to kernel rules: one to one wherever the kernel can express it, cheap matches first.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use super::members::storable;
use super::names;
use super::ruleset::{End, KRule, Match, Member, Name, SetContent, SetKind, SetSpec, Target};
use super::{ALLOW_CHAIN, Compiler, PASS_CHAIN};
use crate::api::{Action, Family, Kind, PortRange, Protocol, ResourceId};
use crate::calc::{Direction, Rule, RuleLists, SetId, Side};

/// Slots of a multiport match; a range takes two.
const MULTIPORT_SLOTS: usize = 15;
/// The kernel's limit for log prefixes without the terminating zero.
const LOG_PREFIX_MAX: usize = 29;

impl Compiler<'_> {
    /// The chain of a policy or profile in one direction and family.
    pub(super) fn rules_chain(&mut self, lists: &RuleLists, direction: Direction) -> Vec<KRule> {
        lists
            .rules(direction)
            .iter()
            .flat_map(|rule| self.rule(lists, direction, rule))
            .collect()
    }

    /// Ports by number and by name are alternatives that one kernel rule cannot express, so such a rule becomes several with the
    /// same action; every other rule becomes one, or none where its family or protocol rules this family out.
    fn rule(&mut self, lists: &RuleLists, direction: Direction, rule: &Rule) -> Vec<KRule> {
        let elsewhere = rule.family.is_some_and(|f| f != self.family);
        if rule.never.is_some() || elsewhere || excludes_all(rule) {
            return Vec::new();
        }
        let Some(protocol) = self.protocol(rule) else {
            return Vec::new();
        };
        let target = self.target(lists, rule);
        let note: Name = note(lists, direction, rule).into();
        let (source, destination) = (
            ports_of(&rule.source, rule.protocol),
            ports_of(&rule.destination, rule.protocol),
        );
        let mut rules = Vec::new();
        for source_ports in &source {
            for destination_ports in &destination {
                let mut matches = protocol.clone();
                // Addresses and ports are compared in place; sets are looked up after them.
                let mut lookups = Vec::new();
                self.side(
                    End::Src,
                    &rule.source,
                    source_ports,
                    &mut matches,
                    &mut lookups,
                );
                self.side(
                    End::Dst,
                    &rule.destination,
                    destination_ports,
                    &mut matches,
                    &mut lookups,
                );
                matches.append(&mut lookups);
                rules.push(KRule::new(matches, target.clone(), note.clone()));
            }
        }
        rules
    }

    /// Protocol and ICMP conditions; `None` when nothing of this family can match.
    fn protocol(&self, rule: &Rule) -> Option<Vec<Match>> {
        let native_icmp = match self.family {
            Family::V4 => Protocol::ICMP,
            Family::V6 => Protocol::ICMPV6,
        };
        let mut matches = Vec::new();
        match (rule.protocol, rule.not_protocol) {
            (Some(p), Some(not)) if p == not => return None,
            (Some(p), _) => matches.push(Match::Protocol(p, false)),
            (None, Some(not)) => matches.push(Match::Protocol(not, true)),
            (None, None) => {}
        }
        if rule.icmp.is_none() && rule.not_icmp.is_none() {
            return Some(matches);
        }
        match rule.protocol {
            Some(p) if p != native_icmp => return None,
            Some(_) => {}
            None => matches = vec![Match::Protocol(native_icmp, false)],
        }
        for (icmp, negated) in [(rule.icmp, false), (rule.not_icmp, true)] {
            match icmp {
                None => {}
                Some(icmp) => match icmp.kind {
                    Some(kind) => matches.push(Match::Icmp(kind, icmp.code, negated)),
                    // Any type: nothing to add, and nothing left when negated.
                    None if negated => return None,
                    None => {}
                },
            }
        }
        Some(matches)
    }

    fn target(&self, lists: &RuleLists, rule: &Rule) -> Target {
        match rule.action {
            Action::Allow => Target::Goto(ALLOW_CHAIN.into()),
            Action::Pass => Target::Goto(PASS_CHAIN.into()),
            Action::Deny => self.deny(),
            Action::Log => Target::Log(log_prefix(&self.options.log_prefix, lists).into()),
        }
    }

    fn side(
        &mut self,
        end: End,
        side: &Side,
        ports: &PortChoice<'_>,
        matches: &mut Vec<Match>,
        lookups: &mut Vec<Match>,
    ) {
        let family = self.family;
        self.nets(end, &side.nets, false, matches, lookups);
        // iptables takes one source and one destination option in a rule: a second prefix must be a set.
        let has_net = matches
            .iter()
            .any(|m| matches!(m, Match::Net(e, ..) if *e == end));
        if has_net && !side.not_nets.is_empty() {
            let name = self.nets_set(&side.not_nets);
            lookups.push(Match::Set(end, name, true));
        } else {
            self.nets(end, &side.not_nets, true, matches, lookups);
        }
        match ports {
            PortChoice::Any => {}
            PortChoice::Numbers(ranges) => self.ports(end, ranges, matches, lookups),
            PortChoice::Named(id) => {
                lookups.push(Match::PortSet(end, self.policy_set(id, family), false))
            }
        }
        // None of a long list: none of each part.
        matches.extend(
            chunks(&merge_ranges(&side.not_ports))
                .into_iter()
                .map(|c| Match::Ports(end, c.into(), true)),
        );
        for (ids, negated) in [(&side.sets, false), (&side.not_sets, true)] {
            for id in ids {
                lookups.push(Match::Set(end, self.policy_set(id, family), negated));
            }
        }
        for id in &side.not_named {
            lookups.push(Match::PortSet(end, self.policy_set(id, family), true));
        }
    }

    /// One prefix is compared in place, several are a set.
    fn nets(
        &mut self,
        end: End,
        nets: &[IpNet],
        negated: bool,
        matches: &mut Vec<Match>,
        lookups: &mut Vec<Match>,
    ) {
        let aggregated = IpNet::aggregate(&nets.to_vec());
        match aggregated.as_slice() {
            [] => {}
            [one] if one.prefix_len() == 0 && !negated => {}
            [one] => matches.push(Match::Net(end, *one, negated)),
            _ => {
                let name = self.nets_set(nets);
                lookups.push(Match::Set(end, name, negated));
            }
        }
    }

    pub(super) fn nets_set(&mut self, nets: &[IpNet]) -> Name {
        let nets: BTreeSet<IpNet> = IpNet::aggregate(&nets.to_vec()).into_iter().collect();
        let text = nets
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(",");
        let name: Name = names::constant_set("nets", &text, self.family).into();
        let members = nets
            .into_iter()
            .flat_map(storable)
            .map(Member::Net)
            .collect();
        self.add_set(
            &name,
            SetKind::Nets,
            SetContent::Constant(members),
            "CIDR list",
        );
        name
    }

    /// Up to 15 slots are a multiport match, more are a set.
    fn ports(
        &mut self,
        end: End,
        ranges: &[PortRange],
        matches: &mut Vec<Match>,
        lookups: &mut Vec<Match>,
    ) {
        if let [chunk] = chunks(ranges).as_slice() {
            matches.push(Match::Ports(end, chunk.as_slice().into(), false));
            return;
        }
        let text = ranges
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(",");
        let name: Name = names::constant_set("ports", &text, self.family).into();
        let members = ranges
            .iter()
            .flat_map(|r| r.first..=r.last)
            .map(Member::Port)
            .collect();
        self.add_set(
            &name,
            SetKind::Ports,
            SetContent::Constant(members),
            "port list",
        );
        lookups.push(Match::Set(end, name, false));
    }

    /// The name of a set of the policy, which is thereby part of the ruleset.
    fn policy_set(&mut self, id: &SetId, family: Family) -> Name {
        let name: Name = names::set(id, family).into();
        if self.ruleset.sets.contains_key(&name) {
            return name;
        }
        let (kind, note) = match id {
            SetId::Selector(selector) => (SetKind::Nets, selector.to_string()),
            SetId::NamedPort { selector, port, .. } => {
                (SetKind::AddrPorts, format!("port {port} of {selector}"))
            }
        };
        self.add_set(&name, kind, SetContent::Policy(vec![id.clone()]), &note);
        name
    }

    fn add_set(&mut self, name: &Name, kind: SetKind, content: SetContent, note: &str) {
        let family = self.family;
        let spec = || {
            Arc::new(SetSpec {
                family,
                kind,
                content,
                note: note.into(),
            })
        };
        self.ruleset.sets.entry(name.clone()).or_insert_with(spec);
    }
}

/// Whether no address is left on a side. The tools refuse, or take for nothing said, the negated prefix of length zero.
fn excludes_all(rule: &Rule) -> bool {
    let is_all = |side: &Side| {
        IpNet::aggregate(&side.not_nets.to_vec())
            .iter()
            .any(|n| n.prefix_len() == 0)
    };
    is_all(&rule.source) || is_all(&rule.destination)
}

/// The alternatives of a positive port list.
enum PortChoice<'a> {
    Any,
    Numbers(Vec<PortRange>),
    Named(&'a SetId),
}

fn ports_of(side: &Side, protocol: Option<Protocol>) -> Vec<PortChoice<'_>> {
    let merged = merge_ranges(&side.ports);
    // Sets of ports know TCP and UDP only: a long list of another protocol is several multiport matches.
    let numbers = match protocol {
        Some(Protocol::TCP | Protocol::UDP) if !merged.is_empty() => vec![merged],
        _ => chunks(&merged),
    };
    let numbers = numbers.into_iter().map(PortChoice::Numbers);
    let choices: Vec<_> = numbers
        .chain(side.named.iter().map(PortChoice::Named))
        .collect();
    if choices.is_empty() {
        vec![PortChoice::Any]
    } else {
        choices
    }
}

/// Ranges in parts that each fit a multiport match.
fn chunks(ranges: &[PortRange]) -> Vec<Vec<PortRange>> {
    let mut chunks: Vec<Vec<PortRange>> = Vec::new();
    let mut free = 0;
    for range in ranges {
        let slots = if range.first == range.last { 1 } else { 2 };
        match chunks.last_mut() {
            Some(chunk) if slots <= free => chunk.push(*range),
            _ => {
                chunks.push(vec![*range]);
                free = MULTIPORT_SLOTS;
            }
        }
        free -= slots;
    }
    chunks
}

/// Sorted ranges without overlaps or touching neighbours.
fn merge_ranges(ranges: &[PortRange]) -> Vec<PortRange> {
    let mut sorted = ranges.to_vec();
    sorted.sort();
    let mut merged: Vec<PortRange> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => {
                last.last = last.last.max(range.last)
            }
            _ => merged.push(range),
        }
    }
    merged
}

fn note(lists: &RuleLists, direction: Direction, rule: &Rule) -> String {
    let owner = match lists.id.kind {
        Kind::Profile => format!("profile={}", lists.id.name),
        _ => format!("tier={} policy={}", lists.tier, qualified(&lists.id)),
    };
    let annotations: String = rule
        .annotations
        .iter()
        .map(|(k, v)| format!(" {k}={v}"))
        .collect();
    format!("{owner} {}[{}]{annotations}", direction.word(), rule.index)
}

fn qualified(id: &ResourceId) -> String {
    if id.namespace.is_empty() {
        id.name.clone()
    } else {
        format!("{}/{}", id.namespace, id.name)
    }
}

/// Calico's prefix with its specifiers (facts 3.12), cut to what the kernel takes.
fn log_prefix(template: &str, lists: &RuleLists) -> String {
    let short_kind = match lists.id.kind {
        Kind::Profile => "pro",
        Kind::NetworkPolicy => "np",
        _ => "gnp",
    };
    let text = template
        .replace("%t", &lists.tier)
        .replace("%k", short_kind)
        .replace("%n", &lists.id.name)
        .replace("%p", &qualified(&lists.id));
    let text: String = text
        .chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .filter(|c| !matches!(c, '"' | '\\'))
        .collect();
    let cut: String = text.chars().take(LOG_PREFIX_MAX - 2).collect();
    format!("{cut}: ")
}
