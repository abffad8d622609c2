//! JSON says the same by the short way and by the YAML parser: the same resources and the same issues at the same places.
#![no_main]

use libfuzzer_sys::Corpus;
use moat::api::{parse_bytes, parse_bytes_as_yaml};

libfuzzer_sys::fuzz_target!(|text: &str| -> Corpus {
    // For the YAML parser, characters that are written as two escapes are rewritten, and columns behind them shift.
    if !text.trim_start().starts_with(['{', '[']) || text.to_ascii_lowercase().contains("\\ud") {
        return Corpus::Reject;
    }
    let short = parse_bytes("f", text.as_bytes());
    let long = parse_bytes_as_yaml("f", text.as_bytes());
    // Of too many, others are left out.
    if long.issues.len() <= moat::api::MAX_ISSUES {
        assert_eq!(short.issues, long.issues);
    }
    assert_eq!(
        format!("{:?}", short.resources),
        format!("{:?}", long.resources)
    );
    Corpus::Keep
});
