//! `moatctl node status`: which hosts tell the datastore that they are alive, and the BGP sessions of this one.

use clap::Subcommand;
use serde::Serialize;
use serde_json::Value;

use super::bird::{self, Bird};
use super::db::Db;
use crate::ctl::output::{ago, plain, table};
use crate::ctl::{EX_NO, EX_OK, Failure, Global, Outcome, output};
use crate::etcd::keys::status;

/// Commands about hosts.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// Show which hosts tell the datastore that they are alive, and the BGP sessions that BIRD has on this host
    Status,
}

/// What is shown.
#[derive(Debug, Serialize)]
struct Report {
    hosts: Vec<HostReport>,
    bgp: Vec<Bird>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HostReport {
    name: String,
    /// `alive` or `silent`.
    state: &'static str,
    last_report: String,
    uptime_seconds: f64,
}

impl Node {
    /// Runs the command; exit code 1 when a host is silent.
    pub fn run(&self, global: &Global) -> Outcome {
        let Node::Status = self;
        let hosts = Db::open(global).and_then(|mut db| hosts(&mut db));
        let bgp = bird::ask();
        let hosts = match hosts {
            Ok(hosts) => hosts,
            // The sessions are known without the datastore.
            Err(failure) => {
                output::print_raw(&bird::text(&bgp))?;
                return Err(failure);
            }
        };
        let is_silent = hosts.iter().any(|host| host.state == "silent");
        let report = Report { hosts, bgp };
        output::print(global.output, &report, || report.text())?;
        Ok(if is_silent { EX_NO } else { EX_OK })
    }
}

fn hosts(db: &mut Db) -> Result<Vec<HostReport>, Failure> {
    let found = db.scan(status::HOSTS)?;
    let reports = found.iter().filter_map(|kv| {
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        let (host, what) = key.strip_prefix(status::HOSTS)?.split_once('/')?;
        let value: Value = serde_json::from_slice(&kv.value).unwrap_or_default();
        Some((status::unescape(host), what.to_owned(), value))
    });
    let reports: Vec<(String, String, Value)> = reports.collect();
    let is_alive = |host: &str| {
        reports
            .iter()
            .any(|(h, what, _)| h == host && what == "status")
    };
    let last = reports
        .iter()
        .filter(|(_, what, _)| what == "last_reported_status");
    let report = |(host, _, value): &(String, String, Value)| HostReport {
        name: host.clone(),
        state: if is_alive(host) { "alive" } else { "silent" },
        last_report: value["time"].as_str().unwrap_or_default().to_owned(),
        uptime_seconds: value["uptime"].as_f64().unwrap_or_default(),
    };
    Ok(last.map(report).collect())
}

impl Report {
    fn text(&self) -> String {
        let row = |host: &HostReport| {
            vec![
                plain(&host.name),
                host.state.to_owned(),
                ago(&host.last_report).map_or_else(
                    || plain(&host.last_report),
                    |age| format!("{}s ago", age.as_secs()),
                ),
                format!("{:.0}s", host.uptime_seconds),
            ]
        };
        let rows: Vec<Vec<String>> = self.hosts.iter().map(row).collect();
        let hosts = table(&["NAME", "STATE", "LAST REPORT", "UPTIME"], &rows);
        format!("{hosts}\n{}", bird::text(&self.bgp))
    }
}
