//! moatctl on an etcd that holds what no client should have written, and what it is asked that it cannot do.

use crate::ctl::{ENDPOINTS, POLICY, Site};
use crate::server::KEYS;

#[test]
fn a_value_that_is_no_json_stands_in_nobodys_way() {
    let site = Site::new();
    for key in ["hostendpoints/broken", "globalnetworkpolicies/broken"] {
        site.etcd.ctl(&["put", &format!("{KEYS}{key}"), "{"]);
    }
    site.run_on(POLICY, &["apply", "-f", "-"]).says(
        0,
        "globalnetworkpolicies/broken (revision 3) holds no JSON: left out",
    );
    site.run_on(ENDPOINTS, &["apply", "-f", "-"])
        .says(0, "Successfully applied 2");
    site.run(&["get", "hep", "-o", "name"])
        .says(0, "HostEndpoint/web1\nHostEndpoint/web2");
    site.run(&["get", "hep", "broken"])
        .says(1, "holds no JSON: delete it, or apply it anew");
    site.run(&["label", "hep", "broken", "a=b"])
        .says(1, "holds no JSON");
    site.run(&["delete", "hep", "broken"])
        .says(0, "Successfully deleted 1");
    let anew = POLICY.replace("allow-ssh", "broken");
    site.run_on(&anew, &["apply", "-f", "-"])
        .says(0, "Successfully applied 1");
    site.run(&["get", "gnp", "broken"]).says(0, "broken");
}

#[test]
fn nothing_of_a_patch_is_lost_without_a_word() {
    let site = Site::new();
    site.run_on(ENDPOINTS, &["apply", "-f", "-"])
        .says(0, "Successfully");
    for (patch, why) in [
        (
            r#"{"metadata":{"finalizers":["a"]}}"#,
            "metadata.finalizers cannot be changed",
        ),
        (
            r#"{"metadata":{"uid":"x"}}"#,
            "metadata.uid cannot be changed",
        ),
        (r#"{"metadata":{"resourceVersion":"1"}}"#, "update conflict"),
        (
            r#"{"spec":{"$setItems":["a"]}}"#,
            "$setItems is no directive",
        ),
    ] {
        site.run(&["patch", "hep", "web1", "-p", patch])
            .says(1, why);
    }
    site.run(&["label", "hep", "web1", "a=b", "--dry-run"])
        .says(0, "nothing was written");
    assert!(!site.raw("hostendpoints/web1").contains("\"a\""));
    // Into a tier that is not there.
    site.run_on(POLICY, &["apply", "-f", "-"])
        .says(0, "Successfully");
    let moved = POLICY.replace("spec:\n", "spec:\n  tier: nowhere\n");
    for verb in ["apply", "replace"] {
        site.run_on(&moved, &[verb, "-f", "-"])
            .says(1, "the tier nowhere does not exist");
    }
    let patch = r#"{"spec":{"tier":"nowhere"}}"#;
    site.run(&["patch", "gnp", "allow-ssh", "-p", patch])
        .says(1, "the tier nowhere does not exist");
}
