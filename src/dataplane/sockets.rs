//! The sockets of this host's processes, as `/proc` lists them: which connections there are, and who began them.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::conntrack::Tuple;
use crate::api::Protocol;

/// State of a TCP connection, and of a UDP socket with a peer (`TCP_ESTABLISHED` in net/tcp_states.h).
const ESTABLISHED: &str = "01";
/// `TCP_LISTEN`.
const LISTEN: &str = "0A";
/// A UDP socket without a peer (`TCP_CLOSE`).
const UNCONNECTED: &str = "07";
/// More lines than this in one file are not read.
const MAX_LINES: usize = 1_000_000;

/// TCP and UDP sockets of the network namespace.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Protocol, own end, other end.
    connections: HashSet<(u8, SocketAddr, SocketAddr)>,
    /// Protocol and port of sockets that others connect to.
    served: HashSet<(u8, u16)>,
}

impl Sockets {
    /// Reads them, for the network namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc` is not there. A family that the kernel does not have is none.
    pub fn read() -> io::Result<Sockets> {
        let mut sockets = Sockets::default();
        for (file, protocol) in [
            ("tcp", Protocol::TCP),
            ("tcp6", Protocol::TCP),
            ("udp", Protocol::UDP),
            ("udp6", Protocol::UDP),
        ] {
            match File::open(format!("/proc/thread-self/net/{file}")) {
                Ok(file) => sockets.add(protocol.0, BufReader::new(file))?,
                Err(e) if e.kind() == io::ErrorKind::NotFound && file.ends_with('6') => {}
                Err(e) => return Err(e),
            }
        }
        Ok(sockets)
    }

    fn add(&mut self, protocol: u8, lines: impl BufRead) -> io::Result<()> {
        for line in lines.lines().skip(1).take(MAX_LINES) {
            let line = line?;
            let mut words = line.split_ascii_whitespace().skip(1);
            let (Some(own), Some(other), Some(state)) = (
                words.next().and_then(address),
                words.next().and_then(address),
                words.next(),
            ) else {
                continue;
            };
            match state {
                ESTABLISHED => drop(self.connections.insert((protocol, own, other))),
                LISTEN | UNCONNECTED => drop(self.served.insert((protocol, own.port()))),
                _ => {}
            }
        }
        Ok(())
    }

    /// Every connection as its first packet was: from this host unless its own port is one that is served.
    pub fn flows(&self) -> impl Iterator<Item = Tuple> {
        self.connections.iter().map(|(protocol, own, other)| {
            let began_here = !self.served.contains(&(*protocol, own.port()));
            let (from, to) = if began_here {
                (own, other)
            } else {
                (other, own)
            };
            Tuple {
                src: from.ip(),
                dst: to.ip(),
                proto: *protocol,
                sport: Some(from.port()),
                dport: Some(to.port()),
                icmp: None,
            }
        })
    }

    /// Whether a flow is tracked the wrong way round, because tracking began with an answer: one end is a connection of this host
    /// that the other end began, as the served port tells.
    pub fn is_reversed(&self, seen: &Tuple) -> bool {
        let (Some(sport), Some(dport)) = (seen.sport, seen.dport) else {
            return false;
        };
        let from = SocketAddr::new(seen.src, sport);
        let to = SocketAddr::new(seen.dst, dport);
        let served = |port| self.served.contains(&(seen.proto, port));
        let connected = |own, other| self.connections.contains(&(seen.proto, own, other));
        (served(sport) && connected(from, to)) || (!served(dport) && connected(to, from))
    }
}

/// `0100007F:0016`: the words of the address in the byte order of the machine, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |n: usize| {
        let digits = address.get(n * 8..n * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for n in 0..4 {
                bytes[n * 4..n * 4 + 4].copy_from_slice(&word(n)?);
            }
            // IPv4 through a socket of IPv6 is IPv4 to the packet filter.
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue\n\
        0: 00000000:0016 00000000:0000 0A 00000000:00000000\n\
        1: 0100000A:0016 0200000A:9C40 01 00000000:00000000\n\
        2: 0100000A:9C41 0200000A:01BB 01 00000000:00000000\n\
        nonsense\n";
    const TCP6: &str = "  sl  local_address rem_address st\n\
        0: 0000000000000000FFFF00000100000A:9C42 0000000000000000FFFF00000200000A:01BB 01\n";

    fn sockets() -> Sockets {
        let mut sockets = Sockets::default();
        for text in [TCP, TCP6] {
            sockets.add(6, text.as_bytes()).unwrap();
        }
        sockets
    }

    #[test]
    fn who_began_a_connection_is_told_by_the_ports_that_are_served() {
        let mut flows: Vec<String> = sockets()
            .flows()
            .map(|t| format!("{}:{:?} {}:{:?}", t.src, t.sport, t.dst, t.dport))
            .collect();
        flows.sort();
        assert_eq!(
            flows,
            [
                "10.0.0.1:Some(40001) 10.0.0.2:Some(443)",
                "10.0.0.1:Some(40002) 10.0.0.2:Some(443)",
                "10.0.0.2:Some(40000) 10.0.0.1:Some(22)",
            ]
        );
    }

    #[test]
    fn an_answer_is_no_connection_of_the_other_side() {
        let seen = |from: &str, to: &str| {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            Tuple {
                src: from.ip(),
                dst: to.ip(),
                proto: 6,
                sport: Some(from.port()),
                dport: Some(to.port()),
                icmp: None,
            }
        };
        let sockets = sockets();
        assert!(sockets.is_reversed(&seen("10.0.0.2:443", "10.0.0.1:40001")));
        assert!(sockets.is_reversed(&seen("10.0.0.1:22", "10.0.0.2:40000")));
        assert!(!sockets.is_reversed(&seen("10.0.0.1:40001", "10.0.0.2:443")));
        assert!(!sockets.is_reversed(&seen("10.0.0.2:40000", "10.0.0.1:22")));
        assert!(!sockets.is_reversed(&seen("10.0.0.2:443", "10.0.0.1:40009")));
    }
}
