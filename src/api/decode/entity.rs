//! One side of a rule (facts 1.7).

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::at::{At, Fields, Message};
use super::rule::{Direction, Owner};
use super::{names, read};
use crate::api::net::{Port, PortRange};
use crate::api::types::{Entity, Service, ServiceAccounts};
use crate::api::yaml::{Plain, Value};
use crate::selector::Selector;

/// Most prefixes in one list.
const MAX_NETS: usize = 256;
/// Most ports in one list.
const MAX_PORTS: usize = 50;
/// Most service account names in one list.
const MAX_ACCOUNTS: usize = 10_000;

/// Which end of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// `source` or `destination` of a rule.
pub fn decode(at: &At<'_>, side: Side, direction: Direction, owner: &Owner<'_>) -> Option<Entity> {
    let fields = Fields::of(at)?;
    let entity = Entity {
        nets: fields.list("nets", MAX_NETS, read::strict_net),
        not_nets: fields.list("notNets", MAX_NETS, excluded_net),
        selector: fields.opt("selector", plain_selector),
        not_selector: fields.opt("notSelector", plain_selector),
        namespace_selector: fields.opt("namespaceSelector", namespace_selector),
        ports: fields.list("ports", MAX_PORTS, port),
        not_ports: fields.list("notPorts", MAX_PORTS, port),
        service_accounts: fields.opt("serviceAccounts", service_accounts),
        services: fields.opt("services", |at| service(at, owner)),
    };
    if let Some(at) = fields.get("services") {
        services_stand_alone(&fields, &at, side, direction);
    }
    fields.finish();
    Some(entity)
}

fn excluded_net(at: &At<'_>) -> Option<IpNet> {
    let net = read::strict_net(at)?;
    if net.prefix_len() == 0 {
        return at.error("excludes every address, so the rule could never match");
    }
    Some(net)
}

/// A selector in which `global()` has no meaning.
pub fn plain_selector(at: &At<'_>) -> Option<Selector> {
    let selector = read::selector(at)?;
    if selector.has_global() {
        return at.error("global() is only allowed in the namespaceSelector of a rule");
    }
    Some(selector)
}

fn namespace_selector(at: &At<'_>) -> Option<Selector> {
    let selector = read::selector(at)?;
    if selector.has_global() && !selector.is_global() {
        return at.error("global() cannot be combined with anything else");
    }
    Some(selector)
}

fn port(at: &At<'_>) -> Option<Port> {
    let wanted = "a port number, range or name";
    let Value::Scalar(scalar) = &at.node.value else {
        return at.wrong_type(wanted);
    };
    let text = &*scalar.text;
    let one = |port| Port::Range(PortRange::one(port));
    match scalar.plain() {
        Plain::Int(_) | Plain::Float(_) => read::port(at).map(one),
        Plain::Null | Plain::Bool(_) => at.wrong_type(wanted),
        Plain::Text => match text.split_once(':') {
            Some((first, last)) => port_range(at, first, last),
            None if text.is_empty() || text.contains(|c: char| !c.is_ascii_digit()) => {
                port_name(at, text)
            }
            None => number(text).map(one).or_else(|| {
                at.error("a port number must be between 1 and 65535, without leading zeros")
            }),
        },
    }
}

fn port_range(at: &At<'_>, first: &str, last: &str) -> Option<Port> {
    let Some((first, last)) = number(first).zip(number(last)) else {
        return at.error("a port range must be two numbers between 1 and 65535, like 8000:8999");
    };
    if first > last {
        let rule = "the first port of a range must not be above the last";
        return at.error(Message::with(rule, format!("write \"{last}:{first}\"")));
    }
    Some(Port::Range(PortRange { first, last }))
}

fn port_name(at: &At<'_>, text: &str) -> Option<Port> {
    let dashed = text.split_once('-');
    if let Some((first, last)) = dashed.and_then(|(a, b)| number(a).zip(number(b))) {
        let help = format!("a range is written \"{first}:{last}\"");
        at.warn(Message::with("is taken for the name of a port", help));
    }
    read::checked(at, names::port).map(Port::Named)
}

fn number(text: &str) -> Option<u16> {
    text.parse()
        .ok()
        .filter(|n| *n > 0 && !text.starts_with(['0', '+']))
}

fn service_accounts(at: &At<'_>) -> Option<ServiceAccounts> {
    let fields = Fields::of(at)?;
    let names: BTreeSet<String> = fields
        .list("names", MAX_ACCOUNTS, read::name)
        .into_iter()
        .collect();
    let selector = fields.opt("selector", plain_selector);
    fields.finish();
    // An empty mapping restricts nothing.
    (!names.is_empty() || selector.is_some()).then_some(ServiceAccounts { names, selector })
}

fn service(at: &At<'_>, owner: &Owner<'_>) -> Option<Service> {
    let fields = Fields::of(at)?;
    let name = fields.required("name", read::name);
    let namespace = match (
        fields.opt("namespace", |at| read::checked(at, names::dns_label)),
        owner,
    ) {
        (Some(namespace), _) => Some(namespace),
        (None, Owner::Namespace(own)) => Some((*own).to_owned()),
        (None, Owner::Global) => fields.required("namespace", read::text),
    };
    fields.finish();
    Some(Service {
        name: name?,
        namespace: namespace?,
    })
}

/// A service brings its own addresses (and, as a destination, ports), and only makes sense at the far end.
fn services_stand_alone(fields: &Fields<'_>, at: &At<'_>, side: Side, direction: Direction) {
    if (side == Side::Source) != (direction == Direction::Ingress) {
        at.complain("services are only possible in the source of an ingress rule and the destination of an egress rule");
    }
    let others = [
        "selector",
        "notSelector",
        "namespaceSelector",
        "nets",
        "notNets",
        "serviceAccounts",
    ];
    for name in others {
        if let Some(other) = fields.get(name) {
            other.complain(format!("{name} cannot be combined with services"));
        }
    }
    for name in ["ports", "notPorts"] {
        if let Some(other) = fields.get(name).filter(|_| side == Side::Destination) {
            other.complain(format!(
                "{name} cannot be combined with services, which bring their own ports"
            ));
        }
    }
}
