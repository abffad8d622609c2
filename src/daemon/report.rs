//! What the daemon tells: the stable, documented JSON of `moatctl status`, `plan` and `config show`.

use serde::{Deserialize, Serialize};

use super::published::PublishedReport;
use crate::dataplane::Changed;

/// Whether the host is protected as its files say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing was applied yet.
    Starting,
    /// Everything as the files say.
    Enforcing,
    /// A last good version of something is enforced; see `degraded`.
    Degraded,
}

/// One reason for being degraded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Degraded {
    /// What is wrong and what moat does instead.
    pub reason: String,
    /// The resource or setting.
    pub object: String,
    /// File and line.
    #[serde(rename = "where")]
    pub place: String,
}

/// One endpoint of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointReport {
    /// Name of the resource.
    pub name: String,
    /// `HostEndpoint` or `WorkloadEndpoint`.
    pub kind: String,
    /// Interfaces it governs; `*` for all others.
    pub interfaces: Vec<String>,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Policies that apply, in order of evaluation, as `tier/Kind/name`.
    pub policies: Vec<String>,
    /// Profiles in order.
    pub profiles: Vec<String>,
    /// Staged policies that would apply.
    pub staged: Vec<String>,
}

/// An object that a local file and the datastore both have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// The resource.
    pub object: String,
    /// Where it is in force from.
    pub file: String,
    /// The key whose value is not in force.
    pub key: String,
}

/// One source of resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceReport {
    /// `dir:PATH` or `etcd:URL`.
    pub name: String,
    /// Whether everything in force comes from the source itself (not from the snapshot).
    pub in_sync: bool,
    /// When it was last read, RFC 3339.
    pub last_contact: Option<String>,
    /// Grows with every change; of a datastore, its own revision.
    pub revision: u64,
    /// Keys of a datastore that hold nothing that matters to policy.
    #[serde(default)]
    pub ignored: u64,
}

/// The snapshot on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotReport {
    /// The generation it holds.
    pub generation: u64,
    /// Seconds since what it holds came from its sources, over restarts.
    pub age: u64,
}

/// The last change of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyReport {
    /// RFC 3339.
    pub when: String,
    /// Duration from the decision to the last write.
    pub milliseconds: u64,
    /// What changed.
    pub changed: Changed,
}

/// `moatctl status -o json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Name of this host in policy.
    pub node: String,
    /// moat's version.
    pub version: String,
    /// Number of the host policy in force.
    pub generation: u64,
    /// See [`State`].
    pub state: State,
    /// Why the state is degraded.
    pub degraded: Vec<Degraded>,
    /// What may surprise.
    pub warnings: Vec<String>,
    /// Endpoints of this host.
    pub endpoints: Vec<EndpointReport>,
    /// Ports of this host that lead elsewhere, as those that Docker publishes. The daemon's status has none: `moatctl status` asks
    /// for them besides, because finding them runs programs that may hang.
    #[serde(default)]
    pub published: Vec<PublishedReport>,
    /// Dataplane in use, and why.
    pub backend: String,
    /// Why this backend.
    pub backend_reason: String,
    /// Sources.
    pub sources: Vec<SourceReport>,
    /// What local files have in place of the datastore.
    #[serde(default)]
    pub local_overrides: Vec<Override>,
    /// Snapshot, if one was written or read.
    pub snapshot: Option<SnapshotReport>,
    /// Last apply.
    pub last_apply: Option<ApplyReport>,
    /// When the kernel was last known to be as the host policy wants it, RFC 3339.
    pub verified_at: Option<String>,
    /// Times since the start that somebody else had changed what is moat's in the kernel, and moat repaired it.
    pub repairs: u64,
    /// Connections cut since the start, because a changed policy denied them.
    pub connections_cut: u64,
}

/// What the daemon does at one moment, for `moatctl status --watch`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// RFC 3339.
    pub when: String,
    /// The generation it is about.
    pub generation: u64,
    /// What happens.
    pub what: Happening,
    /// In words.
    pub text: String,
    /// What an apply changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<ApplyReport>,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Happening {
    /// Documents are read.
    Loading,
    /// A change is being written.
    Applying,
    /// It is in force.
    Applied,
    /// It could not be written.
    Failed,
    /// What somebody else had changed is repaired.
    Repaired,
    /// Connections that policy denies were cut.
    Cut,
    /// A problem appeared, or all are solved.
    Problem,
    /// Events that this client was too slow for.
    Missed,
}

impl Event {
    /// An event that happens now.
    pub fn now(generation: u64, what: Happening, text: String) -> Event {
        Event {
            when: now(),
            generation,
            what,
            text,
            applied: None,
        }
    }

    /// So many events were not delivered.
    pub fn missed(number: u64) -> Event {
        let text = format!("{number} events were missed: reading was too slow");
        Event::now(0, Happening::Missed, text)
    }
}

/// `moatctl plan -o json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanReport {
    /// Whether anything would change.
    pub changes: bool,
    /// In numbers.
    pub changed: Changed,
    /// Line by line, as given to the tools.
    pub lines: Vec<String>,
    /// Errors of the candidate.
    pub issues: Vec<String>,
}

/// `moatctl config show -o json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConfigReport {
    /// Name, value and origin of every setting.
    pub settings: Vec<serde_json::Value>,
    /// Fields of FelixConfigurations that have no effect, and the like.
    pub notes: Vec<String>,
}

/// Now, as RFC 3339 in UTC.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string()
}
