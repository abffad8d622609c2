//! The documents say what the programs do: settings, commands, options and examples.

use std::path::PathBuf;
use std::process::{Command, Output};

use moat::config::PARAMS;

fn read(path: &str) -> String {
    let full = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&full).unwrap_or_else(|e| panic!("{}: {e}", full.display()))
}

/// A manual page as running text: one blank between words, quotes as they are shown.
fn running_text(page: &str) -> String {
    let words: Vec<&str> = page.split_whitespace().filter(|w| *w != ".Li").collect();
    words.join(" ").replace("\\(dq", "\"")
}

/// What belongs to one `.It` of a page: from this heading to the next.
fn item<'a>(page: &'a str, heading: &str) -> &'a str {
    let begin = page
        .find(&format!("\n{heading}"))
        .unwrap_or_else(|| panic!("no `{heading}`"));
    let rest = &page[begin + 1..];
    &rest[..rest.find("\n.It ").unwrap_or(rest.len())]
}

fn moatctl(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_moatctl"))
        .args(args)
        .output()
        .expect("moatctl runs")
}

fn help(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .arg("--help")
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{program} {args:?} --help");
    String::from_utf8(output.stdout).expect("help is UTF-8")
}

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let listed = help
        .lines()
        .skip_while(|l| *l != "Commands:")
        .skip(1)
        .take_while(|l| !l.is_empty());
    listed
        .filter_map(|l| l.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// The long options that a help text lists, without their dashes.
fn options(help: &str) -> Vec<String> {
    let words = help
        .lines()
        .filter(|l| l.trim_start().starts_with('-'))
        .flat_map(str::split_whitespace);
    words
        .filter_map(|w| w.strip_prefix("--"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_setting_is_in_the_manual() {
    let page = read("docs/man/moat.toml.5");
    for param in PARAMS {
        let entry = running_text(item(&page, &format!(".It Va {}\n", param.name)));
        let default = format!("Default: {}", param.default_text());
        let scope = if param.felix {
            "FelixConfiguration may set it."
        } else {
            "Set on the host only."
        };
        for part in [
            param.doc,
            &format!("Value: {}.", param.kind.accepts()),
            &default,
            scope,
        ] {
            assert!(
                entry.contains(part),
                "{}: `{part}` is not in `{entry}`",
                param.name
            );
        }
    }
    let documented = page.lines().filter(|l| l.starts_with(".It Va ")).count();
    assert_eq!(
        documented,
        PARAMS.len(),
        "settings in the manual that do not exist"
    );
}

#[test]
fn every_command_and_option_of_moatctl_is_in_the_manual() {
    let program = env!("CARGO_BIN_EXE_moatctl");
    let page = read("docs/man/moatctl.1");
    let top = help(program, &[]);
    let commands = commands(&top);
    assert!(commands.len() > 8, "{commands:?}");
    for command in &commands {
        let found = page.contains(&format!(".It Cm {command}"))
            || page.contains(&format!("\n.Cm {command}\n"));
        assert!(found, "moatctl {command} is not in moatctl(1)");
    }
    let texts = commands
        .iter()
        .filter(|c| *c != "help")
        .map(|c| help(program, &[c]));
    for text in texts.chain([top.clone(), help(program, &["config", "show"])]) {
        for option in options(&text) {
            assert!(
                page.contains(&format!("Fl -{option}")),
                "--{option} is not in moatctl(1)"
            );
        }
    }
}

#[test]
fn every_option_of_moatd_is_in_the_manual() {
    let program = env!("CARGO_BIN_EXE_moatd");
    let page = read("docs/man/moatd.8");
    for text in [help(program, &[]), help(program, &["cleanup"])] {
        for option in options(&text) {
            assert!(
                page.contains(&format!("Fl -{option}")),
                "--{option} is not in moatd(8)"
            );
        }
    }
    assert!(page.contains(".Cm cleanup"));
}

/// The fenced blocks of the README in this language.
fn blocks(language: &str) -> Vec<String> {
    let readme = read("README.md");
    let fence = format!("```{language}\n");
    readme
        .split(&fence)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

/// The example in a file of a directory of its own.
fn saved(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("web1.yaml"), text).expect("a file");
    let path = dir.path().to_str().expect("a path").to_owned();
    (dir, path)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn assert_valid(text: &str) {
    let (_dir, path) = saved(text);
    let output = moatctl(&["validate", "--strict", "--node", "web1", "-f", &path]);
    assert!(output.status.success(), "{text}\n{}", said(&output));
}

#[test]
fn the_example_of_the_readme_is_valid() {
    let text = blocks("yaml").join("\n---\n");
    assert!(text.contains("kind: HostEndpoint") && text.contains("kind: GlobalNetworkPolicy"));
    assert_valid(&text);
}

/// Every `moatctl ... --offline` line of the README is run, and the answer that is printed there is the real one.
#[test]
fn the_readme_explains_as_moatctl_does() {
    let (_dir, path) = saved(&blocks("yaml").join("\n---\n"));
    let mut answers = Vec::new();
    let consoles = blocks("console").concat();
    for line in consoles
        .lines()
        .filter_map(|l| l.strip_prefix("$ moatctl explain "))
    {
        let line = format!("explain {}", line.replace("/etc/moat/policy.d", &path));
        let output = moatctl(&line.split_whitespace().collect::<Vec<_>>());
        assert!(
            matches!(output.status.code(), Some(0 | 1)),
            "{line}: {}",
            said(&output)
        );
        answers.push(said(&output).replace(&path, "/etc/moat/policy.d"));
    }
    for shown in blocks("text") {
        assert!(
            answers.contains(&shown),
            "the README shows\n{shown}\nbut moatctl says\n{}",
            answers.join("\n")
        );
    }
}

#[test]
fn the_example_of_the_policy_manual_is_valid() {
    let page = read("docs/man/moat-policy.7");
    let example = page
        .split(".Bd -literal -offset indent\n")
        .nth(1)
        .expect("an example");
    let text = example
        .split(".Ed")
        .next()
        .unwrap_or_default()
        .replace("\\(aq", "'");
    assert_valid(&text);
}
