//! Any file in place of the cache for a quick start is used or passed over, beside a sound snapshot.
#![no_main]

use moat::store::members;

const SNAPSHOT: &[u8] = include_bytes!("../seeds/snapshot");

thread_local!(static DIRECTORY: tempfile::TempDir = {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("snapshot"), SNAPSHOT).expect("a file");
    directory
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let directory = DIRECTORY.with(|d| d.path().to_owned());
    std::fs::write(directory.join("members"), bytes).expect("a file");
    if let Some(quick) = members::read(&directory) {
        quick.resources();
    }
});
