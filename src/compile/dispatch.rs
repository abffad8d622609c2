//! From interfaces to the chains of endpoints.

use super::builder::Builder;
use super::endpoint::known_rule;
use super::ruleset::{End, KRule, Match, Target};
use crate::api::Family;
use crate::calc::{Category, Direction};

/// Up to so many interfaces have a rule for known flows before everything else.
const KNOWN_FIRST: usize = 8;

/// How a dispatch chain treats interfaces of workloads under a `*` endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Workloads {
    /// They are governed too.
    Governed,
    /// They are not.
    Skipped,
}

impl Builder<'_> {
    /// By exact interface to the chains of workloads; unknown workload interfaces are denied.
    pub(super) fn workload_dispatch(&mut self, direction: Direction) -> String {
        let name = match direction {
            Direction::Egress => "moat-wl-from",
            Direction::Ingress => "moat-wl-to",
        };
        if self.has_chain(name) {
            return name.to_owned();
        }
        let mut rules = Vec::new();
        for (iface, ep) in &self.policy.workloads {
            let chain = self.workload_chain(iface, ep, direction);
            rules.push(KRule::new(
                vec![on_iface(direction.opposite(), iface)],
                Target::Goto(chain.into()),
                ep.id.to_string(),
            ));
        }
        rules.push(KRule::new(
            vec![],
            self.deny(),
            "unknown workload interface",
        ));
        self.put_chain(name, rules);
        name.to_owned()
    }

    /// Patterns of workload interfaces: the prefixes, and names that no prefix covers.
    pub(super) fn workload_ifaces(&self) -> Vec<String> {
        let prefixes = &self.policy.options.workload_prefixes;
        let named = self
            .policy
            .workloads
            .keys()
            .filter(|i| !prefixes.iter().any(|p| i.starts_with(p.as_str())));
        prefixes
            .iter()
            .map(|p| format!("{p}+"))
            .chain(named.cloned())
            .collect()
    }

    /// Makes the chain that leads from interfaces to endpoint chains; says whether anything is governed.
    pub(super) fn dispatch(
        &mut self,
        name: &str,
        category: Category,
        direction: Direction,
        workloads: Workloads,
    ) -> bool {
        let rules = self.dispatch_rules(category, direction, workloads, false);
        let governs = rules.is_some();
        if let Some(rules) = rules {
            self.put_chain(name, rules);
        }
        governs
    }

    /// The rules that lead from interfaces to endpoint chains; `None` when nothing is governed.
    ///
    /// An endpoint with a name overrides `*` in every category, so it is listed even where it has no policy.
    pub(super) fn dispatch_rules(
        &mut self,
        category: Category,
        direction: Direction,
        workloads: Workloads,
        known_before: bool,
    ) -> Option<Vec<KRule>> {
        let policy = self.policy;
        let mut rules = Vec::new();
        let mut governs = self.dispatch_named(category, direction, known_before, &mut rules);
        if policy.named("lo").is_none() {
            rules.push(KRule::new(
                vec![on_iface(direction, "lo")],
                Target::Return,
                "loopback",
            ));
        }
        if category == Category::Normal {
            governs |= self.dispatch_addresses(direction, &mut rules);
        }
        if let Some(ep) = policy.others()
            && let Some(chain) = self.host_chain(ep, category, direction, known_before)
        {
            if workloads == Workloads::Skipped {
                for iface in self.workload_ifaces() {
                    rules.push(KRule::new(
                        vec![on_iface(direction, &iface)],
                        Target::Return,
                        "local workloads",
                    ));
                }
            }
            if known_before {
                rules.push(known_rule(vec![], self.accept()));
            }
            rules.push(KRule::new(vec![], Target::Goto(chain.into()), ""));
            governs = true;
        }
        governs.then_some(rules)
    }

    /// Endpoints with an interface.
    fn dispatch_named(
        &mut self,
        category: Category,
        direction: Direction,
        known_before: bool,
        rules: &mut Vec<KRule>,
    ) -> bool {
        let mut governs = false;
        let policy = self.policy;
        let endpoints = policy.endpoints.values();
        for ep in endpoints.filter(|e| !e.attach.interfaces.is_empty()) {
            let chain = self.host_chain(ep, category, direction, known_before);
            governs |= chain.is_some();
            let target = chain.map_or(Target::Return, |c| Target::Goto(c.into()));
            for iface in &ep.attach.interfaces {
                let matches = vec![on_iface(direction, iface)];
                rules.push(KRule::new(matches, target.clone(), ""));
            }
        }
        governs
    }

    /// Rules that let packets of known flows pass before anything else is asked about them; `None` where each endpoint must
    /// do it, because the interfaces are too many.
    pub(super) fn known_first(&self, direction: Direction) -> Option<Vec<KRule>> {
        let policy = self.policy;
        let named = policy.endpoints.values().flat_map(|e| &e.attach.interfaces);
        let rules: Vec<KRule> = named
            .filter(|i| !policy.is_workload_iface(i))
            .map(|i| known_rule(vec![on_iface(direction, i)], self.accept()))
            .collect();
        (rules.len() <= KNOWN_FIRST).then_some(rules)
    }

    /// Endpoints that wait for an interface with one of their addresses govern the addresses meanwhile.
    fn dispatch_addresses(&mut self, direction: Direction, rules: &mut Vec<KRule>) -> bool {
        let end = match direction {
            Direction::Ingress => End::Dst,
            Direction::Egress => End::Src,
        };
        let mut governs = false;
        let policy = self.policy;
        for ep in policy.endpoints.values() {
            let own: Vec<_> = ep
                .attach
                .addresses
                .iter()
                .filter(|a| Family::of(**a) == self.family)
                .collect();
            if own.is_empty() {
                continue;
            }
            let Some(chain) = self.host_chain(ep, Category::Normal, direction, false) else {
                continue;
            };
            for address in own {
                let matches = vec![Match::Net(end, (*address).into(), false)];
                rules.push(KRule::new(
                    matches,
                    Target::Goto(chain.as_str().into()),
                    format!("host endpoint {}", ep.name),
                ));
                governs = true;
            }
        }
        governs
    }
}

/// Ingress traffic of an endpoint arrives on its interface, egress traffic leaves through it.
pub(super) fn on_iface(direction: Direction, iface: &str) -> Match {
    match direction {
        Direction::Ingress => Match::InIface(iface.into()),
        Direction::Egress => Match::OutIface(iface.into()),
    }
}
