//! Documents to resources: every known kind, every rule of validation, every error of a document at once.

pub mod at;
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

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::at::{At, Fields, Message, Sink};
pub use self::sink::MAX_ISSUES;
use super::document::Document;
use super::issue::{Issue, Severity, shorten};
use super::types::{Kind, Origin, Resource, ResourceId, Spec};
use super::yaml::{self, Key, Node, Value};

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

/// Parses a file: YAML documents separated by `---`, JSON, arrays and lists of resources.
/// `file` names it in issues and in [`Resource::origin`].
pub fn parse_bytes(file: &str, bytes: &[u8]) -> Parsed {
    let sink = Sink::new(file);
    let (documents, error) = yaml::documents(bytes);
    let mut batch = Batch {
        file: file.into(),
        sink: &sink,
        resources: Vec::new(),
        seen: HashMap::new(),
    };
    for document in &documents {
        batch.document(&At::root(document, &sink), true);
    }
    let resources = batch.resources;
    if let Some(e) = error {
        sink.about(None);
        let text = Message {
            message: e.message,
            help: e.help,
        };
        sink.report(Severity::Error, (e.line, e.col), String::new(), None, text);
    }
    Parsed {
        resources,
        issues: sink.finish(),
    }
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
    let sink = Sink::new(&origin.file);
    let mut node = Node::from_json(&document.value());
    node.line = origin.line;
    set_rule_lines(&mut node, lines);
    let resource = resource(&At::root(&node, &sink), origin.clone());
    let issues: Vec<Issue> = sink
        .finish()
        .into_iter()
        .filter(|issue| issue.severity == Severity::Error)
        .collect();
    match resource {
        Some(resource) if issues.is_empty() => Ok(Resource {
            raw: document.clone(),
            ..resource
        }),
        _ => Err(issues),
    }
}

fn set_rule_lines(node: &mut Node, lines: &RuleLines) {
    fn child<'a>(node: &'a mut Node, name: &str) -> Option<&'a mut Node> {
        match &mut node.value {
            Value::Map(entries) => entries
                .iter_mut()
                .find(|(key, _)| key.name == name)
                .map(|(_, node)| node),
            _ => None,
        }
    }
    let Some(spec) = child(node, "spec") else {
        return;
    };
    for (name, lines) in [("ingress", &lines.ingress), ("egress", &lines.egress)] {
        if let Some(Node {
            value: Value::Seq(rules),
            ..
        }) = child(spec, name)
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

/// The resources of one text.
struct Batch<'a> {
    file: Arc<str>,
    sink: &'a Sink,
    resources: Vec<Resource>,
    seen: HashMap<ResourceId, u32>,
}

impl Batch<'_> {
    /// A document or an item of a JSON array. Lists of resources are allowed where `lists` says so.
    fn document(&mut self, at: &At<'_>, lists: bool) {
        self.sink.about(None);
        match &at.node.value {
            Value::Seq(items) if lists => {
                for (n, item) in items.iter().enumerate() {
                    self.document(&at.item(n, item), false);
                }
            }
            Value::Map(_) => match at.node.get("kind").and_then(Node::text).and_then(list_kind) {
                Some(kind) => self.list(at, kind),
                None => self.resource(at.node),
            },
            _ => {
                at.complain(Message::with(
                    "is not a resource",
                    "a resource is a mapping with apiVersion, kind, metadata and spec".to_owned(),
                ));
            }
        }
    }

    /// A `List`, or the list of one kind, whose items may leave kind and version to it.
    fn list(&mut self, at: &At<'_>, kind: Option<Kind>) {
        let Some(fields) = Fields::of(at) else { return };
        fields.required("apiVersion", |at| match at.node.text() {
            Some("v1") if kind.is_none() => Some(()),
            _ => envelope::api_version(at),
        });
        fields.get("kind");
        fields.get("metadata");
        if let Some(list) = fields.required_at("items") {
            for (n, item) in list.items().unwrap_or_default().iter().enumerate() {
                self.item(&list.item(n, item), kind);
            }
        }
        self.sink.about(None);
        fields.finish();
    }

    fn item(&mut self, at: &At<'_>, kind: Option<Kind>) {
        self.sink.about(None);
        let own = at.node.get("kind").and_then(Node::text);
        if own.and_then(list_kind).is_some() {
            at.complain("a list within a list is not supported");
            return;
        }
        match kind {
            Some(kind) => self.resource(&with_kind(at.node, kind)),
            None => self.resource(at.node),
        }
    }

    fn resource(&mut self, node: &Node) {
        let origin = Origin {
            file: self.file.clone(),
            line: node.line,
        };
        let at = At::root(node, self.sink);
        let Some(resource) = resource(&at, origin) else {
            return;
        };
        let before = self.seen.insert(resource.id.clone(), node.line);
        if let Some(line) = before {
            self.seen.insert(resource.id.clone(), line);
            let help = "keep one of the two".to_owned();
            at.complain(Message::with(
                format!("is already defined at line {line}"),
                help,
            ));
            return;
        }
        self.resources.push(resource);
    }
}

/// `Some(None)` for `List`, `Some(kind)` for the list of one kind.
fn list_kind(name: &str) -> Option<Option<Kind>> {
    match name.strip_suffix("List")? {
        "" => Some(None),
        kind => Kind::from_document(kind).map(Some),
    }
}

fn with_kind(item: &Node, kind: Kind) -> Node {
    let mut item = item.clone();
    if let Value::Map(entries) = &mut item.value {
        let has =
            |entries: &[(Key, Node)], name: &str| entries.iter().any(|(key, _)| key.name == name);
        for (name, value) in [("kind", kind.name()), ("apiVersion", envelope::API_VERSION)] {
            if !has(entries, name) {
                let text = Node::from_json(&serde_json::Value::from(value));
                let key = Key {
                    name: name.to_owned(),
                    line: item.line,
                    col: item.col,
                };
                entries.insert(
                    0,
                    (
                        key,
                        Node {
                            line: item.line,
                            col: item.col,
                            ..text
                        },
                    ),
                );
            }
        }
    }
    item
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
