//! A real etcd on loopback, in the network namespace of the thread that starts it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// What the keys of Calico's resources begin with.
pub const KEYS: &str = "/calico/resources/v3/projectcalico.org/";

/// One member, which is the whole cluster.
pub struct Etcd {
    dir: PathBuf,
    child: Option<Child>,
    /// Name and password with which etcdctl asks, `NAME:PASSWORD`.
    pub user: Option<&'static str>,
}

impl Etcd {
    /// Starts an empty one.
    pub fn start(dir: &Path) -> Etcd {
        fs::create_dir_all(dir).unwrap();
        let mut etcd = Etcd {
            dir: dir.to_owned(),
            child: None,
            user: None,
        };
        etcd.resume();
        etcd
    }

    /// Starts it again with what it has.
    pub fn resume(&mut self) {
        let log = File::create(self.dir.join("log")).unwrap();
        let urls = |port: u16| format!("http://127.0.0.1:{port}");
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(self.dir.join("data"))
            .args(["--listen-client-urls", &urls(2379)])
            .args(["--advertise-client-urls", &urls(2379)])
            .args(["--listen-peer-urls", &urls(2380)])
            .args(["--logger", "zap"])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // Some have more than the usual 1.5 MiB.
            .env("ETCD_MAX_REQUEST_BYTES", (40 << 20).to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd is installed (package etcd-server)");
        self.child = Some(child);
        let end = Instant::now() + PATIENCE;
        while !self.try_ctl(&["endpoint", "health"]).status.success() {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "etcd is not healthy:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Throws away everything it holds; it must not run.
    pub fn wipe(&self) {
        fs::remove_dir_all(self.dir.join("data")).unwrap();
    }

    fn try_ctl(&self, arguments: &[&str]) -> Output {
        Command::new("etcdctl")
            .args(arguments)
            .env("ETCDCTL_API", "3")
            .envs(self.user.map(|user| ("ETCDCTL_USER", user)))
            .stdin(Stdio::null())
            .output()
            .expect("etcdctl is installed (package etcd-client)")
    }

    /// Runs etcdctl, which must succeed; what it printed.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let done = self.try_ctl(arguments);
        let errors = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "etcdctl {arguments:?}: {errors}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Writes a resource.
    pub fn put(&self, key: &str, value: &str) {
        self.ctl(&["put", "--", &format!("{KEYS}{key}"), value]);
    }

    /// Writes a resource that is too long for a command line, by etcd's HTTP.
    pub fn put_long(&self, key: &str, value: &[u8]) {
        self.put_raw(format!("{KEYS}{key}").as_bytes(), value);
    }

    /// Writes any key.
    pub fn put_raw(&self, key: &[u8], value: &[u8]) {
        let (key, value) = (base64(key), base64(value));
        let body = format!(r#"{{"key":"{key}","value":"{value}"}}"#);
        let mut stream = TcpStream::connect("127.0.0.1:2379").unwrap();
        let head = format!(
            "POST /v3/kv/put HTTP/1.0\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("200 OK"), "{answer}");
    }

    /// Removes one.
    pub fn delete(&self, key: &str) {
        self.ctl(&["del", &format!("{KEYS}{key}")]);
    }

    /// A backup of everything it holds.
    pub fn backup(&self) -> PathBuf {
        let file = self.dir.join("backup");
        self.ctl(&["snapshot", "save", &file.display().to_string()]);
        file
    }

    /// Begins anew with a backup; it must not run.
    pub fn restore(&self, backup: &Path) {
        self.wipe();
        let data = self.dir.join("data").display().to_string();
        let backup = backup.display().to_string();
        self.ctl(&["snapshot", "restore", &backup, "--data-dir", &data]);
    }

    /// Forgets the history up to now.
    pub fn compact(&self) {
        let json = self.ctl(&["get", "x", "-w", "json"]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let revision = json["header"]["revision"].to_string();
        self.ctl(&["compact", &revision]);
    }
}

/// RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let number = (0..3).fold(0, |n, at| {
            n << 8 | usize::from(*chunk.get(at).unwrap_or(&0))
        });
        let digit = |at: usize| match at <= chunk.len() {
            true => char::from(DIGITS[number >> (18 - 6 * at) & 63]),
            false => '=',
        };
        [0, 1, 2, 3].map(digit)
    };
    bytes.chunks(3).flat_map(group).collect()
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
