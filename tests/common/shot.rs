//! A probe, worked out for one family: who sends what from where, and which way it takes.

use std::net::IpAddr;

use moat::verdict::Path;

use super::case::{Expect, Message, Probe, Proto};
use super::topology::{ACTORS, Actor, HOST_LINKS, LOOPBACK, find_actor, host_link};

/// ICMP of either family.
pub const ICMP: [u8; 2] = [1, 58];
/// Echo request of either family.
pub const ECHO: [u8; 2] = [8, 128];

/// One packet to send, and where its receiver waits.
#[derive(Clone, Debug)]
pub struct Shot<'a> {
    /// The probe it comes from.
    pub probe: &'a Probe,
    /// The sender: an actor or `host`.
    pub from: &'static str,
    /// The receiver, after destination NAT.
    pub to: &'static str,
    /// Source address.
    pub src: IpAddr,
    /// Destination address as the sender writes it.
    pub dst: IpAddr,
    /// Destination port as the sender writes it.
    pub port: Option<u16>,
    /// Address at which the receiver waits.
    pub server: IpAddr,
    /// Port at which the receiver waits.
    pub server_port: Option<u16>,
    /// IP protocol number.
    pub proto: u8,
    /// The ICMP message, if it is one.
    pub icmp: Option<Message>,
    /// The ways through the protected host that policy must let it take.
    pub paths: Vec<Path>,
}

impl Shot<'_> {
    /// What must be observed.
    pub fn expect(&self) -> Expect {
        self.probe.expect
    }

    /// What the policy itself must say.
    pub fn verdict(&self) -> Expect {
        self.probe.verdict.unwrap_or(self.probe.expect)
    }

    /// 4 or 6.
    pub fn family(&self) -> u8 {
        if self.dst.is_ipv4() { 4 } else { 6 }
    }
}

impl std::fmt::Display for Shot<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let probe = self.probe;
        write!(
            f,
            "{} ({}) to {} ({})",
            self.from, self.src, probe.to, self.dst
        )?;
        match (self.proto, self.icmp) {
            (6, _) => write!(f, " tcp")?,
            (17, _) => write!(f, " udp")?,
            (number, None) => write!(f, " protocol {number}")?,
            (_, Some(m)) => write!(f, " icmp type {} code {}", m.kind, m.code)?,
        }
        if let Some(port) = self.port {
            write!(f, " port {port}")?;
        }
        if let Some(sport) = probe.sport {
            write!(f, " from port {sport}")?;
        }
        if self.dst != self.server || self.port != self.server_port {
            write!(
                f,
                ", translated to {} port {:?}",
                self.server, self.server_port
            )?;
        }
        Ok(())
    }
}

/// A probe for each family it is about.
///
/// # Errors
/// The probe contradicts itself or the topology.
pub fn expand(probe: &Probe) -> Result<Vec<Shot<'_>>, String> {
    let literals = [probe.to.parse::<IpAddr>().ok(), probe.src];
    let families: Vec<usize> = [0, 1]
        .into_iter()
        .filter(|f| probe.family.is_none_or(|n| n == [4, 6][*f]))
        .filter(|f| {
            literals
                .iter()
                .flatten()
                .all(|a| usize::from(a.is_ipv6()) == *f)
        })
        .collect();
    if families.is_empty() {
        return Err(format!("{probe:?} mixes families"));
    }
    families
        .into_iter()
        .map(|f| one(probe, f).map_err(|e| format!("{} to {}: {e}", probe.from, probe.to)))
        .collect()
}

fn one(probe: &Probe, family: usize) -> Result<Shot<'_>, String> {
    let from = find_actor(&probe.from);
    if from.is_none() && probe.from != "host" {
        return Err(format!("there is no `{}`", probe.from));
    }
    let (first, dst) = receiver(&probe.to, from, family)?;
    let (to, server) = match &probe.dnat {
        Some(dnat) => receiver(&dnat.to, from, family)?,
        None => (first, dst),
    };
    let to = to.ok_or_else(|| format!("nobody has the address {server}"))?;
    let paths = paths(from, to, server)?;
    let src = match (probe.src, from) {
        (Some(src), _) => src,
        (None, Some(actor)) => parse(actor.addresses[family])?,
        (None, None) => local_source(&paths, dst, probe.dnat.is_some(), family)?,
    };
    let proto = number(&probe.proto, family)?;
    let icmp = ICMP.contains(&proto).then(|| {
        probe.icmp.unwrap_or(Message {
            kind: ECHO[family],
            code: 0,
        })
    });
    Ok(Shot {
        probe,
        from: from.map_or("host", |a| a.name),
        to,
        src,
        dst,
        port: probe.port,
        server,
        server_port: probe.dnat.as_ref().and_then(|d| d.port).or(probe.port),
        proto,
        icmp,
        paths,
    })
}

/// Whose address a destination is, if anybody's, and the address.
fn receiver(
    to: &str,
    from: Option<&Actor>,
    family: usize,
) -> Result<(Option<&'static str>, IpAddr), String> {
    if let Some(actor) = find_actor(to) {
        return Ok((Some(actor.name), parse(actor.addresses[family])?));
    }
    if to == "host" {
        let addr = match from {
            Some(actor) => host_link(actor.iface).ok_or("no such interface")?.addresses[family],
            None => LOOPBACK[family],
        };
        return Ok((Some("host"), parse(addr)?));
    }
    if let Some(iface) = to.strip_prefix("host.") {
        let link = host_link(iface).ok_or_else(|| format!("the host has no `{iface}`"))?;
        return Ok((Some("host"), parse(link.addresses[family])?));
    }
    let addr = to
        .parse()
        .map_err(|_| format!("`{to}` is neither a host nor an address"))?;
    Ok((owner(addr), addr))
}

/// Who answers at an address.
fn owner(addr: IpAddr) -> Option<&'static str> {
    let is = |text: &&str| text.parse() == Ok(addr);
    let host = HOST_LINKS
        .iter()
        .flat_map(|l| &l.addresses)
        .chain(&LOOPBACK)
        .any(&is);
    let actor = ACTORS.iter().find(|a| a.addresses.iter().any(&is));
    if host {
        Some("host")
    } else {
        actor.map(|a| a.name)
    }
}

fn paths(from: Option<&Actor>, to: &'static str, server: IpAddr) -> Result<Vec<Path>, String> {
    let lo = || "lo".to_owned();
    Ok(match (from, find_actor(to)) {
        (None, None) => vec![Path::Out { iface: lo() }, Path::In { iface: lo() }],
        (None, Some(to)) => vec![Path::Out {
            iface: to.iface.into(),
        }],
        (Some(from), None) => vec![Path::In {
            iface: from.iface.into(),
        }],
        (Some(from), Some(to)) if from.iface != to.iface => {
            vec![Path::Forward {
                in_iface: from.iface.into(),
                out_iface: to.iface.into(),
            }]
        }
        _ => return Err(format!("a packet to {server} does not pass the host")),
    })
}

/// The source address that the kernel gives to packets of the host itself. It is chosen before
/// destination NAT, when the packet is still on its way through the default route.
fn local_source(
    paths: &[Path],
    dst: IpAddr,
    translated: bool,
    family: usize,
) -> Result<IpAddr, String> {
    match paths {
        _ if translated => parse(HOST_LINKS[0].addresses[family]),
        [Path::Out { iface }] => {
            parse(host_link(iface).ok_or("no such interface")?.addresses[family])
        }
        _ => Ok(dst),
    }
}

fn number(proto: &Proto, family: usize) -> Result<u8, String> {
    Ok(match proto {
        Proto::Number(number) => *number,
        Proto::Name(name) => match name.as_str() {
            "tcp" => 6,
            "udp" => 17,
            "sctp" => 132,
            "icmp" => ICMP[family],
            _ => return Err(format!("`{name}` is no protocol")),
        },
    })
}

fn parse(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is no address"))
}
