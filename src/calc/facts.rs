//! What the calculator takes from the resource of an endpoint or network set.

use std::borrow::Cow;

use ipnet::IpNet;

use super::effective::{NAMESPACE, SERVICE_ACCOUNT};
use crate::api::{EndpointPort, Kind, Resource, Spec};

/// The node an endpoint belongs to; `None` for network sets.
pub fn node(resource: &Resource) -> Option<&str> {
    match &resource.spec {
        Spec::HostEndpoint(e) => Some(&e.node),
        Spec::WorkloadEndpoint(e) => Some(&e.node),
        _ => None,
    }
}

/// The profiles whose rules an endpoint uses, in order.
pub fn profiles(resource: &Resource) -> &[String] {
    match &resource.spec {
        Spec::HostEndpoint(e) => &e.profiles,
        Spec::WorkloadEndpoint(e) => &e.profiles,
        _ => &[],
    }
}

/// The profiles whose labels a holder inherits. A NetworkSet inherits from the profile of its namespace.
pub fn parents(resource: &Resource) -> Cow<'_, [String]> {
    if resource.id.kind == Kind::NetworkSet {
        return vec![format!("kns.{}", resource.id.namespace)].into();
    }
    profiles(resource).into()
}

/// Labels without inheritance, sorted by name: those of the resource, its namespace and its service account.
pub fn own_labels(resource: &Resource) -> Vec<(&str, &str)> {
    let written = resource.meta.labels.iter();
    let mut labels: Vec<(&str, &str)> = written.map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let mut set = |name, value| match labels.binary_search_by(|(k, _)| (*k).cmp(name)) {
        Ok(place) => labels[place].1 = value,
        Err(place) => labels.insert(place, (name, value)),
    };
    if !resource.id.namespace.is_empty() {
        set(NAMESPACE, &resource.id.namespace);
    }
    if let Some(account) = service_account(resource) {
        set(SERVICE_ACCOUNT, account);
    }
    labels
}

fn service_account(resource: &Resource) -> Option<&str> {
    let Spec::WorkloadEndpoint(endpoint) = &resource.spec else {
        return None;
    };
    let name = endpoint.service_account.as_str();
    // Longer names cannot be label values.
    (!name.is_empty() && name.len() < 63).then_some(name)
}

/// What a holder adds to the sets that select it.
pub struct Contribution<'a> {
    /// Prefixes, a /32 or /128 per endpoint address.
    pub nets: Cow<'a, [IpNet]>,
    /// Named ports.
    pub ports: &'a [EndpointPort],
}

/// The contribution of a holder. A HostEndpoint adds only its expected IPs, never the interface's (facts 3.6).
pub fn contribution(resource: &Resource) -> Contribution<'_> {
    let (nets, ports) = match &resource.spec {
        Spec::HostEndpoint(e) => {
            let nets: Vec<IpNet> = e.expected_ips.iter().map(|ip| IpNet::from(*ip)).collect();
            (nets.into(), &e.ports[..])
        }
        Spec::WorkloadEndpoint(e) => (e.ip_networks.as_slice().into(), &e.ports[..]),
        Spec::NetworkSet(s) => (s.nets.as_slice().into(), &[][..]),
        _ => (Cow::default(), &[][..]),
    };
    Contribution { nets, ports }
}
