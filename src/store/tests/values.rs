//! Values of a datastore, which newer programs than this one may have written.

use super::super::*;

fn endpoint(number: usize) -> FileUpdate {
    let name = format!("n-k8s-p{number}-eth0");
    let value = format!(
        r#"{{"apiVersion":"projectcalico.org/v3","kind":"WorkloadEndpoint","metadata":{{"name":"{name}","namespace":"ns"}},
        "spec":{{"node":"n","orchestrator":"k8s","pod":"p{number}","endpoint":"eth0","interfaceName":"cali{number}","new":1}}}}"#
    );
    let stamp = Stamp::of_value(1, value.as_bytes());
    FileUpdate {
        path: format!("etcd:/calico/resources/v3/projectcalico.org/workloadendpoints/ns/{name}"),
        content: FileContent::Value(value.into_bytes(), stamp),
    }
}

#[test]
fn a_new_field_of_every_endpoint_fills_no_memory() {
    let mut store = Store::new();
    let mut told = 0;
    let all = MAX_WARNED + 100;
    let updates = (0..all).map(endpoint).collect();
    store.apply("etcd", updates, &mut |_| told += 1);
    assert_eq!(told, all);
    let problems = store.problems();
    assert_eq!(problems.len(), MAX_WARNED);
    assert!(problems.iter().all(|p| p.severity == Severity::Warning));
    assert!(store.is_warned_of_enough());
}
