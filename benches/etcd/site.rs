//! An etcd and a moatd in a network namespace of this process.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

use moat::config::{Input, Settings};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

/// Where etcd listens.
pub const URL: &str = "http://127.0.0.1:2379";
/// Where its proxy listens.
pub const PROXY_URL: &str = "http://127.0.0.1:23790";
const PATIENCE: Duration = Duration::from_secs(300);

/// Before any other thread is started.
pub fn enter_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("root");
    for command in [
        "link set lo up",
        "link add eth0 type veth peer name far0",
        "address add 10.1.0.1/24 dev eth0",
        "link set eth0 up",
    ] {
        let done = Command::new("ip").args(command.split(' ')).status();
        assert!(done.expect("iproute2").success(), "{command}");
    }
}

/// An etcd of its own, and the files of a host.
pub struct Site {
    dir: tempfile::TempDir,
    etcd: Child,
}

impl Site {
    /// Starts an empty etcd.
    pub fn new() -> Site {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("policy.d")).expect("a directory");
        let text = |name: &str| path(name).display().to_string();
        let settings = format!(
            "policyDirs = [{:?}]\nstateDir = {:?}\nrunDir = {:?}\nfelixHostname = \"h\"\ndatastoreType = \"etcdv3\"\netcdEndpoints = [{URL:?}]\n",
            text("policy.d"),
            text("state"),
            text("run"),
        );
        fs::write(path("moat.toml"), settings).expect("written");
        let etcd = Command::new("etcd")
            .args(["--data-dir", &text("etcd"), "--listen-client-urls", URL])
            .args([
                "--advertise-client-urls",
                URL,
                "--listen-peer-urls",
                "http://127.0.0.1:2380",
            ])
            .args(["--logger", "zap", "--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let site = Site {
            etcd: etcd.expect("etcd is installed"),
            dir,
        };
        wait_healthy(URL);
        site
    }

    /// etcd's process.
    pub fn etcd_pid(&self) -> u32 {
        self.etcd.id()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
    }
}

fn wait_healthy(url: &str) {
    let health = || {
        let done = Command::new("etcdctl")
            .args(["--endpoints", url, "get", "x"])
            .env("ETCDCTL_API", "3")
            .output();
        done.expect("etcdctl is installed").status.success()
    };
    wait(health);
}

/// etcd's own proxy, which makes one watch of many.
pub struct Proxy {
    child: Child,
}

impl Proxy {
    /// Starts it.
    pub fn start() -> Proxy {
        let child = Command::new("etcd")
            .args([
                "grpc-proxy",
                "start",
                "--endpoints",
                URL,
                "--listen-addr",
                "127.0.0.1:23790",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let proxy = Proxy {
            child: child.expect("etcd is installed"),
        };
        wait_healthy(PROXY_URL);
        proxy
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The default settings.
pub fn settings() -> Settings {
    moat::config::load(&Input::bare("h"))
        .expect("defaults")
        .settings
}

/// Present memory of this process, in kB.
pub fn process_memory() -> u64 {
    let text = fs::read_to_string("/proc/self/status").expect("a process");
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .expect("the field");
    line.trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number")
}

fn wait(mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "waited in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

/// A moatd.
pub struct Daemon {
    child: Child,
    socket: PathBuf,
    began: Instant,
}

impl Daemon {
    /// Starts it.
    pub fn start(site: &Site) -> Daemon {
        let began = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_moatd"))
            .arg("--config")
            .arg(site.path("moat.toml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Daemon {
            child: child.expect("moatd"),
            socket: site.path("run/moatd.sock"),
            began,
        }
    }

    fn ctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moatctl"));
        command
            .arg("--socket")
            .arg(&self.socket)
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn status(&self) -> Value {
        let done = self
            .ctl(&["status", "-o", "json"])
            .output()
            .expect("moatctl");
        serde_json::from_slice(&done.stdout).unwrap_or_default()
    }

    /// Waits until etcd's policy is in force; the time since the start.
    pub fn wait_sync(&self) -> Duration {
        wait(|| {
            let status = self.status();
            let sources = status["sources"].as_array().cloned().unwrap_or_default();
            let synced = sources.iter().all(|s| s["inSync"] == true) && sources.len() > 1;
            synced && status["state"] == "enforcing" && status["endpoints"][0]["name"] == "h"
        });
        self.began.elapsed()
    }

    /// Waits until the snapshot and its cache are written.
    pub fn wait_quiet(&self) {
        wait(|| {
            let status = self.status();
            status["snapshot"]["generation"] == status["generation"]
        });
        std::thread::sleep(Duration::from_secs(4));
    }

    /// Peak and present memory in MB.
    pub fn memory(&self) -> (u64, u64) {
        let path = format!("/proc/{}/status", self.child.id());
        let text = fs::read_to_string(path).expect("moatd runs");
        let field = |name: &str| {
            let line = text
                .lines()
                .find_map(|l| l.strip_prefix(name))
                .expect("the field");
            let kilobytes: u64 = line
                .trim()
                .trim_end_matches(" kB")
                .parse()
                .expect("a number");
            kilobytes / 1024
        };
        (field("VmHWM:"), field("VmRSS:"))
    }

    /// CPU time so far.
    pub fn cpu(&self) -> Duration {
        process_cpu(self.child.id())
    }

    /// What is applied, as it happens.
    pub fn watch(&self) -> Events {
        let mut command = self.ctl(&["status", "--watch", "-o", "json"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("moatctl");
        let out = BufReader::new(child.stdout.take().expect("its output"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if line.contains("\"what\":\"applied\"") && sender.send(line).is_err() {
                    return;
                }
            }
        });
        std::thread::sleep(Duration::from_millis(300));
        Events { child, lines }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let done = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        assert!(done.is_ok_and(|status| status.success()));
        // It may have ended already.
        let _ = self.child.wait();
    }
}

/// Events of one moatd.
pub struct Events {
    child: Child,
    lines: Receiver<String>,
}

impl Events {
    /// The time from that moment to the next apply.
    pub fn applied_after(&self, began: SystemTime) -> Duration {
        loop {
            let line = self
                .lines
                .recv_timeout(Duration::from_secs(10))
                .expect("applied");
            let event: Value = serde_json::from_str(&line).expect("JSON");
            let when = event["when"].as_str().expect("a time");
            let when = humantime::parse_rfc3339(when).expect("a time");
            // The event has whole milliseconds.
            if let Ok(lag) = (when + Duration::from_millis(1)).duration_since(began) {
                return lag;
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time of a process.
pub fn process_cpu(pid: u32) -> Duration {
    let path = Path::new("/proc").join(pid.to_string()).join("stat");
    let text = fs::read_to_string(path).expect("it runs");
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .expect("fields")
        .split_whitespace()
        .collect();
    let ticks: u64 = [11, 12]
        .iter()
        .map(|at| fields[*at].parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(ticks * 10)
}
