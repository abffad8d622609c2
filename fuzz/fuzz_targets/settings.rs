//! Any settings file is settings, or errors; never half of each.
#![no_main]

use std::path::Path;

use moat::config::{Input, load};

thread_local!(static DIRECTORY: tempfile::TempDir = tempfile::tempdir().expect("a directory"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = DIRECTORY.with(|d| d.path().join("moat.toml"));
    std::fs::write(&path, bytes).expect("a file");
    let loaded = load(&Input {
        config_file: &path,
        explicit: true,
        vendor_dir: Path::new("/nonexistent"),
        env: Vec::new(),
        node: None,
        felix: Vec::new(),
        hostname: "host".to_owned(),
    });
    match loaded {
        Ok(loaded) => assert!(!loaded.rows().is_empty()),
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                assert!(!error.to_string().is_empty());
            }
        }
    }
});
