//! A moatd on the protected host, seen from outside: its files, its tools, its control socket, signals.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::backend::Backend;
use super::netns::{Namespace, output};

/// How long anything may take that must come: on a machine with other work.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two questions.
pub const POLL: Duration = Duration::from_millis(50);
const TOOLS: &str = "/usr/sbin";
/// Stands before the program in a mount namespace of its own: there the tools are what the harness makes of them.
const OWN_TOOLS: &str =
    "mount --bind /usr/sbin \"$1\" && mount --bind \"$2\" /usr/sbin && shift 2 && exec \"$@\"";

/// The programs under test.
#[derive(Clone, Copy)]
pub struct Programs {
    /// moatd.
    pub moatd: &'static str,
    /// moatctl.
    pub moatctl: &'static str,
}

/// Files of one moatd, and the process if it runs.
pub struct Moat {
    dir: tempfile::TempDir,
    programs: Programs,
    host: String,
    /// Variables for the next start.
    pub environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Moat {
    /// Makes the directories; the state directory is a small disk of its own.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn new(host: &Namespace, programs: Programs) -> Result<Moat, String> {
        let dir = tempfile::tempdir().map_err(|e| format!("temporary directory: {e}"))?;
        let moat = Moat {
            dir,
            programs,
            host: host.name().to_owned(),
            environment: Vec::new(),
            child: None,
        };
        for part in ["policy.d", "state", "run", "sbin", "real"] {
            fs::create_dir(moat.path(part)).map_err(|e| e.to_string())?;
        }
        let state = moat.path("state");
        output(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"])
                .arg(state),
        )?;
        moat.mend_tools()?;
        Ok(moat)
    }

    /// The programs under test.
    pub fn programs(&self) -> Programs {
        self.programs
    }

    /// A file or directory.
    pub fn path(&self, part: &str) -> PathBuf {
        self.dir.path().join(part)
    }

    /// Writes moat.toml: paths, backend and these lines.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn settings(&self, backend: Backend, lines: &str) -> Result<(), String> {
        let path = |part: &str| self.path(part).display().to_string();
        let text = format!(
            "policyDirs = [{:?}]\nstateDir = {:?}\nrunDir = {:?}\niptablesBackend = {:?}\nfelixHostname = \"h\"\n\
             failsafeInboundHostPorts = [\"tcp:22\", \"udp:1005\"]\n{lines}\n",
            path("policy.d"),
            path("state"),
            path("run"),
            backend.name(),
        );
        let hidden = self.path("moat.toml.new");
        fs::write(&hidden, text)
            .and_then(|()| fs::rename(hidden, self.path("moat.toml")))
            .map_err(|e| format!("moat.toml: {e}"))
    }

    /// Writes a policy file as careful programs do.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn policy(&self, file: &str, text: &str) -> Result<(), String> {
        let hidden = self.path("policy.d/.new");
        fs::write(&hidden, text)
            .and_then(|()| fs::rename(hidden, self.path("policy.d").join(file)))
            .map_err(|e| format!("{file}: {e}"))
    }

    /// Replaces a tool that moatd would start by a shell script.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn fake_tool(&self, tool: &str, script: &str) -> Result<(), String> {
        let hidden = self.path("sbin/.new");
        let text = format!(
            "#!/bin/sh\nREAL={}/{tool}\n{script}\n",
            self.path("real").display()
        );
        let made = fs::write(&hidden, text)
            .and_then(|()| {
                fs::set_permissions(&hidden, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            })
            .and_then(|()| fs::rename(&hidden, self.path("sbin").join(tool)));
        made.map_err(|e| format!("{tool}: {e}"))
    }

    /// Takes a tool away.
    ///
    /// # Errors
    /// It is away already.
    pub fn remove_tool(&self, tool: &str) -> Result<(), String> {
        fs::remove_file(self.path("sbin").join(tool)).map_err(|e| format!("{tool}: {e}"))
    }

    /// Every tool is the real one.
    ///
    /// # Errors
    /// The links cannot be made.
    pub fn mend_tools(&self) -> Result<(), String> {
        let entries = fs::read_dir(TOOLS).map_err(|e| format!("{TOOLS}: {e}"))?;
        for entry in entries.flatten() {
            let (real, link) = (
                self.path("real").join(entry.file_name()),
                self.path("sbin").join(entry.file_name()),
            );
            if fs::read_link(&link).is_ok_and(|target| target == real) {
                continue;
            }
            let hidden = self.path("sbin/.new");
            symlink(real, &hidden)
                .and_then(|()| fs::rename(&hidden, &link))
                .map_err(|e| format!("{}: {e}", link.display()))?;
        }
        Ok(())
    }

    /// Starts moatd and waits for nothing.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&mut self) -> Result<(), String> {
        self.child = Some(self.command()?.spawn().map_err(|e| format!("moatd: {e}"))?);
        Ok(())
    }

    /// moatd inside of the namespace, with its own tools.
    ///
    /// # Errors
    /// The log cannot be opened.
    pub fn command(&self) -> Result<Command, String> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("moatd.log"));
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.host, "sh", "-c", OWN_TOOLS, "sh"])
            .args([self.path("real"), self.path("sbin")])
            .args([
                Path::new(self.programs.moatd),
                Path::new("--config"),
                &self.path("moat.toml"),
            ])
            .env_remove("JOURNAL_STREAM")
            .env_remove("MOAT_TEST_MOATD")
            .env_remove("MOAT_TEST_MOATCTL")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.map_err(|e| format!("moatd.log: {e}"))?);
        Ok(command)
    }

    /// Starts moatd and waits until something is in force.
    ///
    /// # Errors
    /// It ended, or did not become ready.
    pub fn start(&mut self) -> Result<(), String> {
        self.spawn()?;
        self.wait_ready()
    }

    /// Waits until something is in force.
    ///
    /// # Errors
    /// It ended, or did not become ready.
    pub fn wait_ready(&mut self) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(child) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                return Err(format!("moatd ended with {status}"));
            }
            if self.status().is_ok_and(|s| s["state"] != "starting") {
                return Ok(());
            }
            thread::sleep(POLL / 2);
        }
        Err(format!("moatd is not ready after {PATIENCE:?}"))
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It does not end, or with an error.
    pub fn stop(&mut self) -> Result<(), String> {
        self.signal(Signal::SIGTERM)?;
        let status = self.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("moatd ended with {status} after SIGTERM")),
        }
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn wait(&mut self) -> Result<ExitStatus, String> {
        let mut child = self.child.take().ok_or("moatd does not run")?;
        let end = Instant::now() + PATIENCE;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if Instant::now() < end => thread::sleep(POLL / 5),
                other => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(format!("moatd does not end: {other:?}"));
                }
            }
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// moatd does not run.
    pub fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = self.pid()?;
        kill(pid, signal).map_err(|e| format!("{signal}: {e}"))
    }

    /// The process.
    ///
    /// # Errors
    /// moatd does not run.
    pub fn pid(&self) -> Result<Pid, String> {
        let child = self.child.as_ref().ok_or("moatd does not run")?;
        i32::try_from(child.id())
            .map(Pid::from_raw)
            .map_err(|e| e.to_string())
    }

    /// Open descriptors of the process.
    ///
    /// # Errors
    /// moatd does not run.
    pub fn descriptors(&self) -> Result<usize, String> {
        let dir = format!("/proc/{}/fd", self.pid()?);
        fs::read_dir(&dir)
            .map(Iterator::count)
            .map_err(|e| format!("{dir}: {e}"))
    }

    /// `moatctl status -o json`.
    ///
    /// # Errors
    /// There is no answer.
    pub fn status(&self) -> Result<Value, String> {
        self.ask("status").map(|(value, _)| value)
    }

    /// `moatctl plan -o json`: the lines that would change the kernel.
    ///
    /// # Errors
    /// There is no answer.
    pub fn plan(&self) -> Result<Vec<String>, String> {
        let (plan, complaint) = self.ask("plan")?;
        let lines = plan["lines"].as_array().ok_or(complaint)?;
        Ok(lines
            .iter()
            .map(|l| l.as_str().unwrap_or_default().to_owned())
            .collect())
    }

    fn ask(&self, what: &str) -> Result<(Value, String), String> {
        let done = Command::new(self.programs.moatctl)
            .arg("--socket")
            .arg(self.path("run/moatd.sock"))
            .args([what, "-o", "json"])
            .env_remove("MOAT_TEST_MOATD")
            .env_remove("MOAT_TEST_MOATCTL")
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("moatctl: {e}"))?;
        let complaint = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        match serde_json::from_slice(&done.stdout) {
            Ok(value) => Ok((value, complaint)),
            Err(_) => Err(format!("moatctl {what}: {complaint}")),
        }
    }

    /// The number of the host policy.
    ///
    /// # Errors
    /// There is no answer.
    pub fn generation(&self) -> Result<u64, String> {
        self.status()?["generation"]
            .as_u64()
            .ok_or_else(|| "a status without generation".into())
    }

    /// What moatd has logged, the last lines of it.
    pub fn log(&self) -> String {
        let text = fs::read(self.path("moatd.log")).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(6000)..]).into_owned()
    }

    /// Forgets the log so far.
    pub fn take_log(&self) {
        // It is open for appending, so the next line stands at its beginning.
        let _ = File::create(self.path("moatd.log"));
    }
}

impl Drop for Moat {
    fn drop(&mut self) {
        self.kill();
        // Otherwise the directory could not be removed.
        let _ = Command::new("umount").arg(self.path("state")).status();
    }
}
