//! The same state of the kernel by the raw tools.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::inside;
use crate::netns::Namespace;

/// A final state, as the save tools print it.
pub struct State {
    backend: String,
    sets: String,
    rules: [String; 2],
}

impl State {
    /// What is in the kernel now.
    pub fn save(namespace: &Namespace, backend: &str) -> State {
        inside(namespace, || State::save_here(backend))
    }

    /// The same in the network namespace of the caller.
    pub fn save_here(backend: &str) -> State {
        State {
            backend: backend.to_owned(),
            sets: run("ipset", &["save"], ""),
            rules: ["iptables", "ip6tables"].map(|t| run(&format!("{t}-{backend}-save"), &[], "")),
        }
    }

    /// Time to read everything.
    pub fn read_back(&self, namespace: &Namespace) -> Duration {
        let begin = Instant::now();
        State::save(namespace, &self.backend);
        begin.elapsed()
    }

    /// Time to bring it into an empty kernel.
    pub fn restore(&self, namespace: &Namespace) -> Duration {
        let tools = ["iptables", "ip6tables"].map(|t| format!("{t}-{}-restore", self.backend));
        inside(namespace, || {
            let begin = Instant::now();
            run("ipset", &["restore"], &self.sets);
            for (tool, rules) in tools.iter().zip(&self.rules) {
                run(tool, &["--wait"], rules);
            }
            begin.elapsed()
        })
    }
}

/// Time of the restore tools for these changes of both families.
pub fn restore_texts(namespace: &Namespace, backend: &str, texts: &[String; 2]) -> Duration {
    inside(namespace, || {
        let begin = Instant::now();
        for (tool, text) in ["iptables", "ip6tables"].iter().zip(texts) {
            let tool = format!("{tool}-{backend}-restore");
            run(&tool, &["--noflush", "--wait"], text);
        }
        begin.elapsed()
    })
}

/// Runs a tool in the network namespace of the caller.
pub fn run(program: &str, args: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let mut stdin = child.stdin.take().expect("piped");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        child.wait_with_output()
    });
    let output = output.expect("a tool that ends");
    assert!(output.status.success(), "{program} failed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
