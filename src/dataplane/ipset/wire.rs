//! The words of the kernel's ipset protocol (`linux/netfilter/ipset/ip_set.h`): messages, attributes, members.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::api::{Family, Protocol};
use crate::compile::{Member, SetKind};

/// Spoken by every kernel since 2.6.39. The newer version 7 only adds lookups by number.
pub const PROTOCOL: u8 = 6;
/// `NFNL_SUBSYS_IPSET`, the upper half of a message type.
const SUBSYSTEM: u16 = 6 << 8;
/// `NFNL_SUBSYS_NFTABLES`, whose messages have the same form.
const NF_TABLES: u16 = 10 << 8;
/// `nlmsghdr` and `nfgenmsg`.
const HEADERS: usize = 16 + 4;
/// Attributes are padded to this.
const ALIGN: usize = 4;
const NESTED: u16 = 1 << 15;
const NET_ORDER: u16 = 1 << 14;
/// The kind of an attribute without its two flags.
const KIND: u16 = NET_ORDER - 1;
/// Members of a set of ports that has all.
pub const ALL_PORTS: u32 = 1 << 16;
/// What one message may hold: the length of the attribute around the members has 16 bits.
const MESSAGE_LIMIT: usize = 60_000;

/// Commands (`enum ipset_cmd`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Command {
    Protocol = 1,
    Create = 2,
    Destroy = 3,
    Flush = 4,
    Rename = 5,
    Swap = 6,
    List = 7,
    Add = 9,
    Remove = 10,
    Type = 13,
}

/// Attributes of a command.
pub mod cmd {
    pub const PROTOCOL: u16 = 1;
    pub const SETNAME: u16 = 2;
    pub const TYPENAME: u16 = 3;
    /// Of swap and rename; the kernel gave it the number of the type's name.
    pub const SETNAME2: u16 = 3;
    pub const REVISION: u16 = 4;
    pub const FAMILY: u16 = 5;
    pub const FLAGS: u16 = 6;
    pub const DATA: u16 = 7;
    pub const ADT: u16 = 8;
    pub const LINENO: u16 = 9;
    pub const PROTOCOL_MIN: u16 = 10;
}

/// Attributes of a set or a member.
pub mod data {
    pub const IP: u16 = 1;
    pub const CIDR: u16 = 3;
    pub const PORT: u16 = 4;
    pub const PORT_TO: u16 = 5;
    pub const TIMEOUT: u16 = 6;
    pub const PROTO: u16 = 7;
    pub const CADT_FLAGS: u16 = 8;
    pub const LINENO: u16 = 9;
    pub const HASHSIZE: u16 = 18;
    pub const MAXELEM: u16 = 19;
    pub const NETMASK: u16 = 20;
    pub const ELEMENTS: u16 = 24;
    pub const REFERENCES: u16 = 25;
    pub const IPV4: u16 = 1;
    pub const IPV6: u16 = 2;
}

/// `NLM_F_*`.
pub mod flag {
    pub const REQUEST: u16 = 1;
    pub const ACK: u16 = 4;
    /// Do not take "exists" (or "does not exist") for success.
    pub const EXCL: u16 = 0x200;
    pub const DUMP: u16 = 0x300;
}

/// `IPSET_FLAG_LIST_HEADER`: list sets without members.
pub const LIST_HEADER: u32 = 1 << 2;

/// A request that is being written.
#[derive(Debug, Default)]
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// Starts a message, in the memory of the last one.
    pub fn begin(&mut self, command: Command, flags: u16, sequence: u32) {
        self.bytes.clear();
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes
            .extend((SUBSYSTEM | command as u16).to_ne_bytes());
        self.bytes.extend((flag::REQUEST | flags).to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        // From us, whoever we are; for no address family, version and resource.
        self.bytes.extend([0; 8]);
        self.attribute(cmd::PROTOCOL, &[PROTOCOL]);
    }

    /// The finished message.
    pub fn end(&mut self) -> &[u8] {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        &self.bytes
    }

    /// Whether another member might not fit.
    pub fn is_full(&self) -> bool {
        self.bytes.len() > MESSAGE_LIMIT
    }

    /// Adds an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes
            .resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }

    /// Adds a text with its final zero.
    pub fn text(&mut self, kind: u16, text: &str) {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.attribute(kind, &value);
    }

    /// Adds a number that the kernel wants in network order.
    pub fn number(&mut self, kind: u16, number: u32) {
        self.attribute(kind | NET_ORDER, &number.to_be_bytes());
    }

    /// Adds a port.
    pub fn port(&mut self, kind: u16, port: u16) {
        self.attribute(kind | NET_ORDER, &port.to_be_bytes());
    }

    /// Begins an attribute that holds attributes; for [`Request::close`].
    pub fn open(&mut self, kind: u16) -> usize {
        let at = self.bytes.len();
        self.attribute(kind | NESTED, &[]);
        at
    }

    /// Ends an attribute that holds attributes.
    pub fn close(&mut self, at: usize) {
        let length = u16::try_from(self.bytes.len() - at).unwrap_or(u16::MAX);
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Adds a member; the kernel names `line` when it refuses this one.
    pub fn member(&mut self, member: Member, line: u32) {
        let outer = self.open(cmd::DATA);
        match member {
            Member::Net(net) => {
                self.address(net.addr());
                if net.prefix_len() < net.max_prefix_len() {
                    self.attribute(data::CIDR, &[net.prefix_len()]);
                }
            }
            Member::AddrPort(addr, protocol, port) => {
                self.address(addr);
                self.port(data::PORT, port);
                self.attribute(data::PROTO, &[protocol.0]);
            }
            Member::Port(port) => self.port(data::PORT, port),
        }
        self.number(data::LINENO, line);
        self.close(outer);
    }

    fn address(&mut self, addr: IpAddr) {
        let outer = self.open(data::IP);
        match addr {
            IpAddr::V4(addr) => self.attribute(data::IPV4 | NET_ORDER, &addr.octets()),
            IpAddr::V6(addr) => self.attribute(data::IPV6 | NET_ORDER, &addr.octets()),
        }
        self.close(outer);
    }
}

/// One message from the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The number of the request that it answers.
    pub sequence: u32,
    /// Number of an address family (`NFPROTO_*`), of data.
    pub family: u8,
    /// What it says.
    pub body: Body<'a>,
}

/// What a message from the kernel says.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// Attributes.
    Data(&'a [u8]),
    /// End of a list, or the result of a request: 0 or a negative error code; with the attributes of the request if the
    /// kernel sent them back.
    End(i32, &'a [u8]),
    /// Nothing of interest.
    Other,
}

/// The messages of a datagram. One that is cut off ends it.
pub fn replies(datagram: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let message = rest.get(..length).filter(|m| m.len() >= 16)?;
        rest = rest.get(length.next_multiple_of(ALIGN)..).unwrap_or(&[]);
        let kind = u16::from_ne_bytes(message[4..6].try_into().ok()?);
        let code = || u32_at(message, 16).map_or(0, u32::cast_signed);
        let body = match kind {
            // An error comes with the request that caused it behind its code.
            2 => Body::End(code(), message.get(20 + HEADERS..).unwrap_or(&[])),
            3 => Body::End(code(), &[]),
            _ if matches!(kind & 0xff00, SUBSYSTEM | NF_TABLES) => {
                Body::Data(message.get(HEADERS..).unwrap_or(&[]))
            }
            _ => Body::Other,
        };
        let sequence = u32_at(message, 8)?;
        let family = message.get(16).copied().unwrap_or(0);
        Some(Reply {
            sequence,
            family,
            body,
        })
    })
}

/// Kinds and values of attributes. One that is cut off ends them.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(ALIGN)..).unwrap_or(&[]);
        Some((kind & KIND, value))
    })
}

/// The value of the first attribute of a kind.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(k, value)| (k == kind).then_some(value))
}

/// A number in network order.
pub fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?))
}

/// A port in network order.
pub fn port(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(value.get(..2)?.try_into().ok()?))
}

/// A text that ends with zero.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Reads a member of a set of this kind; nothing when it says more than members of ours ever do.
pub fn member(kind: SetKind, bytes: &[u8]) -> Option<Member> {
    let (mut addr, mut cidr, mut number, mut protocol) = (None, None, None, None);
    for (attribute, value) in attributes(bytes) {
        match attribute {
            data::IP => addr = address(value),
            data::CIDR => cidr = value.first().copied(),
            data::PORT => number = port(value),
            data::PROTO => protocol = value.first().copied(),
            data::LINENO => {}
            // A time limit, an exception ("nomatch"), a comment.
            _ => return None,
        }
    }
    match kind {
        SetKind::Nets => {
            let addr = addr?;
            let full = if addr.is_ipv4() { 32 } else { 128 };
            Some(Member::Net(IpNet::new(addr, cidr.unwrap_or(full)).ok()?))
        }
        SetKind::AddrPorts => Some(Member::AddrPort(addr?, Protocol(protocol?), number?)),
        SetKind::Ports => Some(Member::Port(number?)),
    }
}

fn address(value: &[u8]) -> Option<IpAddr> {
    let (kind, bytes) = attributes(value).next()?;
    match kind {
        data::IPV4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        data::IPV6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

/// The kernel's name of a type.
pub fn type_name(kind: SetKind) -> &'static str {
    match kind {
        SetKind::Nets => "hash:net",
        SetKind::AddrPorts => "hash:ip,port",
        SetKind::Ports => "bitmap:port",
    }
}

/// The kernel's number of a family; ports have none.
pub fn family_number(kind: SetKind, family: Family) -> u8 {
    match (kind, family) {
        (SetKind::Ports, _) => 0,
        (_, Family::V4) => 2,
        (_, Family::V6) => 10,
    }
}
