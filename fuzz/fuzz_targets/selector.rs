//! Any text is refused with a place inside it, or is a selector whose canonical text means the same.
#![no_main]

use std::collections::BTreeMap;

use moat::selector::Selector;

libfuzzer_sys::fuzz_target!(|text: &str| {
    match Selector::parse(text) {
        Ok(selector) => {
            let again =
                Selector::parse(selector.canonical()).expect("canonical text is a selector");
            assert_eq!(again.canonical(), selector.canonical());
            assert_eq!(again.uid(), selector.uid());
            for labels in [
                vec![],
                vec![("a", "b")],
                vec![("a", ""), ("role", "web"), ("env", "prod")],
            ] {
                let labels: BTreeMap<String, String> = labels
                    .into_iter()
                    .map(|(k, v)| (k.to_owned(), v.to_owned()))
                    .collect();
                assert_eq!(again.matches(&labels), selector.matches(&labels));
                assert!(!(selector.never_matches() && selector.matches(&labels)));
                assert!(!(selector.is_all() && !selector.matches(&labels)));
            }
            selector.restrictions();
        }
        Err(e) => {
            assert!(e.offset <= text.len());
            e.caret(text);
        }
    }
});
