//! Ports of this host that lead elsewhere: what Docker and others publish by rules of their own in the nat tables.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::command::{CommandError, TOOL_PATH, Tools};
use super::super::iptables::{Backend, ipv6_available};
use super::owner;
use crate::api::Family;

/// How long listing may take: whoever asks for the status waits for it.
const PATIENCE: Duration = Duration::from_secs(3);

/// A port that does not end at this host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Published {
    /// Its protocol.
    pub protocol: String,
    /// The only address of this host where it is published, if there is one.
    pub address: Option<String>,
    /// Port, range or list of ports.
    pub port: String,
    /// Where it leads.
    pub to: String,
    /// Who made the rule, as far as the name of its chain tells.
    pub owner: String,
}

/// The published ports of both families, sorted.
///
/// # Errors
/// A save program of the tools fails. One that is not installed has nothing to tell.
pub fn published() -> Result<Vec<Published>, CommandError> {
    let tools = Tools::new(TOOL_PATH, PATIENCE);
    let mut found = Vec::new();
    for backend in [Backend::Nft, Backend::Legacy] {
        if !backend.may_hold_rules() {
            continue;
        }
        // The legacy tool makes a table when it is asked for it by name.
        let args: &[&str] = match backend {
            Backend::Nft => &["-t", "nat"],
            Backend::Legacy => &[],
        };
        for family in [Family::V4, Family::V6] {
            if family == Family::V6 && !ipv6_available() {
                continue;
            }
            let take = |line: &str| {
                found.extend(of_rule(line));
                true
            };
            match tools.read(&backend.tool(family, "save"), args, String::new(), take) {
                Err(error) if !error.is_missing() => return Err(error),
                _ => {}
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// What a rule of a save program publishes. Only one that names its port is about a port of this host, and what is in OUTPUT
/// is for its own programs.
pub(super) fn of_rule(line: &str) -> Option<Published> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let value = |options: &[&str]| {
        let at = words.iter().position(|word| options.contains(word))?;
        // What is not at a port or an address is not published there.
        let is_not = at > 0 && words[at - 1] == "!";
        words.get(at + 1).filter(|_| !is_not)
    };
    let chain = value(&["-A"]).filter(|chain| **chain != "OUTPUT")?;
    Some(Published {
        protocol: (*value(&["-p"])?).to_owned(),
        address: value(&["-d"]).map(|address| {
            let single = |end| address.strip_suffix(end);
            single("/32")
                .or(single("/128"))
                .unwrap_or(address)
                .to_owned()
        }),
        port: (*value(&["--dport", "--dports"])?).to_owned(),
        to: (*value(&["--to-destination"])?).to_owned(),
        owner: owner::of_name(chain).to_owned(),
    })
}
