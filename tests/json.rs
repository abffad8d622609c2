//! JSON has a short way of its own through the parser, which must end where the YAML parser ends: with the same resources and the
//! same issues at the same places, for every text that starts like JSON. (Only characters written as two escapes are not
//! tried: for the YAML parser they are rewritten, and columns behind them in the same line shift.)

use std::path::{Path, PathBuf};

use moat::api::yaml::{Node, documents};
use moat::api::{parse_bytes, parse_bytes_as_yaml};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Fails with both answers when they differ.
fn agree(text: &str) -> Result<(), TestCaseError> {
    let short = parse_bytes("f", text.as_bytes());
    let long = parse_bytes_as_yaml("f", text.as_bytes());
    prop_assert_eq!(&short.issues, &long.issues, "issues of {}", text);
    prop_assert_eq!(
        format!("{:?}", short.resources),
        format!("{:?}", long.resources),
        "resources of {}",
        text
    );
    Ok(())
}

/// The texts of all cases of `tests/validation`.
fn cases() -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/validation");
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let texts = files.iter().flat_map(|file| {
        let (documents, error) = documents(&std::fs::read(file).unwrap());
        assert_eq!(error, None);
        let input = |case: &Node<'_>| case.get("input").and_then(Node::text).map(str::to_owned);
        let items = documents[0].items().iter();
        items.filter_map(input).collect::<Vec<_>>()
    });
    texts.collect()
}

/// All documents of the cases as JSON, also those that are wrong.
fn as_json() -> Vec<Value> {
    let json = |text: String| {
        let (documents, _) = documents(text.as_bytes());
        let values = documents
            .iter()
            .map(|node| serde_json::to_value(node).unwrap());
        values.collect::<Vec<_>>()
    };
    cases().into_iter().flat_map(json).collect()
}

#[test]
fn every_case_is_read_alike() {
    let documents = as_json();
    assert!(documents.len() > 150, "{}", documents.len());
    for text in cases().iter().filter(|text| text.starts_with(['{', '['])) {
        agree(text).unwrap();
    }
    for document in &documents {
        agree(&document.to_string()).unwrap();
        agree(&serde_json::to_string_pretty(document).unwrap()).unwrap();
    }
    // Few enough of them that every issue is told.
    for some in documents.chunks(5) {
        let list = json!({"apiVersion": "v1", "items": some, "kind": "List", "metadata": {}});
        agree(&serde_json::to_string_pretty(&list).unwrap()).unwrap();
        agree(&Value::from(some).to_string()).unwrap();
        let texts: Vec<String> = some.iter().map(Value::to_string).collect();
        agree(&texts.join("\n---\n")).unwrap();
    }
}

/// Decisions, so that a failing text shrinks with them.
struct Choices(std::vec::IntoIter<u8>);

impl Choices {
    fn below(&mut self, n: usize) -> usize {
        self.0.next().map_or(0, usize::from) % n
    }

    /// Yes, once in `n`.
    fn rarely(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

const BLANKS: [&str; 8] = ["", "", "", " ", "\n", "\t", "\r\n", "  \n "];

/// What stands in place of a value now and then: all that is JSON and out of the ordinary, and some that is none.
const ODD: [&str; 24] = [
    "null",
    "true",
    "-0",
    "-1",
    "1.0",
    "1.5",
    "1e2",
    "1E+400",
    "1e-7",
    "0.10",
    "18446744073709551616",
    "-9223372036854775809",
    "123456789012345678901234567890123456789012",
    "\"\"",
    "\"null\"",
    "\"5\"",
    "\"\\u0061\\/\\n\\\"\"",
    "\"ü€😀\"",
    "{}",
    "[]",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
    "{\"a\": {\"a\": 1, \"a\": 2}}",
    "01",
    "nul",
];

/// Prints JSON in some style, and leaves the straight path now and then.
fn print(value: &Value, choices: &mut Choices, out: &mut String) {
    if choices.rarely(60) {
        out.push_str(choices.of(&ODD));
        return;
    }
    match value {
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                out.push_str(if n > 0 { "," } else { "" });
                out.push_str(choices.of(&BLANKS));
                print(item, choices, out);
            }
            out.push_str(choices.of(&BLANKS));
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            let mut first = true;
            for (name, value) in map {
                if choices.rarely(80) {
                    continue;
                }
                for _ in 0..if choices.rarely(120) { 2 } else { 1 } {
                    out.push_str(if first { "" } else { "," });
                    first = false;
                    out.push_str(choices.of(&BLANKS));
                    match choices.rarely(100) {
                        true => out.push_str("\"\\u0061b\""),
                        false => out.push_str(&Value::from(name.as_str()).to_string()),
                    }
                    out.push_str(choices.of(&["", "", " ", "\n"]));
                    out.push(':');
                    out.push_str(choices.of(&BLANKS));
                    print(value, choices, out);
                }
            }
            out.push_str(choices.of(&BLANKS));
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// One to four documents, alone or together in one of the forms that a file may have.
fn file(documents: &[Value], choices: &mut Choices) -> String {
    let some: Vec<Value> = (0..1 + choices.below(4))
        .map(|_| documents[choices.below(documents.len())].clone())
        .collect();
    let kind = choices.of(&["List", "List", "TierList", "ProfileList", "FooList", "Tier"]);
    let mut out = String::new();
    match choices.below(4) {
        0 => print(
            &json!({"kind": kind, "apiVersion": "v1", "items": some}),
            choices,
            &mut out,
        ),
        1 => print(
            &json!({"apiVersion": "projectcalico.org/v3", "items": some, "kind": kind, "metadata": {"a": 1}}),
            choices,
            &mut out,
        ),
        2 => print(&Value::from(some), choices, &mut out),
        _ => {
            for (n, document) in some.iter().enumerate() {
                let between = [
                    "\n---\n",
                    "\n---\n",
                    "\n---\r\n \n",
                    "\n--- ",
                    "\n...\n",
                    " ",
                    "\n",
                    "\n---\na: b\n---\n",
                ];
                out.push_str(if n > 0 { choices.of(&between) } else { "" });
                print(document, choices, &mut out);
            }
        }
    }
    out.push_str(choices.of(&[
        "",
        "",
        "",
        "\n",
        "\n---\n",
        "\n---\nkind: Tier\n",
        "\n# end\n",
        "}",
        " x",
        "\n...",
    ]));
    out
}

fn random_file() -> impl Strategy<Value = String> {
    let documents = as_json();
    prop::collection::vec(any::<u8>(), 0..400)
        .prop_map(move |bytes| file(&documents, &mut Choices(bytes.into_iter())))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn random_files_are_read_alike(text in random_file()) {
        agree(&text)?;
    }
}
