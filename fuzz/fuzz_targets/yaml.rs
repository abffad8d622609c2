//! Any bytes are resources, or issues at places. What is a resource is the same again from its stored document and its YAML.
#![no_main]

use moat::api::{Severity, parse_bytes, parse_document};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let parsed = parse_bytes("f", bytes);
    for issue in &parsed.issues {
        assert!(!issue.to_string().is_empty());
    }
    for resource in &parsed.resources {
        let stored = parse_document(&resource.raw, &resource.origin, &resource.rule_lines());
        let stored = stored.expect("what is valid stays valid");
        assert_eq!(format!("{stored:?}"), format!("{resource:?}"));
        let printed = parse_bytes("f", resource.to_yaml().as_bytes());
        assert!(
            printed
                .issues
                .iter()
                .all(|issue| issue.severity == Severity::Warning)
        );
        assert_eq!(printed.resources[0].raw, resource.raw);
    }
});
