//! The chain of one endpoint in one category and direction (facts 3.3), and the failsafes.

use std::collections::BTreeMap;

use super::ALLOW_CHAIN;
use super::builder::Builder;
use super::names;
use super::policy::{chunks, merge_ranges};
use super::ruleset::{End, KRule, Match, Name, Table, Target};
use crate::api::{Family, PortRange, Protocol};
use crate::calc::{Category, Direction, Failsafe, HostEp, WorkloadEp};

/// States of packets that belong to an accepted flow.
pub const KNOWN: &str = "RELATED,ESTABLISHED";

/// What differs between the places where an endpoint's policy is evaluated.
pub(super) struct Place {
    pub(super) category: Category,
    pub(super) direction: Direction,
    /// What ends the chain for an accepted packet.
    pub(super) accepted: Target,
    /// What happens to a packet of a known flow.
    known: Target,
}

impl Place {
    /// Whether moat is through with an accepted packet, so that nobody asks for its mark.
    pub(super) fn ends(&self) -> bool {
        self.category == Category::Normal && self.accepted == Target::Accept
    }
}

impl Builder<'_> {
    /// Makes the chain of a host endpoint and returns its name; `None` when the category has no policy there. Where the dispatch
    /// has let packets of known flows pass before, the chain need not.
    pub(super) fn host_chain(
        &mut self,
        ep: &HostEp,
        category: Category,
        direction: Direction,
        known_before: bool,
    ) -> Option<String> {
        let tiers = ep.tiers(category);
        if tiers.is_empty() && category != Category::Normal {
            return None;
        }
        let name = names::chain(host_prefix(category, direction), &ep.name);
        let place = self.place(category, direction);
        let known_before = known_before && ep.attach.addresses.is_empty();
        let mut rules = self.before_policy(&place, category != Category::Forward, known_before);
        let mut policy = Vec::new();
        self.tiers(&name, tiers, &place, &mut policy);
        match category {
            Category::Normal => self.profiles(&ep.profiles, &place, &mut policy),
            Category::Forward if tiers.iter().all(|t| t.policies(direction).is_empty()) => {
                let target = Target::Goto(ALLOW_CHAIN.into());
                policy.push(KRule::new(
                    vec![],
                    target,
                    "no policy in this direction: forwarded traffic is allowed",
                ));
                self.mark_chains();
            }
            _ => {}
        }
        if !place.ends() || policy.iter().any(reads_mark) {
            rules.push(self.clear_marks());
        }
        rules.append(&mut policy);
        self.put_chain(&name, rules);
        Some(name)
    }

    /// Makes the chain of a workload endpoint and returns its name.
    pub(super) fn workload_chain(
        &mut self,
        iface: &str,
        ep: &WorkloadEp,
        direction: Direction,
    ) -> String {
        let prefix = match direction {
            Direction::Ingress => "moat-wi-",
            Direction::Egress => "moat-wo-",
        };
        let name = names::chain(prefix, iface);
        let mut place = self.place(Category::Normal, direction);
        // The other end of a forwarded packet, and defaultEndpointToHostAction, come after this chain.
        place.accepted = Target::Return;
        let mut rules = self.before_policy(&place, false, false);
        rules.push(self.clear_marks());
        self.tiers(&name, &ep.tiers, &place, &mut rules);
        self.profiles(&ep.profiles, &place, &mut rules);
        self.put_chain(&name, rules);
        name
    }

    fn place(&self, category: Category, direction: Direction) -> Place {
        let accept_if = |yes: bool| if yes { Target::Accept } else { Target::Return };
        let filter = self.accept();
        let accepted = match (self.table, category) {
            (Table::Raw, _) => Target::Accept,
            (Table::Mangle, Category::PreDnat) => accept_if(self.options.mangle_accept),
            // Late decision on DNATed local traffic: other mangle rules still apply.
            (Table::Mangle, _) | (Table::Filter, Category::Forward) => Target::Return,
            (Table::Filter, _) => filter.clone(),
        };
        let known = match self.table {
            Table::Filter => filter,
            _ => Target::Return,
        };
        Place {
            category,
            direction,
            accepted,
            known,
        }
    }

    fn before_policy(&mut self, place: &Place, failsafes: bool, known_before: bool) -> Vec<KRule> {
        let tracked = place.category != Category::Untracked;
        let mut rules = Vec::new();
        if tracked && !known_before {
            rules.push(known_rule(Vec::new(), place.known.clone()));
        }
        if failsafes && self.family == Family::V6 {
            let chain = self.essential_chain();
            let matches = vec![Match::Protocol(Protocol::ICMPV6, false)];
            rules.push(KRule::new(
                matches,
                Target::Jump(chain.into()),
                "IPv6 discovery and path MTU",
            ));
        }
        if tracked && self.policy.options.drop_invalid {
            rules.push(KRule::new(
                vec![Match::State("INVALID")],
                self.deny(),
                "fits no flow",
            ));
        }
        if failsafes {
            rules.extend(self.failsafes(place));
        }
        rules
    }

    /// Forgets what an earlier endpoint or another program left in our bits.
    pub(super) fn clear_marks(&self) -> KRule {
        KRule::new(
            vec![],
            Target::SetMark(0, self.marks.accept | self.marks.pass),
            "",
        )
    }

    /// The chain that denies what does not come from a workload's own addresses. It stands before everything that lets known
    /// flows pass: a forged packet may fit the flow of somebody else.
    pub(super) fn workload_sources(&mut self) -> Option<String> {
        let policy = self.policy;
        let mut rules = Vec::new();
        for (iface, ep) in policy
            .workloads
            .iter()
            .filter(|(_, e)| !e.sources.is_empty())
        {
            let own = self.own_sources(ep);
            let matches = vec![
                Match::InIface(iface.as_str().into()),
                Match::Set(End::Src, own, true),
            ];
            rules.push(KRule::new(
                matches,
                self.deny(),
                format!("source is not of {}", ep.id),
            ));
        }
        if rules.is_empty() {
            return None;
        }
        self.put_chain("moat-wl-sources", rules);
        Some("moat-wl-sources".to_owned())
    }

    fn own_sources(&mut self, ep: &WorkloadEp) -> Name {
        // The unspecified address asks for an address; IPv6 link-local ones are everybody's.
        let everybodys: &[&str] = match self.family {
            Family::V4 => &["0.0.0.0/32"],
            Family::V6 => &["::/128", "fe80::/10"],
        };
        let own = ep
            .sources
            .iter()
            .filter(|n| Family::of_net(n) == self.family)
            .copied();
        let nets: Vec<_> = own
            .chain(everybodys.iter().filter_map(|n| n.parse().ok()))
            .collect();
        self.memo.sets.nets(&nets, self.family)
    }

    /// See `verdict::is_ipv6_essential` for the reasons.
    fn essential_chain(&mut self) -> String {
        let name = "moat-icmpv6".to_owned();
        if self.has_chain(&name) {
            return name;
        }
        let types: [(&[u8], Option<u8>, &str); 3] = [
            (&[2], None, "packet too big"),
            (&[133, 134, 135, 136], Some(255), "neighbour discovery"),
            (&[130, 131, 132, 143], Some(1), "multicast listeners"),
        ];
        let mut rules = Vec::new();
        for (kinds, hop_limit, note) in types {
            for kind in kinds {
                let mut matches = vec![
                    Match::Protocol(Protocol::ICMPV6, false),
                    Match::Icmp(*kind, None, false),
                ];
                matches.extend(hop_limit.map(Match::HopLimit));
                rules.push(KRule::new(matches, Target::Accept, note));
            }
        }
        self.put_chain(&name, rules);
        name
    }

    /// One rule for each protocol and peer: a packet of another protocol is through with it at once.
    fn failsafes(&self, place: &Place) -> Vec<KRule> {
        let options = &self.policy.options;
        let (ours, replies, peer) = match place.direction {
            Direction::Ingress => (&options.failsafe_in, &options.failsafe_out, End::Src),
            Direction::Egress => (&options.failsafe_out, &options.failsafe_in, End::Dst),
        };
        let mut rules = self.failsafe_rules(ours, peer, End::Dst);
        // Before connection tracking replies are known by their source port only (facts 3.8).
        if place.category == Category::Untracked {
            rules.extend(self.failsafe_rules(replies, peer, End::Src));
        }
        rules
    }

    fn failsafe_rules(&self, failsafes: &[Failsafe], peer: End, port_end: End) -> Vec<KRule> {
        let mut groups: BTreeMap<_, Vec<PortRange>> = BTreeMap::new();
        let elsewhere = |f: &&Failsafe| f.net.is_some_and(|n| Family::of_net(&n) != self.family);
        for failsafe in failsafes.iter().filter(|f| !elsewhere(f)) {
            let net = failsafe.net.map(|n| n.trunc());
            let ports = groups.entry((failsafe.protocol, net)).or_default();
            ports.push(PortRange::one(failsafe.port));
        }
        let mut rules = Vec::new();
        for ((protocol, net), ports) in groups {
            for ports in chunks(&merge_ranges(&ports)) {
                let mut matches = vec![
                    Match::Protocol(protocol, false),
                    Match::Ports(port_end, ports.into(), false),
                ];
                matches.extend(net.map(|n| Match::Net(peer, n, false)));
                rules.push(KRule::new(matches, Target::Accept, "failsafes"));
            }
        }
        rules
    }
}

fn host_prefix(category: Category, direction: Direction) -> &'static str {
    match (category, direction) {
        (Category::Forward, Direction::Ingress) => "moat-fi-",
        (Category::Forward, Direction::Egress) => "moat-fo-",
        (_, Direction::Ingress) => "moat-i-",
        (_, Direction::Egress) => "moat-o-",
    }
}

/// Lets packets of known flows pass.
pub(super) fn known_rule(mut matches: Vec<Match>, target: Target) -> KRule {
    matches.push(Match::State(KNOWN));
    KRule::new(matches, target, "")
}

/// Whether a rule depends on our marks being clear before.
fn reads_mark(rule: &KRule) -> bool {
    rule.matches.iter().any(|m| matches!(m, Match::Mark(..)))
}
