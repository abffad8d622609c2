//! Any file in place of the snapshot is read or skipped with a message, and so is whatever it says.
#![no_main]

use moat::store::Store;

thread_local!(static DIRECTORY: tempfile::TempDir = tempfile::tempdir().expect("a directory"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let directory = DIRECTORY.with(|d| d.path().to_owned());
    for old in std::fs::read_dir(&directory).expect("a directory") {
        std::fs::remove_file(old.expect("an entry").path()).expect("a file");
    }
    std::fs::write(directory.join("snapshot"), bytes).expect("a file");
    let (mut store, saved, messages) = Store::open(&directory);
    match saved {
        Some(saved) => store.seed(saved, &mut |_| {}),
        None => assert!(!messages.is_empty()),
    }
});
