//! `moatctl ipam check`: what is assigned beside what is in use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use clap::Args;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::TUNNELS;
use super::block::{Block, WINDOWS_RESERVED};
use crate::api::Kind;
use crate::ctl::datastore::db::Db;
use crate::ctl::datastore::render::plain;
use crate::ctl::output::Output;
use crate::ctl::{EX_NO, EX_OK, Failure, Global, Outcome, output};
use crate::etcd::keys;

/// So many hosts with the most addresses are shown.
const HOSTS: usize = 20;
/// Command line of `ipam check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Name every address that is looked at
    #[arg(long)]
    show_all_ips: bool,
    /// Name the addresses and handles that are wrong
    #[arg(long)]
    show_problem_ips: bool,
}

/// What was found so far.
#[derive(Default)]
struct Found {
    /// Addresses that are assigned, and their attributes in words.
    assigned: BTreeMap<IpAddr, String>,
    /// Addresses in use, and by whom.
    used: BTreeMap<IpAddr, Vec<String>>,
    /// Handles that blocks mention.
    mentioned: BTreeSet<String>,
    handles: BTreeSet<String>,
    /// How many addresses each host has.
    hosts: BTreeMap<String, usize>,
    pools: Vec<IpNet>,
    lines: Vec<String>,
    problems: usize,
}

impl Check {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Outcome {
        let mut db = Db::open(global)?;
        if global.output == Output::Text {
            output::print_raw("Checking IPAM for inconsistencies...\n\n")?;
        }
        if db.get_key(keys::CLUSTER_INFORMATION)?.is_none() {
            let text = "resource does not exist: ClusterInformation(default)";
            return Err(Failure::new(EX_NO, text));
        }
        let mut found = Found::default();
        self.blocks(&mut db, &mut found)?;
        pools(&mut db, &mut found)?;
        self.users(&mut db, &mut found)?;
        handles(&mut db, &mut found)?;
        hosts(&mut found);
        self.assigned(&mut found);
        self.used(&mut found);
        self.handles(&mut found);
        let problems = found.problems;
        found.say(format!("Check complete; found {problems} problems."));
        let told = json!({"problems": problems, "report": found.lines});
        output::print(global.output, &told, || found.lines.join("\n"))?;
        Ok(EX_OK)
    }

    fn is_loud(&self) -> bool {
        self.show_all_ips || self.show_problem_ips
    }

    fn blocks(&self, db: &mut Db, found: &mut Found) -> Result<(), Failure> {
        found.say("Loading all IPAM blocks...");
        let blocks = Block::all(db)?;
        found.say(format!("Found {} IPAM blocks.", blocks.len()));
        for block in &blocks {
            let affinity = block.affinity().unwrap_or("<none>");
            found.say(format!(" IPAM block {} affinity={affinity}:", block.net));
            for (ip, attributes) in block.uses() {
                self.assign(found, block, ip, attributes);
            }
        }
        let count = found.assigned.len();
        found.say(format!("IPAM blocks record {count} allocations.\n"));
        Ok(())
    }

    fn assign(&self, found: &mut Found, block: &Block, ip: IpAddr, attributes: &Value) {
        let handle = attributes["handle_id"].as_str();
        match handle {
            Some(WINDOWS_RESERVED) => self.uses(found, ip, "Reserved for Windows".to_owned()),
            Some(handle) => drop(found.mentioned.insert(handle.to_owned())),
            None => {}
        }
        let secondary = attributes["secondary"].as_object();
        let pairs: BTreeMap<_, _> = secondary.into_iter().flatten().collect();
        let pairs = pairs.iter().map(|(k, v)| format!("{k}={}", plain(v)));
        let pairs: Vec<String> = pairs.collect();
        let (handle, pairs) = (handle.unwrap_or("<none>"), pairs.join(","));
        let words = format!("Main:{handle} Extra:{pairs}");
        if self.show_all_ips {
            found.say(format!("  {ip} allocated; attrs {words}"));
        }
        let host = attributes["secondary"]["node"].as_str();
        let host = host.or(block.host()).unwrap_or_default();
        *found.hosts.entry(host.to_owned()).or_default() += 1;
        found.assigned.insert(ip, words);
    }

    fn uses(&self, found: &mut Found, ip: IpAddr, who: String) {
        if self.show_all_ips {
            found.say(format!("  {ip} belongs to {who}"));
        }
        found.used.entry(ip).or_default().push(who);
    }

    fn users(&self, db: &mut Db, found: &mut Found) -> Result<(), Failure> {
        found.say("Loading all nodes.");
        let mut count = 0;
        for node in db.list(Kind::Node, None)? {
            let name = plain(&node.document["metadata"]["name"]);
            let tunnels = TUNNELS.iter().filter_map(|t| node.document.pointer(t));
            for ip in tunnels.filter_map(address) {
                self.uses(found, ip, format!("Node({name})"));
                count += 1;
            }
        }
        found.say(format!("Found {count} node tunnel IPs.\n"));
        found.say("Loading all workload endpoints.");
        count = 0;
        for workload in db.list(Kind::WorkloadEndpoint, None)? {
            let metadata = &workload.document["metadata"];
            let [namespace, name] = ["namespace", "name"].map(|field| plain(&metadata[field]));
            let nets = workload.document["spec"]["ipNetworks"].as_array();
            for ip in nets.into_iter().flatten().filter_map(address) {
                self.uses(found, ip, format!("Workload({namespace}/{name})"));
                count += 1;
            }
        }
        found.say(format!("Found {count} workload IPs."));
        let all = found.used.len();
        found.say(format!("Workloads and nodes are using {all} IPs.\n"));
        Ok(())
    }

    fn assigned(&self, found: &mut Found) {
        found.say("Scanning for IPs that are allocated but not actually in use...");
        let is_leaked = |(ip, _): &(&IpAddr, &String)| !found.used.contains_key(ip);
        let leaked = found.assigned.iter().filter(is_leaked);
        let lines = leaked.map(|(ip, words)| format!("  {ip} leaked; attrs {words}"));
        let lines: Vec<String> = lines.collect();
        found.problem(self.is_loud(), &lines);
        found.say(format!(
            "Found {} IPs that are allocated in IPAM but not actually in use.",
            lines.len()
        ));
    }

    fn used(&self, found: &mut Found) {
        found.say(
            "Scanning for IPs that are in use by a workload or node but not allocated in IPAM...",
        );
        let (mut lines, mut inside, mut outside) = (Vec::new(), 0, 0);
        for (ip, owners) in &found.used {
            if owners.len() > 1 {
                lines.push(format!("  {ip} has multiple owners."));
            }
            if found.assigned.contains_key(ip) {
                continue;
            }
            let is_inside = found.pools.iter().any(|pool| pool.contains(ip));
            let why = match is_inside {
                true => "and in active IPAM pool but has no IPAM allocation.",
                false => "is not in any active IP pool.",
            };
            lines.extend(
                owners
                    .iter()
                    .map(|owner| format!("  {ip} in use by {owner} {why}")),
            );
            *(if is_inside { &mut inside } else { &mut outside }) += 1;
        }
        if self.is_loud() {
            found.lines.extend(lines);
        }
        found.problems += inside + outside;
        found.say(format!(
            "Found {outside} in-use IPs that are not in active IP pools.\nFound {inside} in-use IPs that are in active IP pools but have no corresponding IPAM allocation.\n"
        ));
    }

    fn handles(&self, found: &mut Found) {
        found.say("Scanning for IPAM handles with no matching IPs...");
        let idle = found.handles.difference(&found.mentioned);
        let idle: Vec<String> = idle
            .map(|handle| format!("  {handle} doesn't have any active IPs."))
            .collect();
        found.problem(self.show_all_ips, &idle);
        let (bad, good) = (idle.len(), found.handles.len() - idle.len());
        found.say(format!(
            "Found {bad} handles with no matching IPs (and {good} handles with matches)."
        ));
        found.say("Scanning for IPs with missing handle...");
        let missing = found.mentioned.difference(&found.handles);
        let missing: Vec<String> = missing
            .map(|handle| format!("  {handle} is in use in a block but doesn't exist."))
            .collect();
        if self.is_loud() {
            found.lines.extend(missing.iter().cloned());
        }
        found.say(format!(
            "Found {} handles mentioned in blocks with no matching handle resource.",
            missing.len()
        ));
    }
}

impl Found {
    fn say(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    fn problem(&mut self, is_loud: bool, lines: &[String]) {
        self.problems += lines.len();
        if is_loud {
            self.lines.extend_from_slice(lines);
        }
    }
}

/// The address, with or without the length of a prefix.
fn address(value: &Value) -> Option<IpAddr> {
    value.as_str()?.split('/').next()?.parse().ok()
}

fn pools(db: &mut Db, found: &mut Found) -> Result<(), Failure> {
    found.say("Loading all IPAM pools...");
    for pool in db.list(Kind::IPPool, None)? {
        let spec = &pool.document["spec"];
        let cidr = spec["cidr"].as_str().and_then(|text| text.parse().ok());
        if let Some(cidr) = cidr.filter(|_| spec["disabled"] != true) {
            found.say(format!("  {cidr}"));
            found.pools.push(cidr);
        }
    }
    let count = found.pools.len();
    found.say(format!("Found {count} active IP pools.\n"));
    Ok(())
}

fn handles(db: &mut Db, found: &mut Found) -> Result<(), Failure> {
    found.say("Loading all handles");
    let prefix = format!("{}handle/", keys::IPAM);
    for kv in db.scan(&prefix)? {
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        let handle = key.strip_prefix(&prefix).unwrap_or(&key);
        found.handles.insert(keys::status::unescape(handle));
    }
    Ok(())
}

fn hosts(found: &mut Found) {
    found.say(format!(
        "Looking for top (up to {HOSTS}) nodes by allocations..."
    ));
    let hosts = std::mem::take(&mut found.hosts);
    let mut hosts: Vec<(String, usize)> = hosts.into_iter().collect();
    hosts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (host, count) in hosts.iter().take(HOSTS) {
        found.say(format!("  {host} has {count} allocations"));
    }
    if let (Some(most), Some(median)) = (hosts.first(), hosts.get(hosts.len() / 2)) {
        let (most, median) = (most.1, median.1);
        found.say(format!(
            "Node with most allocations has {most}; median is {median}"
        ));
    }
    found.say("");
}
