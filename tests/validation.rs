//! Broken and hostile inputs as data: `tests/validation/*.yaml`. Each case is a text and exactly what moat says about it.
//!
//! A case has a `name`, one form of text (`input`; `hex` for bytes; `repeat` with `before`, `part`, `times`, `after`
//! for large texts), and `expect`: one line per issue, `LINE:COLUMN: severity: ...`, as the user sees it without the
//! file name. The issue must start with it. `rest` is the number of further issues, where there are too many to list. `gives` lists the resources that are valid nevertheless.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use moat::api::yaml::{Node, Value, documents};
use moat::api::{Issue, Parsed, parse_bytes, parse_document};

/// No input may take longer, in a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Case {
    place: String,
    text: Vec<u8>,
    expect: Vec<String>,
    gives: Vec<String>,
    rest: usize,
}

fn strings(node: Option<&Node>) -> Vec<String> {
    match node.map(|node| &node.value) {
        Some(Value::Seq(items)) => items
            .iter()
            .filter_map(Node::text)
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    }
}

fn text(case: &Node) -> Vec<u8> {
    if let Some(input) = case.get("input").and_then(Node::text) {
        return input.as_bytes().to_vec();
    }
    if let Some(hex) = case.get("hex").and_then(Node::text) {
        return hex
            .split_whitespace()
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
    }
    let repeat = case.get("repeat").expect("a case has input, hex or repeat");
    let part = |name| repeat.get(name).and_then(Node::text).unwrap_or_default();
    let times: usize = part("times").parse().unwrap();
    // `{n}` in the part is the number of the repetition, so that keys can differ.
    let middle: String = match part("part").contains("{n}") {
        true => (0..times)
            .map(|n| part("part").replace("{n}", &n.to_string()))
            .collect(),
        false => part("part").repeat(times),
    };
    format!("{}{middle}{}", part("before"), part("after")).into_bytes()
}

fn cases(file: &Path) -> Vec<Case> {
    let (documents, error) = documents(&std::fs::read(file).unwrap());
    assert_eq!(error, None, "{}", file.display());
    let Some(Node {
        value: Value::Seq(list),
        ..
    }) = documents.into_iter().next()
    else {
        panic!("{}", file.display())
    };
    let one = |case: &Node| Case {
        place: format!(
            "{}:{} {}",
            file.display(),
            case.line,
            case.get("name").and_then(Node::text).unwrap()
        ),
        text: text(case),
        expect: strings(case.get("expect")),
        gives: strings(case.get("gives")),
        rest: case
            .get("rest")
            .and_then(Node::text)
            .map_or(0, |n| n.parse().unwrap()),
    };
    list.iter().map(one).collect()
}

fn files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/validation");
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// What the user sees, without file name and without the lines of help that follow.
fn line(issue: &Issue) -> String {
    let shown = issue.to_string();
    shown
        .trim_start_matches("f:")
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn verdict(case: &Case, parsed: &Parsed) -> Result<(), String> {
    let said: Vec<String> = parsed.issues.iter().map(line).collect();
    let gave: Vec<String> = parsed
        .resources
        .iter()
        .map(|resource| resource.id.to_string())
        .collect();
    let as_expected = said.len() == case.expect.len() + case.rest
        && said.iter().zip(&case.expect).all(|(s, e)| s.starts_with(e));
    if as_expected && gave == case.gives {
        return Ok(());
    }
    Err(format!(
        "{}\n  says   {:#?}\n  wanted {:#?}\n  gives  {gave:?}\n  wanted {:?}",
        case.place, said, case.expect, case.gives
    ))
}

#[test]
fn every_case_says_what_it_should() {
    let all: Vec<Case> = files().iter().flat_map(|file| cases(file)).collect();
    assert!(all.len() >= 110, "only {} cases", all.len());
    let mut failures = Vec::new();
    for case in &all {
        let start = Instant::now();
        let parsed = parse_bytes("f", &case.text);
        failures.extend(verdict(case, &parsed).err());
        if start.elapsed() > PATIENCE {
            failures.push(format!("{} took {:?}", case.place, start.elapsed()));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} cases fail:\n{}",
        failures.len(),
        all.len(),
        failures.join("\n")
    );
}

/// What is stored is read again as it was: from its JSON with its lines, and from its YAML.
#[test]
fn valid_resources_survive_storage() {
    let mut count = 0;
    for case in files().iter().flat_map(|file| cases(file)) {
        for resource in parse_bytes("f", &case.text).resources {
            let stored = parse_document(&resource.raw, &resource.origin, &resource.rule_lines());
            let stored = stored.unwrap_or_else(|issues| panic!("{}: {issues:?}", case.place));
            assert!(stored.same_content(&resource), "{}", case.place);
            assert_eq!(
                format!("{stored:?}"),
                format!("{resource:?}"),
                "{}",
                case.place
            );
            let printed = parse_bytes("f", resource.to_yaml().as_bytes());
            assert!(
                !printed.has_errors(),
                "{}: {:?}\n{}",
                case.place,
                printed.issues,
                resource.to_yaml()
            );
            assert_eq!(printed.resources[0].raw, resource.raw, "{}", case.place);
            count += 1;
        }
    }
    assert!(count > 40);
}

/// Cut and damaged texts are refused or accepted, but nothing ever panics.
#[test]
fn damaged_texts_do_no_harm() {
    const LARGE: usize = 4096;
    let damage = b"{}[]:,-\"'#&*!|>%@\n\t \0\xff";
    for (seed, case) in files().iter().flat_map(|file| cases(file)).enumerate() {
        if case.text.len() > LARGE {
            continue;
        }
        for cut in (seed % 13..case.text.len()).step_by(13) {
            parse_bytes("f", &case.text[..cut]);
            let mut damaged = case.text.clone();
            damaged[cut] = damage[(seed + cut) % damage.len()];
            parse_bytes("f", &damaged);
        }
    }
}
