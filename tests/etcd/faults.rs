//! Faults of a cluster of three, while packets are sent all the time: none is judged wrongly, and afterwards the host follows again by itself.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::cluster::{Cluster, MEMBERS};
use crate::host::{Daemon, Host};
use crate::prober::{FRIEND, PORTS, Prober, Wrong};
use crate::scale::memory;
use crate::{ENDPOINT, policy};

/// A connection that is cut off silently is noticed by keepalives, which takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A host that follows a cluster.
pub struct Site {
    pub cluster: Cluster,
    pub host: Host,
    /// How long anything may take.
    pub patience: Duration,
    marks: u16,
}

/// The set of those whom policy allows.
pub fn set(addresses: &[&str]) -> String {
    format!(
        r#"{{"kind":"GlobalNetworkSet","apiVersion":"projectcalico.org/v3","metadata":{{"name":"friends","labels":{{"app":"friend"}}}},"spec":{{"nets":{addresses:?}}}}}"#
    )
}

fn friends() -> String {
    let port = PORTS[0];
    policy("friends", port)
        .replace("\"TCP\"", "\"UDP\"")
        .replace(
            r#""nets":["10.0.0.0/8"]"#,
            r#""selector":"app == 'friend'""#,
        )
}

/// The name of the host and its certificate.
const NAME: &str = "h";

impl Site {
    /// Of members with TLS and roles, and a host that may only read policy.
    pub fn secure() -> Site {
        let site = Site::start(true);
        let rights = [("read", "/calico/resources/v3/projectcalico.org/")];
        site.cluster.user(NAME, &rights);
        site.cluster.enable_roles();
        site.host
            .settings(&(site.cluster.settings(NAME) + "reportingInterval = 0"));
        site
    }

    pub fn new() -> Site {
        let site = Site::start(false);
        site.host
            .settings(&(site.cluster.settings("") + "reportingInterval = \"1s\""));
        site
    }

    fn start(secure: bool) -> Site {
        let host = Host::new("nft");
        let cluster = Cluster::start(&host.path("etcd"), secure);
        cluster.put("hostendpoints/h-eth0", ENDPOINT);
        cluster.put("globalnetworksets/friends", &set(&[FRIEND]));
        cluster.put("globalnetworkpolicies/friends", &friends());
        Site {
            cluster,
            host,
            patience: PATIENCE,
            marks: 6000,
        }
    }

    pub fn has(&self, port: u16) -> bool {
        let wanted = format!("--dports {port} ");
        self.host
            .rules()
            .iter()
            .any(|rule| format!("{rule} ").contains(&wanted))
    }

    #[track_caller]
    pub fn wait(&self, daemon: &Daemon, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + self.patience;
        while !holds() {
            assert!(
                Instant::now() < end,
                "{:#}\n{}",
                self.host.status(),
                daemon.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A change arrives.
    #[track_caller]
    pub fn converges(&mut self, daemon: &Daemon) {
        self.marks += 1;
        let time = humantime::format_rfc3339_millis(std::time::SystemTime::now());
        // Beside the times of lost packets this says what was going on.
        println!("{time} a change is to arrive: {}", self.marks);
        let port = self.marks;
        self.cluster
            .put("globalnetworkpolicies/mark", &policy("mark", port));
        self.wait(daemon, || self.has(port));
        self.wait(daemon, || {
            self.host.status()["degraded"] == serde_json::json!([])
        });
    }

    /// Whether the daemon has read everything.
    pub fn is_synced(&self) -> bool {
        let sources = self.host.status()["sources"].clone();
        let is_etcd =
            |s: &&serde_json::Value| s["name"].as_str().is_some_and(|n| n.starts_with("etcd"));
        sources
            .as_array()
            .into_iter()
            .flatten()
            .filter(is_etcd)
            .any(|s| s["inSync"] == true)
    }

    /// The member that the daemon follows.
    fn followed(&self) -> u8 {
        let sources = self.host.status()["sources"].to_string();
        let is_it = |member: &&u8| sources.contains(&format!("//10.9.0.{member}:"));
        *MEMBERS
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("{sources}"))
    }

    /// What is wrong with the datastore is this.
    #[track_caller]
    fn wait_problem(&self, daemon: &Daemon, text: &str) {
        self.wait(daemon, || {
            self.host.status()["degraded"].to_string().contains(text)
        });
    }

    /// Every connection is made anew.
    fn restart_members(&mut self) {
        for member in MEMBERS {
            self.cluster.kill(member);
            self.cluster.resume(member);
            self.cluster.wait_healthy();
        }
    }

    fn revision(&self) -> String {
        let json = self.cluster.ctl(&["get", "x", "-w", "json"]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json["header"]["revision"].to_string()
    }
}

#[test]
fn no_fault_of_a_cluster_makes_a_wrong_verdict() {
    let mut site = Site::secure();
    let mut daemon = site.host.start();
    site.wait(&daemon, || site.has(PORTS[0]));
    site.converges(&daemon);
    let mut prober = Prober::start(&site.host);

    let leader = site.cluster.leader();
    site.cluster.kill(leader);
    site.converges(&daemon);
    site.cluster.resume(leader);

    // Cut off from the host and from the others: no connection breaks, packets only vanish.
    let followed = site.followed();
    site.cluster.cut(followed, true);
    site.converges(&daemon);
    assert_ne!(site.followed(), followed);
    site.cluster.cut(followed, false);

    // Two of three are lost: nothing can be read or written.
    for member in [1, 2] {
        site.cluster.kill(member);
    }
    site.wait_problem(&daemon, "etcd cannot be followed");
    for member in [1, 2] {
        site.cluster.resume(member);
    }
    site.cluster.wait_healthy();
    site.converges(&daemon);

    // A member that lost its disk joins anew.
    site.cluster.kill(1);
    site.cluster.replace(1);
    site.converges(&daemon);

    // The history is thrown away again and again while much is written.
    for round in 0..20 {
        let other = format!("10.77.0.{round}");
        site.cluster
            .put("globalnetworksets/friends", &set(&[FRIEND, &other]));
        site.cluster.ctl(&["compact", &site.revision()]);
    }
    site.converges(&daemon);

    // While the daemon stands still more is written than connections hold, and its history is thrown away: it reads all
    // anew and finds nothing to change.
    let lists = |daemon: &Daemon| daemon.log().matches("resources were read").count();
    let (before, generation) = (lists(&daemon), site.host.status()["generation"].clone());
    daemon.signal(Signal::SIGSTOP);
    let blob = "x".repeat(100_000);
    for n in 0..240 {
        site.cluster.put(&format!("nodes/bulk{}", n % 5), &blob);
    }
    site.cluster.ctl(&["compact", &site.revision()]);
    daemon.signal(Signal::SIGCONT);
    site.wait(&daemon, || lists(&daemon) > before);
    site.wait(&daemon, || site.is_synced());
    assert_eq!(
        site.host.status()["generation"],
        generation,
        "{}",
        daemon.log()
    );
    site.converges(&daemon);

    // The certificate comes to its end while the daemon runs; its next connection is refused.
    site.cluster.certificate(NAME, 0);
    std::thread::sleep(Duration::from_secs(1));
    site.restart_members();
    site.wait_problem(&daemon, "etcd cannot be followed");
    site.cluster.certificate(NAME, 365);
    site.converges(&daemon);

    // Its rights are taken away.
    site.cluster.ctl(&["user", "revoke-role", NAME, NAME]);
    site.restart_members();
    site.wait_problem(&daemon, "permission denied");
    site.cluster.ctl(&["user", "grant-role", NAME, NAME]);
    site.converges(&daemon);

    // All members go back to what they held some changes ago.
    let backup = site.cluster.backup();
    for _ in 0..3 {
        site.converges(&daemon);
    }
    let later = site.marks;
    MEMBERS.iter().for_each(|member| site.cluster.kill(*member));
    site.cluster.restore(&backup);
    site.wait(&daemon, || !site.has(later));
    site.converges(&daemon);

    // A slow network that loses every fifth packet.
    site.cluster.slow(true);
    for _ in 0..3 {
        site.converges(&daemon);
    }
    site.cluster.slow(false);

    // Everything is lost, and the daemon restarts meanwhile.
    MEMBERS.iter().for_each(|member| site.cluster.kill(*member));
    site.wait_problem(&daemon, "etcd cannot be followed");
    let peak = memory(&daemon).0;
    assert!(peak < 64, "{peak} MB");
    daemon.stop();
    daemon = site.host.start();
    site.wait_problem(&daemon, "the policy of the snapshot is in force");
    MEMBERS
        .iter()
        .for_each(|member| site.cluster.resume(*member));
    site.cluster.wait_healthy();
    site.converges(&daemon);

    let (wrong, sent) = prober.end();
    assert_eq!(wrong, Wrong::default(), "of {sent}\n{}", daemon.log());
    assert!(sent > 1000, "{sent}");
    // Without rules the same packets arrive: the prober sees what it is to see.
    daemon.stop();
    site.host.both(&["-F"]);
    prober.begin();
    std::thread::sleep(Duration::from_millis(100));
    assert!(prober.end().0.leaked > 0);
}
