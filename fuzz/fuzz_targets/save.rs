//! Whatever the tools print is taken or refused, and only what bears a name of ours is taken for ours.
#![no_main]

use moat::dataplane::iptables::save::{BUILT_IN, CHAIN_PREFIX, Reader, hook_of};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut reader = Reader::default();
    if text.lines().all(|line| reader.line(line))
        && let Some(saved) = reader.finish()
    {
        for table in saved.tables.values() {
            assert!(table.chains.keys().all(|n| n.starts_with(CHAIN_PREFIX)));
            assert!(table.hooks.keys().all(|n| BUILT_IN.contains(&n.as_str())));
        }
    }
    for line in text.lines() {
        if let Some((chain, rule)) = hook_of(line) {
            assert!(line.contains(chain) && line.ends_with(rule));
        }
    }
});
