//! Reads a ruleset as the kernel does: hooks in order, rule by rule.

use std::collections::BTreeSet;
use std::net::IpAddr;

use moat::api::{Family, PortRange, Protocol};
use moat::calc::HostPolicy;
use moat::compile::{End, KRule, Match, Member, Ruleset, Table, TableRules, Target};
use moat::verdict::{Conntrack, Packet, Path};

/// What ends a packet's way through one table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Accepted,
    Dropped,
}

struct Machine<'a> {
    ruleset: &'a Ruleset,
    policy: &'a HostPolicy,
    packet: Packet,
    in_iface: Option<&'a str>,
    out_iface: Option<&'a str>,
    mark: u32,
    translated: bool,
}

/// Whether a packet passes, on a host whose own rules accept everything.
pub fn passes(ruleset: &Ruleset, policy: &HostPolicy, packet: &Packet, path: &Path) -> bool {
    let (in_iface, out_iface) = match path {
        Path::In { iface } => (Some(iface.as_str()), None),
        Path::Out { iface } => (None, Some(iface.as_str())),
        Path::Forward {
            in_iface,
            out_iface,
        } => (Some(in_iface.as_str()), Some(out_iface.as_str())),
    };
    let mut before = packet.clone();
    if let Some((dst, port)) = before.original {
        (before.dst, before.dport) = (dst, port);
    }
    let mut machine = Machine {
        ruleset,
        policy,
        packet: before,
        in_iface,
        out_iface,
        // What another program left behind; the bit that only translated packets carry must not be among it.
        mark: if packet.original.is_some() {
            0x3_0000
        } else {
            u32::MAX
        },
        translated: packet.original.is_some(),
    };
    let (early, late) = match path {
        Path::In { .. } => ("PREROUTING", vec![(Table::Filter, "INPUT")]),
        Path::Out { .. } => (
            "OUTPUT",
            vec![(Table::Filter, "OUTPUT"), (Table::Mangle, "POSTROUTING")],
        ),
        Path::Forward { .. } => (
            "PREROUTING",
            vec![(Table::Filter, "FORWARD"), (Table::Mangle, "POSTROUTING")],
        ),
    };
    let out_iface = machine.out_iface.take_if(|_| early == "PREROUTING");
    if !machine.table(Table::Raw, early) || !machine.table(Table::Mangle, early) {
        return false;
    }
    machine.out_iface = machine.out_iface.or(out_iface);
    (machine.packet.dst, machine.packet.dport) = (packet.dst, packet.dport);
    late.into_iter().all(|(table, hook)| {
        if hook == "POSTROUTING" {
            machine.in_iface = None;
        }
        machine.table(table, hook)
    })
}

impl<'a> Machine<'a> {
    fn table(&mut self, table: Table, hook: &str) -> bool {
        let family = Family::of(self.packet.src);
        let Some(rules) = self.ruleset.tables.get(&family).and_then(|t| t.get(&table)) else {
            return true;
        };
        let hooks = rules.hooks.iter().filter(|h| h.chain == hook);
        for hook in hooks {
            match self.rule(rules, &hook.rule) {
                Step::End(end) => return end == Ended::Accepted,
                Step::Next => {}
                Step::Back => return true,
            }
        }
        true
    }

    fn chain(&mut self, rules: &'a TableRules, name: &str) -> Option<Ended> {
        for rule in rules.chains[name].iter() {
            match self.rule(rules, rule) {
                Step::End(end) => return Some(end),
                Step::Next => {}
                Step::Back => return None,
            }
        }
        None
    }

    fn rule(&mut self, rules: &'a TableRules, rule: &KRule) -> Step {
        if !rule.matches.iter().all(|m| self.holds(m)) {
            return Step::Next;
        }
        match &rule.target {
            Target::Accept => return Step::End(Ended::Accepted),
            Target::Drop | Target::Reject => return Step::End(Ended::Dropped),
            Target::Return => return Step::Back,
            Target::Jump(chain) => {
                if let Some(end) = self.chain(rules, chain) {
                    return Step::End(end);
                }
            }
            Target::Goto(chain) => {
                return self.chain(rules, chain).map_or(Step::Back, Step::End);
            }
            Target::SetMark(value, mask) => self.mark = self.mark & !mask | value,
            Target::NoTrack => self.packet.conntrack = Conntrack::Untracked,
            Target::Log(_) => {}
        }
        Step::Next
    }

    fn holds(&self, m: &Match) -> bool {
        let packet = &self.packet;
        match m {
            Match::InIface(name) => is_iface(name, self.in_iface),
            Match::OutIface(name) => is_iface(name, self.out_iface),
            Match::Protocol(p, not) => (p.0 == packet.proto) != *not,
            Match::Net(end, net, not) => net.contains(&self.addr(*end)) != *not,
            Match::Ports(end, ranges, not) => self.port(*end).is_some_and(|p| {
                assert!(slots(ranges) <= 15, "multiport takes 15");
                ranges.iter().any(|r| r.contains(p)) != *not
            }),
            Match::Set(end, name, not) => self.in_set(*end, name) != *not,
            Match::PortSet(end, name, not) => self.in_port_set(*end, name) != *not,
            Match::Icmp(kind, code, not) => packet
                .icmp
                .is_some_and(|(k, c)| (k == *kind && code.is_none_or(|x| x == c)) != *not),
            Match::Mark(value, mask, not) => (self.mark & mask == *value) != *not,
            Match::State(states) => states.split(',').any(|s| self.is_state(s)),
            Match::HopLimit(limit) => packet.hop_limit == *limit,
        }
    }

    fn addr(&self, end: End) -> IpAddr {
        match end {
            End::Src => self.packet.src,
            End::Dst => self.packet.dst,
        }
    }

    fn port(&self, end: End) -> Option<u16> {
        match end {
            End::Src => self.packet.sport,
            End::Dst => self.packet.dport,
        }
    }

    fn members(&self, set: &str) -> BTreeSet<Member> {
        self.ruleset.sets[set].members(self.policy)
    }

    fn in_set(&self, end: End, name: &str) -> bool {
        let addr = self.addr(end);
        self.members(name).iter().any(|m| match m {
            Member::Net(net) => net.contains(&addr),
            // Sets of ports know TCP and UDP only.
            Member::Port(port) => {
                [6, 17].contains(&self.packet.proto) && self.port(end) == Some(*port)
            }
            Member::AddrPort(..) => false,
        })
    }

    fn in_port_set(&self, end: End, name: &str) -> bool {
        self.port(end).is_some_and(|port| {
            let member = Member::AddrPort(self.addr(end), Protocol(self.packet.proto), port);
            self.members(name).contains(&member)
        })
    }

    fn is_state(&self, state: &str) -> bool {
        match state {
            "ESTABLISHED" => self.packet.conntrack == Conntrack::Established,
            "INVALID" => self.packet.conntrack == Conntrack::Invalid,
            "DNAT" => self.translated,
            _ => false,
        }
    }
}

/// What follows a rule.
enum Step {
    End(Ended),
    Next,
    Back,
}

fn is_iface(pattern: &str, iface: Option<&str>) -> bool {
    iface.is_some_and(|name| match pattern.strip_suffix('+') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    })
}

fn slots(ranges: &[PortRange]) -> usize {
    let slots = ranges.iter().map(|r| if r.first == r.last { 1 } else { 2 });
    slots.sum()
}
