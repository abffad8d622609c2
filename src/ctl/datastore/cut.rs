//! A warning before a change that takes the last rule away that lets anything to an endpoint, or that keeps a host from the datastore itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::db::Db;
use crate::api::{
    self, Action, Document, HostEndpoint, Kind, Policy, Profile, Resource, ResourceId, Rule, Spec,
};
use crate::ctl::{Failure, Global, files};
use crate::verdict::{self, Query};

/// Kinds that decide what an endpoint lets in and out.
const KINDS: [Kind; 6] = [
    Kind::HostEndpoint,
    Kind::GlobalNetworkPolicy,
    Kind::Profile,
    Kind::Tier,
    Kind::GlobalNetworkSet,
    Kind::FelixConfiguration,
];
/// Of more hosts than this it is not worked out whether they reach the datastore.
const MAX_HOSTS: usize = 200;
/// The built-in profile that allows everything.
const ALLOW_ALL: &str = "projectcalico-default-allow";

type Resources = BTreeMap<ResourceId, Resource>;

/// Endpoints that something may reach now, and nothing but failsafes after these changes and removals. What is stored and cannot be read
/// counts as nothing: hosts keep their last good version of it.
pub fn check(
    db: &mut Db,
    changed: &[Resource],
    removed: &[ResourceId],
) -> Result<Vec<String>, Failure> {
    let decides = |kind: Kind| KINDS.contains(&kind);
    if !changed.iter().any(|r| decides(r.id.kind)) && !removed.iter().any(|id| decides(id.kind)) {
        return Ok(Vec::new());
    }
    let mut before = Resources::new();
    for kind in KINDS {
        for stored in db.list(kind, None)? {
            let key = stored.key.as_str().into();
            let parsed = api::parse_value(&key, &Document::from(&stored.document));
            before.extend(parsed.resources.into_iter().map(|r| (r.id.clone(), r)));
        }
    }
    let mut after = before.clone();
    after.extend(changed.iter().map(|r| (r.id.clone(), r.clone())));
    removed.iter().for_each(|id| drop(after.remove(id)));
    let mut warnings = cut(&before, &after);
    let hosts: BTreeSet<String> = [&before, &after].into_iter().flat_map(hosts).collect();
    for host in hosts.iter().take(MAX_HOSTS) {
        let lost = |address: &&SocketAddr| {
            reaches(db, &before, host, address) && !reaches(db, &after, host, address)
        };
        if let Some(address) = db.access().addresses().iter().find(lost) {
            warnings.push(format!(
                "{host} could not reach this datastore ({address}) any more: it would keep the policy of then; allow it by policy, or put \"tcp:{}\" into failsafeOutboundHostPorts",
                address.port()
            ));
        }
    }
    Ok(warnings)
}

fn hosts(all: &Resources) -> impl Iterator<Item = String> {
    all.values().filter_map(|resource| match &resource.spec {
        Spec::HostEndpoint(endpoint) => Some(endpoint.node.clone()),
        _ => None,
    })
}

/// Whether all endpoints of a host let it connect to an address; a question that has no answer is none to warn about.
fn reaches(db: &Db, all: &Resources, host: &str, address: &SocketAddr) -> bool {
    let resources: Vec<Resource> = all.values().cloned().collect();
    let global = Global {
        node: Some(host.to_owned()),
        ..db.global().clone()
    };
    let Ok(loaded) = files::settings(&global, &resources) else {
        return true;
    };
    let policy = files::host_policy(&loaded, &resources);
    let is_denied = |resource: &Resource| {
        let query = Query {
            from: resource.id.to_string(),
            to: address.ip().to_string(),
            port: Some(address.port()),
            ..Query::default()
        };
        let answer = verdict::explain(&query, &policy, &resources, None);
        answer.is_ok_and(|answer| answer.verdict == "deny")
    };
    let of_host = |r: &&Resource| matches!(&r.spec, Spec::HostEndpoint(e) if e.node == host);
    !resources.iter().filter(of_host).any(is_denied)
}

/// A direction as an endpoint sees it, and what it is called.
#[derive(Clone, Copy)]
enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }

    fn of_profile(self, profile: &Profile) -> &[Rule] {
        match self {
            Direction::Ingress => &profile.ingress,
            Direction::Egress => &profile.egress,
        }
    }

    /// The rules of a policy, if it applies to this direction.
    fn of_policy(self, policy: &Policy) -> Option<&[Rule]> {
        match self {
            Direction::Ingress => policy.applies_ingress.then_some(&policy.ingress),
            Direction::Egress => policy.applies_egress.then_some(&policy.egress),
        }
    }
}

/// Endpoints of both that lose their only allow rules of a direction, in words.
fn cut(before: &Resources, after: &Resources) -> Vec<String> {
    let mut warnings = Vec::new();
    for (id, old) in before {
        let Some(new) = after.get(id) else { continue };
        let (Spec::HostEndpoint(was), Spec::HostEndpoint(will)) = (&old.spec, &new.spec) else {
            continue;
        };
        for direction in [Direction::Ingress, Direction::Egress] {
            if is_open(direction, old, was, before) && !is_open(direction, new, will, after) {
                warnings.push(format!(
                    "{id} on {} loses its only {} rules that allow anything: only failsafe ports stay open there",
                    will.node,
                    direction.name()
                ));
            }
        }
    }
    warnings
}

/// Whether any rule that applies allows something: a policy's, or a profile's where no policy applies.
fn is_open(
    direction: Direction,
    resource: &Resource,
    endpoint: &HostEndpoint,
    all: &Resources,
) -> bool {
    let profile = |name: &String| match &all.get(&profile_id(name))?.spec {
        Spec::Profile(profile) => Some(Arc::clone(profile)),
        _ => None,
    };
    let profiles: Vec<Arc<Profile>> = endpoint.profiles.iter().filter_map(profile).collect();
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    for profile in &profiles {
        labels.extend(profile.labels.clone());
    }
    labels.extend(resource.meta.labels.clone());
    let rules = |other: &'_ Resource| match &other.spec {
        Spec::Policy(policy) if policy.selector.matches(&labels) => {
            direction.of_policy(policy).map(allows)
        }
        _ => None,
    };
    let policies: Vec<bool> = all.values().filter_map(rules).collect();
    if policies.is_empty() {
        let is_open = endpoint.profiles.iter().any(|name| name == ALLOW_ALL);
        return is_open || profiles.iter().any(|p| allows(direction.of_profile(p)));
    }
    policies.contains(&true)
}

/// What is passed on may be allowed by what follows.
fn allows(rules: &[Rule]) -> bool {
    rules
        .iter()
        .any(|rule| matches!(rule.action, Action::Allow | Action::Pass))
}

fn profile_id(name: &str) -> ResourceId {
    ResourceId {
        kind: Kind::Profile,
        namespace: String::new(),
        name: name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(documents: &str) -> Resources {
        let parsed = api::parse_bytes("t", documents.as_bytes());
        assert!(!parsed.has_errors(), "{:?}", parsed.issues);
        parsed
            .resources
            .into_iter()
            .map(|r| (r.id.clone(), r))
            .collect()
    }

    const ENDPOINT: &str = "{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: e, labels: {role: web}}, spec: {node: h, interfaceName: eth0}}\n---\n";

    fn policy(name: &str, rest: &str) -> String {
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {{name: {name}}}, spec: {{types: [Ingress], {rest}}}}}\n---\n"
        )
    }

    #[test]
    fn the_last_allow_rule() {
        let allow = policy("a", "selector: role == 'web', ingress: [{action: Allow}]");
        let deny = policy("d", "selector: all(), ingress: [{action: Deny}]");
        let both = world(&format!("{ENDPOINT}{allow}{deny}"));
        let less = world(&format!("{ENDPOINT}{deny}"));
        let said = cut(&both, &less);
        assert!(
            said.len() == 1 && said[0].contains("HostEndpoint/e on h"),
            "{said:?}"
        );
        assert!(cut(&less, &both).is_empty() && cut(&less, &less).is_empty());
        let other = policy("o", "selector: has(role), ingress: [{action: Pass}]");
        assert!(cut(&both, &world(&format!("{ENDPOINT}{deny}{other}"))).is_empty());
        // A changed label has the same effect as a removed policy.
        let moved = ENDPOINT.replace("role: web", "role: db");
        assert_eq!(
            cut(&both, &world(&format!("{moved}{allow}{deny}"))).len(),
            1
        );
    }

    #[test]
    fn the_last_allow_rule_of_egress() {
        let out = |name: &str, action: &str| {
            policy(
                name,
                &format!("selector: all(), egress: [{{action: {action}}}]"),
            )
            .replace("types: [Ingress]", "types: [Egress]")
        };
        let both = world(&format!(
            "{ENDPOINT}{}{}",
            out("a", "Allow"),
            out("d", "Deny")
        ));
        let less = world(&format!("{ENDPOINT}{}", out("d", "Deny")));
        let said = cut(&both, &less);
        assert!(
            said.len() == 1 && said[0].contains("only egress rules"),
            "{said:?}"
        );
        assert!(cut(&less, &both).is_empty());
    }

    #[test]
    fn profiles_count_until_a_policy_applies() {
        let endpoint = ENDPOINT.replace(
            "interfaceName",
            "profiles: [projectcalico-default-allow], interfaceName",
        );
        let open = world(&endpoint);
        let deny = policy("d", "selector: all(), ingress: [{action: Deny}]");
        assert_eq!(cut(&open, &world(&format!("{endpoint}{deny}"))).len(), 1);
        let both_ways = deny.replace("[Ingress]", "[Ingress, Egress]");
        let said = cut(&open, &world(&format!("{endpoint}{both_ways}")));
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            cut(
                &open,
                &world(&endpoint.replace(
                    "[projectcalico-default-allow]",
                    "[projectcalico-default-allow, p]"
                ))
            )
            .is_empty()
        );
    }
}
