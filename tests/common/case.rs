//! A case: resources, probes and steps as written in `tests/cases/*.yaml`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::yaml;

/// One case file.
#[derive(Clone, Debug)]
pub struct Case {
    /// File name without its ending.
    pub name: String,
    /// What does not change while the case runs.
    pub head: Head,
    /// The first state, then what happens, in order.
    pub stages: Vec<Step>,
}

/// The part of a case that does not change while it runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// What the case shows, in one sentence.
    pub title: String,
    /// The paragraphs of the specification it proves.
    pub covers: Vec<String>,
    /// Settings of moat.toml.
    #[serde(default)]
    pub settings: Map<String, Value>,
    /// Name by which the resources call the protected host.
    #[serde(default = "host1")]
    pub node: String,
    /// A file of `etc/moat/examples`, in place of `resources`.
    pub example: Option<String>,
    /// The tools of a datastore refuse to write this; a file can hold it all the same.
    #[serde(default)]
    pub files_only: bool,
}

const HEAD: [&str; 6] = [
    "title",
    "covers",
    "settings",
    "node",
    "example",
    "files_only",
];

/// A change, and the probes that hold after it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What changes, for the reader; empty in the first state.
    #[serde(default)]
    pub title: String,
    /// Resources created or replaced, as YAML documents.
    #[serde(default, alias = "apply")]
    pub resources: String,
    /// Resources removed, as `Kind/name` or `Kind/namespace/name`.
    #[serde(default)]
    pub delete: Vec<String>,
    /// Interfaces that appear or vanish.
    #[serde(default, alias = "links")]
    pub link: LinkChange,
    /// iptables commands run on the protected host; `ip46tables` stands for both families.
    #[serde(default)]
    pub host_rules: Vec<String>,
    /// Whether moat must refuse the resources of the step and keep what it had.
    #[serde(default)]
    pub rejected: bool,
    /// Whether connections of the step before stay known to the kernel.
    #[serde(default)]
    pub keep_conntrack: bool,
    /// The packets to try.
    #[serde(default)]
    pub probes: Vec<Probe>,
}

/// Interfaces of the protected host that appear or vanish.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkChange {
    /// Interfaces that appear.
    #[serde(default)]
    pub add: Vec<String>,
    /// Interfaces that vanish.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// One packet to try, with the verdict that policy must reach.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Who sends: an actor or `host`.
    pub from: String,
    /// Who is addressed: an actor, `host`, `host.IFACE` or an address.
    pub to: String,
    /// `tcp`, `udp`, `icmp` (of either family), `sctp` or a protocol number.
    pub proto: Proto,
    /// Destination port.
    pub port: Option<u16>,
    /// Source port, when it matters.
    pub sport: Option<u16>,
    /// A further address of the sender to use as source.
    pub src: Option<IpAddr>,
    /// ICMP message other than an echo request.
    pub icmp: Option<Message>,
    /// 4 or 6; both when absent.
    pub family: Option<u8>,
    /// Hop limit of an IPv6 packet, when it matters.
    pub hops: Option<u8>,
    /// Where destination NAT by the host's rules leads the packet.
    pub dnat: Option<Dnat>,
    /// Whether an answer comes back.
    pub expect: Expect,
    /// What policy says, where rules of the host decide otherwise in the end.
    pub verdict: Option<Expect>,
    /// Whether the flow escapes connection tracking, so that replies need a rule too.
    #[serde(default)]
    pub untracked: bool,
    /// Whether connection tracking finds the packet invalid.
    #[serde(default)]
    pub invalid: bool,
    /// Keeps the TCP connection under this name for a later step.
    pub hold: Option<String>,
    /// Sends on the connection kept under this name.
    pub resume: Option<String>,
    /// The policy or profile that must decide, as the trace names it.
    pub by: Option<String>,
    /// The reason, for the reader of a failure.
    #[serde(default)]
    pub why: String,
}

/// A protocol name or number.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Proto {
    /// `tcp`, `udp`, `icmp` or `sctp`.
    Name(String),
    /// An IP protocol number.
    Number(u8),
}

/// An ICMP message.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Code.
    #[serde(default)]
    pub code: u8,
}

/// Where destination NAT leads.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dnat {
    /// As [`Probe::to`].
    pub to: String,
    /// Port after translation; the same when absent.
    pub port: Option<u16>,
}

/// An expected or observed end of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// The packet arrives and its answer comes back.
    Allow,
    /// Nothing comes back.
    Deny,
}

/// Resources by `Kind/[namespace/]name`.
pub type Resources = BTreeMap<String, Value>;

fn host1() -> String {
    "host1".into()
}

/// The directory of the case files.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

/// Reads every case, sorted by name.
///
/// # Errors
/// The first file that is no case, and why.
pub fn load_all() -> Result<Vec<Case>, String> {
    let dir = directory();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .map_err(|e| format!("{}: {e}", dir.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    files
        .iter()
        .map(|path| load(path).map_err(|e| format!("{}: {e}", path.display())))
        .collect()
}

fn load(path: &Path) -> Result<Case, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let [document] = <[Value; 1]>::try_from(yaml::documents(&text)?)
        .map_err(|d| format!("{} documents instead of one", d.len()))?;
    let Value::Object(map) = document else {
        return Err("not a mapping".into());
    };
    let (head, mut first): (Map<_, _>, Map<_, _>) = map
        .into_iter()
        .partition(|(key, _)| HEAD.contains(&key.as_str()));
    let steps = first
        .remove("steps")
        .unwrap_or_else(|| Value::Array(Vec::new()));
    let head: Head = read("head", Value::Object(head))?;
    let mut stages: Vec<Step> = read("steps", steps)?;
    stages.insert(0, read("first state", Value::Object(first))?);
    if let Some(example) = &head.example {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("etc/moat/examples")
            .join(example);
        stages[0].resources =
            std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let name = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let case = Case { name, head, stages };
    case.check()?;
    Ok(case)
}

fn read<T: DeserializeOwned>(part: &str, value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|e| format!("{part}: {e}"))
}

impl Case {
    /// A case must be able to fail: every stage needs a probe, and every text must be readable.
    fn check(&self) -> Result<(), String> {
        let mut resources = Resources::new();
        for step in &self.stages {
            step.change(&mut resources)?;
            if step.probes.is_empty() {
                return Err(format!("nothing is probed in step `{}`", step.title));
            }
        }
        Ok(())
    }
}

impl Step {
    /// Applies the step to a set of resources.
    ///
    /// # Errors
    /// A document without kind or name, or a deletion of something absent.
    pub fn change(&self, resources: &mut Resources) -> Result<(), String> {
        for document in yaml::documents(&self.resources)? {
            resources.insert(id(&document)?, document);
        }
        for name in &self.delete {
            resources
                .remove(name)
                .ok_or_else(|| format!("`{name}` cannot be deleted: absent"))?;
        }
        Ok(())
    }
}

/// Names a resource as steps do: `Kind/name` or `Kind/namespace/name`.
fn id(document: &Value) -> Result<String, String> {
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").ok_or("a resource without kind")?;
    let name = text("/metadata/name").ok_or_else(|| format!("a {kind} without name"))?;
    Ok(match text("/metadata/namespace") {
        Some(namespace) => format!("{kind}/{namespace}/{name}"),
        None => format!("{kind}/{name}"),
    })
}
