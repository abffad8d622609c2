//! The hosts around the protected one: a fixed topology, built fresh for each case.
//!
//! ```text
//!  friend   .2 ─┐ switch                           ┌─ eth1 10.2.0.1 ── backend   10.2.0.2
//!  stranger .3 ─┴─ 10.1.0.0/24 ── eth0 .1 ─ HOST ──┼─ cali1 10.3.1.1 ─ workload  10.3.1.2
//!                                                  └─ cali2 10.3.2.1 ─ workload2 10.3.2.2
//! ```

use std::collections::{BTreeMap, BTreeSet};

use moat::dataplane::links::{Link, Links};

use super::netns::{Namespace, ip_batch};

/// An interface of the protected host.
pub struct HostLink {
    /// Its name.
    pub name: &'static str,
    /// Its IPv4 and IPv6 address.
    pub addresses: [&'static str; 2],
    /// Length of the prefixes of both.
    pub lengths: [u8; 2],
    /// The namespace at the other end.
    pub peer: &'static str,
}

/// A host beside the protected one.
pub struct Actor {
    /// Its name.
    pub name: &'static str,
    /// Its IPv4 and IPv6 address.
    pub addresses: [&'static str; 2],
    /// The interface of the protected host behind which it is.
    pub iface: &'static str,
}

/// Interfaces of the protected host besides `lo`.
pub const HOST_LINKS: [HostLink; 4] = [
    link("eth0", ["10.1.0.1", "fd01::1"], "switch"),
    link("eth1", ["10.2.0.1", "fd02::1"], "backend"),
    link("cali1", ["10.3.1.1", "fd03:1::1"], "workload"),
    link("cali2", ["10.3.2.1", "fd03:2::1"], "workload2"),
];

/// The other hosts.
pub const ACTORS: [Actor; 5] = [
    actor("friend", ["10.1.0.2", "fd01::2"], "eth0"),
    actor("stranger", ["10.1.0.3", "fd01::3"], "eth0"),
    actor("backend", ["10.2.0.2", "fd02::2"], "eth1"),
    actor("workload", ["10.3.1.2", "fd03:1::2"], "cali1"),
    actor("workload2", ["10.3.2.2", "fd03:2::2"], "cali2"),
];

/// Loopback addresses.
pub const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];

const fn link(name: &'static str, addresses: [&'static str; 2], peer: &'static str) -> HostLink {
    HostLink {
        name,
        addresses,
        lengths: [24, 64],
        peer,
    }
}

const fn actor(name: &'static str, addresses: [&'static str; 2], iface: &'static str) -> Actor {
    Actor {
        name,
        addresses,
        iface,
    }
}

/// The interface of that name.
pub fn host_link(name: &str) -> Option<&'static HostLink> {
    HOST_LINKS.iter().find(|link| link.name == name)
}

/// The actor of that name.
pub fn find_actor(name: &str) -> Option<&'static Actor> {
    ACTORS.iter().find(|actor| actor.name == name)
}

/// All namespaces of one case.
pub struct World {
    namespaces: BTreeMap<&'static str, Namespace>,
}

impl World {
    /// Builds everything but the named interfaces of the protected host.
    ///
    /// # Errors
    /// The first command that fails.
    pub fn new(number: usize, without: &[String]) -> Result<World, String> {
        let roles = ["host", "switch"]
            .into_iter()
            .chain(ACTORS.iter().map(|a| a.name));
        let names: Vec<_> = roles
            .map(|role| (role, Namespace::name_for(number, role)))
            .collect();
        ip_batch(
            &names
                .iter()
                .map(|(_, name)| format!("netns add {name}"))
                .collect::<Vec<_>>(),
        )?;
        let mut world = World {
            namespaces: BTreeMap::new(),
        };
        for (role, name) in names {
            let namespace = Namespace::open(name)?;
            prepare(&namespace)?;
            world.namespaces.insert(role, namespace);
        }
        world.wire_switch()?;
        for link in HOST_LINKS
            .iter()
            .filter(|l| !without.iter().any(|w| w == l.name))
        {
            world.add_link(link.name)?;
        }
        Ok(world)
    }

    /// The namespace of an actor, or of `host`.
    pub fn namespace(&self, role: &str) -> &Namespace {
        &self.namespaces[role]
    }

    /// Joins friend and stranger by a bridge. The port of the host comes with its link.
    fn wire_switch(&self) -> Result<(), String> {
        let mut lines = vec![
            "link add br0 type bridge mcast_snooping 0".to_owned(),
            "link set br0 addrgenmode none".into(),
            "link set br0 up".into(),
        ];
        for actor in ACTORS.iter().filter(|a| a.iface == "eth0") {
            let name = actor.name;
            let netns = self.namespace(name).name();
            lines.push(format!(
                "link add {name} type veth peer name eth0 netns {netns}"
            ));
            lines.push(format!("link set {name} master br0 addrgenmode none up"));
        }
        self.namespace("switch").ip(&lines)?;
        ACTORS
            .iter()
            .filter(|a| a.iface == "eth0")
            .try_for_each(|a| self.address(a))
    }

    /// Makes an interface of the protected host and what is behind it.
    ///
    /// # Errors
    /// It is not part of the topology, or exists already.
    pub fn add_link(&self, name: &str) -> Result<(), String> {
        let link = host_link(name).ok_or_else(|| format!("the topology has no `{name}`"))?;
        let peer = self.namespace(link.peer);
        let peer_name = if link.peer == "switch" {
            "host"
        } else {
            "eth0"
        };
        let (v4, v6) = (link.addresses[0], link.addresses[1]);
        self.namespace("host").ip(&[
            format!(
                "link add {name} type veth peer name {peer_name} netns {}",
                peer.name()
            ),
            format!("address add {v4}/{} dev {name}", link.lengths[0]),
            format!("address add {v6}/{} dev {name} nodad", link.lengths[1]),
            format!("link set {name} up"),
        ])?;
        match find_actor(link.peer) {
            Some(actor) => self.address(actor),
            None => {
                peer.ip(&["link set host master br0 addrgenmode none up".into()])?;
                self.add_default_route()
            }
        }
    }

    /// The friend stands for the rest of the world, as far as the host's routes go.
    fn add_default_route(&self) -> Result<(), String> {
        let friend = find_actor("friend").ok_or("no friend")?;
        let lines = friend
            .addresses
            .map(|addr| format!("route add default via {addr}"));
        self.namespace("host").ip(&lines)
    }

    /// Gives an actor its addresses and its way through the protected host.
    fn address(&self, actor: &Actor) -> Result<(), String> {
        let gateway = host_link(actor.iface).ok_or("an actor without host interface")?;
        self.namespace(actor.name).ip(&[
            format!(
                "address add {}/{} dev eth0",
                actor.addresses[0], gateway.lengths[0]
            ),
            format!(
                "address add {}/{} dev eth0 nodad",
                actor.addresses[1], gateway.lengths[1]
            ),
            "link set eth0 up".into(),
            format!("route add default via {}", gateway.addresses[0]),
            format!("route add default via {}", gateway.addresses[1]),
        ])
    }
}

/// Settings that must stand before the interfaces are made, and loopback.
fn prepare(namespace: &Namespace) -> Result<(), String> {
    for key in ["ipv6/conf/all/accept_dad", "ipv6/conf/default/accept_dad"] {
        namespace.sysctl(key, "0")?;
    }
    for key in ["ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter"] {
        namespace.sysctl(key, "0")?;
    }
    if namespace.name().ends_with("-host") {
        namespace.sysctl("ipv4/ip_forward", "1")?;
        namespace.sysctl("ipv6/conf/all/forwarding", "1")?;
    }
    namespace.ip(&["link set lo up".into()])
}

/// The links of the protected host as the kernel would list them, of those whose name is given.
///
/// # Errors
/// None but a slip in this file.
pub fn links(names: &BTreeSet<&str>) -> Result<Links, String> {
    let mut links = BTreeMap::new();
    let present = HOST_LINKS.iter().filter(|l| names.contains(l.name));
    let all = present
        .map(|l| (l.name, l.addresses))
        .chain([("lo", LOOPBACK)]);
    for (name, addresses) in all {
        let addresses = addresses
            .iter()
            .map(|a| a.parse().map_err(|_| format!("`{a}`?")));
        let addresses = addresses.collect::<Result<BTreeSet<_>, String>>()?;
        links.insert(
            name.to_owned(),
            Link {
                name: name.into(),
                up: true,
                addresses,
            },
        );
    }
    Ok(links)
}
