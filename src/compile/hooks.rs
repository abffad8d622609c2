//! From the kernel's hooks to the chains of endpoints: which traffic each category sees (facts 3.4).

use super::builder::Builder;
use super::dispatch::{Workloads, on_iface};
use super::endpoint::known_rule;
use super::ruleset::{Hook, KRule, Match, Table, Target};
use crate::api::{Family, Protocol};
use crate::calc::{Category, Direction};

impl Builder<'_> {
    /// All tables of one family.
    pub(super) fn family(&mut self) {
        self.table = Table::Raw;
        let raw_in = self.raw(Direction::Ingress);
        let raw_out = self.raw(Direction::Egress);
        self.table = Table::Mangle;
        let mangle_in = self.pre_dnat(raw_in);
        let late = self.after_dnat();
        self.table = Table::Filter;
        self.input(raw_in || mangle_in);
        self.forward(raw_in || mangle_in);
        self.output(raw_out, late);
    }

    fn accept_mark(&self, negated: bool) -> Match {
        Match::Mark(self.marks.accept, self.marks.accept, negated)
    }

    /// Puts a chain of ours under a built-in chain.
    fn hook(&mut self, chain: &'static str, rules: Vec<KRule>) {
        let name = format!("moat-{chain}");
        let first = self.options.insert;
        let rule = KRule::new(vec![], Target::Jump(name.as_str().into()), "");
        self.rules().hooks.push(Hook { chain, rule, first });
        self.put_chain(&name, rules);
    }

    /// Untracked policy; says whether there is any.
    fn raw(&mut self, direction: Direction) -> bool {
        let (hook, chain) = match direction {
            Direction::Ingress => ("PREROUTING", "moat-from"),
            Direction::Egress => ("OUTPUT", "moat-to"),
        };
        if !self.dispatch(chain, Category::Untracked, direction, Workloads::Skipped) {
            return false;
        }
        let rules = vec![
            self.clear_marks(),
            KRule::new(vec![], Target::Jump(chain.into()), "untracked policy"),
        ];
        self.hook(hook, rules);
        true
    }

    /// preDNAT policy; says whether there is any.
    fn pre_dnat(&mut self, after_raw: bool) -> bool {
        if !self.dispatch(
            "moat-from",
            Category::PreDnat,
            Direction::Ingress,
            Workloads::Governed,
        ) {
            return false;
        }
        let mut rules = Vec::new();
        if after_raw {
            rules.push(KRule::new(
                vec![self.accept_mark(false)],
                Target::Return,
                "untracked policy allowed it",
            ));
        }
        rules.push(self.clear_marks());
        rules.push(KRule::new(
            vec![],
            Target::Jump("moat-from".into()),
            "preDNAT policy",
        ));
        self.hook("PREROUTING", rules);
        true
    }

    /// Normal egress policy for local traffic whose destination was changed: the filter table's OUTPUT still sees the interface
    /// that the original destination was routed to, so the decision waits until the packet leaves.
    fn after_dnat(&mut self) -> bool {
        if !self.dispatch(
            "moat-to",
            Category::Normal,
            Direction::Egress,
            Workloads::Skipped,
        ) {
            return false;
        }
        let waits = Match::Mark(self.marks.later, self.marks.later, false);
        let mut late = vec![KRule::new(vec![], Target::SetMark(0, self.marks.later), "")];
        late.extend(self.to_workloads());
        let target = Target::Goto("moat-to".into());
        late.push(KRule::new(vec![], target, "egress policy after DNAT"));
        self.put_chain("moat-late", late);
        // The state once more: should the bit be somebody else's, other traffic is not judged by it.
        let rules = vec![KRule::new(
            vec![waits, Match::State("DNAT")],
            Target::Goto("moat-late".into()),
            "local traffic with DNAT",
        )];
        self.hook("POSTROUTING", rules);
        true
    }

    /// The host's own traffic to its workloads is not policed.
    fn to_workloads(&self) -> Vec<KRule> {
        let ifaces = self.workload_ifaces().into_iter();
        let rule = |i: String| {
            KRule::new(
                vec![Match::OutIface(i.into())],
                Target::Return,
                "to local workloads",
            )
        };
        ifaces.map(rule).collect()
    }

    /// Lets a packet pass that an earlier stage accepted.
    fn accepted_before(&self, note: &str) -> KRule {
        KRule::new(vec![self.accept_mark(false)], self.accept(), note)
    }

    /// What traffic of local processes meets: known flows first, then these rules, then the endpoints.
    fn local(
        &mut self,
        hook: &'static str,
        direction: Direction,
        between: Vec<KRule>,
        workloads: Workloads,
    ) {
        let known = self.known_first(direction);
        let endpoints =
            self.dispatch_rules(Category::Normal, direction, workloads, known.is_some());
        let mut rules = Vec::new();
        if endpoints.is_some() {
            rules.extend(known.into_iter().flatten());
        }
        rules.extend(between);
        // Not in a chain of their own: each jump costs every packet.
        rules.extend(endpoints.into_iter().flatten());
        if !rules.is_empty() {
            self.hook(hook, rules);
        }
    }

    fn input(&mut self, early: bool) {
        let mut rules = Vec::new();
        let wanted = self.workload_ifaces();
        if !wanted.is_empty() {
            self.workload_to_host();
        }
        for iface in wanted {
            let target = Target::Goto("moat-wl-to-host".into());
            rules.push(KRule::new(
                vec![Match::InIface(iface.into())],
                target,
                "from local workloads",
            ));
        }
        if early {
            rules.push(self.accepted_before("untracked or preDNAT policy allowed it"));
        }
        // What comes from workloads has left by now.
        self.local("INPUT", Direction::Ingress, rules, Workloads::Governed);
    }

    fn workload_to_host(&mut self) {
        let mut rules = Vec::new();
        if self.family == Family::V6 {
            for kind in [130, 131, 132, 133, 135, 136] {
                let matches = vec![
                    Match::Protocol(Protocol::ICMPV6, false),
                    Match::Icmp(kind, None, false),
                ];
                rules.push(KRule::new(
                    matches,
                    Target::Accept,
                    "IPv6 discovery from workloads",
                ));
            }
        }
        if let Some(chain) = self.workload_sources() {
            rules.push(KRule::new(
                vec![],
                Target::Jump(chain.into()),
                "workload sources",
            ));
        }
        rules.push(KRule::new(
            vec![],
            Target::Jump(self.workload_dispatch(Direction::Egress).into()),
            "workload policy",
        ));
        if !self.options.filter_accept {
            // The workload's chain let them pass and must not be overruled.
            rules.push(known_rule(vec![], Target::Return));
        }
        let (target, note) = match self.policy.options.workload_to_host {
            crate::calc::ToHost::Drop => (self.deny(), "defaultEndpointToHostAction Drop"),
            crate::calc::ToHost::Return => (Target::Return, "defaultEndpointToHostAction Return"),
            crate::calc::ToHost::Accept => (Target::Accept, "defaultEndpointToHostAction Accept"),
        };
        rules.push(KRule::new(vec![], target, note));
        self.put_chain("moat-wl-to-host", rules);
    }

    fn forward(&mut self, early: bool) {
        let from = self.dispatch(
            "moat-fwd-from",
            Category::Forward,
            Direction::Ingress,
            Workloads::Governed,
        );
        let to = self.dispatch(
            "moat-fwd-to",
            Category::Forward,
            Direction::Egress,
            Workloads::Governed,
        );
        let workloads = self.workload_ifaces();
        if !from && !to && workloads.is_empty() {
            return;
        }
        // What an earlier stage accepted stays accepted; without such a stage the bit is somebody else's.
        let accept = if early { 0 } else { self.marks.accept };
        let stale = self.marks.pass | self.marks.later | accept;
        let mut rules = vec![KRule::new(vec![], Target::SetMark(0, stale), "")];
        if let Some(chain) = self.workload_sources() {
            rules.extend(workloads.iter().map(|iface| {
                let matches = vec![Match::InIface(iface.as_str().into())];
                KRule::new(
                    matches,
                    Target::Jump(chain.as_str().into()),
                    "workload sources",
                )
            }));
        }
        if from {
            let guard = if early {
                vec![self.accept_mark(true)]
            } else {
                Vec::new()
            };
            rules.push(KRule::new(
                guard,
                Target::Jump("moat-fwd-from".into()),
                "host endpoints, in",
            ));
        }
        for (direction, note) in [
            (Direction::Egress, "from local workloads"),
            (Direction::Ingress, "to local workloads"),
        ] {
            for iface in &workloads {
                let chain = self.workload_dispatch(direction);
                rules.push(KRule::new(
                    vec![on_iface(direction.opposite(), iface)],
                    Target::Jump(chain.into()),
                    note,
                ));
            }
        }
        if to {
            rules.push(KRule::new(
                vec![],
                Target::Jump("moat-fwd-to".into()),
                "host endpoints, out",
            ));
        }
        self.hook("FORWARD", rules);
        // At the end, as in Calico: the host's other rules may still deny what policy allows, its chain policy may not.
        if self.options.filter_accept {
            let rule = KRule::new(
                vec![self.accept_mark(false)],
                Target::Accept,
                "policy explicitly accepted the packet",
            );
            self.rules().hooks.push(Hook {
                chain: "FORWARD",
                rule,
                first: false,
            });
        }
    }

    fn output(&mut self, early: bool, late: bool) {
        let mut rules = Vec::new();
        if early {
            rules.push(self.accepted_before("untracked policy allowed it"));
        }
        if late {
            // Before the workloads: here the packet still has the interface of its first destination.
            let marks = self.marks;
            self.put_chain(
                "moat-later",
                vec![KRule::new(
                    vec![],
                    Target::SetMark(marks.later, marks.later),
                    "",
                )],
            );
            let target = Target::Goto("moat-later".into());
            rules.push(KRule::new(
                vec![Match::State("DNAT")],
                target,
                "decided after DNAT, when leaving",
            ));
            rules.extend(self.to_workloads());
        }
        let workloads = match late {
            true => Workloads::Governed,
            false => Workloads::Skipped,
        };
        self.local("OUTPUT", Direction::Egress, rules, workloads);
    }
}
