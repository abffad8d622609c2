//! Three hosts:
//!
//! ```text
//!  outside 10.1.0.2, .3, .9 ── eth0 10.1.0.1 HOST eth1 10.2.0.1 ── inside 10.2.0.2
//! ```

use super::flows::{Addresses, ENEMY, FRIEND, HOST, HOST_INSIDE, Place, SERVER, STRANGER};
use super::netns::{Namespace, ip_batch};

/// The namespaces.
pub struct Net {
    host: Namespace,
    outside: Namespace,
    inside: Namespace,
}

impl Net {
    /// Builds everything, under a number that is unique in this process.
    ///
    /// # Errors
    /// The first command that fails.
    pub fn new(number: usize) -> Result<Net, String> {
        let names = ["host", "outside", "inside"].map(|role| Namespace::name_for(number, role));
        ip_batch(&names.clone().map(|name| format!("netns add {name}")))?;
        let [host, outside, inside] = names.map(Namespace::open);
        let net = Net {
            host: host?,
            outside: outside?,
            inside: inside?,
        };
        for place in [Place::Host, Place::Outside, Place::Inside] {
            prepare(net.at(place))?;
        }
        net.host.sysctl("ipv4/ip_forward", "1")?;
        net.host.sysctl("ipv6/conf/all/forwarding", "1")?;
        // New flows by the thousand each second must not fill the table of connections.
        net.host.sysctl("netfilter/nf_conntrack_udp_timeout", "2")?;
        net.add_outer_link()?;
        net.add_link("eth1", HOST_INSIDE, &net.inside, &[SERVER], HOST_INSIDE)?;
        Ok(net)
    }

    /// The namespace of a place.
    pub fn at(&self, place: Place) -> &Namespace {
        match place {
            Place::Host => &self.host,
            Place::Outside => &self.outside,
            Place::Inside => &self.inside,
        }
    }

    /// The protected host.
    pub fn host(&self) -> &Namespace {
        &self.host
    }

    /// Makes eth0 with what is behind it.
    ///
    /// # Errors
    /// It exists already.
    pub fn add_outer_link(&self) -> Result<(), String> {
        self.add_link(
            "eth0",
            HOST,
            &self.outside,
            &[FRIEND, STRANGER, ENEMY],
            HOST,
        )
    }

    fn add_link(
        &self,
        name: &str,
        own: Addresses,
        peer: &Namespace,
        others: &[Addresses],
        gateway: Addresses,
    ) -> Result<(), String> {
        self.host.ip(&[
            format!(
                "link add {name} address {OWN_MAC} type veth peer name eth0 address {PEER_MAC} netns {}",
                peer.name()
            ),
            format!("address add {}/24 dev {name}", own[0]),
            format!("address add {}/64 dev {name} nodad", own[1]),
        ])?;
        let mut lines = Vec::new();
        for addresses in others {
            lines.push(format!("address add {}/24 dev eth0", addresses[0]));
            lines.push(format!("address add {}/64 dev eth0 nodad", addresses[1]));
        }
        lines.push("link set eth0 up".into());
        lines.extend(gateway.map(|via| format!("route add default via {via}")));
        lines.extend(gateway.map(|to| neighbour(to, PEER_SIDE)));
        peer.ip(&lines)?;
        self.host.ip(&[format!("link set {name} up")])?;
        self.know_neighbours(name, others)
    }

    /// The host finds its outer neighbours without asking; to be said anew after the link was down.
    ///
    /// # Errors
    /// The link is away.
    pub fn know_outer_neighbours(&self) -> Result<(), String> {
        self.know_neighbours("eth0", &[FRIEND, STRANGER, ENEMY])
    }

    fn know_neighbours(&self, name: &str, others: &[Addresses]) -> Result<(), String> {
        let lines: Vec<String> = others
            .iter()
            .flatten()
            .map(|to| neighbour(to, (name, PEER_MAC)))
            .collect();
        self.host.ip(&lines)
    }
}

/// What is asked for may come late, and packets would be lost by the harness: nobody asks.
const OWN_MAC: &str = "02:00:00:00:00:01";
const PEER_MAC: &str = "02:00:00:00:00:02";
const PEER_SIDE: (&str, &str) = ("eth0", OWN_MAC);

fn neighbour(address: &str, (link, mac): (&str, &str)) -> String {
    format!("neighbour replace {address} lladdr {mac} dev {link} nud permanent")
}

fn prepare(namespace: &Namespace) -> Result<(), String> {
    for key in ["ipv6/conf/all/accept_dad", "ipv6/conf/default/accept_dad"] {
        namespace.sysctl(key, "0")?;
    }
    for key in ["ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter"] {
        namespace.sysctl(key, "0")?;
    }
    namespace.ip(&["link set lo up".into()])
}
