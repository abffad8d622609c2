//! Endpoints: from the SRV records of a real name server, and one that does not answer.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

use crate::host::{Host, wait_until};
use crate::server::Etcd;
use crate::{ENDPOINT, Site, policy};

/// dnsmasq with the records of one domain.
struct NameServer(Child);

impl NameServer {
    fn start() -> NameServer {
        let child = Command::new("dnsmasq")
            .args([
                "--keep-in-foreground",
                "--no-resolv",
                "--no-hosts",
                "--conf-file=/dev/null",
                "--pid-file=",
            ])
            .args([
                "--listen-address=127.0.0.1",
                "--bind-interfaces",
                "--user=root",
            ])
            // The first one by priority does not answer.
            .arg("--srv-host=_etcd-client._tcp.example.test,gone.example.test,2379,1")
            .arg("--srv-host=_etcd-client._tcp.example.test,e1.example.test,2379,2")
            .args([
                "--host-record=e1.example.test,127.0.0.1",
                "--host-record=gone.example.test,10.1.0.99",
            ])
            .stdin(Stdio::null())
            .spawn()
            .expect("dnsmasq is installed (package dnsmasq-base)");
        NameServer(child)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn endpoints_are_found_by_srv_records() {
    let host = Host::new("nft");
    // The name server of this test alone.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    host.run("mount", &["--make-rprivate", "/"]);
    let conf = host.path("resolv.conf");
    std::fs::write(&conf, "nameserver 127.0.0.1\n").unwrap();
    host.run(
        "mount",
        &["--bind", &conf.display().to_string(), "/etc/resolv.conf"],
    );
    host.settings(
        "datastoreType = \"etcdv3\"\netcdDiscoverySrv = \"example.test\"\nreportingInterval = 0",
    );
    let etcd = Etcd::start(&host.path("etcd"));
    etcd.put("hostendpoints/h-eth0", ENDPOINT);
    etcd.put("globalnetworkpolicies/web", &policy("web", 4060));
    let server = NameServer::start();
    let daemon = host.start();
    let has = |port: u16| {
        host.rules()
            .iter()
            .any(|rule| rule.contains(&format!("--dports {port} ")))
    };
    wait_until(
        || has(4060),
        || format!("{:#}\n{}", host.status(), daemon.log()),
    );
    let sources = host.status()["sources"].to_string();
    assert!(sources.contains("http://e1.example.test:2379"), "{sources}");
    // The connection needs no name server any more.
    drop(server);
    etcd.put("globalnetworkpolicies/web", &policy("web", 4061));
    wait_until(|| has(4061), || daemon.log());
}

#[test]
fn an_endpoint_that_never_answers_is_in_nobodys_way() {
    let site = Site::new();
    let silent = TcpListener::bind("127.0.0.1:2377").unwrap();
    site.host.settings("datastoreType = \"etcdv3\"\netcdEndpoints = [\"http://127.0.0.1:2377\", \"http://127.0.0.1:2379\"]\nregisterHostEndpoint = true\nhostEndpointLabels = [\"role=web\"]");
    site.etcd
        .put("globalnetworkpolicies/web", &policy("web", 4001));
    let daemon = site.host.start();
    // A call has ten seconds.
    let end = Instant::now() + Duration::from_secs(60);
    while !site.has(4001) {
        assert!(Instant::now() < end, "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(silent);
}
