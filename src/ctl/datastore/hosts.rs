//! `moatctl node status`: which hosts tell the datastore that they are alive.

use std::time::SystemTime;

use clap::Subcommand;
use serde_json::Value;

use super::db::Db;
use crate::ctl::output::table;
use crate::ctl::{EX_NO, EX_OK, Global, Outcome, output};
use crate::etcd::keys::status;

/// Commands about hosts.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// Show which hosts tell the datastore that they are alive
    Status,
}

impl Node {
    /// Runs the command; exit code 1 when a host is silent.
    pub fn run(&self, global: &Global) -> Outcome {
        let Node::Status = self;
        let mut db = Db::open(global)?;
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
        let rows: Vec<Vec<String>> = last
            .map(|(host, _, value)| {
                let state = if is_alive(host) { "alive" } else { "silent" };
                let time = value["time"].as_str().unwrap_or_default();
                let uptime = value["uptime"].as_f64().unwrap_or_default();
                vec![
                    host.clone(),
                    state.to_owned(),
                    ago(time),
                    format!("{uptime:.0}s"),
                ]
            })
            .collect();
        let is_silent = rows.iter().any(|row| row[1] == "silent");
        output::print_text(&table(&["NAME", "STATE", "LAST REPORT", "UPTIME"], &rows))?;
        Ok(if is_silent { EX_NO } else { EX_OK })
    }
}

fn ago(time: &str) -> String {
    let age = humantime::parse_rfc3339(time)
        .ok()
        .and_then(|at| SystemTime::now().duration_since(at).ok());
    age.map_or_else(|| time.to_owned(), |age| format!("{}s ago", age.as_secs()))
}
