//! The pure part: calculator and compiler in the world of docs/performance.md, without kernel, files and daemon.
//!
//! `cargo bench --bench calc -- [ten|all] [NAME]`. `BENCH_ENDPOINTS` makes the world smaller.

#[path = "world.rs"]
mod world;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use moat::api::Resource;
use moat::calc::{Calculator, Host};
use moat::compile::{Compiler, Options, Ruleset};
use moat::config::{Input, Settings, load};
use moat::selector::Selector;
use world::{Size, Workload};

/// Seed of the world.
const SEED: u64 = 6;

/// A host that knows everything, and what its rules are now.
struct Site {
    calculator: Calculator,
    compiler: Compiler,
    options: Options,
    /// Held, as by the thread that writes it into the kernel.
    ruleset: Arc<Ruleset>,
}

impl Site {
    fn new(documents: impl Iterator<Item = String>) -> Site {
        let settings = settings();
        let host = Host {
            node: world::HOST.to_owned(),
            ..Host::default()
        };
        let options = Options::new(&settings, true);
        let mut calculator = Calculator::new(host, &settings);
        for document in documents {
            calculator.upsert(&world::parse(&document));
        }
        calculator.flush();
        let mut compiler = Compiler::new(options.clone());
        let ruleset = compiler.compile(calculator.current(), &options);
        Site {
            calculator,
            compiler,
            options,
            ruleset,
        }
    }

    /// What the daemon does when this resource changes. Says whether it mattered.
    fn change(&mut self, resource: &Resource) -> bool {
        self.calculator.upsert(resource);
        let changes = self.calculator.flush();
        if changes.touches_rules() {
            let policy = self.calculator.current();
            self.ruleset = self.compiler.compile(policy, &self.options);
        }
        !changes.is_empty()
    }
}

fn settings() -> Settings {
    load(&Input::bare(world::HOST))
        .expect("valid settings")
        .settings
}

fn changes(criterion: &mut Criterion) {
    let endpoints = std::env::var("BENCH_ENDPOINTS").ok();
    let endpoints = endpoints.and_then(|n| n.parse().ok());
    for (name, size) in [("ten", world::TEN), ("all", world::ALL)] {
        let size = Size {
            endpoints: endpoints.unwrap_or(size.endpoints),
            ..size
        };
        let policies = world::policies(SEED, size, "192.0.2.1");
        let policy = world::changed_policy(&policies);
        let workloads: Vec<Workload> = world::workloads(SEED, size).collect();
        let documents = policies.iter().cloned();
        let mut site = Site::new(documents.chain(workloads.iter().map(Workload::json)));
        let mut devs = workloads.iter().filter(|w| w.env == "dev");
        let [dev, other] = [(); 2].map(|()| devs.next().expect("one of dev"));
        // In the small variant `env == 'prod'` has a set; in the big one every app has.
        let moved = match name {
            "ten" => Workload {
                env: "prod",
                ..dev.clone()
            },
            _ => Workload {
                app: dev.app + 1,
                ..dev.clone()
            },
        };
        let label = [world::parse(&dev.json()), world::parse(&moved.json())];
        let zone = |zone: &str| {
            let json = other.json();
            world::parse(&json.replace("\"zone\":\"", &format!("\"zone\":\"{zone}")))
        };
        let nobody = [zone("x"), zone("y")];
        let mut group = criterion.benchmark_group(name);
        for (what, pair, matters) in [
            ("label that moves an address", &label, true),
            ("label that nobody asks about", &nobody, false),
            ("changed policy", &policy, true),
        ] {
            let mut turn = 0;
            group.bench_function(what, |b| {
                b.iter(|| {
                    turn += 1;
                    assert_eq!(site.change(&pair[turn % 2]), matters);
                });
            });
        }
    }
}

fn selectors(criterion: &mut Criterion) {
    let text = "app in {'a1', 'a2'} && has(zone) && (env == 'prod' || !(zone contains '7'))";
    let labels = [("app", "a2"), ("env", "dev"), ("zone", "z31")];
    let labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned()));
    let labels = std::collections::BTreeMap::from(labels);
    let selector = Selector::parse(text).expect("a selector");
    let mut group = criterion.benchmark_group("selector");
    group.bench_function("parse", |b| b.iter(|| Selector::parse(black_box(text))));
    group.bench_function("match", |b| b.iter(|| selector.matches(black_box(&labels))));
}

criterion_group!(benches, selectors, changes);
criterion_main!(benches);
