//! The daemon as a process on a host of its own, and its files.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::netns::{self, Namespace};
use crate::world::{self, Size, Workload};
use crate::{forms, inside};

/// Endpoints in one file.
const PER_FILE: usize = 10_000;

/// A network namespace.
pub struct Host(Namespace);

impl Host {
    /// A new one, with loopback up.
    pub fn new(role: &str) -> Host {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = Namespace::name_for(number, role);
        netns::ip_batch(&[format!("netns add {name}")]).expect("a network namespace");
        let namespace = Namespace::open(name).expect("a network namespace");
        namespace
            .ip(&["link set lo up".to_owned()])
            .expect("loopback");
        namespace.run("ip", &["link"]).expect("interfaces");
        namespace
            .sysctl("ipv6/conf/all/disable_ipv6", "0")
            .expect("IPv6");
        Host(namespace)
    }

    /// It.
    pub fn namespace(&self) -> &Namespace {
        &self.0
    }
}

/// Settings, policy and state of one host.
pub struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    /// Without policy.
    pub fn new(backend: &str) -> Files {
        let dir = tempfile::tempdir().expect("a directory");
        let files = Files { dir };
        fs::create_dir(files.path("policy.d")).expect("a directory");
        let at = |name: &str| files.path(name).display().to_string();
        let settings = format!(
            "policyDirs = [\"{}\"]\nstateDir = \"{}\"\nrunDir = \"{}\"\nfelixHostname = \"{}\"\niptablesBackend = \"{backend}\"\n",
            at("policy.d"),
            at("state"),
            at("run"),
            world::HOST,
        );
        fs::write(files.path("moat.toml"), settings).expect("written");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file of policy, replaced at once.
    pub fn put(&self, name: &str, text: &str) {
        let new = self.path("new");
        fs::write(&new, text).expect("written");
        fs::rename(new, self.path("policy.d").join(name)).expect("renamed");
    }

    /// The world as JSON.
    pub fn write_world(&self, seed: u64, size: Size, workloads: &[Workload]) {
        let policies = world::policies(seed, size, "192.0.2.1");
        self.put("policies.json", &forms::list(policies.into_iter()));
        for (n, part) in workloads.chunks(PER_FILE).enumerate() {
            let documents = part.iter().map(Workload::json);
            self.put(&format!("endpoints{n}.json"), &forms::list(documents));
        }
    }

    /// The world as YAML.
    pub fn write_yaml(&self, seed: u64, size: Size, workloads: &[Workload]) {
        let policies = world::policies(seed, size, "192.0.2.1");
        self.put("policies.yaml", &forms::yaml(policies.into_iter()));
        for (n, part) in workloads.chunks(PER_FILE).enumerate() {
            let documents = part.iter().map(Workload::json);
            self.put(&format!("endpoints{n}.yaml"), &forms::yaml(documents));
        }
    }

    /// Other documents in the first file of endpoints.
    pub fn rewrite_first(&self, documents: &[String]) {
        self.put("endpoints0.json", &forms::list(documents.iter().cloned()));
    }

    /// No policy and no state.
    pub fn clear(&self) {
        fs::remove_dir_all(self.path("state")).expect("removed");
        fs::remove_dir_all(self.path("policy.d")).expect("removed");
        fs::create_dir(self.path("policy.d")).expect("a directory");
    }

    /// Waits until the next start can be a quick one.
    pub fn wait_for_cache(&self) {
        let end = Instant::now() + Duration::from_secs(120);
        while !self.path("state/members").exists() {
            assert!(Instant::now() < end, "no cache for a quick start appeared");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Starts the daemon and waits until it says that it is ready.
    pub fn start(&self, host: &Host) -> Run {
        let path = self.path("notify");
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .expect("a time limit");
        let log = fs::File::create(self.path("log")).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_moatd"));
        command
            .arg("--config")
            .arg(self.path("moat.toml"))
            .env("NOTIFY_SOCKET", &path)
            .stdout(Stdio::null())
            .stderr(log);
        let begin = Instant::now();
        let mut child = inside(host.namespace(), || command.spawn())
            .unwrap_or_else(|e| panic!("moatd in {}: {e}", host.namespace().name()));
        let mut buffer = [0; 512];
        loop {
            match socket.recv(&mut buffer) {
                Ok(length) if buffer[..length].starts_with(b"READY=1") => break,
                Ok(_) => {}
                Err(_) => self.still_starting(&mut child, begin),
            }
        }
        let ready = begin.elapsed();
        Run { child, ready }
    }

    fn still_starting(&self, child: &mut Child, begin: Instant) {
        let ended = child.try_wait().expect("a child");
        if ended.is_some() || begin.elapsed() > Duration::from_secs(300) {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            panic!("moatd does not get ready: {log}");
        }
    }

    fn ask(&self, request: &str) -> serde_json::Value {
        use std::io::{Read, Write};
        let socket = self.path("run/moatd.sock");
        let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("moatd listens");
        stream.write_all(request.as_bytes()).expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        serde_json::from_str(&answer).expect("JSON")
    }
}

/// A daemon that runs.
pub struct Run {
    child: Child,
    /// From its start until it was ready.
    pub ready: Duration,
}

impl Run {
    fn proc(&self, file: &str) -> String {
        let path = Path::new("/proc")
            .join(self.child.id().to_string())
            .join(file);
        fs::read_to_string(path).unwrap_or_default()
    }

    /// Most memory it ever had, in bytes, once it has read everything.
    pub fn peak(&self) -> usize {
        std::thread::sleep(Duration::from_secs(4));
        let status = self.proc("status");
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kilobytes =
            line.and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok());
        kilobytes.unwrap_or_default() << 10
    }

    /// Processor time so far.
    pub fn cpu(&self) -> Duration {
        let stat = self.proc("stat");
        let fields: Vec<u64> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|f| f.parse().ok())
            .collect();
        // Clock ticks are hundredths of a second on every Linux that this runs on.
        Duration::from_millis(10 * fields.iter().sum::<u64>())
    }

    /// Times that any of its threads went to sleep by itself.
    pub fn wake_ups(&self) -> u64 {
        let tasks = format!("/proc/{}/task", self.child.id());
        let tasks = fs::read_dir(tasks).expect("a running process");
        let one = |task: std::io::Result<fs::DirEntry>| {
            let status = fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            let line = status
                .lines()
                .find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"))?;
            line.trim().parse::<u64>().ok()
        };
        tasks.filter_map(one).sum()
    }

    fn status(&self, files: &Files) -> serde_json::Value {
        files.ask("{\"command\":\"status\"}\n")["ok"].take()
    }

    /// Generation in force.
    pub fn generation(&self, files: &Files) -> u64 {
        self.status(files)["generation"]
            .as_u64()
            .unwrap_or_default()
    }

    /// Things that the last apply changed in the kernel.
    pub fn changes(&self, files: &Files) -> u64 {
        let status = self.status(files);
        let changed = status["lastApply"]["changed"].as_object().cloned();
        let changed = changed.unwrap_or_default();
        changed.values().filter_map(serde_json::Value::as_u64).sum()
    }

    /// Ends it.
    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}
