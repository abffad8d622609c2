//! Sends packets to the host from a namespace outside of it all the time, each as a new flow, and knows which must arrive.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::UdpSocket;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use nix::sched::{CloneFlags, setns};

use crate::host::{Host, wait_until};

/// The host's address.
const HOST: &str = "10.1.0.1";
/// Whom policy allows, on the first port.
pub const FRIEND: &str = "10.1.0.2";
/// Whom it does not.
const STRANGER: &str = "10.1.0.3";
/// Allowed for the friend, and allowed for nobody.
pub const PORTS: [u16; 2] = [5001, 5002];
const TICK: Duration = Duration::from_millis(2);
/// After this nothing is under way any more.
const QUIET: Duration = Duration::from_millis(500);

/// The thread that sends, until it is asked for its result.
pub struct Prober {
    outside: Child,
    namespace: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<SystemTime>>>,
    receivers: Vec<UdpSocket>,
}

/// Everything that went wrong, in numbers of packets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wrong {
    /// Allowed, and did not arrive: when they were sent.
    pub lost: Vec<String>,
    /// Denied, and arrived.
    pub leaked: usize,
}

impl Prober {
    /// Takes the other end of the host's link, and begins to send; policy must be in force.
    pub fn start(host: &Host) -> Prober {
        let outside = Command::new("unshare")
            .args(["-n", "sleep", "infinity"])
            .spawn()
            .unwrap();
        let pid = outside.id().to_string();
        let namespace = format!("/proc/{pid}/ns/net");
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        while std::fs::read_link(&namespace).is_ok_and(|other| other == own) {
            std::thread::sleep(Duration::from_millis(5));
        }
        host.run("ip", &["link", "set", "far0", "netns", &pid]);
        for address in [FRIEND, STRANGER] {
            host.run(
                "nsenter",
                &[
                    "-t",
                    &pid,
                    "-n",
                    "ip",
                    "address",
                    "add",
                    &format!("{address}/24"),
                    "dev",
                    "far0",
                ],
            );
        }
        host.run(
            "nsenter",
            &["-t", &pid, "-n", "ip", "link", "set", "far0", "up"],
        );
        let receivers = PORTS.map(|port| {
            let socket = UdpSocket::bind((HOST, port)).unwrap();
            nix::sys::socket::setsockopt(
                &socket,
                nix::sys::socket::sockopt::RcvBufForce,
                &(64 << 20),
            )
            .unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        });
        let mut prober = Prober {
            outside,
            namespace,
            stop: Arc::default(),
            thread: None,
            receivers: receivers.into(),
        };
        // A link that has just come up takes no packets for a moment.
        wait_until(
            || {
                prober.begin();
                std::thread::sleep(QUIET / 10);
                prober.end().0.lost.is_empty()
            },
            || "no packet arrives".to_owned(),
        );
        prober.begin();
        prober
    }

    /// Begins to send.
    pub fn begin(&mut self) {
        let stop = Arc::new(AtomicBool::new(false));
        self.stop = Arc::clone(&stop);
        let namespace = File::open(&self.namespace).unwrap();
        self.thread = Some(std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            send(&stop)
        }));
    }

    /// Ends it; what went wrong, and how many allowed packets there were.
    pub fn end(&mut self) -> (Wrong, usize) {
        self.stop.store(true, Ordering::SeqCst);
        let sent = self.thread.take().unwrap().join().unwrap();
        std::thread::sleep(QUIET);
        let mut wrong = Wrong::default();
        let mut arrived = BTreeSet::new();
        for (socket, port) in self.receivers.iter().zip(PORTS) {
            let mut buffer = [0; 8];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                if port == PORTS[0] && from.ip().to_string() == FRIEND {
                    arrived.insert(u64::from_be_bytes(buffer));
                } else {
                    wrong.leaked += 1;
                }
            }
        }
        let lost = sent.iter().zip(0..).filter(|(_, n)| !arrived.contains(n));
        let time = |at: &SystemTime| humantime::format_rfc3339_millis(*at).to_string();
        wrong.lost = lost.map(|(at, n)| format!("{n} at {}", time(at))).collect();
        (wrong, sent.len())
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // It may have ended already.
        let _ = self.outside.kill();
        let _ = self.outside.wait();
    }
}

/// Sends until it is to stop; when. Each time from new sockets, so that no packet belongs to a flow that was allowed before.
fn send(stop: &AtomicBool) -> Vec<SystemTime> {
    let mut sent = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let number = sent.len() as u64;
        sent.push(SystemTime::now());
        for (from, port) in [(FRIEND, PORTS[0]), (FRIEND, PORTS[1]), (STRANGER, PORTS[0])] {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            // A refusal by ICMP of an earlier packet is no matter.
            let _ = socket.send_to(&number.to_be_bytes(), (HOST, port));
        }
        std::thread::sleep(TICK);
    }
    sent
}
