//! Which interfaces each host endpoint governs (facts 3.6), and the settings that change what policy means.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Calculator;
use super::endpoints::LocalSpec;
use super::model::{Attachment, Options, ToHost, WorkloadEp};
use crate::api::HostEndpoint;
use crate::config::{self, Settings};

/// The part of the settings that policy depends on.
pub fn options(settings: &Settings) -> Options {
    Options {
        failsafe_in: settings.failsafe_inbound_host_ports.clone(),
        failsafe_out: settings.failsafe_outbound_host_ports.clone(),
        workload_prefixes: settings.interface_prefix.clone(),
        workload_to_host: match settings.default_endpoint_to_host_action {
            config::HostAction::Drop => ToHost::Drop,
            config::HostAction::Return => ToHost::Return,
            config::HostAction::Accept => ToHost::Accept,
        },
        drop_invalid: !settings.disable_conntrack_invalid_check,
    }
}

/// Attachments by endpoint name; an endpoint that governs nothing is absent.
///
/// An endpoint with an interface name is attached whether the interface exists or not, so that a late interface is never open.
/// One with only expected IPs is attached to the interfaces that carry them; those that no interface carries are governed by
/// address, so that they are never open when they appear.
/// Where several endpoints claim an interface the lowest name stands.
pub fn resolve(
    calculator: &Calculator,
    workloads: &BTreeMap<String, Arc<WorkloadEp>>,
) -> BTreeMap<String, Attachment> {
    let locals = local_host_endpoints(calculator);
    let mut attachments: BTreeMap<String, Attachment> = BTreeMap::new();
    if let Some((name, _)) = locals.iter().find(|(_, e)| e.interface_name == "*") {
        attachments.entry((*name).to_owned()).or_default().others = true;
    }
    let mut ifaces: BTreeSet<&str> = calculator.links.keys().map(String::as_str).collect();
    ifaces.extend(
        locals
            .iter()
            .map(|(_, e)| e.interface_name.as_str())
            .filter(|n| !n.is_empty() && *n != "*"),
    );
    for iface in ifaces {
        if !is_plain(iface) || is_excluded(calculator, workloads, iface) {
            continue;
        }
        if let Some((name, _)) = locals.iter().find(|(_, e)| claims(calculator, e, iface)) {
            attachments
                .entry((*name).to_owned())
                .or_default()
                .interfaces
                .insert(iface.to_owned());
        }
    }
    for (name, endpoint) in &locals {
        if !endpoint.interface_name.is_empty() {
            continue;
        }
        let missing = endpoint.expected_ips.iter().copied();
        let missing: BTreeSet<IpAddr> = missing.filter(|ip| !is_carried(calculator, *ip)).collect();
        if !missing.is_empty() {
            attachments.entry((*name).to_owned()).or_default().addresses = missing;
        }
    }
    attachments
}

fn local_host_endpoints(calculator: &Calculator) -> Vec<(&str, &HostEndpoint)> {
    let locals = calculator.locals.iter();
    locals
        .filter_map(|(id, local)| match &local.spec {
            LocalSpec::Host(spec) => Some((id.name.as_str(), &**spec)),
            LocalSpec::Workload(_) => None,
        })
        .collect()
}

fn is_excluded(
    calculator: &Calculator,
    workloads: &BTreeMap<String, Arc<WorkloadEp>>,
    iface: &str,
) -> bool {
    workloads.contains_key(iface)
        || calculator.exclude.contains(iface)
        || calculator
            .live
            .policy()
            .options
            .workload_prefixes
            .iter()
            .any(|p| iface.starts_with(p.as_str()))
}

fn claims(calculator: &Calculator, endpoint: &HostEndpoint, iface: &str) -> bool {
    if !endpoint.interface_name.is_empty() {
        return endpoint.interface_name == iface;
    }
    let Some(link) = calculator.links.get(iface) else {
        return false;
    };
    endpoint
        .expected_ips
        .iter()
        .any(|ip| link.addresses.contains(ip))
}

/// Whether any interface has the address: then the interface decides, and the address must not.
fn is_carried(calculator: &Calculator, ip: IpAddr) -> bool {
    let mut links = calculator.links.iter();
    links.any(|(name, link)| is_plain(name) && link.addresses.contains(&ip))
}

/// Whether a firewall tool can be given this name and no other: a trailing `+` would be a pattern, quotes would not survive.
/// An endpoint on any other interface is governed by its addresses.
fn is_plain(iface: &str) -> bool {
    iface
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "._-@".contains(c))
}
