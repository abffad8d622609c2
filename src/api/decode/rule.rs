//! Rules (facts 1.6): what they match and what they do. One side of a rule is in `entity`.

use ipnet::IpNet;

use super::at::{At, Fields, Message};
use super::entity::{self, Side};
use super::read;
use crate::api::net::{Family, Port, Protocol};
use crate::api::types::{Action, Icmp, Rule};
use crate::api::yaml::{Node, Plain, Value};

/// Most rules in one direction of a policy or profile.
pub const MAX_RULES: usize = 1024;
/// Most methods or paths of an HTTP match.
const MAX_HTTP: usize = 20;
/// Highest ICMP type; 255 is reserved.
const MAX_ICMP_TYPE: u8 = 254;

/// What a rule belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// A GlobalNetworkPolicy or a profile: services must name their namespace.
    Global,
    /// A NetworkPolicy of that namespace.
    Namespace(&'a str),
}

/// Which list a rule stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Towards the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

const ACTIONS: [(&str, Action); 4] = [
    ("Allow", Action::Allow),
    ("Deny", Action::Deny),
    ("Log", Action::Log),
    ("Pass", Action::Pass),
];

/// The rules of both directions.
pub fn lists(fields: &Fields<'_>, owner: &Owner<'_>) -> (Vec<Rule>, Vec<Rule>) {
    let ingress = fields.list("ingress", MAX_RULES, |at| {
        decode(at, owner, Direction::Ingress)
    });
    let egress = fields.list("egress", MAX_RULES, |at| {
        decode(at, owner, Direction::Egress)
    });
    (ingress, egress)
}

fn decode(at: &At<'_>, owner: &Owner<'_>, direction: Direction) -> Option<Rule> {
    let fields = Fields::of(at)?;
    let action = fields.required("action", |at| read::choice(at, &ACTIONS));
    let protocol = fields.opt("protocol", protocol);
    let side = |name, side| fields.opt(name, |at| entity::decode(at, side, direction, owner));
    let http = fields.opt("http", |at| http(at, action, protocol, direction));
    let rule = Rule {
        action: action.unwrap_or(Action::Deny),
        ip_version: fields.opt("ipVersion", ip_version),
        protocol,
        not_protocol: fields.opt("notProtocol", self::protocol),
        icmp: fields.opt("icmp", |at| icmp(at, protocol)),
        not_icmp: fields.opt("notICMP", |at| icmp(at, protocol)),
        source: side("source", Side::Source).unwrap_or_default(),
        destination: side("destination", Side::Destination).unwrap_or_default(),
        has_http: http.is_some(),
        annotations: fields.opt("metadata", metadata).unwrap_or_default(),
        line: at.node.line,
    };
    icmp_families(&fields, rule.ip_version);
    net_families(&fields, rule.ip_version);
    ports_need_protocol(&fields, &rule);
    fields.finish();
    action.map(|_| rule)
}

fn ip_version(at: &At<'_>) -> Option<Family> {
    match read::integer(at, 4..=6)? {
        4 => Some(Family::V4),
        6 => Some(Family::V6),
        _ => at.error("must be 4 or 6"),
    }
}

/// A protocol by Calico's spelling or by number.
pub fn protocol(at: &At<'_>) -> Option<Protocol> {
    let Value::Scalar(scalar) = &at.node.value else {
        return at.wrong_type("a protocol name or number");
    };
    if let Some(protocol) = Protocol::parse(&scalar.text) {
        return Some(protocol);
    }
    if scalar.plain() != Plain::Text {
        return at.error("a protocol number must be between 1 and 255");
    }
    let help = Protocol::parse_loose(&scalar.text).map(|protocol| format!("write {protocol}"));
    at.error(Message::with(
        "must be TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number between 1 and 255",
        help,
    ))
}

fn icmp(at: &At<'_>, protocol: Option<Protocol>) -> Option<Icmp> {
    let fields = Fields::of(at)?;
    let kind = fields.opt("type", |at| read::byte(at, 0..=MAX_ICMP_TYPE));
    let code = fields.opt("code", |at| read::byte(at, 0..=u8::MAX));
    if fields.get("code").is_some() && fields.get("type").is_none() {
        fields.missing_because("type", "an ICMP code needs a type");
    }
    fields.finish();
    if !protocol.is_some_and(Protocol::is_icmp) {
        at.complain(Message::with(
            "needs a protocol",
            "protocol: ICMP or protocol: ICMPv6 in the same rule".to_owned(),
        ));
    }
    Some(Icmp { kind, code })
}

fn icmp_families(fields: &Fields<'_>, version: Option<Family>) {
    for name in ["protocol", "notProtocol"] {
        let protocol = fields
            .get(name)
            .and_then(|at| Protocol::parse(at.node.text()?));
        let (number, help) = match (protocol, version) {
            (Some(Protocol::ICMP), Some(Family::V6)) => (6, "write ICMPv6"),
            (Some(Protocol::ICMPV6), Some(Family::V4)) => (4, "write ICMP"),
            _ => continue,
        };
        let rule = format!("contradicts ipVersion {number}");
        fields.complain(name, Message::with(rule, help.to_owned()));
    }
}

/// All prefixes of a rule are of one family, and of that of `ipVersion`.
fn net_families(fields: &Fields<'_>, version: Option<Family>) {
    let mut first: Option<Family> = None;
    for (side, list) in [
        ("source", "nets"),
        ("source", "notNets"),
        ("destination", "nets"),
        ("destination", "notNets"),
    ] {
        let Some(side) = fields.get(side) else {
            continue;
        };
        let Some(node) = side.node.get(list) else {
            continue;
        };
        let list = side.entry(list, node);
        for (n, item) in node.items().iter().enumerate() {
            let at = list.item(n, item);
            let Some(family) = family_of(item) else {
                continue;
            };
            if version.is_some_and(|version| version != family) {
                at.complain(format!("is {family}, which contradicts ipVersion"));
            } else if first.is_some_and(|first| first != family) {
                let rule = "IPv4 and IPv6 prefixes cannot be mixed in one rule";
                let help = "write one rule for each family".to_owned();
                return at.complain(Message::with(rule, help));
            }
            first = first.or(Some(family));
        }
    }
}

fn family_of(node: &Node) -> Option<Family> {
    let net: IpNet = crate::api::net::parse_net(node.text()?).ok()?;
    Some(Family::of_net(&net))
}

/// Numbers of ports mean nothing without a protocol that has ports; names bring their protocol with them.
fn ports_need_protocol(fields: &Fields<'_>, rule: &Rule) {
    let unknown = rule.protocol.is_none() && fields.get("protocol").is_some();
    if unknown || rule.protocol.is_some_and(Protocol::has_ports) {
        return;
    }
    for (side, entity) in [("source", &rule.source), ("destination", &rule.destination)] {
        let Some(at) = fields.get(side) else { continue };
        for (name, ports) in [("ports", &entity.ports), ("notPorts", &entity.not_ports)] {
            let numeric = ports.iter().any(|port| matches!(port, Port::Range(_)));
            let message = match rule.protocol {
                Some(_) if !ports.is_empty() => "this protocol has no ports",
                None if numeric => "port numbers need a protocol",
                _ => continue,
            };
            let help = "protocol: TCP, UDP or SCTP in the same rule".to_owned();
            if let Some(node) = at.node.get(name) {
                at.entry(name, node).complain(Message::with(message, help));
            }
        }
    }
}

fn metadata(at: &At<'_>) -> Option<std::collections::BTreeMap<String, String>> {
    let fields = Fields::of(at)?;
    let annotations = fields.opt("annotations", read::text_map);
    fields.finish();
    annotations
}

/// An HTTP match is checked, although nothing here can look into connections.
fn http(
    at: &At<'_>,
    action: Option<Action>,
    protocol: Option<Protocol>,
    direction: Direction,
) -> Option<()> {
    let fields = Fields::of(at)?;
    let mut methods = fields.list("methods", MAX_HTTP, read::text);
    let given = methods.len();
    methods.sort();
    methods.dedup();
    if methods.len() < given {
        fields.opt("methods", |at| at.error::<()>("a method is given twice"));
    }
    let paths = fields.list("paths", MAX_HTTP, http_path);
    fields.finish();
    if protocol.is_some_and(|protocol| protocol != Protocol::TCP) {
        at.complain("an HTTP match needs protocol TCP");
    }
    if action.is_some_and(|action| action != Action::Allow) {
        at.complain("an HTTP match is only possible in an Allow rule");
    }
    if direction == Direction::Egress {
        at.complain("an HTTP match is only possible in an ingress rule");
    }
    // An empty match restricts nothing.
    (given > 0 || !paths.is_empty()).then_some(())
}

fn http_path(at: &At<'_>) -> Option<()> {
    let fields = Fields::of(at)?;
    let mut given = 0;
    for name in ["exact", "prefix"] {
        given += usize::from(fields.get(name).is_some());
        fields.opt(name, |at| {
            read::checked(at, |text| {
                match text.starts_with('/') && !text.contains([' ', '?', '#']) {
                    true => Ok(()),
                    false => Err("a path must start with `/` and have no space, `?` or `#`".into()),
                }
            })
        });
    }
    fields.finish();
    if given == 1 {
        Some(())
    } else {
        at.error("exactly one of exact and prefix must be given")
    }
}
