//! The lines of "Many hosts" in the README, word for word, on four machines: network, mount and host name namespaces of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::host::{Host, wait_until};

/// Machines of the text, with their addresses.
const MACHINES: [(&str, &str); 4] = [
    ("etcd", "192.0.2.5"),
    ("web1", "192.0.2.10"),
    ("web2", "192.0.2.11"),
    ("web3", "192.0.2.12"),
];
/// Stands for systemd, which no namespace of this kind has: starts anew, and waits until the daemon answers.
const SYSTEMCTL: &str = "#!/bin/sh
if [ -e /run/moatd.pid ]; then kill $(cat /run/moatd.pid); while kill -0 $(cat /run/moatd.pid); do sleep 0.1; done 2>/dev/null; fi
mkdir -p /run/moat
moatd >/run/moatd.log 2>&1 &
echo $! >/run/moatd.pid
until moatctl status >/dev/null 2>&1; do sleep 0.1; done
";
/// Own /etc, /run and /var/lib, which end with the machine.
const DISKS: &str = "mount -t tmpfs tmpfs /mnt && mkdir /mnt/up /mnt/work && mount -t overlay -o lowerdir=/etc,upperdir=/mnt/up,workdir=/mnt/work overlay /etc \
&& mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib && rm -rf /etc/moat && mkdir -p /etc/moat/policy.d";

struct Machine {
    name: &'static str,
    holder: Child,
    path: String,
}

impl Machine {
    fn start(host: &Host, name: &'static str, address: &str) -> Machine {
        let holder = Command::new("unshare")
            .args([
                "-n",
                "-m",
                "-u",
                "--propagation",
                "private",
                "sleep",
                "infinity",
            ])
            .spawn()
            .unwrap();
        let pid = holder.id().to_string();
        let own = fs::read_link("/proc/thread-self/ns/uts").unwrap();
        while fs::read_link(format!("/proc/{pid}/ns/uts")).is_ok_and(|other| other == own) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let near = format!("to-{name}");
        host.run(
            "ip",
            &[
                "link", "add", &near, "type", "veth", "peer", "name", "eth0", "netns", &pid,
            ],
        );
        host.run("ip", &["link", "set", &near, "master", "br0", "up"]);
        let programs = Path::new(env!("CARGO_BIN_EXE_moatd"))
            .parent()
            .unwrap()
            .display()
            .to_string();
        let own = host.path("bin").display().to_string();
        let path = format!("{own}:{programs}:{}", std::env::var("PATH").unwrap());
        let machine = Machine { name, holder, path };
        machine.sh(DISKS);
        machine.sh(&format!("hostname {name} && ip link set lo up && ip address add {address}/24 dev eth0 && ip link set eth0 up"));
        machine
    }

    fn run(&self, command: &str) -> Output {
        let log = self.name;
        Command::new("nsenter")
            .args([
                "-t",
                &self.holder.id().to_string(),
                "-n",
                "-m",
                "-u",
                "sh",
                "-c",
                command,
            ])
            .env("PATH", &self.path)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("{log}: {e}"))
    }

    #[track_caller]
    fn sh(&self, command: &str) -> String {
        let done = self.run(command);
        let errors = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{}# {command}: {errors}", self.name);
        String::from_utf8(done.stdout).unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // What was started there goes with its namespaces' last process, and by these.
        let _ = self.run("kill $(cat /run/moatd.pid /run/etcd.pid /run/own.pid) 2>/dev/null");
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Machine and command of each line.
fn lines(readme: &str) -> Vec<(String, String)> {
    let section = readme.split("\n## Many hosts\n").nth(1).unwrap();
    let block = section
        .split("```console\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let line = |line: &str| {
        let (machine, command) = line.split_once("# ").unwrap();
        (machine.to_owned(), command.to_owned())
    };
    block.lines().map(line).collect()
}

#[test]
fn many_hosts_of_the_readme() {
    let readme = include_str!("../../README.md");
    let host = Host::new("nft");
    host.run("ip", &["link", "add", "br0", "type", "bridge"]);
    host.run("ip", &["link", "set", "br0", "up"]);
    fs::create_dir(host.path("bin")).unwrap();
    fs::write(host.path("bin/systemctl"), SYSTEMCTL).unwrap();
    fs::set_permissions(
        host.path("bin/systemctl"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    let machines = MACHINES.map(|(name, address)| Machine::start(&host, name, address));
    let on = |name: &str| machines.iter().find(|m| m.name == name).unwrap();
    // The policy of the section before.
    let yaml = readme
        .split("```yaml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    on("web1").sh(&format!(
        "cat > /etc/moat/policy.d/web1.yaml <<'END'\n{yaml}END\nsystemctl start moatd"
    ));
    let lines = lines(readme);
    assert!(lines.len() <= 10, "{lines:#?}");
    // As the service of Debian's package does.
    on("etcd").sh("etcd --data-dir /var/lib/etcd >/run/own.log 2>&1 & echo $! >/run/own.pid; until ETCDCTL_API=3 etcdctl endpoint health; do sleep 0.1; done 2>/dev/null");
    let is_in_force = |name: &str| on(name).sh("iptables-save").contains("--dports 80,443");
    for (machine, command) in &lines {
        let (last, wanted) = ("moatctl node status", 3);
        if machine == "etcd" {
            let apart = command.trim_end_matches('&');
            on("etcd").sh(&format!(
                "{apart} >/run/etcd.log 2>&1 & echo $! >/run/etcd.pid"
            ));
            wait_until(
                || {
                    on("etcd").run("ETCDCTL_API=3 etcdctl --endpoints http://192.0.2.5:2379 endpoint health").status.success()
                },
                || on("etcd").sh("cat /run/etcd.log"),
            );
        } else if command == last {
            let alive = || on(machine).run(command);
            let count = |done: &Output| {
                String::from_utf8_lossy(&done.stdout)
                    .matches(" alive ")
                    .count()
            };
            wait_until(|| count(&alive()) == wanted, || format!("{:?}", alive()));
            assert!(alive().status.success());
        } else {
            for machine in machine.split(',') {
                on(machine).sh(command);
            }
        }
        if command.starts_with("rm ") {
            wait_until(
                || {
                    on("web1")
                        .sh("moatctl status -o json")
                        .contains("\"localOverrides\": []")
                },
                || on("web1").sh("moatctl status"),
            );
            assert!(is_in_force("web1"));
        }
    }
    for name in ["web1", "web2", "web3"] {
        wait_until(
            || is_in_force(name),
            || on(name).sh("moatctl status; cat /run/moatd.log"),
        );
    }
}
