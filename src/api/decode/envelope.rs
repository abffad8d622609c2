//! What all kinds share: version, kind, metadata, and the name that a resource really has (facts 1.1).

use std::collections::BTreeMap;

use super::at::{At, Fields, Message};
use super::schema::{self, Ty};
use super::{names, quoted, read};
use crate::api::issue::did_you_mean;
use crate::api::types::{Kind, Metadata, ResourceId};
use crate::api::yaml::{Key, Node, Value};

/// The only version there is.
pub const API_VERSION: &str = "projectcalico.org/v3";
/// Namespace of a namespaced resource that gives none.
const DEFAULT_NAMESPACE: &str = "default";
/// Tier of a policy that gives none, whose name old clients put before policy names.
pub const DEFAULT_TIER: &str = "default";
/// Annotation in which Calico keeps the name that the user gave a policy.
const NAME_ANNOTATION: &str = "projectcalico.org/metadata";
/// Most bytes of all annotations of a resource.
const MAX_ANNOTATIONS: usize = 256 << 10;
/// The profile that every Calico has without a document.
const BUILT_IN_PROFILE: &str = "projectcalico-default-allow";
/// The label by which endpoints belong to a namespace.
const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
/// The label by which endpoints belong to a service account.
const SERVICE_ACCOUNT_LABEL: &str = "projectcalico.org/serviceaccount";

/// Fields that Kubernetes keeps in metadata. They are accepted and have no effect on policy.
const KUBERNETES: [(&str, Ty); 10] = [
    ("uid", Ty::Text),
    ("generateName", Ty::Text),
    ("generation", Ty::Int(0, i64::MAX)),
    ("deletionTimestamp", Ty::Text),
    ("deletionGracePeriodSeconds", Ty::Int(0, i64::MAX)),
    ("selfLink", Ty::Text),
    ("managedFields", Ty::List(&Ty::Any)),
    ("ownerReferences", Ty::List(&Ty::Any)),
    ("finalizers", Ty::List(&Ty::Text)),
    ("clusterName", Ty::Text),
];

/// `apiVersion` of a resource.
pub fn api_version(at: &At<'_>) -> Option<()> {
    if read::borrowed(at)? == API_VERSION {
        return Some(());
    }
    at.error(Message::with(
        "is not an API version that moat knows",
        format!("write {API_VERSION}"),
    ))
}

/// `kind` of a resource.
pub fn kind(at: &At<'_>) -> Option<Kind> {
    let text = read::borrowed(at)?;
    Kind::from_document(text).or_else(|| {
        at.error(Message::with(
            "unknown kind",
            did_you_mean(text, Kind::all().map(Kind::name)),
        ))
    })
}

/// Calls `decode` with `spec`, or with an empty mapping where the document has none.
pub fn with_spec<T>(fields: &Fields<'_>, decode: impl FnOnce(&At<'_>) -> Option<T>) -> Option<T> {
    match fields.get("spec") {
        Some(at) => decode(&at),
        None => {
            let node = Node {
                line: fields.at.node.line,
                col: fields.at.node.col,
                value: Value::Map(Vec::new()),
            };
            decode(&fields.at.entry("spec", &node))
        }
    }
}

fn is_policy(kind: Kind) -> bool {
    use Kind::*;
    matches!(
        kind,
        GlobalNetworkPolicy | NetworkPolicy | StagedGlobalNetworkPolicy | StagedNetworkPolicy
    )
}

/// The identity of a document as far as it can be told and shown, without complaining about anything.
pub fn identify(kind: Kind, document: &Node) -> Option<ResourceId> {
    const LONGEST: usize = 253;
    let shown = |text: &str| text.len() <= LONGEST && text.bytes().all(|b| b.is_ascii_graphic());
    identity(kind, document).filter(|id| shown(&id.name) && shown(&id.namespace))
}

fn identity(kind: Kind, document: &Node) -> Option<ResourceId> {
    let meta = document.get("metadata")?;
    let spec = document.get("spec");
    let namespace = match kind.is_namespaced() {
        true => entry(meta, "namespace").unwrap_or(DEFAULT_NAMESPACE),
        false => "",
    };
    let derived = || match kind {
        Kind::WorkloadEndpoint => super::endpoint::derived_name(spec?),
        _ => None,
    };
    let mut name = entry(meta, "name").map(str::to_owned).or_else(derived)?;
    if is_policy(kind) {
        let tier = spec.and_then(|spec| entry(spec, "tier"));
        name = effective_name(meta, tier.unwrap_or(DEFAULT_TIER), name);
    }
    Some(ResourceId {
        kind,
        namespace: namespace.to_owned(),
        name,
    })
}

/// The text of an entry, unless it is empty.
fn entry<'a>(node: &'a Node, name: &str) -> Option<&'a str> {
    let text = node.get(name).and_then(Node::text);
    text.filter(|text| !text.is_empty())
}

/// The name of a policy as its author knows it, without what old clients put before it.
fn effective_name(meta: &Node, tier: &str, name: String) -> String {
    let annotations = meta.get("annotations");
    let noted = annotations.and_then(|a| entry(a, NAME_ANNOTATION));
    if let Some(Ok(Some(noted))) = noted.map(noted_name) {
        return noted;
    }
    match name.strip_prefix("default.") {
        Some(rest) if tier == DEFAULT_TIER => rest.to_owned(),
        _ => name,
    }
}

/// The name in the annotation; `None` when it says nothing about the name.
fn noted_name(json: &str) -> Result<Option<String>, Message> {
    let object: serde_json::Value = serde_json::from_str(json).map_err(|_| "is not JSON")?;
    let object = object.as_object().ok_or("must be a JSON object")?;
    match object.get("name") {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(serde_json::Value::String(name)) => {
            Ok(Some(name.clone()).filter(|name| !name.is_empty()))
        }
        Some(_) => Err("the name in it must be text".into()),
    }
}

/// `metadata`.
pub fn metadata(document: &Fields<'_>, kind: Kind) -> Option<Metadata> {
    document.required("metadata", |at| {
        let fields = Fields::of(at)?;
        match fields.get("name") {
            Some(at) => name(&at, kind, document.at.node.get("spec")),
            None if kind == Kind::WorkloadEndpoint
                && identify(kind, document.at.node).is_some() => {}
            None => fields.missing_because("name", "is required"),
        }
        fields.opt("namespace", |at| namespace(at, kind));
        let labels = fields
            .opt("labels", |at| labels(at, kind))
            .unwrap_or_default();
        let annotations = fields
            .opt("annotations", |at| annotations(at, kind))
            .unwrap_or_default();
        let created = fields
            .opt("creationTimestamp", read::text)
            .unwrap_or_default();
        let version = fields
            .opt("resourceVersion", read::text)
            .unwrap_or_default();
        for (name, ty) in &KUBERNETES {
            fields.opt(name, |at| schema::check(at, ty));
        }
        fields.finish();
        Some(Metadata {
            labels,
            annotations,
            created,
            version,
        })
    })
}

/// The rule for names of that kind.
fn name_rule(kind: Kind) -> fn(&str) -> Result<(), Message> {
    match kind {
        Kind::Tier => names::dns_label,
        Kind::GlobalNetworkPolicy | Kind::StagedGlobalNetworkPolicy => names::global_policy,
        Kind::NetworkPolicy | Kind::StagedNetworkPolicy => names::namespaced_policy,
        _ => names::subdomain,
    }
}

fn name(at: &At<'_>, kind: Kind, spec: Option<&Node>) {
    let Some(name) = read::valid(at, name_rule(kind)) else {
        return;
    };
    let is_built_in = kind == Kind::Profile && name == BUILT_IN_PROFILE;
    if is_built_in && !spec.is_some_and(allows_everything) {
        at.complain("this profile is built in and allows everything; it cannot be defined");
    }
}

/// Whether it says what the built-in profile means anyway, as in a list of all profiles that calicoctl printed.
fn allows_everything(spec: &Node) -> bool {
    let is_allow = |rule: &Node| {
        let entries = rule.entries().unwrap_or_default();
        let is_plain = |(key, value): &(Key<'_>, Node<'_>)| match &*key.name {
            "action" => value.text() == Some("Allow"),
            "source" | "destination" => value.entries().is_some_and(<[_]>::is_empty),
            _ => false,
        };
        rule.get("action").is_some() && entries.iter().all(is_plain)
    };
    let allows = |field: &str| match spec.get(field).map(Node::items) {
        Some([rule]) => is_allow(rule),
        _ => false,
    };
    spec.entries().is_some_and(|all| all.len() == 2) && allows("ingress") && allows("egress")
}

fn namespace(at: &At<'_>, kind: Kind) -> Option<()> {
    if !kind.is_namespaced() {
        return at.error(Message::with(
            format!("a {kind} has no namespace"),
            "remove the field".to_owned(),
        ));
    }
    read::valid(at, names::dns_label).map(drop)
}

/// Labels, without those that would make an endpoint pass for something else.
fn labels(at: &At<'_>, kind: Kind) -> Option<BTreeMap<String, String>> {
    let mut labels = read::labels(at)?;
    for (key, node) in at.entries()? {
        let inherited = key.name.starts_with("pcns.") || key.name.starts_with("pcsa.");
        let identity = key.name == NAMESPACE_LABEL || key.name == SERVICE_ACCOUNT_LABEL;
        let entry = at.entry(&key.name, node);
        match kind {
            Kind::HostEndpoint if inherited || identity => {
                entry.warn("a host endpoint may not pass for a pod: the label is ignored");
                labels.remove(&*key.name);
            }
            Kind::WorkloadEndpoint if inherited => {
                entry.warn("only profiles give labels of this form: the label is ignored");
                labels.remove(&*key.name);
            }
            Kind::NetworkSet | Kind::GlobalNetworkSet if key.name == NAMESPACE_LABEL => {
                entry.complain("a network set may not carry this label");
            }
            _ => {}
        }
    }
    Some(labels)
}

fn annotations(at: &At<'_>, kind: Kind) -> Option<BTreeMap<String, String>> {
    let mut annotations = read::text_map(at)?;
    for (key, node) in at.entries()? {
        if let Err(message) = names::label_key(&key.name.to_ascii_lowercase()) {
            at.entry(&key.name, node).complain_key(key, message);
        }
    }
    let bytes: usize = annotations
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if bytes > MAX_ANNOTATIONS {
        return at.error(format!(
            "annotations have {bytes} bytes, at most {MAX_ANNOTATIONS} are allowed"
        ));
    }
    if is_policy(kind)
        && let Some(json) = annotations.remove(NAME_ANNOTATION)
        && let Some(node) = at.node.get(NAME_ANNOTATION)
    {
        let checked = noted_name(&json).and_then(|name| match name {
            Some(name) => name_rule(kind)(&name).map_err(|e| {
                Message::with(
                    format!("the name {} in it {}", quoted(&name), e.message),
                    e.help,
                )
            }),
            None => Ok(()),
        });
        if let Err(message) = checked {
            at.entry(NAME_ANNOTATION, node).complain(message);
        }
    }
    Some(annotations)
}
