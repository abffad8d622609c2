//! Tools that fail, hang, flood or are not there.

use super::*;

fn tools(patience: u64) -> Tools {
    Tools::new(TOOL_PATH, Duration::from_millis(patience))
}

fn shell(patience: u64, script: &str, input: &str) -> Result<Vec<String>, CommandError> {
    let mut lines = Vec::new();
    tools(patience).read("sh", &["-c", script], input.to_owned(), |line| {
        lines.push(line.to_owned());
        line != "nonsense"
    })?;
    Ok(lines)
}

#[test]
fn lines_come_as_they_are_printed() {
    let long = "x".repeat(50_000);
    let input = format!("one\n{long}\n\ntwo\n{long}\nlast");
    let lines = shell(10_000, "cat", &input).unwrap();
    assert_eq!(lines, input.split('\n').collect::<Vec<_>>());
    assert_eq!(shell(10_000, "true", "").unwrap(), Vec::<String>::new());
    assert_eq!(shell(10_000, "printf 'a\\377\\nb\\n'", "").unwrap()[1], "b");
}

#[test]
fn children_know_nothing_of_us() {
    let lines = shell(10_000, "env", "").unwrap();
    let names: Vec<&str> = lines.iter().filter_map(|l| l.split('=').next()).collect();
    let known = ["PATH", "LC_ALL", "PWD", "_", "SHLVL", "XTABLES_LOCKFILE"];
    assert!(names.iter().all(|n| known.contains(n)), "{names:?}");
}

#[test]
fn a_failure_has_the_words_of_the_tool() {
    let error = shell(
        10_000,
        "cat >&2; echo 'line 2 failed' >&2; exit 3",
        "a\nb\n",
    )
    .unwrap_err();
    assert!(error.is_refusal() && !error.is_missing());
    assert_eq!(error.words(), "a b line 2 failed");
    assert!(error.to_string().ends_with("in the line: b"), "{error}");
    let flood = shell(10_000, "yes | head -c 10000000 >&2; exit 1", "").unwrap_err();
    assert!(flood.words().len() < 2 * MAX_STDERR);
}

#[test]
fn a_tool_that_does_not_end_is_killed_with_what_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("alive");
    let script = format!("(sleep 1; touch {}) & sleep 1000", mark.display());
    let error = shell(200, &script, "").unwrap_err();
    assert!(matches!(error, CommandError::Hung { .. }) && !error.is_refusal());
    thread::sleep(Duration::from_millis(1500));
    assert!(!mark.exists());
    // Neither does one hold us up that leaves its pipes to somebody else, nor one that never reads.
    assert!(shell(200, "setsid sleep 3 & exit 0", "").is_err());
    assert!(shell(200, "sleep 1000", &"x".repeat(1 << 20)).is_err());
}

#[test]
fn floods_and_nonsense_end_the_tool() {
    for script in ["yes nonsense", "cat /dev/zero"] {
        let error = shell(60_000, script, "").unwrap_err();
        assert!(matches!(error, CommandError::Nonsense { .. }), "{error}");
    }
}

#[test]
fn a_tool_that_is_not_there() {
    let error = tools(1000)
        .run("moat-no-such-tool", &[], String::new())
        .unwrap_err();
    assert!(error.is_missing() && !error.is_refusal());
}
