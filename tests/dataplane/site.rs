//! A network namespace with a driver, and a small policy for it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use moat::api::{Family, PortRange, Protocol};
use moat::calc::{HostChanges, HostPolicy, IpSet, Member, Options, SetChange, SetId, ToHost};
use moat::compile::{
    ALLOW_CHAIN, End, Hook, KRule, Match, Ruleset, SetContent, SetKind, SetSpec, Table, TableRules,
    Target,
};
use moat::dataplane::iptables::{Backend, Iptables};
use moat::dataplane::{Applied, Dataplane, Handover, Wanted};
use nix::sched::{CloneFlags, unshare};

const PATIENCE: Duration = Duration::from_secs(10);

/// Everything of one test.
pub struct Site {
    /// Which backend.
    pub backend: Backend,
    /// The driver.
    pub dataplane: Iptables,
    /// Sets of the policy.
    pub policy: Policy,
    /// Sets of the kernel with their parts.
    pub sets: Vec<(&'static str, &'static [&'static str])>,
    /// Rules of `moat-INPUT`, the same in both families.
    pub rules: Vec<KRule>,
    /// Further chains of tables.
    pub chains: Vec<(Table, &'static str, Vec<KRule>)>,
    handover: Handover,
    ruleset: Arc<Ruleset>,
}

/// Sets of a policy, and what changed in them.
pub struct Policy {
    policy: HostPolicy,
    changes: HostChanges,
}

/// A prefix.
pub fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn id(name: &str) -> SetId {
    SetId::Selector(name.into())
}

/// Runs a test with each backend, in a new namespace.
pub fn on_both(test: impl Fn(&mut Site)) {
    for backend in [Backend::Nft, Backend::Legacy] {
        unshare(CloneFlags::CLONE_NEWNET).expect("run this test as root");
        test(&mut Site::new(backend));
    }
}

/// Waits for something that the kernel does in its own time.
pub fn wait_until(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "this never came true");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Names of rules in the order of the chain.
pub fn port_rule(port: u16, target: Target) -> KRule {
    let matches = vec![
        Match::Protocol(Protocol::TCP, false),
        Match::Ports(End::Dst, [PortRange::one(port)].into(), false),
    ];
    KRule::new(matches, target, format!("port {port}"))
}

/// To where packets are allowed.
pub fn allowed() -> Target {
    Target::Goto(ALLOW_CHAIN.into())
}

impl Policy {
    fn new() -> Policy {
        let mut policy = Policy {
            policy: HostPolicy {
                node: "h".into(),
                endpoints: BTreeMap::new(),
                workloads: BTreeMap::new(),
                policies: BTreeMap::new(),
                profiles: BTreeMap::new(),
                sets: BTreeMap::new(),
                options: Options {
                    failsafe_in: Vec::new(),
                    failsafe_out: Vec::new(),
                    workload_prefixes: Vec::new(),
                    workload_to_host: ToHost::Return,
                    drop_invalid: false,
                },
            },
            changes: HostChanges::default(),
        };
        for (set, nets) in [
            ("a", ["10.0.0.1/32", "10.0.0.2/32"]),
            ("b", ["10.0.0.3/32", "fd00::/64"]),
        ] {
            nets.iter().for_each(|net| policy.insert(set, net));
        }
        policy
    }

    /// The members of a set, which is made if it is missing.
    pub fn set(&mut self, name: &str) -> &mut Arc<IpSet> {
        let empty = || Arc::new(IpSet::Nets(BTreeSet::new()));
        self.policy.sets.entry(id(name)).or_insert_with(empty)
    }

    /// Adds a member.
    pub fn insert(&mut self, set: &str, member: &str) {
        if let IpSet::Nets(nets) = Arc::make_mut(self.set(set)) {
            nets.insert(net(member));
        }
        self.note(set).0.insert(Member::Net(net(member)));
    }

    /// Removes a member.
    pub fn remove(&mut self, set: &str, member: &str) {
        if let IpSet::Nets(nets) = Arc::make_mut(self.set(set)) {
            nets.remove(&net(member));
        }
        self.note(set).1.insert(Member::Net(net(member)));
    }

    fn note(&mut self, set: &str) -> (&mut BTreeSet<Member>, &mut BTreeSet<Member>) {
        let nothing = || SetChange::Members {
            added: BTreeSet::new(),
            removed: BTreeSet::new(),
        };
        match self.changes.sets.entry(id(set)).or_insert_with(nothing) {
            SetChange::Members { added, removed } => (added, removed),
            other => panic!("{other:?}"),
        }
    }
}

impl Site {
    fn new(backend: Backend) -> Site {
        let mut site = Site {
            backend,
            dataplane: Iptables::new(backend, 8),
            policy: Policy::new(),
            sets: vec![
                ("moat4-a", &["a"]),
                ("moat4-b", &["b"]),
                ("moat4-union", &["a", "b"]),
            ],
            rules: Vec::new(),
            chains: Vec::new(),
            handover: Handover::default(),
            ruleset: Arc::default(),
        };
        site.allow(80, "moat4-a");
        site.rules.push(port_rule(23, Target::Drop));
        site
    }

    /// Another driver, which knows nothing.
    pub fn restart(&mut self) {
        self.dataplane = Iptables::new(self.backend, 8);
    }

    /// The driver, in whose place another one is put.
    pub fn take_dataplane(&mut self) -> Iptables {
        std::mem::replace(&mut self.dataplane, Iptables::new(self.backend, 8))
    }

    /// Adds a rule that allows a port to the members of a set, in IPv4.
    pub fn allow(&mut self, port: u16, set: &str) {
        let mut rule = port_rule(port, allowed());
        let set = Match::Set(End::Src, set.into(), false);
        rule.matches = rule.matches.iter().cloned().chain([set]).collect();
        self.rules.push(rule);
    }

    fn compiled(&self) -> Ruleset {
        let mut ruleset = Ruleset::default();
        for family in Family::ALL {
            let fits = |rule: &&KRule| {
                let needs_v4 = |m: &Match| matches!(m, Match::Set(..));
                family == Family::V4 || !rule.matches.iter().any(needs_v4)
            };
            // The same number of rules in both families.
            let other = |rule: &KRule| port_rule(9, rule.target.clone());
            let rule = |rule: &KRule| {
                if fits(&rule) {
                    rule.clone()
                } else {
                    other(rule)
                }
            };
            let tables = ruleset.tables.entry(family).or_default();
            let filter: &mut TableRules = tables.entry(Table::Filter).or_default();
            let jump = KRule::new(vec![], Target::Jump("moat-INPUT".into()), "");
            filter.hooks.push(Hook {
                chain: "INPUT",
                rule: jump,
                first: true,
            });
            let rules = self.rules.iter().map(rule).collect();
            filter.chains.insert("moat-INPUT".into(), rules);
            let mark = KRule::new(vec![], Target::SetMark(1, 1), "");
            filter.chains.insert(ALLOW_CHAIN.into(), [mark].into());
            for (table, name, rules) in &self.chains {
                let table = tables.entry(*table).or_default();
                table
                    .chains
                    .insert((*name).into(), rules.iter().map(rule).collect());
            }
        }
        for (name, parts) in &self.sets {
            let spec = SetSpec {
                family: Family::V4,
                kind: SetKind::Nets,
                content: SetContent::Policy(parts.iter().map(|p| id(p)).collect()),
                note: format!("set of {}", parts.join(" and ")).into(),
            };
            ruleset.sets.insert((*name).into(), Arc::new(spec));
        }
        ruleset
    }

    fn compile(&mut self) {
        let ruleset = self.compiled();
        if *self.ruleset != ruleset {
            self.ruleset = Arc::new(ruleset);
        }
    }

    /// Everything that is wanted.
    pub fn all(&mut self) -> Wanted {
        self.compile();
        self.policy.changes = HostChanges::default();
        self.handover.whole(&self.ruleset, &self.policy.policy)
    }

    /// What changed since the last time.
    pub fn changes(&mut self) -> Wanted {
        self.compile();
        let changes = std::mem::take(&mut self.policy.changes);
        self.handover
            .changed(&self.ruleset, &self.policy.policy, &changes)
    }

    /// Applies everything.
    pub fn apply_all(&mut self) -> Applied {
        let wanted = self.all();
        self.dataplane.apply(&wanted).unwrap()
    }

    /// Applies what changed; nothing of it is refused.
    pub fn apply_changes(&mut self) -> Applied {
        let wanted = self.changes();
        let applied = self.dataplane.apply(&wanted).unwrap();
        assert!(applied.refused.is_empty(), "{:?}", applied.refused);
        applied
    }

    /// Compares and repairs.
    pub fn verify(&mut self) -> Applied {
        let wanted = self.all();
        self.dataplane.verify(&wanted).unwrap()
    }

    /// Runs a program.
    pub fn try_run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let done = Command::new(program).args(arguments).output().unwrap();
        match done.status.success() {
            true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        }
    }

    /// Runs a program, which must succeed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let result = self.try_run(program, arguments);
        result.unwrap_or_else(|e| panic!("{program} {arguments:?}: {e}"))
    }

    /// Runs an iptables command of IPv4 with this site's backend.
    pub fn iptables(&self, arguments: &str) {
        let arguments: Vec<&str> = ["-w"].into_iter().chain(arguments.split(' ')).collect();
        self.run(&format!("iptables-{}", self.backend), &arguments);
    }

    /// Rules of IPv4 as listed, without remarks.
    pub fn rules(&self) -> Vec<String> {
        let text = self.run(&format!("iptables-{}-save", self.backend), &[]);
        let lines = text.lines().filter(|l| !l.starts_with('#'));
        lines.map(str::to_owned).collect()
    }

    /// The rules of a chain of the filter table.
    pub fn chain(&self, chain: &str) -> Vec<String> {
        let head = format!("-A {chain} ");
        let mut rules = self.rules();
        rules.retain(|line| line.starts_with(&head));
        rules
    }

    /// A set as the `ipset` program saves it.
    pub fn listed(&self, set: &str) -> String {
        self.run("ipset", &["save", set])
    }

    /// The members of a set.
    pub fn members(&self, set: &str) -> Vec<String> {
        let text = self.listed(set);
        let lines = text.lines().filter_map(|l| l.strip_prefix("add "));
        let members = lines.filter_map(|l| l.split_once(' '));
        let mut members: Vec<String> = members.map(|(_, m)| m.to_owned()).collect();
        members.sort();
        members
    }
}
