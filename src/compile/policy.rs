//! Policy rules to kernel rules: one to one wherever the kernel can express it, cheap matches first.

use ipnet::IpNet;

use super::Options;
use super::names::qualified;
use super::ruleset::{End, KRule, Match, Name, Target};
use super::sets::Sets;
use crate::api::{Action, Family, Kind, PortRange, Protocol};
use crate::calc::{Direction, Rule, RuleLists, SetId, Side};

/// Slots of a multiport match; a range takes two.
const MULTIPORT_SLOTS: usize = 15;
/// The kernel's limit for log prefixes without the terminating zero.
const LOG_PREFIX_MAX: usize = 29;

/// What the actions of rules become.
#[derive(Clone, Debug)]
pub(super) struct Targets {
    pub(super) allow: Target,
    pub(super) pass: Target,
    pub(super) deny: Target,
}

/// Writes the rules of policies and profiles for one family.
pub(super) struct Writer<'a> {
    pub(super) options: &'a Options,
    pub(super) targets: &'a Targets,
    pub(super) family: Family,
    pub(super) sets: &'a mut Sets,
}

impl Writer<'_> {
    /// The rules of a policy or profile in one direction. `notes` has one for each.
    pub(super) fn chain(
        &mut self,
        lists: &RuleLists,
        direction: Direction,
        notes: &[Name],
    ) -> Vec<KRule> {
        let rules = lists.rules(direction).iter().zip(notes);
        rules
            .flat_map(|(rule, note)| self.rule(lists, rule, note))
            .collect()
    }

    /// Ports by number and by name are alternatives that one kernel rule cannot express, so such a rule becomes several with the
    /// same action; every other rule becomes one, or none where its family or protocol rules this family out.
    fn rule(&mut self, lists: &RuleLists, rule: &Rule, note: &Name) -> Vec<KRule> {
        let elsewhere = rule.family.is_some_and(|f| f != self.family);
        if rule.never.is_some() || elsewhere || excludes_all(rule) {
            return Vec::new();
        }
        let Some(protocol) = self.protocol(rule) else {
            return Vec::new();
        };
        let target = self.target(lists, rule);
        let (source, destination) = (
            ports_of(&rule.source, rule.protocol),
            ports_of(&rule.destination, rule.protocol),
        );
        let mut rules = Vec::new();
        for source_ports in &source {
            for destination_ports in &destination {
                let mut matches = protocol.clone();
                self.side(End::Src, &rule.source, source_ports, &mut matches);
                self.side(End::Dst, &rule.destination, destination_ports, &mut matches);
                matches.sort_by_key(cost);
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
            Action::Allow => self.targets.allow.clone(),
            Action::Pass => self.targets.pass.clone(),
            Action::Deny => self.targets.deny.clone(),
            Action::Log => Target::Log(log_prefix(&self.options.log_prefix, lists).into()),
        }
    }

    fn side(&mut self, end: End, side: &Side, ports: &PortChoice<'_>, matches: &mut Vec<Match>) {
        let family = self.family;
        self.nets(end, &side.nets, false, matches);
        // iptables takes one source and one destination option in a rule: a second prefix must be a set.
        let has_net = matches
            .iter()
            .any(|m| matches!(m, Match::Net(e, ..) if *e == end));
        if has_net && !side.not_nets.is_empty() {
            let name = self.sets.nets(&side.not_nets, family);
            matches.push(Match::Set(end, name, true));
        } else {
            self.nets(end, &side.not_nets, true, matches);
        }
        match ports {
            PortChoice::Any => {}
            PortChoice::Numbers(ranges) => matches.push(self.ports(end, ranges)),
            PortChoice::Named(id) => {
                matches.push(Match::PortSet(end, self.sets.policy(id, family), false))
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
                matches.push(Match::Set(end, self.sets.policy(id, family), negated));
            }
        }
        for id in &side.not_named {
            matches.push(Match::PortSet(end, self.sets.policy(id, family), true));
        }
    }

    /// One prefix is compared in place, several are a set.
    fn nets(&mut self, end: End, nets: &[IpNet], negated: bool, matches: &mut Vec<Match>) {
        match IpNet::aggregate(&nets.to_vec()).as_slice() {
            [] => {}
            [one] if one.prefix_len() == 0 && !negated => {}
            [one] => matches.push(Match::Net(end, *one, negated)),
            _ => {
                let name = self.sets.nets(nets, self.family);
                matches.push(Match::Set(end, name, negated));
            }
        }
    }

    /// Up to 15 slots are a multiport match, more are a set.
    fn ports(&mut self, end: End, ranges: &[PortRange]) -> Match {
        match chunks(ranges).as_slice() {
            [chunk] => Match::Ports(end, chunk.as_slice().into(), false),
            _ => Match::Set(end, self.sets.ports(ranges, self.family), false),
        }
    }
}

/// Matches in the order of what they cost the kernel: fields of the packet, then sets.
fn cost(m: &Match) -> u8 {
    match m {
        Match::Protocol(..) => 0,
        Match::Ports(End::Dst, ..) => 1,
        Match::Ports(End::Src, ..) | Match::Icmp(..) => 2,
        Match::Set(..) | Match::PortSet(..) => 4,
        _ => 3,
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
pub(super) fn chunks(ranges: &[PortRange]) -> Vec<Vec<PortRange>> {
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
pub(super) fn merge_ranges(ranges: &[PortRange]) -> Vec<PortRange> {
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

/// The notes of the rules of one direction: where each comes from.
pub(super) fn notes(lists: &RuleLists, direction: Direction) -> Vec<Name> {
    let owner = match lists.id.kind {
        Kind::Profile => format!("profile={}", lists.id.name),
        _ => format!("tier={} policy={}", lists.tier, qualified(&lists.id)),
    };
    let note = |rule: &Rule| {
        let annotations: String = rule
            .annotations
            .iter()
            .map(|(k, v)| format!(" {k}={v}"))
            .collect();
        format!("{owner} {}[{}]{annotations}", direction.word(), rule.index).into()
    };
    lists.rules(direction).iter().map(note).collect()
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
