//! Parsing of 100,000 WorkloadEndpoints, beside what the libraries below need for an untyped value of the same text.
//!
//! `cargo bench --bench parse` prints the time of a file and of one document (as elements a second). The ratio of `moat` to the other line of its
//! group is what counts: at most 3 is the goal.

use std::fmt::Write;
use std::hint::black_box;

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use saphyr::LoadableYamlNode;
use serde_json::{Value, json};

const ENDPOINTS: usize = 100_000;

/// One address each on one of 1,000 nodes; labels of which policies ask for some.
fn endpoint(n: usize) -> Value {
    let (node, [_, a, b, c]) = (n % 1000, (n as u32).to_be_bytes());
    let env = ["prod", "dev", "stage"][n % 3];
    json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "WorkloadEndpoint",
        "metadata": {
            "name": format!("node--{node}-k8s-pod--{n}-eth0"),
            "namespace": "default",
            "labels": {"app": format!("a{}", n % 1000), "env": env, "zone": format!("z{}", n % 50)},
        },
        "spec": {
            "node": format!("node-{node}"),
            "orchestrator": "k8s",
            "pod": format!("pod-{n}"),
            "endpoint": "eth0",
            "interfaceName": format!("cali{n:011x}"),
            "ipNetworks": [format!("10.{a}.{b}.{c}/32")],
        },
    })
}

fn endpoints() -> impl Iterator<Item = Value> {
    (0..ENDPOINTS).map(endpoint)
}

fn parse(text: &str) {
    let outcome = moat::api::parse_each("bench", text.as_bytes(), &mut |resource| {
        black_box(resource);
    });
    assert_eq!((outcome.valid, outcome.issues.len()), (ENDPOINTS, 0));
}

fn group<'c>(
    criterion: &'c mut Criterion,
    name: &str,
) -> BenchmarkGroup<'c, criterion::measurement::WallTime> {
    let mut group = criterion.benchmark_group(name);
    group
        .sample_size(10)
        .throughput(Throughput::Elements(ENDPOINTS as u64));
    group
}

fn json_list(criterion: &mut Criterion) {
    let items: Vec<Value> = endpoints().collect();
    let text = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    drop(items);
    let mut group = group(criterion, "parse JSON list");
    group.bench_function("moat", |b| b.iter(|| parse(&text)));
    group.bench_function("serde_json", |b| {
        b.iter(|| serde_json::from_str::<Value>(black_box(&text)).unwrap());
    });
}

fn yaml_documents(criterion: &mut Criterion) {
    let mut text = String::new();
    for endpoint in endpoints() {
        write!(text, "---\n{}", moat::api::to_yaml(&endpoint)).unwrap();
    }
    let mut group = group(criterion, "parse YAML documents");
    group.bench_function("moat", |b| b.iter(|| parse(&text)));
    group.bench_function("saphyr", |b| {
        b.iter(|| saphyr::Yaml::load_from_str(black_box(&text)).unwrap());
    });
}

/// As the snapshot gives them back.
fn stored_documents(criterion: &mut Criterion) {
    use moat::api::{Document, Origin, RuleLines, parse_document};
    let documents: Vec<Document> = endpoints().map(|e| Document::from(&e)).collect();
    let (origin, lines) = (Origin::default(), RuleLines::default());
    let mut group = group(criterion, "parse stored documents");
    group.bench_function("moat", |b| {
        b.iter(|| {
            for document in &documents {
                black_box(parse_document(document, &origin, &lines).unwrap());
            }
        });
    });
    group.bench_function("serde_json", |b| {
        b.iter(|| documents.iter().for_each(|d| drop(black_box(d.value()))));
    });
}

criterion_group!(benches, json_list, yaml_documents, stored_documents);
criterion_main!(benches);
