//! Reading the world's endpoints as text, beside what the libraries below need for an untyped value of the same text.

use std::hint::black_box;
use std::time::{Duration, Instant};

use saphyr::LoadableYamlNode;
use serde_json::Value;

use crate::table::Table;
use crate::world::Workload;
use crate::{ROUNDS, forms, median};

/// Prints a row for JSON and one for YAML.
pub fn measure(table: &mut Table, workloads: &[Workload]) {
    table.begin("parsing");
    let documents = || workloads.iter().map(Workload::json);
    let text = forms::list(documents());
    let raw = times(|| drop(black_box(serde_json::from_str::<Value>(&text))));
    let ours = times(|| parse("world.json", &text, workloads.len()));
    table.row(
        "endpoints as JSON (raw: serde_json)",
        ours,
        Some((raw, 3.0)),
    );
    let text = forms::yaml(documents());
    let raw = times(|| drop(black_box(saphyr::Yaml::load_from_str(&text))));
    let ours = times(|| parse("world.yaml", &text, workloads.len()));
    table.row("endpoints as YAML (raw: saphyr)", ours, Some((raw, 3.0)));
}

fn parse(name: &str, text: &str, expected: usize) {
    let parsed = moat::api::parse_each(name, text.as_bytes(), &mut |resource| {
        black_box(resource);
    });
    assert_eq!((parsed.valid, parsed.issues.len()), (expected, 0));
}

fn times(work: impl Fn()) -> Duration {
    let one = |_| {
        let begin = Instant::now();
        work();
        begin.elapsed()
    };
    median((0..ROUNDS).map(one).collect())
}
