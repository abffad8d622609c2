//! Documents to resources: every known kind, every rule of validation, every error of a document at once.

pub mod at;
mod batch;
mod bgp;
mod cluster;
mod endpoint;
mod entity;
mod envelope;
mod felix;
mod ipam;
mod lint;
pub mod names;
mod policy;
pub mod read;
mod rule;
mod schema;
mod sets;
mod sink;
mod staged;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::at::{At, Fields, Sink};
use self::batch::Batch;
pub use self::sink::MAX_ISSUES;
use super::document::Document;
use super::issue::{Issue, Severity, shorten};
use super::json;
use super::types::{Kind, Origin, Resource, ResourceId, Spec};
use super::yaml::{Node, Value};

/// What a text holds: the resources that are valid, and what is wrong with the others.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// Valid resources in the order of the text. One with any error is not here.
    pub resources: Vec<Resource>,
    /// Errors and warnings in the order of the text.
    pub issues: Vec<Issue>,
}

impl Parsed {
    /// Whether anything is wrong enough that a resource is missing.
    pub fn has_errors(&self) -> bool {
        self.issues
            .iter()
            .any(|issue| issue.severity == Severity::Error)
    }
}

/// The lines of a policy's or profile's rules, kept beside the stored JSON, which has none. 0 means unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleLines {
    /// Lines of `spec.ingress`.
    pub ingress: Vec<u32>,
    /// Lines of `spec.egress`.
    pub egress: Vec<u32>,
}

/// What [`parse_each`] says when it is done.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How many of the resources that were given out count. Those behind come from a document that broke off later.
    pub valid: usize,
    /// Errors and warnings in the order of the text.
    pub issues: Vec<Issue>,
}

/// Parses a file: YAML documents separated by `---`, JSON, arrays and lists of resources.
/// `file` names it in issues and in [`Resource::origin`].
pub fn parse_bytes(file: &str, bytes: &[u8]) -> Parsed {
    collect(file, bytes, |batch, bytes| batch.read(bytes))
}

/// [`parse_bytes`] without the short way for JSON: what tests hold that way against.
#[doc(hidden)]
pub fn parse_bytes_as_yaml(file: &str, bytes: &[u8]) -> Parsed {
    collect(file, bytes, |batch, bytes| batch.read_as_yaml(bytes))
}

fn collect(file: &str, bytes: &[u8], read: fn(&mut Batch<'_>, &[u8])) -> Parsed {
    let mut resources = Vec::new();
    let Outcome { valid, issues } = run(file, bytes, &mut |r| resources.push(r), read);
    resources.truncate(valid);
    Parsed { resources, issues }
}

/// Parses a file as [`parse_bytes`] does, and gives out each resource as soon as it is read, so that a file costs little
/// more memory than its largest document. Only [`Outcome::valid`] tells in the end how many of them count.
pub fn parse_each(file: &str, bytes: &[u8], each: &mut dyn FnMut(Resource)) -> Outcome {
    run(file, bytes, each, |batch, bytes| batch.read(bytes))
}

fn run(
    file: &str,
    bytes: &[u8],
    each: &mut dyn FnMut(Resource),
    read: fn(&mut Batch<'_>, &[u8]),
) -> Outcome {
    let sink = Sink::new(file);
    let trial = Sink::default();
    let mut batch = Batch::new(file, &sink, &trial, each);
    read(&mut batch, bytes);
    let valid = batch.valid();
    let issues = sink.finish();
    Outcome { valid, issues }
}

/// Decodes a resource that was stored ([`Resource::raw`], [`Resource::origin`], [`Resource::rule_lines`]).
///
/// # Errors
/// The errors that make it invalid. Warnings are left out: they were told when it was first read.
pub fn parse_document(
    document: &Document,
    origin: &Origin,
    lines: &RuleLines,
) -> Result<Resource, Vec<Issue>> {
    let Parsed { resources, issues } = stored(document, origin, lines);
    resources
        .into_iter()
        .next()
        .ok_or_else(|| errors_of(issues))
}

/// Decodes the value of a key in a datastore, where lines mean nothing: one resource, or none and why. What a newer Calico has
/// put there is told apart from what is wrong, where the difference does no harm.
pub fn parse_value(key: &Arc<str>, document: &Document) -> Parsed {
    let origin = Origin {
        file: key.clone(),
        line: 0,
    };
    stored(document, &origin, &RuleLines::default())
}

fn errors_of(mut issues: Vec<Issue>) -> Vec<Issue> {
    issues.retain(|issue| issue.severity == Severity::Error);
    issues
}

fn stored(document: &Document, origin: &Origin, lines: &RuleLines) -> Parsed {
    let sink = Sink::of_stored(&origin.file);
    let value;
    let mut node = match json::tree(document.text(), 0, None) {
        Some(node) => node,
        None => match serde_json::from_str(document.text()) {
            Ok(read) => {
                value = read;
                Node::from_json(&value)
            }
            // Too deep, or a number that is too large: the text was looked at, but not into.
            Err(error) => return unreadable(origin, &error),
        },
    };
    node.line = origin.line;
    set_rule_lines(&mut node, lines);
    let resource = resource(&At::root(&node, &sink), origin.clone());
    let resource = resource.map(|resource| Resource {
        raw: document.clone(),
        ..resource
    });
    let is_valid = sink.errors() == 0;
    Parsed {
        resources: resource.filter(|_| is_valid).into_iter().collect(),
        issues: sink.finish(),
    }
}

fn unreadable(origin: &Origin, error: &serde_json::Error) -> Parsed {
    let issue = Issue {
        severity: Severity::Error,
        file: origin.file.to_string(),
        line: origin.line,
        column: origin.line.min(1),
        object: None,
        path: String::new(),
        value: None,
        message: format!("cannot be read: {error}"),
        help: Some("what was in force before stays until it is mended".to_owned()),
    };
    Parsed {
        resources: Vec::new(),
        issues: vec![issue],
    }
}

fn set_rule_lines(document: &mut Node<'_>, lines: &RuleLines) {
    let Some(spec) = document.get_mut("spec") else {
        return;
    };
    for (name, lines) in [("ingress", &lines.ingress), ("egress", &lines.egress)] {
        if let Some(Node {
            value: Value::Seq(rules),
            ..
        }) = spec.get_mut(name)
        {
            rules
                .iter_mut()
                .zip(lines)
                .for_each(|(rule, line)| rule.line = *line);
        }
    }
}

impl Resource {
    /// The lines of its rules, to be stored beside [`Resource::raw`].
    pub fn rule_lines(&self) -> RuleLines {
        let lines = |rules: &[super::Rule]| rules.iter().map(|rule| rule.line).collect();
        match &self.spec {
            Spec::Policy(p) | Spec::Staged(_, Some(p)) => RuleLines {
                ingress: lines(&p.ingress),
                egress: lines(&p.egress),
            },
            Spec::Profile(p) => RuleLines {
                ingress: lines(&p.ingress),
                egress: lines(&p.egress),
            },
            _ => RuleLines::default(),
        }
    }

    /// Whether both say the same and come from the same place.
    pub fn same_content(&self, other: &Resource) -> bool {
        self.id == other.id && self.origin == other.origin && self.raw.says_the_same(&other.raw)
    }

    /// The resource as a YAML document, as it was given.
    pub fn to_yaml(&self) -> String {
        super::emit::to_yaml(&self.raw.value())
    }
}

/// One resource, or `None` with errors in the sink.
fn resource(at: &At<'_>, origin: Origin) -> Option<Resource> {
    at.sink.about(None);
    let before = at.sink.errors();
    let fields = Fields::of(at)?;
    fields.required("apiVersion", envelope::api_version);
    let kind = fields.required("kind", envelope::kind)?;
    let id = envelope::identify(kind, at.node);
    at.sink.about(id.clone());
    let meta = envelope::metadata(&fields, kind);
    if kind.has_status() {
        fields.get("status");
    }
    let spec = envelope::with_spec(&fields, |spec| self::spec(kind, spec, id.as_ref()));
    fields.finish();
    if at.sink.errors() > before {
        return None;
    }
    Some(Resource {
        id: id?,
        meta: Arc::new(meta?),
        spec: spec?,
        raw: Document::of(at.node).ok()?,
        origin,
    })
}

fn spec(kind: Kind, at: &At<'_>, id: Option<&ResourceId>) -> Option<Spec> {
    let (namespace, name) = id.map_or(("", ""), |id| (id.namespace.as_str(), id.name.as_str()));
    match kind {
        Kind::HostEndpoint => endpoint::host(at),
        Kind::WorkloadEndpoint => endpoint::workload(at),
        Kind::GlobalNetworkPolicy => policy::decode(at, &rule::Owner::Global),
        Kind::NetworkPolicy => policy::decode(at, &rule::Owner::Namespace(namespace)),
        Kind::StagedGlobalNetworkPolicy => staged::decode(at, &rule::Owner::Global),
        Kind::StagedNetworkPolicy => staged::decode(at, &rule::Owner::Namespace(namespace)),
        Kind::StagedKubernetesNetworkPolicy => staged::kubernetes(at),
        Kind::Tier => policy::tier(at, name),
        Kind::Profile => policy::profile(at),
        Kind::NetworkSet | Kind::GlobalNetworkSet => sets::decode(at),
        Kind::FelixConfiguration => felix::decode(at, name),
        Kind::Node => cluster::node(at),
        Kind::ClusterInformation => cluster::information(at),
        Kind::KubeControllersConfiguration => cluster::kube_controllers(at),
        Kind::CalicoNodeStatus => cluster::node_status(at),
        Kind::IPPool => ipam::pool(at),
        Kind::BlockAffinity => ipam::affinity(at),
        Kind::IPAMBlock => ipam::block(at),
        Kind::IPAMHandle => ipam::handle(at),
        Kind::IPAMConfiguration => ipam::configuration(at),
        Kind::IPReservation => ipam::reservation(at),
        Kind::BGPConfiguration => bgp::configuration(at),
        Kind::BGPPeer => bgp::peer(at),
        Kind::BGPFilter => bgp::filter(at),
    }
}

/// A value quoted for a message.
fn quoted(text: &str) -> String {
    format!("`{}`", shorten(text))
}
