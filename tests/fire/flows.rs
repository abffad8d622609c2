//! The flows that the prober sends, and what policy says about each: see `policy.rs` for the policy.

use std::net::IpAddr;

/// Where packets begin or end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The protected host.
    Host,
    /// Beyond eth0.
    Outside,
    /// Beyond eth1, reached through the host.
    Inside,
}

/// IPv4 and IPv6 address of one party.
pub type Addresses = [&'static str; 2];

/// The protected host on eth0.
pub const HOST: Addresses = ["10.1.0.1", "fd01::1"];
/// Outside, member of the set that a policy allows.
pub const FRIEND: Addresses = ["10.1.0.2", "fd01::2"];
/// Outside, member of no set.
pub const STRANGER: Addresses = ["10.1.0.3", "fd01::3"];
/// Outside, member of the set that a policy denies.
pub const ENEMY: Addresses = ["10.1.0.9", "fd01::9"];
/// The protected host on eth1.
pub const HOST_INSIDE: Addresses = ["10.2.0.1", "fd02::1"];
/// Inside.
pub const SERVER: Addresses = ["10.2.0.2", "fd02::2"];

/// Whether packets of a class belong to one known flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Each packet has another source port: a new flow for connection tracking.
    New,
    /// One source port; the flow began, and was answered, before the fault.
    Established(u16),
    /// One source port; the receiver began the flow, and nothing but the memory of that lets packets in.
    Reply(u16),
}

/// One kind of packet with its verdict.
#[derive(Debug)]
pub struct Class {
    /// Short name for reports.
    pub name: &'static str,
    /// Whether its packets must arrive; otherwise none may.
    pub allowed: bool,
    /// Sender.
    pub from: Place,
    /// Its addresses.
    pub src: Addresses,
    /// Its ports.
    pub source: Source,
    /// Receiver.
    pub to: Place,
    /// Its addresses.
    pub dst: Addresses,
    /// Its port.
    pub port: u16,
}

/// UDP, one packet of each per millisecond and family.
pub const CLASSES: [Class; 14] = [
    to_host("source", true, FRIEND, Source::New, 1001),
    to_host("port", true, STRANGER, Source::New, 1002),
    to_host(
        "established",
        true,
        STRANGER,
        Source::Established(3000),
        1003,
    ),
    to_host("reply", true, STRANGER, Source::Reply(2001), 2000),
    to_host("failsafe", true, ENEMY, Source::New, 1005),
    to_host("untracked", true, STRANGER, Source::New, 1053),
    to_server("forward", true, 1010),
    from_host("egress", true, 1020),
    to_host("no rule", false, STRANGER, Source::New, 1099),
    to_host("no member", false, STRANGER, Source::New, 1001),
    to_host("denied member", false, ENEMY, Source::New, 1002),
    to_host("denied before DNAT", false, STRANGER, Source::New, 1009),
    to_server("denied forward", false, 1011),
    from_host("denied egress", false, 1021),
];

/// TCP port of the host that policy allows.
pub const TCP_ALLOWED: u16 = 1080;
/// TCP port of the host that policy denies.
pub const TCP_DENIED: u16 = 1081;

const fn to_host(
    name: &'static str,
    allowed: bool,
    src: Addresses,
    source: Source,
    port: u16,
) -> Class {
    Class {
        name,
        allowed,
        from: Place::Outside,
        src,
        source,
        to: Place::Host,
        dst: HOST,
        port,
    }
}

const fn to_server(name: &'static str, allowed: bool, port: u16) -> Class {
    Class {
        name,
        allowed,
        from: Place::Outside,
        src: STRANGER,
        source: Source::New,
        to: Place::Inside,
        dst: SERVER,
        port,
    }
}

const fn from_host(name: &'static str, allowed: bool, port: u16) -> Class {
    Class {
        name,
        allowed,
        from: Place::Host,
        src: HOST,
        source: Source::New,
        to: Place::Outside,
        dst: STRANGER,
        port,
    }
}

/// A class in one family.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// What it is.
    pub class: &'static Class,
    /// 0 for IPv4, 1 for IPv6.
    pub family: usize,
}

impl Flow {
    /// All flows.
    pub fn all() -> Vec<Flow> {
        let both = |class| [0, 1].map(|family| Flow { class, family });
        CLASSES.iter().flat_map(both).collect()
    }

    /// Name for reports.
    pub fn name(&self) -> String {
        format!("{} IPv{}", self.class.name, [4, 6][self.family])
    }

    /// Source address.
    pub fn src(&self) -> IpAddr {
        address(self.class.src[self.family])
    }

    /// Destination address.
    pub fn dst(&self) -> IpAddr {
        address(self.class.dst[self.family])
    }
}

/// An address of this file.
pub fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
