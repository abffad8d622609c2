//! Three etcd members, each in a network namespace of its own behind a bridge in the one of the test, so that a member can be cut off as by a
//! broken cable: packets vanish. With TLS for everybody, client certificates and roles if wanted.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::server::KEYS;

const PATIENCE: Duration = Duration::from_secs(30);
/// Members by number, from 1.
pub const MEMBERS: [u8; 3] = [1, 2, 3];

/// One member.
struct Member {
    /// Holds the network namespace.
    holder: Child,
    etcd: Option<Child>,
}

/// The cluster.
pub struct Cluster {
    dir: PathBuf,
    secure: bool,
    members: Vec<Member>,
}

/// Address of a member.
pub fn address(member: u8) -> String {
    format!("10.9.0.{member}")
}

/// Runs a program, which must succeed.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{program} {arguments:?}: {errors}");
}

impl Cluster {
    /// Starts three members; secure ones want a certificate from everybody.
    pub fn start(dir: &Path, secure: bool) -> Cluster {
        fs::create_dir_all(dir).unwrap();
        run("ip", &["link", "add", "br0", "type", "bridge"]);
        run("ip", &["address", "add", "10.9.0.254/24", "dev", "br0"]);
        run("ip", &["link", "set", "br0", "up"]);
        let mut cluster = Cluster {
            dir: dir.to_owned(),
            secure,
            members: Vec::new(),
        };
        if secure {
            cluster.certificates();
        }
        for member in MEMBERS {
            let holder = cluster.namespace(member);
            cluster.members.push(Member { holder, etcd: None });
        }
        MEMBERS
            .iter()
            .for_each(|member| cluster.spawn(*member, "new"));
        cluster.wait_healthy();
        cluster
    }

    fn namespace(&self, member: u8) -> Child {
        let holder = Command::new("unshare")
            .args(["-n", "sleep", "infinity"])
            .spawn()
            .unwrap();
        let pid = holder.id().to_string();
        let (near, own) = (
            format!("m{member}"),
            fs::read_link("/proc/thread-self/ns/net").unwrap(),
        );
        let is_apart = || fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|ns| ns != own);
        while !is_apart() {
            std::thread::sleep(Duration::from_millis(5));
        }
        run(
            "ip",
            &[
                "link", "add", &near, "type", "veth", "peer", "name", "eth0", "netns", &pid,
            ],
        );
        run("ip", &["link", "set", &near, "master", "br0", "up"]);
        let net = format!("{}/24", address(member));
        for command in [
            &["address", "add", &net, "dev", "eth0"][..],
            &["link", "set", "eth0", "up"],
            &["link", "set", "lo", "up"],
        ] {
            run("nsenter", &[&["-t", &pid, "-n", "ip"], command].concat());
        }
        holder
    }

    fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// URLs of all members.
    pub fn urls(&self) -> Vec<String> {
        MEMBERS
            .map(|m| format!("{}://{}:2379", self.scheme(), address(m)))
            .to_vec()
    }

    fn spawn(&mut self, member: u8, state: &str) {
        let scheme = self.scheme();
        let url = |port: u16| format!("{scheme}://{}:{port}", address(member));
        let all: Vec<String> = MEMBERS
            .map(|m| format!("m{m}={scheme}://{}:2380", address(m)))
            .to_vec();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join(format!("log{member}")))
            .unwrap();
        let slot = &mut self.members[usize::from(member) - 1];
        let mut command = Command::new("nsenter");
        command
            .args([
                "-t",
                &slot.holder.id().to_string(),
                "-n",
                "etcd",
                "--name",
                &format!("m{member}"),
                "--logger",
                "zap",
            ])
            .arg("--data-dir")
            .arg(self.dir.join(format!("data{member}")))
            .args([
                "--listen-client-urls",
                &url(2379),
                "--advertise-client-urls",
                &url(2379),
            ])
            .args([
                "--listen-peer-urls",
                &url(2380),
                "--initial-advertise-peer-urls",
                &url(2380),
            ])
            .args([
                "--initial-cluster",
                &all.join(","),
                "--initial-cluster-state",
                state,
            ])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if self.secure {
            let file = |name: &str| self.dir.join(name).display().to_string();
            let (ca, cert, key) = (file("ca.pem"), file("server.pem"), file("server.key"));
            command.args([
                "--trusted-ca-file",
                &ca,
                "--cert-file",
                &cert,
                "--key-file",
                &key,
                "--client-cert-auth",
            ]);
            command.args([
                "--peer-trusted-ca-file",
                &ca,
                "--peer-cert-file",
                &cert,
                "--peer-key-file",
                &key,
                "--peer-client-cert-auth",
            ]);
        }
        slot.etcd = Some(
            command
                .spawn()
                .expect("etcd is installed (package etcd-server)"),
        );
    }

    /// Waits until members answer; at least those that run.
    pub fn wait_healthy(&self) {
        let end = Instant::now() + PATIENCE;
        while !self.try_ctl(&["get", "/health"]).status.success() {
            let log = fs::read_to_string(self.dir.join("log1")).unwrap_or_default();
            assert!(Instant::now() < end, "the cluster is not healthy:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A file of the cluster.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Lines of moat.toml for this user.
    pub fn settings(&self, user: &str) -> String {
        let urls = self.urls();
        let mut lines = format!("datastoreType = \"etcdv3\"\netcdEndpoints = {urls:?}\n");
        if self.secure {
            for (setting, file) in [
                ("etcdCaFile", "ca.pem".to_owned()),
                ("etcdCertFile", format!("{user}.pem")),
                ("etcdKeyFile", format!("{user}.key")),
            ] {
                lines += &format!("{setting} = {:?}\n", self.dir.join(file));
            }
        }
        lines
    }

    fn try_ctl(&self, arguments: &[&str]) -> Output {
        self.try_as("root", arguments)
    }

    /// Runs etcdctl as a user.
    pub fn try_as(&self, user: &str, arguments: &[&str]) -> Output {
        self.try_at(&self.urls().join(","), user, arguments)
    }

    fn try_at(&self, endpoints: &str, user: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new("etcdctl");
        command.args([
            "--endpoints",
            endpoints,
            "--dial-timeout",
            "1s",
            "--command-timeout",
            "3s",
        ]);
        if self.secure {
            let file = |name: &str| self.dir.join(name);
            command
                .arg("--cacert")
                .arg(file("ca.pem"))
                .arg("--cert")
                .arg(file(&format!("{user}.pem")))
                .arg("--key")
                .arg(file(&format!("{user}.key")));
        }
        let done = command
            .args(arguments)
            .env("ETCDCTL_API", "3")
            .stdin(Stdio::null())
            .output();
        done.expect("etcdctl is installed (package etcd-client)")
    }

    /// Runs etcdctl, which must succeed in the end; what it printed.
    #[track_caller]
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let done = self.try_ctl(arguments);
            if done.status.success() {
                return String::from_utf8(done.stdout).unwrap();
            }
            assert!(
                Instant::now() < end,
                "etcdctl {arguments:?}: {}",
                String::from_utf8_lossy(&done.stderr)
            );
        }
    }

    /// Writes a resource.
    #[track_caller]
    pub fn put(&self, key: &str, value: &str) {
        self.ctl(&["put", &format!("{KEYS}{key}"), value]);
    }

    /// The member that leads.
    pub fn leader(&self) -> u8 {
        let end = Instant::now() + PATIENCE;
        loop {
            let text =
                String::from_utf8(self.try_ctl(&["endpoint", "status", "-w", "json"]).stdout)
                    .unwrap();
            let all: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap_or_default();
            let leads = |one: &&serde_json::Value| {
                one["Status"]["leader"] == one["Status"]["header"]["member_id"]
            };
            if let Some(one) = all.iter().find(leads) {
                let url = one["Endpoint"].as_str().unwrap().to_owned();
                return *MEMBERS
                    .iter()
                    .find(|m| url.contains(&address(**m)))
                    .unwrap();
            }
            assert!(Instant::now() < end, "no leader: {text}");
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self, member: u8) {
        if let Some(mut child) = self.members[usize::from(member) - 1].etcd.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again.
    pub fn resume(&mut self, member: u8) {
        self.spawn(member, "existing");
    }

    /// Throws away what a member that does not run holds, and lets it join anew.
    pub fn replace(&mut self, member: u8) {
        fs::remove_dir_all(self.dir.join(format!("data{member}"))).unwrap();
        let list = self.ctl(&["member", "list"]);
        let line = list
            .lines()
            .find(|line| line.contains(&format!(" m{member},")))
            .unwrap();
        self.ctl(&["member", "remove", line.split(',').next().unwrap()]);
        self.ctl(&[
            "member",
            "add",
            &format!("m{member}"),
            &format!("--peer-urls={}://{}:2380", self.scheme(), address(member)),
        ]);
        self.spawn(member, "existing");
    }

    /// A backup of everything that the cluster holds.
    pub fn backup(&self) -> PathBuf {
        let file = self.dir.join("backup");
        // One member is asked: the one that answers first.
        let shown = file.display().to_string();
        let save = |url: &String| self.try_at(url, "root", &["snapshot", "save", &shown]);
        assert!(self.urls().iter().any(|url| save(url).status.success()));
        file
    }

    /// Lets all members, none of which runs, begin with a backup.
    pub fn restore(&mut self, backup: &Path) {
        let url = |m: u8| format!("{}://{}:2380", self.scheme(), address(m));
        let all = MEMBERS.map(|m| format!("m{m}={}", url(m))).join(",");
        for member in MEMBERS {
            let data = self.dir.join(format!("data{member}"));
            fs::remove_dir_all(&data).unwrap();
            let done = Command::new("etcdctl")
                .args(["snapshot", "restore"])
                .arg(backup)
                .arg("--data-dir")
                .arg(&data)
                .args(["--name", &format!("m{member}"), "--initial-cluster", &all])
                .args(["--initial-advertise-peer-urls", &url(member)])
                .env("ETCDCTL_API", "3")
                .output()
                .unwrap();
            let errors = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(done.status.success(), "{errors}");
        }
        MEMBERS.iter().for_each(|member| self.resume(*member));
        self.wait_healthy();
    }

    /// From now on all packets of a member vanish, or again none.
    pub fn cut(&self, member: u8, cut: bool) {
        self.drop_packets(member, cut, &["-j", "DROP"]);
    }

    /// From now on every fifth packet of all members vanishes and the rest is slow (100 kB a second), or again not.
    pub fn slow(&self, slow: bool) {
        for member in MEMBERS {
            let fifth = "-m statistic --mode random --probability 0.2 -j DROP";
            self.drop_packets(member, slow, &fifth.split(' ').collect::<Vec<_>>());
            let near = format!("m{member}");
            let device = ["dev", &near, "root"];
            match slow {
                true => {
                    let shape = "tbf rate 800kbit burst 8kb latency 500ms".split(' ');
                    let shape: Vec<&str> = shape.collect();
                    run("tc", &[&["qdisc", "add"], &device[..], &shape].concat());
                }
                false => run("tc", &[&["qdisc", "del"], &device[..]].concat()),
            }
        }
    }

    fn drop_packets(&self, member: u8, begin: bool, which: &[&str]) {
        let pid = self.members[usize::from(member) - 1]
            .holder
            .id()
            .to_string();
        let enter = ["-t", &pid, "-n", "iptables-nft", "-w"];
        for chain in ["INPUT", "OUTPUT"] {
            let action = if begin { "-I" } else { "-D" };
            run("nsenter", &[&enter[..], &[action, chain], which].concat());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        MEMBERS.iter().for_each(|member| self.kill(*member));
        for member in &mut self.members {
            // It may have ended already.
            let _ = member.holder.kill();
            let _ = member.holder.wait();
        }
    }
}
