//! `moatctl datastore migrate export`.

use serde_json::{Map, Value, json};

use super::{OTHERS, SEPARATOR, information};
use crate::api::{Kind, to_yaml};
use crate::ctl::datastore::change::CLUSTER_TIERS;
use crate::ctl::datastore::db::Db;
use crate::ctl::datastore::read::{export, sorted};
use crate::ctl::{EX_NO, EX_OK, Failure, Outcome, output};
use crate::etcd::keys;

/// The kinds of the first part: what others refer to comes first. calicoctl knows no tiers in an export; it can take them if there are any.
const KINDS: [Kind; 14] = [
    Kind::Tier,
    Kind::IPPool,
    Kind::BGPPeer,
    Kind::GlobalNetworkPolicy,
    Kind::GlobalNetworkSet,
    Kind::HostEndpoint,
    Kind::KubeControllersConfiguration,
    Kind::NetworkPolicy,
    Kind::NetworkSet,
    Kind::Node,
    Kind::BGPConfiguration,
    Kind::FelixConfiguration,
    Kind::IPReservation,
    Kind::BGPFilter,
];
/// Copies of Kubernetes' policies, which a cluster makes itself.
const COPIES: &str = "knp.default.";

/// Prints all that the datastore holds.
pub fn run(db: &mut Db) -> Outcome {
    let Some(information) = information(db)? else {
        let text = "Error while checking if datastore was locked: Error retrieving ClusterInformation: resource does not exist: ClusterInformation(default)";
        return Err(Failure::new(EX_NO, text));
    };
    if information.document["spec"]["datastoreReady"] != false {
        let text = "the datastore is not locked (`moatctl datastore migrate lock`): what others write meanwhile may be missing";
        eprintln!("moatctl: warning: {text}");
    }
    let (mut text, others) = resources(db)?;
    let mut addresses = addresses(db)?;
    if !others.is_empty() {
        addresses.insert(OTHERS.to_owned(), others.into());
    }
    for part in [information.document, addresses.into()] {
        let part = serde_json::to_string_pretty(&part).unwrap_or_default();
        text += &format!("{SEPARATOR}{part}\n");
    }
    output::print_raw(&text)?;
    Ok(EX_OK)
}

/// The first part, and the resources that are not in it.
fn resources(db: &mut Db) -> Result<(String, Vec<Value>), Failure> {
    let (mut text, mut others) = (String::new(), Vec::new());
    for kind in KINDS {
        let mut items = list(db, kind)?;
        others.extend(items.extract_if(.., |item| is_other(kind, item)));
        if kind == Kind::Tier && items.is_empty() {
            continue;
        }
        let list = json!({
            "kind": format!("{kind}List"), "apiVersion": "projectcalico.org/v3", "items": items,
            "metadata": {"resourceVersion": db.seen().to_string()},
        });
        text += &format!("{}---\n", to_yaml(&sorted(&list)));
    }
    let is_left = |kind: &Kind| !KINDS.contains(kind) && *kind != Kind::ClusterInformation;
    for kind in Kind::all().filter(is_left) {
        others.extend(list(db, kind)?);
    }
    Ok((text, others))
}

fn list(db: &mut Db, kind: Kind) -> Result<Vec<Value>, Failure> {
    let mut items: Vec<Value> = db
        .list(kind, None)?
        .into_iter()
        .map(|s| s.document)
        .collect();
    items.iter_mut().for_each(export);
    Ok(items)
}

/// What every cluster makes itself.
fn is_other(kind: Kind, item: &Value) -> bool {
    let name = item["metadata"]["name"].as_str().unwrap_or_default();
    match kind {
        Kind::Tier => CLUSTER_TIERS.iter().any(|tier| tier.0 == name),
        Kind::NetworkPolicy => name.starts_with(COPIES),
        _ => false,
    }
}

/// The keys of address management, as calicoctl sorts them.
fn addresses(db: &mut Db) -> Result<Map<String, Value>, Failure> {
    let mut parts = Map::new();
    for found in db.scan(keys::IPAM)? {
        let key = String::from_utf8_lossy(&found.key).into_owned();
        let value: Value = serde_json::from_slice(&found.value)
            .map_err(|e| Failure::new(EX_NO, format!("{key} holds no JSON: {e}")))?;
        let place = key.strip_prefix(keys::IPAM).unwrap_or(&key);
        let part = match place.split('/').next() {
            Some("host") => "block_affinities",
            Some("assignment") => "blocks",
            Some("handle") => "handles",
            _ => "config",
        };
        let entry = json!({"Key": key, "Value": value, "TTL": 0});
        match (part, parts.get_mut(part)) {
            ("config", _) => drop(parts.insert(part.to_owned(), entry)),
            (_, Some(Value::Array(entries))) => entries.push(entry),
            _ => drop(parts.insert(part.to_owned(), json!([entry]))),
        }
    }
    Ok(parts)
}
