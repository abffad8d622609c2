//! Warnings that need more than one resource: where users get hurt although every file is valid.

use std::collections::{BTreeMap, BTreeSet};

use super::effective::{policy_selector, side_selectors};
use super::endpoints;
use super::index::{LabelIndex, LabelMap};
use super::model::{Direction, HostPolicy, TierBlock};
use super::rules::DEFAULT_ALLOW;
use crate::api::{Entity, Issue, Kind, Policy, Port, Protocol, Resource, Rule, Severity, Spec};
use crate::selector::Selector;

/// What is worth a warning whatever host the resources are read on.
pub fn lint_resources(resources: &[Resource]) -> Vec<Issue> {
    let mut holders = Holders::of(resources);
    let mut issues = Vec::new();
    for resource in resources {
        if let Spec::Policy(spec) = &resource.spec {
            lint_policy(resource, spec, &mut holders, &mut issues);
        }
    }
    issues
}

/// What is worth a warning about the endpoints of one host.
pub fn lint_host(resources: &[Resource], policy: &HostPolicy) -> Vec<Issue> {
    let mut issues = Vec::new();
    let profiles = names(resources, Kind::Profile);
    for resource in resources {
        lint_endpoint(resource, &profiles, policy, &mut issues);
    }
    issues
}

/// Names of the resources of a kind that has no namespaces.
fn names(resources: &[Resource], kind: Kind) -> BTreeSet<&str> {
    let of_kind = resources.iter().filter(|r| r.id.kind == kind);
    of_kind.map(|r| r.id.name.as_str()).collect()
}

/// Things with labels, and what is known of the selectors that were tried on them.
#[derive(Default)]
struct Labelled {
    labels: Vec<LabelMap>,
    index: LabelIndex<usize>,
    tried: BTreeMap<String, bool>,
}

impl Labelled {
    fn add(&mut self, labels: LabelMap) {
        self.index.insert(&self.labels.len(), &labels);
        self.labels.push(labels);
    }

    fn has_match(&mut self, selector: &Selector) -> bool {
        if let Some(known) = self.tried.get(selector.canonical()) {
            return *known;
        }
        let labels = &self.labels;
        let found = self
            .index
            .any(selector, |i| selector.matches(&labels[*i]))
            .unwrap_or_else(|| labels.iter().any(|l| selector.matches(l)));
        self.tried.insert(selector.canonical().to_owned(), found);
        found
    }
}

/// What policies and rules refer to.
struct Holders<'a> {
    tiers: BTreeSet<&'a str>,
    endpoints: Labelled,
    /// Endpoints and network sets: everything that rules can select.
    all: Labelled,
    /// Named ports of endpoints that have addresses; without one a port is nowhere.
    ports: BTreeSet<(String, Protocol)>,
}

impl Holders<'_> {
    fn of(resources: &[Resource]) -> Holders<'_> {
        let by_id = resources
            .iter()
            .map(|r| (r.id.clone(), r.clone()))
            .collect();
        let mut holders = Holders {
            tiers: names(resources, Kind::Tier),
            endpoints: Labelled::default(),
            all: Labelled::default(),
            ports: BTreeSet::new(),
        };
        for resource in resources {
            let is_endpoint = matches!(
                resource.spec,
                Spec::HostEndpoint(_) | Spec::WorkloadEndpoint(_)
            );
            if is_endpoint || matches!(resource.spec, Spec::NetworkSet(_)) {
                let labels =
                    endpoints::labels(resource, |name| endpoints::profile_labels(&by_id, name));
                if is_endpoint {
                    holders.endpoints.add(labels.clone());
                    holders.add_ports(resource);
                }
                holders.all.add(labels);
            }
        }
        holders
    }

    fn add_ports(&mut self, resource: &Resource) {
        let (nets, ports) = endpoints::contribution(resource);
        if !nets.is_empty() {
            self.ports
                .extend(ports.into_iter().map(|p| (p.name, p.protocol)));
        }
    }

    fn has_port(&self, name: &str, protocol: Option<Protocol>) -> bool {
        self.ports
            .iter()
            .any(|(n, p)| n == name && protocol.is_none_or(|wanted| wanted == *p))
    }
}

fn lint_policy(
    resource: &Resource,
    policy: &Policy,
    holders: &mut Holders<'_>,
    issues: &mut Vec<Issue>,
) {
    let is_predefined = matches!(
        policy.tier.as_str(),
        "default" | "kube-admin" | "kube-baseline"
    );
    if !is_predefined && !holders.tiers.contains(policy.tier.as_str()) {
        let message = "no such tier: the policy is enforced after all tiers, and what it does not decide is denied";
        issues.push(warn(
            resource,
            resource.origin.line,
            "spec.tier",
            Some(&policy.tier),
            message,
        ));
    }
    let selector = policy_selector(&resource.id, policy);
    if !holders.endpoints.has_match(&selector) {
        let value = Some(selector.canonical());
        issues.push(warn(
            resource,
            resource.origin.line,
            "spec.selector",
            value,
            "selects no endpoint in these files",
        ));
    }
    for (list, direction) in [(&policy.ingress, "ingress"), (&policy.egress, "egress")] {
        for (i, rule) in list.iter().enumerate() {
            for (side, name) in [(&rule.source, "source"), (&rule.destination, "destination")] {
                let path = format!("spec.{direction}[{i}].{name}");
                lint_side(resource, rule, side, &path, holders, issues);
            }
        }
    }
}

fn lint_side(
    resource: &Resource,
    rule: &Rule,
    side: &Entity,
    path: &str,
    holders: &mut Holders<'_>,
    issues: &mut Vec<Issue>,
) {
    let positive = side_selectors(&resource.id, side).positive;
    if let Some(selector) = positive.filter(|s| !holders.all.has_match(s)) {
        let message = "selects no endpoint and no network set: the rule matches nothing";
        issues.push(warn(
            resource,
            rule.line,
            path,
            Some(selector.canonical()),
            message,
        ));
    }
    for (ports, field) in [(&side.ports, "ports"), (&side.not_ports, "notPorts")] {
        for name in ports.iter().filter_map(named) {
            if !holders.has_port(name, rule.protocol) {
                let message = "no endpoint with addresses has a port of this name and protocol: it has no effect";
                let path = format!("{path}.{field}");
                issues.push(warn(resource, rule.line, &path, Some(name), message));
            }
        }
    }
}

fn named(port: &Port) -> Option<&str> {
    match port {
        Port::Named(name) => Some(name),
        Port::Range(_) => None,
    }
}

fn lint_endpoint(
    resource: &Resource,
    known_profiles: &BTreeSet<&str>,
    policy: &HostPolicy,
    issues: &mut Vec<Issue>,
) {
    let line = resource.origin.line;
    let is_local = endpoints::node(resource) == Some(policy.node.as_str());
    if !is_local {
        return;
    }
    for name in endpoints::profiles(resource) {
        let exists = known_profiles.contains(name.as_str());
        if !exists && name != DEFAULT_ALLOW {
            let message = "no such profile: it denies everything until it exists";
            issues.push(warn(resource, line, "spec.profiles", Some(name), message));
        }
    }
    let Some(ep) = policy
        .endpoints
        .get(&resource.id.name)
        .filter(|_| resource.id.kind == Kind::HostEndpoint)
    else {
        return;
    };
    let has = |direction: Direction| {
        let active = |t: &TierBlock| !t.policies(direction).is_empty();
        ep.tiers.values().flatten().any(active)
    };
    if ep.profiles.is_empty() && !has(Direction::Ingress) && !has(Direction::Egress) {
        let message =
            "no policy and no profile: everything but failsafes is denied in both directions";
        issues.push(warn(resource, line, "spec", None, message));
    } else if ep.profiles.is_empty() {
        for direction in [Direction::Ingress, Direction::Egress]
            .into_iter()
            .filter(|d| !has(*d))
        {
            let message = format!(
                "no {} policy and no profile: all {0} but failsafes is denied",
                direction.word()
            );
            issues.push(warn(resource, line, "spec", None, &message));
        }
    }
    if ep.attach.is_empty() {
        let message = "governs nothing here: another endpoint with a lower name has its interface, or the interface is a workload's or excluded";
        issues.push(warn(resource, line, "spec.interfaceName", None, message));
    }
}

fn warn(resource: &Resource, line: u32, path: &str, value: Option<&str>, message: &str) -> Issue {
    Issue {
        severity: Severity::Warning,
        file: resource.origin.file.to_string(),
        line,
        column: 1,
        object: Some(resource.id.clone()),
        path: path.to_owned(),
        value: value.map(str::to_owned),
        message: message.to_owned(),
        help: None,
    }
}

/// Names of nodes that endpoints in these resources belong to.
pub fn nodes(resources: &[Resource]) -> BTreeSet<String> {
    resources
        .iter()
        .filter_map(endpoints::node)
        .map(str::to_owned)
        .collect()
}
