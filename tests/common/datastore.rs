//! An etcd of its own on the protected host, into which moatctl or calicoctl writes the resources of
//! a case.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::case::Resources;
use super::netns::{Namespace, output};

const PATIENCE: Duration = Duration::from_secs(20);
const CLIENTS: &str = "http://127.0.0.1:2379";
/// Begins the error of a tool that writes nothing.
pub const REFUSED: &str = "the tool refuses";
/// Kinds that others refer to, which the tools want to know first.
const FIRST: [&str; 1] = ["Tier/"];

/// A running etcd and the tool that writes into it.
pub struct Datastore {
    host: String,
    dir: PathBuf,
    child: Child,
    tool: &'static str,
}

impl Datastore {
    /// Starts an empty one that keeps its data in `dir`; `tool` is moatctl or calicoctl.
    ///
    /// # Errors
    /// It is not installed, or does not work.
    pub fn start(host: &Namespace, tool: &'static str, dir: &Path) -> Result<Datastore, String> {
        let dir = dir.join("etcd");
        fs::create_dir(&dir).map_err(|e| e.to_string())?;
        let log = File::create(dir.join("log")).map_err(|e| e.to_string())?;
        let peers = "http://127.0.0.1:2380";
        let child = Command::new("ip")
            .args(["netns", "exec", host.name(), "etcd", "--data-dir"])
            .arg(dir.join("data"))
            .args(["--listen-client-urls", CLIENTS])
            .args(["--advertise-client-urls", CLIENTS])
            .args(["--listen-peer-urls", peers, "--logger", "zap"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|e| format!("etcd: {e}"))?;
        let store = Datastore {
            host: host.name().to_owned(),
            dir,
            child,
            tool,
        };
        store.wait_healthy()?;
        Ok(store)
    }

    fn wait_healthy(&self) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        while let Err(error) = self.health() {
            if Instant::now() > end {
                return Err(format!("etcd (package etcd-server): {error}"));
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn health(&self) -> Result<String, String> {
        let mut command = self.command("etcdctl");
        command.args(["endpoint", "health"]).env("ETCDCTL_API", "3");
        output(&mut command)
    }

    /// Adds what makes moatd follow it.
    pub fn settings(settings: &mut Map<String, Value>) {
        settings.insert("datastoreType".into(), "etcdv3".into());
        settings.insert("etcdEndpoints".into(), CLIENTS.into());
    }

    /// Brings the datastore from one set of resources to another.
    ///
    /// # Errors
    /// The tool refuses; in its words.
    pub fn change(&self, from: &Resources, to: &Resources) -> Result<(), String> {
        let is_first = |name: &str| FIRST.iter().any(|kind| name.starts_with(kind));
        let mut new: Vec<_> = to.iter().filter(|(n, d)| from.get(*n) != Some(d)).collect();
        new.sort_by_key(|(name, _)| !is_first(name));
        let mut gone: Vec<_> = from.iter().filter(|(n, _)| !to.contains_key(*n)).collect();
        gone.sort_by_key(|(name, _)| is_first(name));
        self.tool("apply", &new)?;
        self.tool("delete", &gone)
    }

    fn tool(&self, verb: &str, resources: &[(&String, &Value)]) -> Result<(), String> {
        if resources.is_empty() {
            return Ok(());
        }
        let documents: Vec<&Value> = resources.iter().map(|(_, document)| *document).collect();
        let file = self.dir.join("resources.json");
        fs::write(&file, json!(documents).to_string()).map_err(|e| e.to_string())?;
        let mut command = self.command(self.tool);
        command.args([verb, "--allow-version-mismatch", "-f"]);
        command.arg(file);
        command
            .env("DATASTORE_TYPE", "etcdv3")
            .env("ETCD_ENDPOINTS", CLIENTS);
        // An etcd out of reach is no refusal.
        let refused = |e| match self.health() {
            Ok(_) => format!("{REFUSED}: {e}"),
            Err(health) => format!("{health}; {e}"),
        };
        output(&mut command).map(drop).map_err(refused)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host, program]);
        command
    }
}

impl Drop for Datastore {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
