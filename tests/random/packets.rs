//! Random packets, as the verdict sees them and as bytes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use moat::verdict::{Conntrack, Packet, Path};

use super::rng::Rng;
use super::topology::HOST_LINKS;
use super::universe::{NATS, PLACES, PORTS, PROTOCOLS, VIRTUAL};

/// A packet and the way it is sent.
#[derive(Clone, Debug)]
pub struct Shot {
    /// As policy sees it.
    pub packet: Packet,
    /// Its way through the protected host.
    pub path: Path,
    /// By which the packet is known again, from 1.
    pub id: u16,
}

impl Shot {
    /// Whether the host itself sends it.
    pub fn is_output(&self) -> bool {
        matches!(self.path, Path::Out { .. })
    }

    /// Destination as its sender writes it.
    pub fn written(&self) -> (IpAddr, Option<u16>) {
        let packet = &self.packet;
        packet.original.unwrap_or((packet.dst, packet.dport))
    }

    /// The interface behind which its sender is, if it is not the host.
    pub fn arrives_on(&self) -> Option<&str> {
        match &self.path {
            Path::In { iface } => Some(iface),
            Path::Forward { in_iface, .. } => Some(in_iface),
            Path::Out { .. } => None,
        }
    }

    /// The packet from its IP header on. Checksums behind that header are left out: the receiving
    /// hosts shall not answer, and the field tells connection tracking not to look at them.
    pub fn bytes(&self) -> Vec<u8> {
        let packet = &self.packet;
        let body = self.body();
        let mut bytes = Vec::new();
        match (packet.src, self.written().0) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let length = (20 + body.len()) as u16;
                bytes.extend([0x45, 0]);
                bytes.extend(length.to_be_bytes());
                bytes.extend(self.id.to_be_bytes());
                bytes.extend([0, 0, packet.hop_limit, packet.proto, 0, 0]);
                bytes.extend(src.octets());
                bytes.extend(dst.octets());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                bytes.extend((6 << 28 | u32::from(self.id)).to_be_bytes());
                bytes.extend((body.len() as u16).to_be_bytes());
                bytes.extend([packet.proto, packet.hop_limit]);
                bytes.extend(src.octets());
                bytes.extend(dst.octets());
            }
            _ => {}
        }
        bytes.extend(body);
        bytes
    }

    fn body(&self) -> Vec<u8> {
        let packet = &self.packet;
        let mut body = Vec::new();
        if let (Some(sport), Some(dport)) = (packet.sport, self.written().1) {
            body.extend(sport.to_be_bytes());
            body.extend(dport.to_be_bytes());
        }
        match (packet.proto, packet.icmp) {
            (6, _) => body.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 4, 0, 0x12, 0x34, 0, 0]),
            (17, _) => body.extend([0, 8, 0x12, 0x34]),
            (132, _) => {
                body.extend([0, 0, 0, 0, 0x12, 0x34, 0, 0, 1, 0, 0, 20]);
                body.extend([0, 0, 0, 9, 0, 0, 16, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
            }
            (_, Some((kind, code))) => {
                let id = self.id.to_be_bytes();
                body.extend([kind, code, 0x12, 0x34, id[0], id[1], 0, 1]);
                body.extend([0; 16]);
            }
            _ => body.extend([1, 2, 3, 4, 5, 6, 7, 8]),
        }
        body
    }
}

/// Packets that do not answer each other, so that each begins a flow.
pub fn shots(rng: &mut Rng, count: usize) -> Vec<Shot> {
    let mut tuples = BTreeSet::new();
    let mut shots = Vec::new();
    for id in 1..=count as u16 {
        let shot = shot(rng, id);
        let p = &shot.packet;
        let back = (p.dst, p.src, p.proto, p.dport, p.sport);
        if p.icmp.is_none() && tuples.contains(&back) {
            continue;
        }
        tuples.insert((p.src, p.dst, p.proto, p.sport, p.dport));
        shots.push(shot);
    }
    shots
}

fn shot(rng: &mut Rng, id: u16) -> Shot {
    let family = rng.below(2);
    let (path, src, dst) = way(rng, family);
    let packet = packet(rng, address(src), address(dst), id);
    let shot = Shot { packet, path, id };
    if rng.percent(15) {
        translated(rng, shot, family)
    } else {
        shot
    }
}

/// A way through the host, with a source and a destination that lead there.
fn way(rng: &mut Rng, family: usize) -> (Path, &'static str, &'static str) {
    let from = &PLACES[rng.below(PLACES.len())];
    let to = &PLACES[rng.below(PLACES.len())];
    let host = HOST_LINKS[rng.below(HOST_LINKS.len())].addresses[family];
    // Some forge their source.
    let arrival = if rng.percent(90) {
        from.iface
    } else {
        rng.pick(&["eth0", "eth1", "cali1"])
    };
    match rng.below(5) {
        0 => (
            Path::Out {
                iface: to.iface.into(),
            },
            host,
            to.addresses[family],
        ),
        1 | 2 if arrival != to.iface => {
            let path = Path::Forward {
                in_iface: arrival.into(),
                out_iface: to.iface.into(),
            };
            (path, from.addresses[family], to.addresses[family])
        }
        _ => (
            Path::In {
                iface: arrival.into(),
            },
            from.addresses[family],
            host,
        ),
    }
}

fn address(text: &str) -> IpAddr {
    text.parse()
        .expect("addresses of the universe are addresses")
}

/// The same packet, sent to an address that the host translates; unless it does not go that way.
fn translated(rng: &mut Rng, mut shot: Shot, family: usize) -> Shot {
    let nat = &NATS[rng.below(NATS.len())];
    shot.path = match (shot.path.clone(), nat.iface) {
        // Rules before DNAT see the interface of the address that is written: let it be the same.
        (Path::Out { .. }, Some("eth0")) => Path::Out {
            iface: "eth0".into(),
        },
        (
            Path::In { iface }
            | Path::Forward {
                in_iface: iface, ..
            },
            None,
        ) => Path::In { iface },
        (
            Path::In { iface }
            | Path::Forward {
                in_iface: iface, ..
            },
            Some(out),
        ) if iface != out => Path::Forward {
            in_iface: iface,
            out_iface: out.into(),
        },
        _ => return shot,
    };
    if matches!(shot.packet.proto, 6 | 17) {
        shot.packet.original = Some((address(VIRTUAL[family]), Some(nat.port)));
        shot.packet.dport = Some(nat.to_port);
    }
    shot.packet.dst = address(nat.to[family]);
    shot
}

fn packet(rng: &mut Rng, src: IpAddr, dst: IpAddr, id: u16) -> Packet {
    let proto = match rng.pick(&PROTOCOLS) {
        1 if src.is_ipv6() => 58,
        other => other,
    };
    let icmp = icmp(rng, proto);
    let ports = matches!(proto, 6 | 17 | 132).then(|| {
        // Now and then a port of its own, so that the flow is like no other.
        let sport = if rng.percent(60) {
            port(rng)
        } else {
            10_000 + id
        };
        (sport, port(rng))
    });
    Packet {
        src,
        dst,
        proto,
        sport: ports.map(|p| p.0),
        dport: ports.map(|p| p.1),
        icmp,
        hop_limit: rng.pick(&[255, 64]),
        conntrack: conntrack(proto, icmp),
        original: None,
    }
}

fn port(rng: &mut Rng) -> u16 {
    if rng.percent(85) {
        rng.pick(&PORTS)
    } else {
        1 + rng.below(65_535) as u16
    }
}

fn icmp(rng: &mut Rng, proto: u8) -> Option<(u8, u8)> {
    match proto {
        1 => Some(rng.pick(&[(8, 0), (8, 0), (8, 1), (13, 0), (0, 0)])),
        58 => {
            let kind = rng.pick(&[128, 128, 128, 129, 133, 134, 135, 136]);
            Some((kind, if kind == 128 { rng.pick(&[0, 0, 1]) } else { 0 }))
        }
        _ => None,
    }
}

fn conntrack(proto: u8, icmp: Option<(u8, u8)>) -> Conntrack {
    match (proto, icmp) {
        // Answers to nothing.
        (1, Some((0, _))) | (58, Some((129, _))) => Conntrack::Invalid,
        (58, Some((133..=136, _))) => Conntrack::Untracked,
        _ => Conntrack::New,
    }
}
