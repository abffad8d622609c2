//! IP sets: what they are called and what is in them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::api::Protocol;

/// Identity of an IP set: what it contains, not how it is stored. Its debug text is unique and deterministic. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SetId {
    /// Addresses of the endpoints and network sets that a selector (canonical text) matches.
    Selector(Arc<str>),
    /// Address, protocol and port of the endpoints' named ports.
    NamedPort {
        /// Canonical selector that the owners must match.
        selector: Arc<str>,
        /// Only ports of this protocol.
        protocol: Option<Protocol>,
        /// Port name.
        port: Arc<str>,
    },
}

/// For people: what is in the set.
impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetId::Selector(selector) => f.write_str(selector),
            SetId::NamedPort {
                selector,
                protocol: Some(protocol),
                port,
            } => write!(f, "{protocol} port {port} of {selector}"),
            SetId::NamedPort { selector, port, .. } => write!(f, "port {port} of {selector}"),
        }
    }
}

/// One member of an IP set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// A prefix of a set of addresses.
    Net(IpNet),
    /// Address, protocol and port of a set of named ports.
    Port(IpAddr, Protocol, u16),
}

/// Members of an IP set, both families together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum IpSet {
    /// Prefixes.
    Nets(BTreeSet<IpNet>),
    /// Address, protocol and port.
    Ports(BTreeSet<(IpAddr, Protocol, u16)>),
}

impl IpSet {
    /// Whether an address is in a set of prefixes.
    pub fn contains(&self, addr: IpAddr) -> bool {
        match self {
            // Members are without host bits, and a set may have very many: each length is looked up.
            IpSet::Nets(nets) => {
                let whole = IpNet::from(addr);
                let shorter = |length| match IpNet::new(addr, length) {
                    Ok(net) => nets.contains(&net.trunc()),
                    Err(_) => false,
                };
                nets.contains(&whole) || (0..whole.max_prefix_len()).any(shorter)
            }
            IpSet::Ports(_) => false,
        }
    }

    /// Whether an address and port are in a set of named ports.
    pub fn contains_port(&self, addr: IpAddr, protocol: Protocol, port: u16) -> bool {
        match self {
            IpSet::Nets(_) => false,
            IpSet::Ports(ports) => ports.contains(&(addr, protocol, port)),
        }
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        match self {
            IpSet::Nets(n) => n.len(),
            IpSet::Ports(p) => p.len(),
        }
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The empty set of the kind that an id stands for.
    pub fn empty(id: &SetId) -> IpSet {
        match id {
            SetId::Selector(_) => IpSet::Nets(BTreeSet::new()),
            SetId::NamedPort { .. } => IpSet::Ports(BTreeSet::new()),
        }
    }

    /// All members in order.
    pub fn members(&self) -> impl Iterator<Item = Member> + '_ {
        let (nets, ports) = match self {
            IpSet::Nets(nets) => (Some(nets), None),
            IpSet::Ports(ports) => (None, Some(ports)),
        };
        let nets = nets.into_iter().flatten().map(|net| Member::Net(*net));
        let ports = ports.into_iter().flatten();
        nets.chain(ports.map(|(addr, protocol, port)| Member::Port(*addr, *protocol, *port)))
    }

    /// Whether exactly this is a member.
    pub fn has(&self, member: Member) -> bool {
        match (self, member) {
            (IpSet::Nets(nets), Member::Net(net)) => nets.contains(&net),
            (IpSet::Ports(ports), Member::Port(addr, protocol, port)) => {
                ports.contains(&(addr, protocol, port))
            }
            _ => false,
        }
    }

    /// Adds a member; false when it was there, or is of the other kind.
    pub fn insert(&mut self, member: Member) -> bool {
        match (self, member) {
            (IpSet::Nets(nets), Member::Net(net)) => nets.insert(net),
            (IpSet::Ports(ports), Member::Port(addr, protocol, port)) => {
                ports.insert((addr, protocol, port))
            }
            _ => false,
        }
    }

    /// Takes a member out; false when it was not there.
    pub fn remove(&mut self, member: Member) -> bool {
        match (self, member) {
            (IpSet::Nets(nets), Member::Net(net)) => nets.remove(&net),
            (IpSet::Ports(ports), Member::Port(addr, protocol, port)) => {
                ports.remove(&(addr, protocol, port))
            }
            _ => false,
        }
    }
}
