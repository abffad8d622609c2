//! The flows that the kernel tracks, by ctnetlink: listed, removed, made known.
//!
//! All calls block, in the network namespace of the thread that opened the table.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple,
    Protocol as TrackedProtocol, Status, TCPFlags, Tuple as TupleAttribute,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload, Nla,
};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

/// The kernel never fills more than this into one answer of a dump (`NLMSG_GOODSIZE` and the size asked for).
const BUFFER: usize = 64 << 10;
/// How long the kernel may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a flow that was made known may stay silent, in seconds: the kernel's own time for TCP.
const KNOWN_TIMEOUT: u32 = 432_000;
/// `TCP_CONNTRACK_ESTABLISHED`.
const TCP_ESTABLISHED: u8 = 3;
/// `IP_CT_TCP_FLAG_BE_LIBERAL`: sequence numbers are not compared with windows that nobody saw.
const TCP_BE_LIBERAL: u8 = 0x08;
// Attributes that the netlink crate has no names for (linux/netfilter/nfnetlink_conntrack.h).
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_PROTO_ICMP_TYPE: u16 = 5;
const CTA_PROTO_ICMP_CODE: u16 = 6;
const CTA_PROTO_ICMPV6_TYPE: u16 = 8;
const CTA_PROTO_ICMPV6_CODE: u16 = 9;

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Sender.
    pub src: IpAddr,
    /// Receiver.
    pub dst: IpAddr,
    /// IP protocol number.
    pub proto: u8,
    /// Source port, if the protocol has ports.
    pub sport: Option<u16>,
    /// Destination port, if the protocol has ports.
    pub dport: Option<u16>,
    /// ICMP type and code.
    pub icmp: Option<(u8, u8)>,
}

impl Tuple {
    /// The same flow seen from the other end.
    pub fn reversed(&self) -> Tuple {
        Tuple {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            ..*self
        }
    }
}

/// A tracked flow.
#[derive(Clone, Debug)]
pub struct Flow {
    /// As the first packet was, before NAT.
    pub original: Tuple,
    /// As answers come back: its source is where the flow really goes to.
    pub reply: Tuple,
    /// Whether its first packet may have been one from the middle, so that it may be the wrong way round. Of TCP the kernel
    /// knows, because it does not compare the windows of such a connection.
    pub may_be_reversed: bool,
    /// What names exactly this entry: its tuple, zone and number.
    key: Vec<ConntrackAttribute>,
}

/// The kernel's table of flows.
pub struct FlowTable {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl FlowTable {
    /// Opens the table.
    ///
    /// # Errors
    /// When the kernel has no connection tracking by netlink, or the privilege is missing.
    pub fn open() -> io::Result<FlowTable> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(FlowTable {
            socket,
            buffer: Vec::with_capacity(BUFFER),
            sequence: 0,
        })
    }

    /// Visits every flow of both families.
    ///
    /// # Errors
    /// When the kernel does not list them all.
    pub fn visit(&mut self, mut visit: impl FnMut(Flow)) -> io::Result<()> {
        let all = NetfilterProtoFamily::Unspec;
        self.send(all, ConntrackMessage::Get(Vec::new()), NLM_F_DUMP)?;
        loop {
            let done = self.receive(|attributes| {
                if let Some(flow) = flow(attributes) {
                    visit(flow);
                }
            })?;
            if done {
                return Ok(());
            }
        }
    }

    /// Removes a flow, so that its next packet is judged as the first of a new one. Says whether it was still there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&mut self, flow: &Flow) -> io::Result<bool> {
        let message = ConntrackMessage::Delete(flow.key.clone());
        self.send(family(&flow.original), message, NLM_F_ACK)?;
        self.outcome(Errno::NOENT)
    }

    /// Makes a flow known that began before the kernel tracked anything. Says whether it was not known yet.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn make_known(&mut self, original: &Tuple) -> io::Result<bool> {
        let reply = original.reversed();
        let mut attributes = vec![
            ConntrackAttribute::CtaTupleOrig(attributes_of(original)),
            ConntrackAttribute::CtaTupleReply(attributes_of(&reply)),
            ConntrackAttribute::CtaTimeout(KNOWN_TIMEOUT),
            ConntrackAttribute::CtaStatus(Status::Confirmed | Status::SeenReply | Status::Assured),
        ];
        if original.proto == u8::from(TrackedProtocol::Tcp) {
            let liberal = TCPFlags::parse(&[TCP_BE_LIBERAL, TCP_BE_LIBERAL])
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e.to_string()))?;
            let tcp = vec![
                ProtoInfoTCP::State(TCP_ESTABLISHED),
                ProtoInfoTCP::OriginalFlags(liberal.clone()),
                ProtoInfoTCP::ReplyFlags(liberal),
            ];
            attributes.push(ConntrackAttribute::CtaProtoInfo(vec![ProtoInfo::TCP(tcp)]));
        }
        let message = ConntrackMessage::New(attributes);
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.send(family(original), message, flags)?;
        self.outcome(Errno::EXIST)
    }

    fn send(
        &mut self,
        family: NetfilterProtoFamily,
        message: ConntrackMessage,
        flags: u16,
    ) -> io::Result<()> {
        let header = NetfilterHeader::new(family, 0, 0);
        let mut message = NetlinkMessage::from(NetfilterMessage::new(header, message));
        self.sequence = self.sequence.wrapping_add(1);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// The answer to one request; the error that only says that nothing had to be done is `false`.
    fn outcome(&mut self, nothing_done: Errno) -> io::Result<bool> {
        match self.receive(|_| {}) {
            Ok(_) => Ok(true),
            Err(e) if e.raw_os_error() == Some(nothing_done.raw_os_error()) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Takes one datagram of answers; says whether it was the last one.
    fn receive(&mut self, mut visit: impl FnMut(Vec<ConntrackAttribute>)) -> io::Result<bool> {
        self.buffer.clear();
        self.socket.recv(&mut self.buffer, 0)?;
        let mut rest = &self.buffer[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length.max(1)..).unwrap_or_default();
            // An answer to a request that was given up.
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) => {
                    return match error.code {
                        None => Ok(true),
                        Some(_) => Err(error.to_io()),
                    };
                }
                NetlinkPayload::InnerMessage(NetfilterMessage {
                    inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
                    ..
                }) => visit(attributes),
                _ => {}
            }
        }
        Ok(false)
    }
}

fn family(tuple: &Tuple) -> NetfilterProtoFamily {
    match tuple.src {
        IpAddr::V4(_) => NetfilterProtoFamily::IPv4,
        IpAddr::V6(_) => NetfilterProtoFamily::IPv6,
    }
}

/// A flow as it is listed; none when what makes a flow is missing.
fn flow(attributes: Vec<ConntrackAttribute>) -> Option<Flow> {
    let (mut original, mut reply) = (None, None);
    let mut key = Vec::with_capacity(3);
    let mut may_be_reversed = true;
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(ref parts) => {
                original = tuple(parts);
                key.push(attribute);
            }
            ConntrackAttribute::CtaTupleReply(parts) => reply = tuple(&parts),
            ConntrackAttribute::CtaProtoInfo(infos) => {
                let tcp = infos.iter().filter_map(|info| match info {
                    ProtoInfo::TCP(fields) => Some(fields),
                    _ => None,
                });
                may_be_reversed = tcp.flatten().any(is_liberal);
            }
            ConntrackAttribute::Other(ref other) if matches!(other.kind(), CTA_ID | CTA_ZONE) => {
                key.push(attribute);
            }
            _ => {}
        }
    }
    Some(Flow {
        original: original?,
        reply: reply?,
        may_be_reversed,
        key,
    })
}

fn is_liberal(field: &ProtoInfoTCP) -> bool {
    matches!(field, ProtoInfoTCP::OriginalFlags(flags) if flags.flags & TCP_BE_LIBERAL != 0)
}

fn tuple(parts: &[TupleAttribute]) -> Option<Tuple> {
    let (mut src, mut dst, mut proto, mut sport, mut dport) = (None, None, None, None, None);
    let (mut kind, mut code) = (None, None);
    for part in parts {
        match part {
            TupleAttribute::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(a) => src = Some(*a),
                        IPTuple::DestinationAddress(a) => dst = Some(*a),
                        _ => {}
                    }
                }
            }
            TupleAttribute::Proto(fields) => {
                for field in fields {
                    match field {
                        ProtoTuple::Protocol(p) => proto = Some(u8::from(*p)),
                        ProtoTuple::SourcePort(port) => sport = Some(*port),
                        ProtoTuple::DestinationPort(port) => dport = Some(*port),
                        ProtoTuple::Other(other) => match other.kind() {
                            CTA_PROTO_ICMP_TYPE | CTA_PROTO_ICMPV6_TYPE => kind = byte(other),
                            CTA_PROTO_ICMP_CODE | CTA_PROTO_ICMPV6_CODE => code = byte(other),
                            _ => {}
                        },
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Tuple {
        src: src?,
        dst: dst?,
        proto: proto?,
        sport,
        dport,
        icmp: kind.zip(code),
    })
}

fn byte(attribute: &DefaultNla) -> Option<u8> {
    let mut value = [0; 1];
    (attribute.value_len() == 1).then(|| {
        attribute.emit_value(&mut value);
        value[0]
    })
}

/// A tuple of a protocol with ports.
fn attributes_of(tuple: &Tuple) -> Vec<TupleAttribute> {
    let mut fields = vec![ProtoTuple::Protocol(TrackedProtocol::from(tuple.proto))];
    fields.extend(tuple.sport.map(ProtoTuple::SourcePort));
    fields.extend(tuple.dport.map(ProtoTuple::DestinationPort));
    vec![
        TupleAttribute::Ip(vec![
            IPTuple::SourceAddress(tuple.src),
            IPTuple::DestinationAddress(tuple.dst),
        ]),
        TupleAttribute::Proto(fields),
    ]
}
