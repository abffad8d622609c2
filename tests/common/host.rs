//! A host for one test: the thread's own network namespace with `eth0`, and a moatd inside. For the tests of the kernel and of etcd.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const MOATD: &str = env!("CARGO_BIN_EXE_moatd");
const MOATCTL: &str = env!("CARGO_BIN_EXE_moatctl");
const PATIENCE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);

/// Both families.
pub const FAMILIES: [&str; 2] = ["iptables", "ip6tables"];

/// One network namespace with its settings, policies and state.
pub struct Host {
    /// `nft` or `legacy`.
    pub backend: &'static str,
    dir: tempfile::TempDir,
}

/// A running moatd; killed when dropped, so that it leaves what SIGKILL leaves.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Host {
    /// Moves this thread into a new network namespace. Programs started by it are there too.
    pub fn new(backend: &'static str) -> Host {
        unshare(CloneFlags::CLONE_NEWNET).expect("run this test as root");
        let dir = tempfile::tempdir().unwrap();
        for part in ["policy.d", "state", "run"] {
            fs::create_dir(dir.path().join(part)).unwrap();
        }
        let host = Host { backend, dir };
        host.run("ip", &["link", "set", "lo", "up"]);
        host.run(
            "ip",
            &[
                "link", "add", "eth0", "type", "veth", "peer", "name", "far0",
            ],
        );
        host.run("ip", &["address", "add", "10.1.0.1/24", "dev", "eth0"]);
        host.run("ip", &["link", "set", "eth0", "up"]);
        host.settings("");
        host
    }

    /// A file or directory of this host.
    pub fn path(&self, part: &str) -> PathBuf {
        self.dir.path().join(part)
    }

    /// Writes moat.toml: the paths, the backend, and these lines.
    pub fn settings(&self, lines: &str) {
        let path = |part: &str| self.path(part).display().to_string();
        let text = format!(
            "policyDirs = [{:?}]\nstateDir = {:?}\nrunDir = {:?}\niptablesBackend = {:?}\nfelixHostname = \"h\"\n{lines}\n",
            path("policy.d"),
            path("state"),
            path("run"),
            self.backend,
        );
        fs::write(self.path("moat.toml"), text).unwrap();
    }

    /// Writes a policy file as careful programs do.
    pub fn policy(&self, file: &str, text: &str) {
        let hidden = self.path("policy.d/.new");
        fs::write(&hidden, text).unwrap();
        fs::rename(hidden, self.path("policy.d").join(file)).unwrap();
    }

    /// Starts moatd and waits until it says that it is ready.
    pub fn start(&self) -> Daemon {
        let socket = self.path("notify");
        // The socket of an earlier start is in the way.
        let _ = fs::remove_file(&socket);
        let messages = UnixDatagram::bind(&socket).unwrap();
        messages.set_read_timeout(Some(POLL)).unwrap();
        let mut daemon = self.spawn(&socket);
        let end = Instant::now() + PATIENCE;
        let mut buffer = [0; 4096];
        while Instant::now() < end {
            let text = messages
                .recv(&mut buffer)
                .map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned());
            if text.is_ok_and(|t| t.lines().any(|l| l == "READY=1")) {
                return daemon;
            }
            if let Ok(Some(status)) = daemon.child.try_wait() {
                panic!("moatd ended with {status}:\n{}", daemon.log());
            }
        }
        panic!("moatd is not ready:\n{}", daemon.log());
    }

    /// Starts moatd without waiting for anything.
    pub fn spawn(&self, notify: &Path) -> Daemon {
        let log = self.path("moatd.log");
        let child = Command::new(MOATD)
            .arg("--config")
            .arg(self.path("moat.toml"))
            .env("NOTIFY_SOCKET", notify)
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Daemon { child, log }
    }

    /// `moatctl status -o json`.
    pub fn status(&self) -> serde_json::Value {
        let socket = self.path("run/moatd.sock").display().to_string();
        let text = self.run(MOATCTL, &["--socket", &socket, "status", "-o", "json"]);
        serde_json::from_str(&text).unwrap()
    }

    /// Runs a program and returns what it printed; it must succeed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        self.attempt(program, arguments)
            .unwrap_or_else(|e| panic!("{e}"))
    }

    fn attempt(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let done = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&done.stderr);
        match done.status.success() {
            true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
            false => Err(format!("{program} {arguments:?}: {errors}")),
        }
    }

    /// One iptables command of the host's administrator, in both families.
    pub fn both(&self, arguments: &[&str]) {
        for family in FAMILIES {
            self.run(
                &format!("{family}-{}", self.backend),
                &[&["-w"][..], arguments].concat(),
            );
        }
    }

    /// Rules and chains of both families of a backend, without comments of the tool.
    pub fn rules_of(&self, backend: &str, options: &[&str]) -> Vec<String> {
        // The tool asks the kernel for the name of each set that a rule of before has: a set that went in between is an error.
        let saved = |family| {
            let save = || self.attempt(&format!("{family}-{backend}-save"), options);
            let last = std::cell::RefCell::new(String::new());
            wait_for(
                || save().map_err(|e| last.replace(e)).ok(),
                || last.borrow().clone(),
            )
        };
        let text = FAMILIES.map(saved);
        let lines = text.iter().flat_map(|t| t.lines());
        lines
            .filter(|l| !l.starts_with('#'))
            .map(str::to_owned)
            .collect()
    }

    /// Rules and chains of this host's backend.
    pub fn rules(&self) -> Vec<String> {
        self.rules_of(self.backend, &[])
    }

    /// Names and members of all sets.
    pub fn sets(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .run("ipset", &["save"])
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    }
}

impl Daemon {
    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for(
            || self.child.try_wait().unwrap(),
            || "moatd does not end".to_owned(),
        )
    }

    /// SIGTERM, and its end.
    pub fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        assert!(status.success(), "{status}:\n{}", self.log());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until there is an answer.
pub fn wait_for<T>(mut ask: impl FnMut() -> Option<T>, complaint: impl Fn() -> String) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "{}", complaint());
        std::thread::sleep(POLL);
    }
}

/// Waits until something holds.
pub fn wait_until(mut holds: impl FnMut() -> bool, complaint: impl Fn() -> String) {
    wait_for(|| holds().then_some(()), complaint);
}
