//! What the kernel and the tools can do, tried out one rule at a time in a network namespace that nothing else uses.

use serde::{Deserialize, Serialize};

use super::super::command::Tools;
use super::detect::Backend;
use crate::api::Family;

/// The scratch chain.
const CHAIN: &str = "moat-probe";
/// The scratch set.
const SET: &str = "moat4-probe";
/// The one feature without which none can be tried.
const UNCHECKED: &str = "network namespaces";

/// One feature and whether it works here.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Feature {
    /// What was tried.
    pub name: String,
    /// Whether it works.
    pub works: bool,
    /// What is lost without it.
    pub lost: String,
    /// What the tool said.
    pub message: String,
}

/// Table, rule, and what is lost without it.
const RULES: [(&str, &str, &str, &str); 10] = [
    (
        "comment match",
        "filter",
        "-m comment --comment moat -j RETURN",
        "rules cannot be recognised: moat cannot work",
    ),
    (
        "conntrack match",
        "filter",
        "-m conntrack --ctstate ESTABLISHED -j RETURN",
        "replies cannot be recognised: moat cannot work",
    ),
    (
        "mark match",
        "filter",
        "-m mark --mark 0x0/0x10000 -j RETURN",
        "policy verdicts cannot be kept: moat cannot work",
    ),
    (
        "MARK target",
        "filter",
        "-j MARK --set-xmark 0x0/0x10000",
        "policy verdicts cannot be kept: moat cannot work",
    ),
    (
        "multiport match",
        "filter",
        "-p 6 -m multiport --dports 1,2 -j RETURN",
        "rules with ports",
    ),
    (
        "LOG target",
        "filter",
        "-j LOG --log-prefix moat",
        "policy rules with action Log",
    ),
    (
        "REJECT target",
        "filter",
        "-j REJECT",
        "iptablesFilterDenyAction Reject",
    ),
    (
        "mangle table",
        "mangle",
        "-j RETURN",
        "preDNAT policies, and egress policy for local traffic with DNAT",
    ),
    ("raw table", "raw", "-j RETURN", "doNotTrack policies"),
    ("CT target", "raw", "-j CT --notrack", "doNotTrack policies"),
];

/// IP set types and what is lost without them.
const SETS: [(&str, &str, &str); 3] = [
    (
        "hash:net",
        "hash:net family inet",
        "selectors and CIDR lists in rules",
    ),
    ("hash:ip,port", "hash:ip,port family inet", "named ports"),
    (
        "bitmap:port",
        "bitmap:port range 0-65535",
        "rules with more than 15 ports",
    ),
];

/// Tries everything moat may need with this backend. The host's own rules are not touched: the tries are made in a new network
/// namespace, which the children of the thread that entered it share.
pub fn check_features(backend: Backend) -> Vec<Feature> {
    let probe = std::thread::spawn(move || {
        match nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
            Ok(()) => try_all(backend),
            Err(error) => {
                let message = format!("cannot make a network namespace to try things in: {error}");
                vec![feature(
                    UNCHECKED,
                    "features cannot be checked",
                    Err(message),
                )]
            }
        }
    });
    probe.join().unwrap_or_default()
}

/// Whether features could be tried at all: a process without CAP_SYS_ADMIN cannot make the network namespace for it.
pub fn is_checked(features: &[Feature]) -> bool {
    features.iter().all(|f| f.name != UNCHECKED)
}

fn try_all(backend: Backend) -> Vec<Feature> {
    let mut features: Vec<Feature> = RULES
        .iter()
        .map(|(n, t, r, l)| rule_feature(backend, n, t, r, l))
        .collect();
    features.extend(SETS.iter().map(|(n, s, l)| set_feature(backend, n, s, l)));
    features.push(ipv6_feature(backend));
    features
}

fn feature(name: &str, lost: &str, result: Result<(), String>) -> Feature {
    let message = result.as_ref().err().cloned().unwrap_or_default();
    Feature {
        name: name.to_owned(),
        works: result.is_ok(),
        lost: lost.to_owned(),
        message,
    }
}

fn rule_feature(backend: Backend, name: &str, table: &str, rule: &str, lost: &str) -> Feature {
    feature(name, lost, try_rule(backend, table, rule))
}

/// Through the `iptables` crate: this is the one place where single rules are handled.
fn try_rule(backend: Backend, table: &str, rule: &str) -> Result<(), String> {
    let text = |e: Box<dyn std::error::Error>| e.to_string().trim().replace('\n', " ");
    let mut tables = iptables::new(false).map_err(text)?;
    tables.cmd = match backend {
        Backend::Nft => "iptables-nft",
        Backend::Legacy => "iptables-legacy",
    };
    tables.new_chain(table, CHAIN).map_err(text)?;
    let result = tables.append(table, CHAIN, rule).map_err(text);
    tables
        .flush_chain(table, CHAIN)
        .and_then(|()| tables.delete_chain(table, CHAIN))
        .map_err(text)?;
    result
}

fn set_feature(backend: Backend, name: &str, spec: &str, lost: &str) -> Feature {
    let words: Vec<&str> = spec.split(' ').collect();
    let create = [&["create", SET][..], &words].concat();
    let result = Tools::default()
        .run("ipset", &create, String::new())
        .map_err(|e| e.to_string())
        .and_then(|()| {
            let flags = if name == "hash:ip,port" {
                "dst,dst"
            } else {
                "dst"
            };
            let result = try_rule(
                backend,
                "filter",
                &format!("-p 6 -m set --match-set {SET} {flags} -j RETURN"),
            );
            let destroy = ["destroy", SET];
            let destroyed = Tools::default().run("ipset", &destroy, String::new());
            destroyed.map_err(|e| e.to_string())?;
            result
        });
    feature(&format!("IP set {name}"), lost, result)
}

fn ipv6_feature(backend: Backend) -> Feature {
    let lost = "nothing, if the host has no IPv6";
    if !super::ipv6_available() {
        return feature("IPv6", lost, Err("the kernel has no IPv6".to_owned()));
    }
    let tool = backend.tool(Family::V6, "save");
    let result = Tools::default().run(&tool, &["-t", "filter"], String::new());
    feature(
        "IPv6",
        "IPv6 would not be filtered",
        result.map_err(|e| e.to_string()),
    )
}
