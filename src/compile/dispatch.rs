//! From interfaces to the chains of endpoints.

use super::builder::Builder;
use super::ruleset::{End, KRule, Match, Target};
use crate::api::Family;
use crate::calc::{Category, Direction, HostEp};

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
    ///
    /// An endpoint with a name overrides `*` in every category, so it is listed even where it has no policy.
    pub(super) fn dispatch(
        &mut self,
        name: &str,
        category: Category,
        direction: Direction,
        workloads: Workloads,
    ) -> bool {
        let policy = self.policy;
        let mut rules = Vec::new();
        let mut governs = false;
        for ep in policy
            .endpoints
            .values()
            .filter(|e| !e.attach.interfaces.is_empty())
        {
            let chain = self.host_chain(ep, category, direction);
            governs |= chain.is_some();
            let target = chain.map_or(Target::Return, |c| Target::Goto(c.into()));
            for iface in &ep.attach.interfaces {
                rules.push(KRule::new(
                    vec![on_iface(direction, iface)],
                    target.clone(),
                    endpoint_note(ep),
                ));
            }
        }
        let lo_is_named = policy.named("lo").is_some();
        if !lo_is_named {
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
            && let Some(chain) = self.host_chain(ep, category, direction)
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
            rules.push(KRule::new(
                vec![],
                Target::Goto(chain.into()),
                endpoint_note(ep),
            ));
            governs = true;
        }
        if governs {
            self.put_chain(name, rules);
        }
        governs
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
            let Some(chain) = self.host_chain(ep, Category::Normal, direction) else {
                continue;
            };
            for address in own {
                let matches = vec![Match::Net(end, (*address).into(), false)];
                rules.push(KRule::new(
                    matches,
                    Target::Goto(chain.as_str().into()),
                    endpoint_note(ep),
                ));
                governs = true;
            }
        }
        governs
    }
}

fn endpoint_note(ep: &HostEp) -> String {
    format!("host endpoint {}", ep.name)
}

/// Ingress traffic of an endpoint arrives on its interface, egress traffic leaves through it.
pub(super) fn on_iface(direction: Direction, iface: &str) -> Match {
    match direction {
        Direction::Ingress => Match::InIface(iface.into()),
        Direction::Egress => Match::OutIface(iface.into()),
    }
}
