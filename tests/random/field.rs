//! A protected host in the real kernel: rules are put in, packets are sent in, and it is seen which get through.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use moat::calc::HostPolicy;
use moat::compile::Ruleset;
use moat::dataplane::iptables::{Backend, Iptables};
use moat::dataplane::{Dataplane, Wanted};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, Protocol, SendFlags, SocketFlags, SocketType};
use serde_json::Value;

use super::packets::Shot;
use super::topology::{ACTORS, HOST_LINKS, World};
use super::universe::{NATS, Nat, PLACES, VIRTUAL};

/// Every set counts on so many packets of one round.
const CAPACITY: usize = 65_536;
/// What is sent has gone through the host when the call returns, but for work left to the kernel's threads.
const SETTLE: Duration = Duration::from_millis(10);

/// The host and everything around it.
pub struct Field {
    world: World,
    dataplane: Iptables,
    senders: BTreeMap<(&'static str, bool), OwnedFd>,
}

impl Field {
    /// Builds the hosts.
    ///
    /// # Errors
    /// A command or a socket that fails.
    pub fn new(number: usize, backend: Backend) -> Result<Field, String> {
        let world = World::new(number, &[])?;
        let host = world.namespace("host");
        host.ip(&neighbours())?;
        host.sysctl("netfilter/nf_conntrack_checksum", "0")?;
        host.run("nft", &[&probe_table()])?;
        for (actor, lines) in gateways(&host.run("ip", &["-j", "link"])?)? {
            world.namespace(actor).ip(&lines)?;
        }
        let mut senders = BTreeMap::new();
        for role in ACTORS.iter().map(|a| a.name).chain(["host"]) {
            for v6 in [false, true] {
                let socket = world.namespace(role).enter(|| sender(v6));
                senders.insert((role, v6), socket.map_err(|e| format!("raw socket: {e}"))?);
            }
        }
        let dataplane = host.enter(|| Iptables::new(backend, 1024));
        Ok(Field {
            world,
            dataplane,
            senders,
        })
    }

    /// Brings the kernel from the rules of the last call to these.
    ///
    /// # Errors
    /// The kernel or a tool refuses them.
    pub fn apply(&mut self, wanted: &Ruleset, policy: &HostPolicy) -> Result<(), String> {
        let wanted = Wanted::whole(Arc::new(wanted.clone()), policy);
        let dataplane = &mut self.dataplane;
        let result = self
            .world
            .namespace("host")
            .enter(|| dataplane.apply(&wanted));
        match result {
            Ok(applied) if applied.refused.is_empty() => Ok(()),
            Ok(applied) => Err(format!("{:?}", applied.refused)),
            Err(e) => Err(format!("{e:#}: {e:?}")),
        }
    }

    /// Sends packets; returns the numbers of those that got through.
    ///
    /// # Errors
    /// A socket or a tool fails.
    pub fn send(&self, shots: &[Shot]) -> Result<BTreeSet<(bool, u16)>, String> {
        let mut seen = BTreeSet::new();
        for output in [false, true] {
            let host = self.world.namespace("host");
            host.run("conntrack", &["-F"])?;
            host.run("nft", &["flush set inet probe v4; flush set inet probe v6"])?;
            for shot in shots.iter().filter(|s| s.is_output() == output) {
                self.send_one(shot)?;
            }
            std::thread::sleep(SETTLE);
            let text = host.run("nft", &["-j", "list table inet probe"])?;
            let table: Value = serde_json::from_str(&text).map_err(|e| format!("nft: {e}"))?;
            let ids = numbers(&table);
            let sent: BTreeSet<u16> = shots
                .iter()
                .filter(|s| s.is_output() == output)
                .map(|s| s.id)
                .collect();
            seen.extend(ids.into_iter().filter(|(_, id)| sent.contains(id)));
        }
        Ok(seen)
    }

    fn send_one(&self, shot: &Shot) -> Result<(), String> {
        let role = match shot.arrives_on() {
            Some(iface) => ACTORS.iter().find(|a| a.iface == iface).map(|a| a.name),
            None => Some("host"),
        };
        let role = role.ok_or_else(|| format!("nobody is behind {:?}", shot.path))?;
        let target = SocketAddr::new(shot.written().0, 0);
        let socket = &self.senders[&(role, shot.packet.dst.is_ipv6())];
        match net::sendto(socket, &shot.bytes(), SendFlags::empty(), &target) {
            // Rules of the host's own output answer so.
            Ok(_) | Err(Errno::PERM | Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::ACCESS) => {
                Ok(())
            }
            Err(error) => Err(format!("{shot:?}: {error}")),
        }
    }
}

/// Records packets that have passed everything: those for the host and those forwarded by the number
/// in the IP header, those of the host itself likewise. Packets of the host are sent in a round of
/// their own, so that its answers are not taken for them.
fn probe_table() -> String {
    let nats: String = NATS.iter().map(nat_rules).collect();
    let record = "update @v4 { ip id }; update @v6 { ip6 flowlabel };";
    format!(
        "table inet probe {{
            set v4 {{ typeof ip id; flags dynamic; size {CAPACITY}; }};
            set v6 {{ typeof ip6 flowlabel; flags dynamic; size {CAPACITY}; }};
            chain in {{ type filter hook input priority 300; iif != lo {record} }};
            chain forward {{ type filter hook forward priority 300; {record} }};
            chain out {{ type filter hook postrouting priority 300; {record} }};
            chain arriving {{ type nat hook prerouting priority -100; {nats} }};
            chain leaving {{ type nat hook output priority -100; {nats} }};
        }}"
    )
}

fn nat_rules(nat: &Nat) -> String {
    let port = format!("meta l4proto {{ tcp, udp }} th dport {}", nat.port);
    format!(
        "ip daddr {} {port} dnat ip to {}:{}; ip6 daddr {} {port} dnat ip6 to [{}]:{};",
        VIRTUAL[0], nat.to[0], nat.to_port, VIRTUAL[1], nat.to[1], nat.to_port
    )
}

/// How the other hosts find the protected one without asking, by actor.
fn gateways(links: &str) -> Result<Vec<(&'static str, Vec<String>)>, String> {
    let links: Value = serde_json::from_str(links).map_err(|e| format!("ip -j link: {e}"))?;
    let mac = |iface: &str| {
        let link = links.as_array()?.iter().find(|l| l["ifname"] == iface)?;
        link["address"].as_str()
    };
    let mut all = Vec::new();
    for actor in &ACTORS {
        let link = HOST_LINKS
            .iter()
            .find(|l| l.name == actor.iface)
            .ok_or("no such link")?;
        let mac = mac(link.name).ok_or_else(|| format!("{} has no address", link.name))?;
        let line = |addr| format!("neighbour replace {addr} lladdr {mac} dev eth0 nud permanent");
        all.push((actor.name, link.addresses.map(line).to_vec()));
    }
    Ok(all)
}

/// Where the host finds the others: at an address that nobody has, so that nobody answers.
fn neighbours() -> Vec<String> {
    let on_link = |addr: &str, iface: &str| {
        HOST_LINKS
            .iter()
            .any(|l| l.name == iface && l.addresses.iter().any(|own| same_net(own, addr)))
    };
    PLACES
        .iter()
        .flat_map(|p| p.addresses.iter().map(move |addr| (*addr, p.iface)))
        .filter(|(addr, iface)| on_link(addr, iface))
        .map(|(addr, iface)| {
            format!("neighbour replace {addr} lladdr 02:00:00:00:00:99 dev {iface} nud permanent")
        })
        .collect()
}

fn same_net(a: &str, b: &str) -> bool {
    match (a.parse(), b.parse()) {
        (Ok(IpAddr::V4(a)), Ok(IpAddr::V4(b))) => a.octets()[..3] == b.octets()[..3],
        (Ok(IpAddr::V6(a)), Ok(IpAddr::V6(b))) => a.segments()[..4] == b.segments()[..4],
        _ => false,
    }
}

/// Numbers in the sets of the probe table, each with whether it is of IPv6.
fn numbers(table: &Value) -> BTreeSet<(bool, u16)> {
    let mut numbers = BTreeSet::new();
    for object in table["nftables"].as_array().into_iter().flatten() {
        let set = &object["set"];
        let v6 = set["name"] == "v6";
        for element in set["elem"].as_array().into_iter().flatten() {
            let value = if element.is_number() {
                element
            } else {
                &element["elem"]["val"]
            };
            numbers.extend(
                value
                    .as_u64()
                    .and_then(|n| u16::try_from(n).ok())
                    .map(|n| (v6, n)),
            );
        }
    }
    numbers
}

/// A socket that takes packets with their IP header.
fn sender(v6: bool) -> rustix::io::Result<OwnedFd> {
    let domain = if v6 {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let raw = NonZeroU32::new(255).map(Protocol::from_raw);
    net::socket_with(domain, SocketType::RAW, SocketFlags::CLOEXEC, raw)
}
