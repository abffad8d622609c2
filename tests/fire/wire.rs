//! UDP packets with headers of our own, so that one socket can send from any source port.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{self, AddressFamily, Protocol, SendFlags, SocketFlags, SocketType};

use super::flows::{Flow, Source};

const UDP: u8 = 17;
const UDP_HEADER: usize = 8;
/// Mark, flow, run and tick: what a receiver knows a packet by.
pub const PAYLOAD: usize = 12;
const MARK: u16 = 0x6d6f;
/// New flows take their source ports from here upwards, then begin again: by then the kernel has forgotten them.
const FIRST_PORT: u16 = 10_000;
const PORTS: u32 = 4_000;

/// What a packet says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Place in the list of flows.
    pub flow: u16,
    /// Which window of the prober; 0 for packets that only begin a flow.
    pub run: u32,
    /// Which tick of the window.
    pub tick: u32,
}

impl Label {
    fn bytes(self) -> [u8; PAYLOAD] {
        let mut bytes = [0; PAYLOAD];
        bytes[..2].copy_from_slice(&MARK.to_be_bytes());
        bytes[2..4].copy_from_slice(&self.flow.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.run.to_be_bytes());
        bytes[8..].copy_from_slice(&self.tick.to_be_bytes());
        bytes
    }

    /// Reads a payload; none if it is nothing of ours.
    pub fn read(bytes: &[u8]) -> Option<Label> {
        let bytes: [u8; PAYLOAD] = bytes.try_into().ok()?;
        let word = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        (bytes[..2] == MARK.to_be_bytes()).then(|| Label {
            flow: u16::from_be_bytes([bytes[2], bytes[3]]),
            run: word(4),
            tick: word(8),
        })
    }
}

/// A packet of a flow, but for source port, payload and checksum.
pub struct Template {
    bytes: Vec<u8>,
    ip_header: usize,
    source: Source,
    /// Sum of what does not change, for IPv6, where UDP needs a checksum.
    sum: Option<u32>,
    target: SocketAddr,
}

impl Template {
    /// The template of a flow.
    pub fn new(flow: &Flow) -> Template {
        let length = UDP_HEADER + PAYLOAD;
        let (src, dst) = (flow.src(), flow.dst());
        let mut bytes = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                // The kernel fills in length, identification and checksum.
                let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, UDP, 0, 0];
                header.extend(src.octets().into_iter().chain(dst.octets()));
                header
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut header = vec![0x60, 0, 0, 0, 0, length as u8, UDP, 64];
                header.extend(src.octets().into_iter().chain(dst.octets()));
                header
            }
            _ => unreachable!("both addresses of a flow are of one family"),
        };
        let ip_header = bytes.len();
        bytes.extend([0, 0]);
        bytes.extend(flow.class.port.to_be_bytes());
        bytes.extend((length as u16).to_be_bytes());
        bytes.extend([0; 2 + PAYLOAD]);
        let sum = dst.is_ipv6().then(|| {
            let pseudo = length as u32 + u32::from(UDP);
            sum(&bytes[8..ip_header]) + sum(&bytes[ip_header..]) + pseudo
        });
        Template {
            bytes,
            ip_header,
            source: flow.class.source,
            sum,
            target: SocketAddr::new(dst, 0),
        }
    }

    /// Sends the packet of this label.
    ///
    /// # Errors
    /// The kernel's, such as the one by which it tells that a rule dropped the packet.
    pub fn send(&mut self, socket: &OwnedFd, label: Label) -> rustix::io::Result<()> {
        let port = match self.source {
            Source::New => FIRST_PORT + (label.tick % PORTS) as u16,
            Source::Established(port) | Source::Reply(port) => port,
        };
        let payload = label.bytes();
        let at = self.ip_header;
        self.bytes[at..at + 2].copy_from_slice(&port.to_be_bytes());
        self.bytes[at + UDP_HEADER..].copy_from_slice(&payload);
        if let Some(base) = self.sum {
            let checksum = fold(base + u32::from(port) + sum(&payload));
            self.bytes[at + 6..at + 8].copy_from_slice(&checksum.to_be_bytes());
        }
        net::sendto(socket, &self.bytes, SendFlags::empty(), &self.target).map(drop)
    }
}

/// A socket that sends packets with their IP headers and receives none; in the namespace of the calling thread.
///
/// # Errors
/// The kernel's.
pub fn sender(family: usize) -> rustix::io::Result<OwnedFd> {
    let family = [AddressFamily::INET, AddressFamily::INET6][family];
    let raw = Protocol::from_raw(std::num::NonZeroU32::new(255).expect("not zero"));
    net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(raw))
}

/// A receiver's buffer large enough for whatever comes while nobody reads.
///
/// # Errors
/// The kernel's.
pub fn enlarge(socket: impl AsFd) -> rustix::io::Result<()> {
    net::sockopt::set_socket_recv_buffer_size_force(socket, 16 << 20)
}

fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks_exact(2);
    words.map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum()
}

/// RFC 1071; zero means "none" to UDP.
fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !(sum as u16) {
        0 => 0xffff,
        checksum => checksum,
    }
}
