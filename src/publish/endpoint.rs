//! The HostEndpoint that a host writes about itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::api::{self, Kind, ResourceId};
use crate::dataplane::links::Links;
use crate::etcd::{document, keys, shape};

/// Says who made an endpoint, as Calico's own automatic endpoints say.
const CREATED_BY: &str = "projectcalico.org/created-by";
const US: &str = "moat";
/// An annotation with the names of the labels that are of the settings, so that they go when they are no longer there.
const OWN_LABELS: &str = "moat/labels";
/// Until a policy selects the endpoint, everything is allowed.
const PROFILE: &str = "projectcalico-default-allow";

/// What the endpoint shall say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Labels of the settings.
    pub labels: BTreeMap<String, String>,
    /// Addresses of this host.
    pub addresses: BTreeSet<IpAddr>,
}

impl Registration {
    /// From settings and interfaces: addresses that others can reach, on interfaces that are not of workloads.
    pub fn new(labels: &[String], links: &Links, workloads: &[String]) -> Registration {
        let label = |text: &String| {
            let (key, value) = text.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        };
        let is_own = |name: &str| {
            !workloads
                .iter()
                .any(|prefix| name.starts_with(prefix.as_str()))
        };
        let own = links.iter().filter(|(name, _)| is_own(name));
        let addresses = own.flat_map(|(_, link)| &link.addresses).copied();
        Registration {
            labels: labels.iter().filter_map(label).collect(),
            addresses: addresses.filter(is_reachable).collect(),
        }
    }

    /// The document to be stored in place of one that is there, or none if nothing is to be written.
    ///
    /// # Errors
    /// The one that is there was made by somebody else.
    pub fn document(&self, host: &str, before: Option<&Value>) -> Result<Option<Value>, String> {
        if before.is_some_and(|before| before["metadata"]["labels"][CREATED_BY] != US) {
            return Err(format!(
                "HostEndpoint {host} exists and was not made by moat: it stays as it is (registerHostEndpoint)"
            ));
        }
        let held = |field: &str| {
            let map = before.and_then(|b| b["metadata"][field].as_object());
            map.cloned().unwrap_or_default()
        };
        let (mut labels, mut annotations) = (held("labels"), held("annotations"));
        let own = annotations
            .get(OWN_LABELS)
            .and_then(Value::as_str)
            .unwrap_or_default();
        labels.retain(|name, _| !own.split(',').any(|own| own == name));
        labels.insert(CREATED_BY.into(), US.into());
        for (key, value) in &self.labels {
            labels.insert(key.clone(), value.as_str().into());
        }
        let own: Vec<&str> = self.labels.keys().map(String::as_str).collect();
        annotations.insert(OWN_LABELS.into(), own.join(",").into());
        let (labels, annotations) = (shape::sorted(&labels), shape::sorted(&annotations));
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let spec = before.map(|b| b["spec"].clone()).filter(Value::is_object);
        let mut spec = spec.unwrap_or_else(|| json!({"node": host, "interfaceName": "*"}));
        spec["expectedIPs"] = json!(addresses);
        if before.is_none() {
            spec["profiles"] = json!([PROFILE]);
        }
        let spec = shape::arrange(Kind::HostEndpoint, &spec);
        if let Some(before) = before
            && before["spec"] == spec
            && before["metadata"]["labels"] == labels
            && before["metadata"]["annotations"] == annotations
        {
            return Ok(None);
        }
        let given = json!({
            "kind": "HostEndpoint", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": host, "labels": labels, "annotations": annotations}, "spec": spec,
        });
        let parsed = api::parse_bytes("registerHostEndpoint", given.to_string().as_bytes());
        match parsed.resources.first() {
            Some(resource) if !parsed.has_errors() => {
                let key = keys::key(&resource.id);
                Ok(Some(document::complete(resource, before, &key)))
            }
            _ => {
                let issues: Vec<String> = parsed.issues.iter().map(ToString::to_string).collect();
                Err(format!(
                    "HostEndpoint {host} cannot be registered: {}",
                    issues.join("; ")
                ))
            }
        }
    }
}

/// The name of the resource.
pub fn id(host: &str) -> ResourceId {
    ResourceId {
        kind: Kind::HostEndpoint,
        namespace: String::new(),
        name: host.to_owned(),
    }
}

fn is_reachable(address: &IpAddr) -> bool {
    !address.is_loopback()
        && match address {
            IpAddr::V4(v4) => !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::links::Link;

    fn links() -> Links {
        let link = |name: &str, addresses: &[&str]| {
            let addresses = addresses.iter().map(|a| a.parse().unwrap());
            let link = Link {
                name: name.to_owned(),
                up: true,
                addresses: addresses.collect(),
            };
            (name.to_owned(), link)
        };
        [
            link("lo", &["127.0.0.1", "::1"]),
            link("eth0", &["10.0.0.5", "fe80::1", "fd00::5", "169.254.1.1"]),
            link("cali1", &["192.168.0.1"]),
        ]
        .into()
    }

    fn registration(labels: &[&str]) -> Registration {
        let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
        Registration::new(&labels, &links(), &["cali".to_owned()])
    }

    #[test]
    fn a_new_endpoint() {
        let made = registration(&["role=web"])
            .document("h1", None)
            .unwrap()
            .unwrap();
        assert_eq!(
            made["spec"],
            json!({"node": "h1", "interfaceName": "*", "expectedIPs": ["10.0.0.5", "fd00::5"], "profiles": [PROFILE]})
        );
        assert_eq!(
            made["metadata"]["labels"],
            json!({"projectcalico.org/created-by": "moat", "role": "web"})
        );
        assert_eq!(
            registration(&["role=web"]).document("h1", Some(&made)),
            Ok(None)
        );
    }

    #[test]
    fn what_others_changed_stays() {
        let mut held = registration(&["role=web"])
            .document("h1", None)
            .unwrap()
            .unwrap();
        held["metadata"]["labels"]["zone"] = "a".into();
        held["spec"]["profiles"] = json!([]);
        held["spec"]["expectedIPs"] = json!(["10.9.9.9"]);
        let made = registration(&["role=db"])
            .document("h1", Some(&held))
            .unwrap()
            .unwrap();
        assert_eq!(
            made["metadata"]["labels"],
            json!({"projectcalico.org/created-by": "moat", "role": "db", "zone": "a"})
        );
        // As Calico writes an empty list: not at all.
        assert_eq!(made["spec"].get("profiles"), None);
        assert_eq!(made["spec"]["expectedIPs"], json!(["10.0.0.5", "fd00::5"]));
        assert_eq!(made["metadata"]["uid"], held["metadata"]["uid"]);
        // A label that the settings no longer have goes, and only such a one.
        let less = registration(&[])
            .document("h1", Some(&made))
            .unwrap()
            .unwrap();
        assert_eq!(
            less["metadata"]["labels"],
            json!({"projectcalico.org/created-by": "moat", "zone": "a"})
        );
    }

    #[test]
    fn one_that_is_nonsense_is_made_anew() {
        let held = json!({"kind": "HostEndpoint", "metadata": {"name": "h1", "labels": {CREATED_BY: US}}, "spec": "x"});
        let made = registration(&[])
            .document("h1", Some(&held))
            .unwrap()
            .unwrap();
        assert_eq!(made["spec"]["interfaceName"], "*");
        for held in [
            json!("x"),
            json!([]),
            json!({"metadata": 1}),
            json!({"metadata": {"labels": []}}),
        ] {
            assert!(
                registration(&[]).document("h1", Some(&held)).is_err(),
                "{held}"
            );
        }
    }

    #[test]
    fn an_endpoint_of_somebody_else_is_left_alone() {
        let other = json!({"kind": "HostEndpoint", "metadata": {"name": "h1"}, "spec": {"node": "h1", "interfaceName": "eth0"}});
        let refused = registration(&[]).document("h1", Some(&other)).unwrap_err();
        assert!(refused.contains("not made by moat"), "{refused}");
    }
}
