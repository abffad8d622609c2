//! What only these tests do with a host: programs that end by themselves.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::host::Host;

const MOATD: &str = env!("CARGO_BIN_EXE_moatd");

impl Host {
    /// Starts a moatd that is expected to end by itself; its exit code and its messages.
    pub fn refused(&self) -> (Option<i32>, String) {
        let mut daemon = self.spawn(Path::new("/nonexistent"));
        let status = daemon.wait();
        (status.code(), daemon.log())
    }

    /// `moatd boot`: its exit code and its messages.
    pub fn boot(&self) -> (Option<i32>, String) {
        self.once(&mut Command::new(MOATD), &["boot"])
    }

    /// The same where every iptables tool is an empty file, in a mount namespace of its own.
    pub fn boot_without_tools(&self) -> (Option<i32>, String) {
        let script = "for tool in /usr/sbin/xtables-*-multi; do mount --bind /dev/null \"$tool\"; done; exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args([
            "-m",
            "--propagation",
            "private",
            "sh",
            "-ec",
            script,
            "sh",
            MOATD,
        ]);
        self.once(&mut command, &["boot"])
    }

    /// `moatd check`: its exit code and what it says.
    pub fn check(&self) -> (Option<i32>, String) {
        self.once(&mut Command::new(MOATD), &["check"])
    }

    fn once(&self, command: &mut Command, arguments: &[&str]) -> (Option<i32>, String) {
        let done = command
            .arg("--config")
            .arg(self.path("moat.toml"))
            .args(arguments)
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = [done.stdout, done.stderr].concat();
        (
            done.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    /// `moatd cleanup`; what it printed.
    pub fn cleanup(&self, options: &[&str]) -> String {
        self.run(MOATD, &[&["cleanup"][..], options].concat())
    }

    /// Rules in the order of a built-in chain of the filter table, IPv4.
    pub fn chain(&self, chain: &str) -> Vec<String> {
        let text = self.run(&format!("iptables-{}", self.backend), &["-w", "-S", chain]);
        text.lines()
            .filter(|l| l.starts_with("-A"))
            .map(str::to_owned)
            .collect()
    }
}
