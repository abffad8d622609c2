//! Network namespaces: made under names of this process, entered by a thread of their own, removed
//! on drop. What a killed run left behind, the next one removes.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns};

const DIR: &str = "/run/netns";
const PREFIX: &str = "moat-test-";

/// A network namespace.
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// The name of a namespace of this process, by a number that must be unique.
    pub fn name_for(number: usize, role: &str) -> String {
        format!("{PREFIX}{}-{number}-{role}", std::process::id())
    }

    /// Takes over a namespace that `ip netns add` has made.
    ///
    /// # Errors
    /// It does not exist.
    pub fn open(name: String) -> Result<Namespace, String> {
        let path = format!("{DIR}/{name}");
        let file = File::open(&path).map_err(|e| format!("{path}: {e}"))?;
        Ok(Namespace { name, file })
    }

    /// As `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a closure inside. Sockets opened and programs started there stay inside.
    pub fn enter<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).expect("entering a namespace");
            job()
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Runs a program inside and returns what it printed.
    ///
    /// # Errors
    /// It is missing or failed; with its error output.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        self.enter(|| output(Command::new(program).args(arguments)))
    }

    /// Runs the lines of an `ip -batch` inside.
    ///
    /// # Errors
    /// The first line that fails.
    pub fn ip(&self, lines: &[String]) -> Result<(), String> {
        self.enter(|| ip_batch(lines))
    }

    /// Sets a value below `/proc/sys/net` inside.
    ///
    /// # Errors
    /// The kernel has no such value or refuses it.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), String> {
        let path = format!("/proc/sys/net/{key}");
        self.enter(|| std::fs::write(&path, value).map_err(|e| format!("{path}: {e}")))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The kernel tidies up in its own time; a failure here shows in the next run's clean-up.
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// Runs `ip -batch` in the namespace of the calling thread.
///
/// # Errors
/// The first line that fails.
pub fn ip_batch(lines: &[String]) -> Result<(), String> {
    let text = lines.join("\n");
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("ip: {e}"))?;
    let mut stdin = child.stdin.take().ok_or("ip: no input")?;
    stdin
        .write_all(text.as_bytes())
        .map_err(|e| format!("ip: {e}"))?;
    drop(stdin);
    let done = child.wait_with_output().map_err(|e| format!("ip: {e}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!(
            "ip: {} in:\n{text}",
            String::from_utf8_lossy(&done.stderr).trim()
        )),
    }
}

/// Runs a program and returns what it printed.
///
/// # Errors
/// It is missing or failed; with its error output.
pub fn output(command: &mut Command) -> Result<String, String> {
    let done = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{command:?}: {e}"))?;
    match done.status.success() {
        true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
        false => Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        )),
    }
}

/// Removes the namespaces of runs that are over.
pub fn remove_stale() {
    let Ok(entries) = std::fs::read_dir(DIR) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(PREFIX).and_then(|n| n.split('-').next()) else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

/// Real packets need root and the programs that make hosts of namespaces.
///
/// # Errors
/// What is missing, and how to get it.
pub fn check_machine() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err(
            "these tests send real packets through network namespaces: run them as root".into(),
        );
    }
    let missing: Vec<&str> = [
        "ip",
        "iptables-nft",
        "iptables-legacy",
        "ipset",
        "nft",
        "conntrack",
    ]
    .into_iter()
    .filter(|name| Command::new(name).arg("--version").output().is_err())
    .collect();
    match missing.as_slice() {
        [] => Ok(()),
        names => Err(format!(
            "missing: {}; apt-get install iproute2 iptables ipset nftables conntrack",
            names.join(", ")
        )),
    }
}
