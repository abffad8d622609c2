//! A moatd of its own on the protected host of a case.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Map, Value};

use super::backend::Backend;
use super::case::Resources;
use super::netns::{Namespace, output};

const START: Duration = Duration::from_secs(15);
const STOP: Duration = Duration::from_secs(5);
/// A change is in force this long after the last write, on a machine with other work.
const CHANGE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);

/// The programs under test.
#[derive(Clone, Copy)]
pub struct Programs {
    /// moatd.
    pub moatd: &'static str,
    /// moatctl.
    pub moatctl: &'static str,
}

/// The files of one host: settings, policies, state.
pub struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    /// Writes the settings of a case for one backend.
    ///
    /// # Errors
    /// The temporary directory cannot be written.
    pub fn new(
        node: &str,
        settings: &Map<String, Value>,
        backend: Backend,
    ) -> Result<Files, String> {
        let dir = tempfile::tempdir().map_err(|e| format!("temporary directory: {e}"))?;
        let files = Files { dir };
        for part in ["policy.d", "state", "run"] {
            fs::create_dir(files.path(part)).map_err(|e| e.to_string())?;
        }
        let mut all = settings.clone();
        for (key, part) in [("stateDir", "state"), ("runDir", "run")] {
            all.insert(key.into(), files.path(part).to_string_lossy().into());
        }
        all.insert(
            "policyDirs".into(),
            vec![files.path("policy.d").to_string_lossy()].into(),
        );
        all.insert("iptablesBackend".into(), backend.name().into());
        all.insert("felixHostname".into(), node.into());
        let text = toml::to_string(&all).map_err(|e| format!("settings: {e}"))?;
        fs::write(files.settings(), text).map_err(|e| format!("moat.toml: {e}"))?;
        Ok(files)
    }

    /// The settings file.
    pub fn settings(&self) -> PathBuf {
        self.path("moat.toml")
    }

    /// Where a part of the host is.
    pub fn path(&self, part: &str) -> PathBuf {
        self.dir.path().join(part)
    }

    /// Brings the policy directory from one set of resources to another, a file for each.
    ///
    /// # Errors
    /// A file cannot be written or removed.
    pub fn change(&self, from: &Resources, to: &Resources) -> Result<(), String> {
        for (name, document) in to.iter().filter(|(name, d)| from.get(*name) != Some(d)) {
            let temporary = self.path("policy.d/.new");
            let text = serde_json::to_string_pretty(document).map_err(|e| e.to_string())?;
            fs::write(&temporary, text)
                .and_then(|()| fs::rename(&temporary, self.file(name)))
                .map_err(|e| format!("{name}: {e}"))?;
        }
        for name in from.keys().filter(|name| !to.contains_key(*name)) {
            fs::remove_file(self.file(name)).map_err(|e| format!("{name}: {e}"))?;
        }
        Ok(())
    }

    /// JSON is YAML: resources are written in the one and named in the other.
    fn file(&self, name: &str) -> PathBuf {
        self.path("policy.d")
            .join(format!("{}.yaml", name.replace('/', ".")))
    }
}

/// A running moatd.
pub struct Daemon {
    child: Child,
    programs: Programs,
    socket: PathBuf,
    log: PathBuf,
    /// Stays open, as systemd's does.
    messages: UnixDatagram,
}

impl Daemon {
    /// Starts moatd inside a namespace and waits until it says that it is ready.
    ///
    /// # Errors
    /// It ended or did not become ready; with its log.
    pub fn start(host: &Namespace, programs: Programs, files: &Files) -> Result<Daemon, String> {
        let notify = files.path("notify");
        let messages = UnixDatagram::bind(&notify).map_err(|e| format!("notify socket: {e}"))?;
        messages
            .set_read_timeout(Some(POLL))
            .map_err(|e| e.to_string())?;
        let log = files.path("moatd.log");
        let errors = File::create(&log).map_err(|e| format!("moatd.log: {e}"))?;
        let child = Command::new("ip")
            .args(["netns", "exec", host.name(), programs.moatd, "--config"])
            .arg(files.settings())
            .env("NOTIFY_SOCKET", &notify)
            .env_remove("JOURNAL_STREAM")
            // Settings of the harness, which moatd would refuse as unknown settings of its own.
            .env_remove("MOAT_TEST_MOATD")
            .env_remove("MOAT_TEST_MOATCTL")
            .env_remove("MOAT_TEST_CALICOCTL")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .map_err(|e| format!("moatd: {e}"))?;
        let socket = files.path("run/moatd.sock");
        let mut daemon = Daemon {
            child,
            programs,
            socket,
            log,
            messages,
        };
        daemon.wait_ready()?;
        Ok(daemon)
    }

    fn wait_ready(&mut self) -> Result<(), String> {
        let end = Instant::now() + START;
        let mut buffer = [0; 4096];
        while Instant::now() < end {
            match self.messages.recv(&mut buffer) {
                Ok(n)
                    if String::from_utf8_lossy(&buffer[..n])
                        .lines()
                        .any(|l| l == "READY=1") =>
                {
                    return Ok(());
                }
                Err(e) if !is_passing(e.kind()) => return Err(format!("notify socket: {e}")),
                _ => {}
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("moatd ended with {status}:\n{}", self.log()));
            }
        }
        Err(format!(
            "moatd is not ready after {START:?}:\n{}",
            self.log()
        ))
    }

    /// What moatd has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `moatctl status`, readable.
    pub fn status(&self) -> String {
        self.moatctl(&["status"]).unwrap_or_else(|e| e)
    }

    /// The number of the host policy in force.
    ///
    /// # Errors
    /// moatd does not answer, or not as documented.
    pub fn generation(&self) -> Result<u64, String> {
        let status = self.status_json()?;
        status["generation"]
            .as_u64()
            .ok_or_else(|| format!("no generation in {status}"))
    }

    /// Waits until what a datastore holds is in force; readiness does not wait for one.
    ///
    /// # Errors
    /// moatd does not answer, or has problems still after a while.
    pub fn wait_enforcing(&self) -> Result<(), String> {
        let end = Instant::now() + START;
        while self.status_json()?["state"] != "enforcing" {
            if Instant::now() >= end {
                return Err(format!(
                    "{}
{}",
                    self.status(),
                    self.log()
                ));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits for a later host policy than that of `generation`, or for the refusal of a file. A
    /// change without effect on this host has no number, so the end of the patience is no error:
    /// the probes decide.
    ///
    /// # Errors
    /// moatd does not answer.
    pub fn wait_change(&self, generation: u64, refusal: bool) -> Result<(), String> {
        let end = Instant::now() + CHANGE;
        loop {
            let status = self.status_json()?;
            let done = match refusal {
                true => status["state"] == "degraded",
                false => status["generation"].as_u64() > Some(generation),
            };
            if done || Instant::now() >= end {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
    }

    fn status_json(&self) -> Result<Value, String> {
        // Nobody else reads them, and a full queue would be taken for a fault.
        while self.messages.recv(&mut [0; 4096]).is_ok() {}
        let text = self.moatctl(&["status", "-o", "json"])?;
        serde_json::from_str(&text).map_err(|e| format!("status: {e}"))
    }

    fn moatctl(&self, arguments: &[&str]) -> Result<String, String> {
        output(
            Command::new(self.programs.moatctl)
                .arg("--socket")
                .arg(&self.socket)
                .args(arguments),
        )
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let Ok(pid) = i32::try_from(self.child.id()) else {
            return;
        };
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        let end = Instant::now() + STOP;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(POLL / 4);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a read that failed may succeed later.
fn is_passing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// A program of the build under test, or the one that an environment variable names.
pub fn program(variable: &str, built: &'static str) -> &'static str {
    match std::env::var(variable) {
        Ok(path) if Path::new(&path).exists() => Box::leak(path.into_boxed_str()),
        _ => built,
    }
}
