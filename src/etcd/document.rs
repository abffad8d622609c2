//! Documents as Calico's client writes and shows them (facts 1.1 and 7.2).

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::{keys, shape};
use crate::api::{Kind, Resource};

const TIER_LABEL: &str = "projectcalico.org/tier";
const NAME_ANNOTATION: &str = "projectcalico.org/metadata";
/// The profile that allows everything, which no datastore holds.
pub const DEFAULT_PROFILE: &str = "projectcalico-default-allow";
/// Metadata that only one datastore can know.
const OWN: [&str; 4] = ["uid", "resourceVersion", "creationTimestamp", "generation"];

/// The document of a resource to be stored under this key: new, or in the place of one that is there.
pub fn complete(resource: &Resource, before: Option<&Value>, key: &str) -> Value {
    let given = resource.raw.value();
    let kind = resource.id.kind;
    // Under the key of an old client it has the name that belongs to the key, and nothing that such a client does not know.
    let name = keys::parse(key).map_or_else(|| resource.id.name.clone(), |id| id.name);
    let is_old = name != resource.id.name;
    let mut spec = spec(kind, &given["spec"]);
    let had_tier = before.is_some_and(|b| !b["spec"]["tier"].is_null());
    if is_old
        && !had_tier
        && given["spec"]["tier"].is_null()
        && let Some(spec) = spec.as_object_mut()
    {
        spec.shift_remove("tier");
    }
    let mut document = json!({
        "kind": kind.name(),
        "apiVersion": "projectcalico.org/v3",
        "metadata": metadata(resource, &given["metadata"], before, &name, &spec),
        "spec": spec,
    });
    let status = match (given.get("status"), kind) {
        (Some(status), _) => status.clone(),
        // These two always have one.
        (None, Kind::Node) => json!({}),
        (None, Kind::KubeControllersConfiguration) => json!({"runningConfig": {"controllers": {}}}),
        _ => return document,
    };
    document["status"] = status;
    document
}

fn metadata(
    resource: &Resource,
    given: &Value,
    before: Option<&Value>,
    name: &str,
    spec: &Value,
) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".into(), name.into());
    if !resource.id.namespace.is_empty() {
        metadata.insert("namespace".into(), resource.id.namespace.clone().into());
    }
    let known = |field: &str| {
        before
            .map(|b| b["metadata"][field].clone())
            .filter(|v| !v.is_null())
    };
    metadata.insert("uid".into(), known("uid").unwrap_or_else(|| uid().into()));
    let created = known("creationTimestamp").unwrap_or_else(|| now().into());
    metadata.insert("creationTimestamp".into(), created);
    let policy = is_policy(resource.id.kind);
    let mut labels = given["labels"].as_object().cloned().unwrap_or_default();
    let mut annotations = given["annotations"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    if resource.id.kind == Kind::WorkloadEndpoint {
        for (label, value) in [
            ("projectcalico.org/namespace", json!(resource.id.namespace)),
            (
                "projectcalico.org/orchestrator",
                spec["orchestrator"].clone(),
            ),
        ] {
            labels.insert(label.into(), value);
        }
    }
    if policy && let Some(tier) = spec.get("tier") {
        labels.insert(TIER_LABEL.into(), tier.clone());
    }
    if policy && name == resource.id.name {
        let noted = json!({"name": resource.id.name}).to_string();
        annotations.insert(NAME_ANNOTATION.into(), noted.into());
    }
    for (field, mut map) in [("labels", labels), ("annotations", annotations)] {
        // No text is an empty one.
        map.values_mut()
            .filter(|value| value.is_null())
            .for_each(|value| *value = "".into());
        if !map.is_empty() {
            metadata.insert(field.into(), shape::sorted(&map));
        }
    }
    // Nothing else of what is given becomes part of it, and nothing else of what is there is lost.
    let held = before.and_then(|b| b["metadata"].as_object());
    let is_changeable = |field: &str| ["labels", "annotations", "resourceVersion"].contains(&field);
    for (field, value) in held.into_iter().flatten() {
        if !is_changeable(field) && !metadata.contains_key(field) {
            metadata.insert(field.clone(), value.clone());
        }
    }
    metadata.into()
}

/// With the defaults that Calico's client fills in.
fn spec(kind: Kind, given: &Value) -> Value {
    let mut spec = given.as_object().cloned().unwrap_or_default();
    let cidr = given["cidr"].as_str().and_then(|text| text.parse().ok());
    if let Some::<ipnet::IpNet>(cidr) = cidr.filter(|_| kind == Kind::IPPool) {
        // However it is written, it is stored in one way.
        spec.insert("cidr".to_owned(), cidr.to_string().into());
    }
    // What is empty counts as not given, but not where Calico tells the two apart.
    let is_told_apart = kind == Kind::FelixConfiguration;
    let is_empty = |value: &Value| !is_told_apart && (*value == "" || *value == json!([]));
    let mut default = |field: &str, value: Value| {
        if spec.get(field).is_none_or(|v| v.is_null() || is_empty(v)) {
            spec.insert(field.to_owned(), value);
        }
    };
    match kind {
        kind if is_policy(kind) => {
            default("tier", "default".into());
            let has = |field: &str| {
                given[field]
                    .as_array()
                    .is_some_and(|rules| !rules.is_empty())
            };
            let types = match (has("ingress"), has("egress")) {
                (false, true) => json!(["Egress"]),
                (true, true) => json!(["Ingress", "Egress"]),
                (_, false) => json!(["Ingress"]),
            };
            default("types", types);
        }
        Kind::IPPool => {
            let is_v6 = given["cidr"]
                .as_str()
                .is_some_and(|cidr| cidr.contains(':'));
            default("vxlanMode", "Never".into());
            default("ipipMode", "Never".into());
            default("blockSize", if is_v6 { 122 } else { 26 }.into());
            default("nodeSelector", "all()".into());
            default("allowedUses", json!(["Workload", "Tunnel"]));
            default("assignmentMode", "Automatic".into());
        }
        Kind::Tier => {
            default("order", 1_000_000.into());
            default("defaultAction", "Deny".into());
        }
        Kind::KubeControllersConfiguration => {
            default("prometheusMetricsPort", 9094.into());
            if let Some(Value::Object(node)) = spec.get_mut("controllers").map(|c| &mut c["node"]) {
                let period = node.entry("leakGracePeriod");
                period.or_insert_with(|| "15m".into());
            }
        }
        Kind::FelixConfiguration => {
            default("floatingIPs", "Disabled".into());
            // The field of before says both.
            let (balancing, others) = match given["bpfConnectTimeLoadBalancingEnabled"].as_bool() {
                Some(true) => ("Enabled", "Disabled"),
                _ => ("TCP", "Enabled"),
            };
            default("bpfConnectTimeLoadBalancing", balancing.into());
            default("bpfHostNetworkedNATWithoutCTLB", others.into());
        }
        _ => {}
    }
    shape::arrange(kind, &spec.into())
}

/// A stored document as it is shown: with its revision, and a policy under the name that its author gave it.
pub fn shown(mut document: Value, revision: i64) -> Value {
    let Some(kind) = document["kind"].as_str().and_then(Kind::from_document) else {
        return document;
    };
    let tier = document["spec"]["tier"]
        .as_str()
        .unwrap_or("default")
        .to_owned();
    let Some(metadata) = document["metadata"].as_object_mut() else {
        return document;
    };
    // Some clients store one, which says nothing.
    metadata.shift_remove("resourceVersion");
    let place = metadata.keys().position(|field| field == "uid");
    let place = place.map_or(metadata.len(), |place| place + 1);
    metadata.shift_insert(place, "resourceVersion".into(), revision.to_string().into());
    if is_policy(kind) {
        let noted = noted_name(metadata);
        let name = metadata["name"].as_str().unwrap_or_default();
        let trimmed = name.strip_prefix("default.").filter(|_| tier == "default");
        let name = noted.unwrap_or_else(|| trimmed.unwrap_or(name).to_owned());
        metadata.insert("name".into(), name.into());
    }
    document
}

/// The name in the annotation, which is taken out.
fn noted_name(metadata: &mut Map<String, Value>) -> Option<String> {
    let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
    let noted = annotations.shift_remove(NAME_ANNOTATION)?;
    if annotations.is_empty() {
        metadata.shift_remove("annotations");
    }
    let noted: Value = serde_json::from_str(noted.as_str()?).ok()?;
    Some(noted["name"].as_str()?.to_owned())
}

/// Without what belongs to one datastore only, to be applied to another one.
pub fn exported(mut document: Value) -> Value {
    if let Some(metadata) = document["metadata"].as_object_mut() {
        OWN.iter()
            .for_each(|field| drop(metadata.shift_remove(*field)));
    }
    document
}

/// The profile that every datastore has without holding it.
pub fn default_profile() -> Value {
    let allow = json!([{"action": "Allow", "source": {}, "destination": {}}]);
    json!({
        "kind": Kind::Profile.name(), "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": DEFAULT_PROFILE, "resourceVersion": "1", "creationTimestamp": null},
        "spec": {"ingress": allow, "egress": allow},
    })
}

/// Whether policy rules have names that old clients changed.
pub fn is_policy(kind: Kind) -> bool {
    use Kind::*;
    matches!(
        kind,
        GlobalNetworkPolicy | NetworkPolicy | StagedGlobalNetworkPolicy | StagedNetworkPolicy
    )
}

fn uid() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid");
    text.map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}
