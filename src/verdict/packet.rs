//! One packet as the reference verdict sees it.

use std::net::IpAddr;

/// What connection tracking says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conntrack {
    /// First packet of a flow.
    New,
    /// Belongs or is related to a known flow.
    Established,
    /// Fits no flow.
    Invalid,
    /// Not tracked by the kernel (neighbour discovery, NOTRACK).
    Untracked,
}

/// The way of a packet through the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// Arrives on an interface for a local process.
    In {
        /// Interface name.
        iface: String,
    },
    /// Leaves a local process through an interface.
    Out {
        /// Interface name.
        iface: String,
    },
    /// Is routed from one interface to another.
    Forward {
        /// Interface it arrives on.
        in_iface: String,
        /// Interface it leaves through.
        out_iface: String,
    },
}

/// One packet. Addresses and ports are those after destination NAT; `original` are those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// IP protocol number.
    pub proto: u8,
    /// Source port (TCP, UDP, SCTP, UDP-Lite).
    pub sport: Option<u16>,
    /// Destination port.
    pub dport: Option<u16>,
    /// ICMP type and code.
    pub icmp: Option<(u8, u8)>,
    /// TTL or hop limit on arrival.
    pub hop_limit: u8,
    /// Connection tracking state.
    pub conntrack: Conntrack,
    /// Destination before DNAT, when it differs.
    pub original: Option<(IpAddr, Option<u16>)>,
}
