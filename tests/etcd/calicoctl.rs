//! moatctl beside calicoctl: the files in tests/etcd/calicoctl say what calicoctl did with the same command lines and an empty etcd, and
//! moatctl must do the same. With `CALICOCTL=PATH` that program is asked instead and the files are written anew.
//!
//! A file is a dialogue. `$ WORDS` is a command line of the tool, behind it `> ` lines are its standard input, `| ` lines what it printed (`¶`
//! at the end guards blanks), `! ` lines what it complained of, and `= N` its exit code if that is not 0. `!~ ` is a complaint
//! that moatctl makes in its own words. `$ stored KEY` shows a value in etcd byte for byte, `$ spec KEY` only the spec of a
//! policy without its tier (old clients have none, and put `default.` before the name), `$ put KEY` stores the input, and `$ file NAME`
//! writes it into a file. What differs each time (uid, times, revisions) is shown by its name.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::feed::feed;
use crate::host::Host;
use crate::server::{Etcd, KEYS};

const MOATCTL: &str = env!("CARGO_BIN_EXE_moatctl");

/// A command, its input, and what came of it.
#[derive(Clone, Default)]
struct Step {
    remarks: Vec<String>,
    words: String,
    input: Vec<String>,
    printed: Vec<String>,
    complained: Vec<String>,
    own_words: bool,
    code: i32,
}

fn read(text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut step = Step::default();
    for line in text.lines() {
        let is_new = line.starts_with('#') && !step.words.is_empty();
        if is_new || (line.starts_with("$ ") && !step.words.is_empty()) {
            steps.push(std::mem::take(&mut step));
        }
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.to_owned();
        match mark {
            "#" => step.remarks.push(rest),
            "$" => step.words = rest,
            ">" => step.input.push(rest),
            "|" => step.printed.push(match rest.strip_suffix(" ¶") {
                Some(blanks) => format!("{blanks} "),
                None => rest,
            }),
            "!" => step.complained.push(rest),
            "!~" => {
                step.own_words = true;
                step.complained.push(rest);
            }
            "=" => step.code = rest.parse().unwrap(),
            _ => panic!("{line}"),
        }
    }
    steps.push(step);
    steps
}

fn written(steps: &[Step]) -> String {
    let mut out = String::new();
    for step in steps {
        let mut lines = |mark: &str, lines: &[String]| {
            for line in lines {
                let guard = if line.ends_with(' ') { "¶" } else { "" };
                let space = if line.is_empty() { "" } else { " " };
                writeln!(out, "{mark}{space}{line}{guard}").unwrap();
            }
        };
        lines("#", &step.remarks);
        lines("$", std::slice::from_ref(&step.words));
        lines(">", &step.input);
        lines("|", &step.printed);
        lines(if step.own_words { "!~" } else { "!" }, &step.complained);
        if step.code != 0 {
            writeln!(out, "= {}", step.code).unwrap();
        }
    }
    out
}

/// Words as a shell would split them; a quoted word is one.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut is_word) = (String::new(), None, false);
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => (quote, is_word) = (Some(c), true),
            (None, ' ') if is_word => {
                words.push(std::mem::take(&mut word));
                is_word = false;
            }
            (None, ' ') => {}
            (_, c) => {
                word.push(c);
                is_word = true;
            }
        }
    }
    words.extend(is_word.then_some(word));
    words
}

/// What differs each time, by its name.
fn steady(line: &str) -> String {
    const MARKS: [(&str, &str); 5] = [
        ("hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh", "UID"),
        ("hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh", "GUID"),
        ("dddd-dd-ddTdd:dd:ddZ", "TIME"),
        ("resourceVersion\": \"", "resourceVersion\": \"REVISION"),
        ("resourceVersion: \"", "resourceVersion: \"REVISION"),
    ];
    let bytes = line.as_bytes();
    let fits = |at: usize, pattern: &str| {
        let is_same = |(n, p): (usize, u8)| match (bytes.get(at + n), p) {
            (Some(b), b'h') if pattern.len() > 20 => b.is_ascii_hexdigit(),
            (Some(b), b'd') if pattern.len() == 20 => b.is_ascii_digit(),
            (b, p) => b == Some(&p),
        };
        pattern.bytes().enumerate().all(is_same)
    };
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let Some((pattern, name)) = MARKS.iter().find(|(pattern, _)| fits(at, pattern)) else {
            out.push(bytes[at]);
            at += 1;
            continue;
        };
        out.extend_from_slice(name.as_bytes());
        at += pattern.len();
        if name.ends_with("REVISION") {
            at += bytes[at..]
                .iter()
                .take_while(|b| b.is_ascii_digit())
                .count();
        }
    }
    String::from_utf8(out).unwrap()
}

/// Complaints without the tool's name, in small letters at their beginning, and without the words with which Go says that there is no cause.
fn complaint(line: &str) -> Option<String> {
    let line = line.strip_prefix("moatctl: ").unwrap_or(line);
    let line = steady(line).replace(" with error: <nil>", "");
    let mut chars = line.chars();
    let first = chars.next()?;
    Some(format!("{}{}", first.to_lowercase(), chars.as_str()))
}

struct Site {
    etcd: Etcd,
    dir: PathBuf,
    tool: String,
    _host: Host,
}

impl Site {
    fn new(tool: &str) -> Site {
        let host = Host::new("nft");
        let dir = host.path("files");
        fs::create_dir_all(&dir).unwrap();
        Site {
            etcd: Etcd::start(&host.path("etcd")),
            dir,
            tool: tool.to_owned(),
            _host: host,
        }
    }

    /// What comes of a step.
    fn play(&self, step: &Step) -> Step {
        let words = split(&step.words);
        let input = step
            .input
            .iter()
            .map(|line| format!("{line}\n"))
            .collect::<String>();
        let mut done = Step {
            printed: Vec::new(),
            complained: Vec::new(),
            code: 0,
            ..step.clone()
        };
        match words[0].as_str() {
            "stored" => done.printed.push(self.stored(&words[1])),
            "spec" => done.printed.push(self.spec(&words[1])),
            "put" => drop(
                self.etcd
                    .ctl(&["put", "--", &whole(&words[1]), input.trim_end()]),
            ),
            "file" => {
                let file = self.dir.join(&words[1]);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, input).unwrap();
            }
            _ => self.run(&words, &input, &mut done),
        }
        done
    }

    fn run(&self, words: &[String], input: &str, done: &mut Step) {
        let mut command = Command::new(&self.tool);
        command
            .args(words)
            .current_dir(&self.dir)
            .env("ETCD_ENDPOINTS", "http://127.0.0.1:2379")
            .env("DATASTORE_TYPE", "etcdv3");
        let output = feed(&mut command, input);
        let lines = |bytes: &[u8]| -> Vec<String> {
            let text = String::from_utf8_lossy(bytes).into_owned();
            text.lines().map(str::to_owned).collect()
        };
        done.printed = lines(&output.stdout).iter().map(|l| steady(l)).collect();
        done.complained = lines(&output.stderr)
            .iter()
            .filter_map(|l| complaint(l))
            .collect();
        done.code = output.status.code().unwrap();
    }

    fn stored(&self, key: &str) -> String {
        let value = self.etcd.ctl(&["get", "--print-value-only", &whole(key)]);
        // Newer clients know one field more.
        let newer = r#","assignmentMode":"Automatic""#;
        steady(&value.trim_end().replace(newer, ""))
    }

    fn spec(&self, key: &str) -> String {
        let (place, name) = key.rsplit_once('/').unwrap();
        let [new, old] = [name.to_owned(), format!("default.{name}")]
            .map(|name| self.stored(&format!("{place}/{name}")));
        let value: Value = serde_json::from_str(if new.is_empty() { &old } else { &new }).unwrap();
        let mut spec = value["spec"].clone();
        spec.as_object_mut().unwrap().shift_remove("tier");
        spec.to_string()
    }
}

/// A key of resources may be given by its end.
fn whole(key: &str) -> String {
    match key.starts_with('/') {
        true => key.to_owned(),
        false => format!("{KEYS}{key}"),
    }
}

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/etcd/calicoctl");
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    files
}

/// The two dialogues where they differ.
fn difference(expected: &Step, found: &Step) -> Option<String> {
    let is_same = expected.printed == found.printed && expected.code == found.code;
    let complains = match expected.own_words {
        true => expected.complained.is_empty() == found.complained.is_empty(),
        false => expected.complained == found.complained,
    };
    (!is_same || !complains).then(|| {
        let [expected, found] = [expected, found].map(|step| written(std::slice::from_ref(step)));
        format!("calicoctl:\n{expected}\nmoatctl:\n{found}")
    })
}

#[test]
fn moatctl_does_what_calicoctl_does() {
    let other = std::env::var("CALICOCTL").ok();
    let mut differences = Vec::new();
    for file in files() {
        let steps = read(&fs::read_to_string(&file).unwrap());
        let site = Site::new(other.as_deref().unwrap_or(MOATCTL));
        let found: Vec<Step> = steps.iter().map(|step| site.play(step)).collect();
        if other.is_some() {
            fs::write(&file, written(&found)).unwrap();
            continue;
        }
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let differ = steps
            .iter()
            .zip(&found)
            .filter_map(|(e, f)| difference(e, f));
        differences.extend(differ.map(|text| format!("{name}: {text}")));
    }
    assert!(other.is_some() || !files().is_empty());
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}
