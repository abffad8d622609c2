//! A question in the words of a user turned into a packet and its way through the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{Conntrack, Packet, Path, Step, decide};
use crate::api::{Family, Protocol, Resource, Spec};
use crate::calc::HostPolicy;
use crate::dataplane::links::Links;

/// The source port of a question that names none: any port of clients will do.
const CLIENT_PORT: u16 = 40_000;

/// One question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Address, or name of an endpoint.
    pub from: String,
    /// Address, or name of an endpoint.
    pub to: String,
    /// `tcp`, `udp`, `icmp`, ... or a number; TCP when empty.
    pub proto: Option<String>,
    /// Destination port.
    pub port: Option<u16>,
    /// Source port.
    pub sport: Option<u16>,
    /// Interface; `IN,OUT` for forwarded traffic.
    pub iface: Option<String>,
    /// ICMP type and code; echo request when absent.
    pub icmp: Option<(u8, u8)>,
}

/// The answer, as `moatctl explain -o json` prints it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// `allow` or `deny`.
    pub verdict: String,
    /// Steps, the deciding one last.
    pub trace: Vec<Step>,
    /// The packet that was asked about.
    pub packet: String,
    /// Its way through the host.
    pub path: String,
    /// What was assumed.
    pub notes: Vec<String>,
}

/// One end of the question.
struct End {
    addr: Option<IpAddr>,
    /// The interface of a local workload.
    workload: Option<String>,
    /// Whether it is this host, and if known the interface that has the address.
    local: bool,
    iface: Option<String>,
}

/// Answers a question. Without `links` only the resources tell which addresses are this host's.
///
/// # Errors
/// A sentence for the user when the question cannot be understood.
pub fn explain(
    query: &Query,
    policy: &HostPolicy,
    resources: &[Resource],
    links: Option<&Links>,
) -> Result<Answer, String> {
    let mut notes = Vec::new();
    let world = World {
        policy,
        resources,
        links,
    };
    let mut from = world.end(&query.from)?;
    let mut to = world.end(&query.to)?;
    let family = from.addr.or(to.addr).map_or(Family::V4, Family::of);
    for (end, name) in [(&mut from, &query.from), (&mut to, &query.to)] {
        world.settle_family(end, name, family)?;
        if end.addr.is_none() {
            notes.push(format!(
                "{name} has no {family} address in the files: an unspecified one is assumed"
            ));
        }
    }
    let packet = packet(query, &from, &to, family)?;
    let path = world.path(query, &from, &to, &mut notes)?;
    notes.dedup();
    let verdict = decide(policy, &packet, &path);
    Ok(Answer {
        verdict: if verdict.allow { "allow" } else { "deny" }.to_owned(),
        trace: verdict.trace,
        packet: describe(&packet),
        path: describe_path(&path),
        notes,
    })
}

struct World<'a> {
    policy: &'a HostPolicy,
    resources: &'a [Resource],
    links: Option<&'a Links>,
}

impl World<'_> {
    fn end(&self, text: &str) -> Result<End, String> {
        if let Ok(addr) = text.parse::<IpAddr>() {
            let workload = self.policy.workloads.iter().find(|(_, w)| {
                w.sources
                    .iter()
                    .any(|n| n.addr() == addr && n.prefix_len() == n.max_prefix_len())
            });
            let iface = self
                .links
                .and_then(|l| l.values().find(|l| l.addresses.contains(&addr)))
                .map(|l| l.name.clone());
            let by_resource = self.local_host_endpoint(|_, spec| spec.expected_ips.contains(&addr));
            let local = iface.is_some() || by_resource.is_some() || addr.is_loopback();
            let iface = iface.or_else(|| by_resource.and_then(|name| self.iface_of(&name)));
            return Ok(End {
                addr: Some(addr),
                workload: workload.map(|(i, _)| i.clone()),
                local,
                iface,
            });
        }
        self.named_end(text)
    }

    /// `NAME`, `NAMESPACE/NAME` or `KIND/[NAMESPACE/]NAME`.
    fn named_end(&self, text: &str) -> Result<End, String> {
        let matches = |r: &&Resource| {
            let qualified = if r.id.namespace.is_empty() {
                r.id.name.clone()
            } else {
                format!("{}/{}", r.id.namespace, r.id.name)
            };
            r.id.name == text || qualified == text || r.id.to_string().eq_ignore_ascii_case(text)
        };
        let is_endpoint =
            |r: &&Resource| matches!(r.spec, Spec::HostEndpoint(_) | Spec::WorkloadEndpoint(_));
        let found = self.resources.iter().filter(is_endpoint).find(matches);
        match found.map(|r| (r, &r.spec)) {
            Some((resource, Spec::HostEndpoint(spec))) => {
                let local = spec.node == self.policy.node;
                let iface = if local {
                    self.iface_of(&resource.id.name)
                } else {
                    None
                };
                Ok(End {
                    addr: spec.expected_ips.first().copied(),
                    workload: None,
                    local,
                    iface,
                })
            }
            Some((resource, Spec::WorkloadEndpoint(spec))) => {
                let own = self
                    .policy
                    .workloads
                    .get(&spec.interface_name)
                    .filter(|w| w.id == resource.id);
                let workload = own.map(|_| spec.interface_name.clone());
                Ok(End {
                    addr: spec.ip_networks.first().map(|n| n.addr()),
                    workload,
                    local: false,
                    iface: None,
                })
            }
            _ => Err(format!(
                "`{text}` is neither an address nor the name of a host or workload endpoint"
            )),
        }
    }

    fn local_host_endpoint(
        &self,
        wanted: impl Fn(&str, &crate::api::HostEndpoint) -> bool,
    ) -> Option<String> {
        self.resources.iter().find_map(|r| match &r.spec {
            Spec::HostEndpoint(spec)
                if spec.node == self.policy.node && wanted(&r.id.name, spec) =>
            {
                Some(r.id.name.clone())
            }
            _ => None,
        })
    }

    fn iface_of(&self, endpoint: &str) -> Option<String> {
        self.policy
            .endpoints
            .get(endpoint)?
            .attach
            .interfaces
            .iter()
            .next()
            .cloned()
    }

    /// Another address of a named endpoint when the first is of the wrong family.
    fn settle_family(&self, end: &mut End, name: &str, family: Family) -> Result<(), String> {
        if end.addr.is_none_or(|a| Family::of(a) == family) {
            return Ok(());
        }
        if name.parse::<IpAddr>().is_ok() {
            return Err("both ends must be of one IP family".to_owned());
        }
        let of_family = |a: &IpAddr| Family::of(*a) == family;
        end.addr = self.resources.iter().find_map(|r| match &r.spec {
            Spec::HostEndpoint(spec) if r.id.name == name => {
                spec.expected_ips.iter().copied().find(of_family)
            }
            Spec::WorkloadEndpoint(spec) if r.id.name == name => {
                spec.ip_networks.iter().map(|n| n.addr()).find(of_family)
            }
            _ => None,
        });
        Ok(())
    }

    fn path(
        &self,
        query: &Query,
        from: &End,
        to: &End,
        notes: &mut Vec<String>,
    ) -> Result<Path, String> {
        let (given_in, given_out) = match query
            .iface
            .as_deref()
            .map(|i| i.split_once(',').unwrap_or((i, "")))
        {
            None => (None, None),
            Some((first, "")) => (Some(first.to_owned()), None),
            Some((first, second)) => (Some(first.to_owned()), Some(second.to_owned())),
        };
        if from.local && to.local {
            return Ok(Path::In {
                iface: "lo".to_owned(),
            });
        }
        if let Some(out) = given_out {
            let in_iface = given_in.ok_or("--iface IN,OUT needs both interfaces")?;
            return Ok(Path::Forward {
                in_iface,
                out_iface: out,
            });
        }
        if to.local {
            let iface = from
                .workload
                .clone()
                .or(given_in)
                .or_else(|| to.iface.clone());
            return Ok(Path::In {
                iface: self.known_or_other(iface, notes),
            });
        }
        if from.local {
            let iface = to
                .workload
                .clone()
                .or(given_in)
                .or_else(|| from.iface.clone());
            return Ok(Path::Out {
                iface: self.known_or_other(iface, notes),
            });
        }
        if from.workload.is_some() || to.workload.is_some() || self.links.is_some() {
            let in_iface = self.known_or_other(from.workload.clone().or(given_in.clone()), notes);
            let out_iface = to
                .workload
                .clone()
                .or(given_in.filter(|_| from.workload.is_some()));
            return Ok(Path::Forward {
                in_iface,
                out_iface: self.known_or_other(out_iface, notes),
            });
        }
        notes.push(format!("{} is taken for an address of this host", query.to));
        Ok(Path::In {
            iface: self.known_or_other(given_in, notes),
        })
    }

    /// An interface that was given or found; else that of the only named endpoint; else one that no endpoint names.
    fn known_or_other(&self, iface: Option<String>, notes: &mut Vec<String>) -> String {
        if let Some(iface) = iface {
            return iface;
        }
        let mut named = self
            .policy
            .endpoints
            .values()
            .flat_map(|e| e.attach.interfaces.iter());
        if let (Some(only), None) = (named.next(), named.next()) {
            notes.push(format!(
                "interface {only} is assumed, because an endpoint names it: say --iface for another"
            ));
            return only.clone();
        }
        notes.push(
            "no interface is known: one without an endpoint of its own is assumed, say --iface"
                .to_owned(),
        );
        "*".to_owned()
    }
}

fn packet(query: &Query, from: &End, to: &End, family: Family) -> Result<Packet, String> {
    let text = query.proto.as_deref().unwrap_or("tcp");
    let mut protocol = Protocol::parse_loose(text).ok_or_else(|| {
        format!("unknown protocol `{text}`: say tcp, udp, icmp, sctp or a number")
    })?;
    if protocol == Protocol::ICMP && family == Family::V6 && text.eq_ignore_ascii_case("icmp") {
        protocol = Protocol::ICMPV6;
    }
    let has_ports = protocol.has_ports() || protocol == Protocol::UDPLITE;
    if !has_ports && (query.port.is_some() || query.sport.is_some()) {
        return Err(format!("protocol {protocol} has no ports"));
    }
    if has_ports && query.port.is_none() {
        return Err(format!("protocol {protocol} needs --port"));
    }
    let echo = if family == Family::V4 { 8 } else { 128 };
    let icmp = protocol.is_icmp().then(|| query.icmp.unwrap_or((echo, 0)));
    let discovery = family == Family::V6 && matches!(icmp, Some((130..=137 | 143, _)));
    let unspecified = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let is_listener = matches!(icmp, Some((130..=132 | 143, _)));
    Ok(Packet {
        src: from.addr.unwrap_or(unspecified),
        dst: to.addr.unwrap_or(unspecified),
        proto: protocol.0,
        sport: has_ports.then(|| query.sport.unwrap_or(CLIENT_PORT)),
        dport: query.port,
        icmp,
        hop_limit: if is_listener { 1 } else { 255 },
        conntrack: if discovery {
            Conntrack::Untracked
        } else {
            Conntrack::New
        },
        original: None,
    })
}

fn describe(packet: &Packet) -> String {
    let port = |p: Option<u16>| p.map_or(String::new(), |p| format!(" port {p}"));
    let icmp = packet
        .icmp
        .map_or(String::new(), |(t, c)| format!(" type {t} code {c}"));
    let protocol = match Protocol(packet.proto).to_string() {
        number if number.parse::<u8>().is_ok() => format!("protocol {number}"),
        name => name,
    };
    format!(
        "{protocol}{icmp} from {}{} to {}{}",
        packet.src,
        port(packet.sport),
        packet.dst,
        port(packet.dport)
    )
}

fn describe_path(path: &Path) -> String {
    match path {
        Path::In { iface } => format!("in on {iface}, for a local process"),
        Path::Out { iface } => format!("out through {iface}, from a local process"),
        Path::Forward {
            in_iface,
            out_iface,
        } => format!("forwarded from {in_iface} to {out_iface}"),
    }
}
