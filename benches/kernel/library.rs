//! Changes, one by one, through calculator, compiler and dataplane, as the daemon hands them on, without the files before them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moat::api::Resource;
use moat::calc::{Calculator, Host};
use moat::compile::{Compiler, Options, Ruleset};
use moat::config::{Input, Settings, load};
use moat::dataplane::iptables::{Backend, Iptables};
use moat::dataplane::{Dataplane, Handover, Wanted};

use crate::daemon;
use crate::raw;
use crate::table::Table;
use crate::world::{self, Size, Workload};
use crate::{inside, median};

/// Times that a label is changed.
const LABELS: usize = 400;
/// Times that a policy is changed.
const POLICIES: usize = 21;

struct Pipeline {
    calculator: Calculator,
    compiler: Compiler,
    options: Options,
    ruleset: Arc<Ruleset>,
    handover: Handover,
    backend: Backend,
    dataplane: Iptables,
}

impl Pipeline {
    fn new(settings: &Settings, backend: Backend) -> Pipeline {
        let host = Host {
            node: world::HOST.to_owned(),
            ..Host::default()
        };
        let options = Options::new(settings, true);
        Pipeline {
            calculator: Calculator::new(host, settings),
            compiler: Compiler::new(options.clone()),
            options,
            ruleset: Arc::default(),
            handover: Handover::default(),
            backend,
            dataplane: Iptables::new(backend, settings.max_ipset_size as usize),
        }
    }

    fn load(&mut self, documents: impl Iterator<Item = String>) {
        for document in documents {
            self.calculator.upsert(&world::parse(&document));
        }
        self.calculator.flush();
        let policy = self.calculator.current();
        self.ruleset = self.compiler.compile(policy, &self.options);
        let wanted = self.handover.whole(&self.ruleset, policy);
        self.dataplane.apply(&wanted).expect("a first apply");
    }

    /// What a change makes of what is wanted, if it matters here, and the time to find out.
    fn calculate(&mut self, resource: &Resource) -> (Duration, Option<Wanted>) {
        let begin = Instant::now();
        self.calculator.upsert(resource);
        let changes = self.calculator.flush();
        if changes.is_empty() {
            return (begin.elapsed(), None);
        }
        let policy = self.calculator.current();
        if changes.touches_rules() {
            self.ruleset = self.compiler.compile(policy, &self.options);
        }
        let wanted = self.handover.changed(&self.ruleset, policy, &changes);
        (begin.elapsed(), Some(wanted))
    }

    fn apply(&mut self, wanted: &Wanted) -> Duration {
        let begin = Instant::now();
        let applied = self.dataplane.apply(wanted).expect("an apply");
        assert!(applied.refused.is_empty(), "{:?}", applied.refused);
        begin.elapsed()
    }
}

fn settings(backend: &str) -> Settings {
    let input = Input {
        env: vec![("MOAT_IPTABLES_BACKEND".to_owned(), backend.to_owned())],
        ..Input::bare(world::HOST)
    };
    load(&input).expect("valid settings").settings
}

/// Labels and policies that change one at a time.
pub fn measure(table: &mut Table, backend: &str, seed: u64, size: Size, workloads: &[Workload]) {
    let host = daemon::Host::new("library");
    let kind = match backend {
        "nft" => Backend::Nft,
        _ => Backend::Legacy,
    };
    let settings = settings(backend);
    let policies = world::policies(seed, size, "192.0.2.1");
    inside(host.namespace(), || {
        let mut pipeline = Pipeline::new(&settings, kind);
        let documents = policies.iter().cloned();
        pipeline.load(documents.chain(workloads.iter().map(Workload::json)));
        moving_label(table, &mut pipeline, workloads);
        irrelevant_label(table, &mut pipeline, workloads);
        changed_policy(table, &mut pipeline, backend, &policies);
    });
}

/// A label whose change moves one address between two sets.
fn moving_label(table: &mut Table, pipeline: &mut Pipeline, workloads: &[Workload]) {
    let dev = workloads
        .iter()
        .find(|w| w.env != "prod")
        .expect("one of dev");
    let resource = |env: &'static str| world::parse(&Workload { env, ..dev.clone() }.json());
    // In the small variant an address enters and leaves the set of `env == 'prod'`; in the big one it moves between two apps.
    let app = |app: usize| world::parse(&Workload { app, ..dev.clone() }.json());
    let pair = match pipeline.calculator.current().sets.len() {
        0..=200 => [resource("prod"), resource("dev")],
        _ => [app(dev.app + 1), app(dev.app)],
    };
    let (mut calculations, mut totals) = (Vec::new(), Vec::new());
    for n in 0..LABELS {
        let (calculation, wanted) = pipeline.calculate(&pair[n % 2]);
        let applied = pipeline.apply(&wanted.expect("a change that matters"));
        calculations.push(calculation);
        totals.push(calculation + applied);
    }
    table.limit(
        "one label change that moves an address: calculation",
        median(calculations),
        Duration::from_micros(100),
    );
    table.limit(
        "  until it is in the kernel",
        median(totals),
        Duration::from_millis(1),
    );
}

fn irrelevant_label(table: &mut Table, pipeline: &mut Pipeline, workloads: &[Workload]) {
    let resources: Vec<Resource> = workloads
        .iter()
        .take(LABELS)
        .map(|w| world::parse(&w.json().replace("\"zone\":\"", "\"zone\":\"x")))
        .collect();
    let mut times = Vec::new();
    for resource in &resources {
        let (time, wanted) = pipeline.calculate(resource);
        assert!(wanted.is_none(), "the change mattered");
        times.push(time);
    }
    table.limit(
        "a label change that no local policy asks about",
        median(times),
        Duration::from_micros(20),
    );
}

/// A policy of which one port changes; raw is the restore tool with the same lines, on a host with the same rules.
fn changed_policy(table: &mut Table, pipeline: &mut Pipeline, backend: &str, policies: &[String]) {
    let pair = world::changed_policy(policies);
    let twin = daemon::Host::new("twin");
    raw::State::save_here(backend).restore(twin.namespace());
    let (mut calculations, mut totals, mut raws) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..POLICIES {
        let (calculation, wanted) = pipeline.calculate(&pair[(n + 1) % 2]);
        let texts = pipeline.restore_texts();
        let applied = pipeline.apply(&wanted.expect("a change that matters"));
        calculations.push(calculation);
        totals.push(calculation + applied);
        raws.push(raw::restore_texts(twin.namespace(), backend, &texts));
    }
    let calculation = median(calculations);
    table.limit(
        "one changed policy: calculation",
        calculation,
        Duration::from_millis(1),
    );
    let raw = Some((median(raws), 1.5));
    table.row(
        "  until it is in the kernel (raw: the same lines)",
        median(totals),
        raw,
    );
}

impl Pipeline {
    /// What the restore tools of IPv4 and IPv6 would have to read now, found by a driver that knows nothing yet.
    fn restore_texts(&self) -> [String; 2] {
        let mut planner = Iptables::new(self.backend, 1 << 16);
        let wanted = Wanted::whole(self.ruleset.clone(), self.calculator.current());
        let plan = planner.plan(&wanted).expect("a plan");
        ["iptables -t ", "ip6tables -t "].map(|tool| text_of(&plan.lines, tool))
    }
}

/// The lines of one tool. Chains that go are emptied first, each may still lead to another.
fn text_of(lines: &[String], tool: &str) -> String {
    let own = lines
        .iter()
        .filter_map(|line| line.strip_prefix(tool)?.split_once(": "));
    let mut tables: BTreeMap<&str, [String; 3]> = BTreeMap::new();
    for (table, line) in own {
        let [edits, flushes, deletions] = tables.entry(table).or_default();
        match line.strip_prefix("-X ") {
            Some(chain) => {
                *flushes += &format!("-F {chain}\n");
                *deletions += &format!("{line}\n");
            }
            None => *edits += &format!("{line}\n"),
        }
    }
    let texts = tables
        .iter()
        .map(|(table, parts)| format!("*{table}\n{}COMMIT\n", parts.concat()));
    texts.collect()
}
