//! Warnings that need more than one resource: where users get hurt although every file is valid.

use std::collections::BTreeSet;

use super::effective::{policy_selector, side_selectors};
use super::endpoints;
use super::index::LabelMap;
use super::model::{Direction, HostPolicy, TierBlock};
use super::rules::DEFAULT_ALLOW;
use crate::api::{Issue, Kind, Policy, Resource, Severity, Spec};
use crate::selector::Selector;

/// The most policies whose selectors are looked at: a warning is a help, not worth minutes.
const MAX_POLICIES: usize = 2000;

/// What is worth a warning whatever host the resources are read on.
pub fn lint_resources(resources: &[Resource]) -> Vec<Issue> {
    let labels = holder_labels(resources);
    let mut issues = Vec::new();
    let policies = resources
        .iter()
        .filter(|r| matches!(r.spec, Spec::Policy(_)));
    for resource in policies.take(MAX_POLICIES) {
        if let Spec::Policy(spec) = &resource.spec {
            lint_policy(resource, spec, resources, &labels, &mut issues);
        }
    }
    issues
}

/// What is worth a warning about the endpoints of one host.
pub fn lint_host(resources: &[Resource], policy: &HostPolicy) -> Vec<Issue> {
    let mut issues = Vec::new();
    for resource in resources {
        lint_endpoint(resource, resources, policy, &mut issues);
    }
    issues
}

/// Labels of endpoints, and of everything that rules can select.
struct Holders {
    endpoints: Vec<LabelMap>,
    all: Vec<LabelMap>,
}

fn holder_labels(resources: &[Resource]) -> Holders {
    let by_id = resources
        .iter()
        .map(|r| (r.id.clone(), r.clone()))
        .collect();
    let mut holders = Holders {
        endpoints: Vec::new(),
        all: Vec::new(),
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
                holders.endpoints.push(labels.clone());
            }
            holders.all.push(labels);
        }
    }
    holders
}

fn lint_policy(
    resource: &Resource,
    policy: &Policy,
    resources: &[Resource],
    labels: &Holders,
    issues: &mut Vec<Issue>,
) {
    let is_predefined = matches!(
        policy.tier.as_str(),
        "default" | "kube-admin" | "kube-baseline"
    );
    let is_tier = |r: &&Resource| r.id.kind == Kind::Tier && r.id.name == policy.tier;
    if !is_predefined && !resources.iter().any(|r| is_tier(&r)) {
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
    if !labels.endpoints.iter().any(|l| selector.matches(l)) {
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
                let positive = side_selectors(&resource.id, side).positive;
                let nobody = |s: &Selector| !labels.all.iter().any(|l| s.matches(l));
                if let Some(selector) = positive.filter(nobody) {
                    let path = format!("spec.{direction}[{i}].{name}");
                    let message =
                        "selects no endpoint and no network set: the rule matches nothing";
                    issues.push(warn(
                        resource,
                        rule.line,
                        &path,
                        Some(selector.canonical()),
                        message,
                    ));
                }
            }
        }
    }
}

fn lint_endpoint(
    resource: &Resource,
    resources: &[Resource],
    policy: &HostPolicy,
    issues: &mut Vec<Issue>,
) {
    let line = resource.origin.line;
    let is_local = endpoints::node(resource) == Some(policy.node.as_str());
    if !is_local {
        return;
    }
    for name in endpoints::profiles(resource) {
        let exists = resources
            .iter()
            .any(|r| r.id.kind == Kind::Profile && r.id.name == *name);
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
        file: resource.origin.file.clone(),
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
