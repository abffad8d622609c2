//! Warnings that need more than one resource: where users get hurt although every file is valid.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Calculator;
use super::effective::policy_selector;
use super::facts;
use super::holders::Holders;
use super::ipset::SetId;
use super::model::{Direction, HostEp, HostPolicy, Rule, RuleLists, TierBlock};
use super::policies::predefined;
use super::rules::{self, DEFAULT_ALLOW, Named};
use super::sets::{SetNumber, Sets};
use crate::api::{Issue, Kind, Origin, Resource, ResourceId, Severity, Spec};
use crate::selector::Selector;

/// What is worth a warning whatever host the resources are read on.
pub fn lint_resources(resources: &[Resource]) -> Vec<Issue> {
    let (mut holders, mut sets) = (Holders::default(), Sets::default());
    for resource in resources {
        if let Spec::Profile(profile) = &resource.spec {
            holders.set_profile(&resource.id.name, Some(profile.clone()));
        }
    }
    let is_holder = |r: &&Resource| {
        matches!(
            r.spec,
            Spec::HostEndpoint(_) | Spec::WorkloadEndpoint(_) | Spec::NetworkSet(_)
        )
    };
    for resource in resources.iter().filter(is_holder) {
        let holder = holders.make(resource);
        holders.add(&resource.id, holder);
    }
    let mut policies = Vec::new();
    for resource in resources {
        if let Spec::Policy(policy) = &resource.spec {
            let id = Arc::new(resource.id.clone());
            let rules = rules::policy_rules(&id, &resource.origin, policy, &mut sets);
            policies.push((rules, policy_selector(&id, policy)));
        }
    }
    let mut lint = Lint::new(&holders, &sets, names(resources, Kind::Tier));
    for (rules, selector) in &policies {
        lint.policy(rules, selector);
    }
    lint.issues
}

/// What is worth a warning about the endpoints of one host.
pub fn lint_host(resources: &[Resource], policy: &HostPolicy) -> Vec<Issue> {
    let mut issues = Vec::new();
    let profiles = names(resources, Kind::Profile);
    for resource in resources {
        if facts::node(resource) == Some(policy.node.as_str()) {
            let owner = Owner {
                id: &resource.id,
                origin: &resource.origin,
            };
            let exists = |name: &str| profiles.contains(name);
            lint_profiles(owner, facts::profiles(resource), exists, &mut issues);
            lint_endpoint(owner, policy, &mut issues);
        }
    }
    issues
}

/// Both for what a calculator keeps. Costs work in proportion to its policies and local endpoints.
pub(super) fn lint_all(calculator: &Calculator) -> Vec<Issue> {
    let tiers = calculator.tiers.keys().map(String::as_str).collect();
    let mut lint = Lint::new(&calculator.holders, &calculator.sets, tiers);
    for entry in calculator.policies.iter() {
        if let Some(rules) = &entry.rules {
            lint.policy(rules, &entry.selector);
        }
    }
    let mut issues = lint.issues;
    for (id, local) in &calculator.locals {
        let owner = Owner {
            id,
            origin: &local.origin,
        };
        let exists = |name: &str| calculator.profiles.contains_key(name);
        lint_profiles(owner, local.spec.profiles(), exists, &mut issues);
        lint_endpoint(owner, calculator.live.policy(), &mut issues);
    }
    issues
}

/// Names of the resources of a kind that has no namespaces.
fn names(resources: &[Resource], kind: Kind) -> BTreeSet<&str> {
    let of_kind = resources.iter().filter(|r| r.id.kind == kind);
    of_kind.map(|r| r.id.name.as_str()).collect()
}

/// The resource that a warning is about.
#[derive(Clone, Copy)]
struct Owner<'a> {
    id: &'a ResourceId,
    origin: &'a Origin,
}

impl Owner<'_> {
    fn warn(self, line: u32, path: &str, value: Option<&str>, message: &str) -> Issue {
        Issue {
            severity: Severity::Warning,
            file: self.origin.file.to_string(),
            line,
            column: 1,
            object: Some(self.id.clone()),
            path: path.to_owned(),
            value: value.map(str::to_owned),
            message: message.to_owned(),
            help: None,
        }
    }
}

/// What policies and rules refer to, and what was found so far.
struct Lint<'a> {
    holders: &'a Holders,
    sets: &'a Sets,
    tiers: BTreeSet<&'a str>,
    /// Whether the sets that were tried match anything: many rules name the same.
    tried: BTreeMap<SetNumber, bool>,
    issues: Vec<Issue>,
}

impl<'a> Lint<'a> {
    fn new(holders: &'a Holders, sets: &'a Sets, tiers: BTreeSet<&'a str>) -> Lint<'a> {
        Lint {
            holders,
            sets,
            tiers,
            tried: BTreeMap::new(),
            issues: Vec::new(),
        }
    }

    fn policy(&mut self, rules: &Named, selector: &Selector) {
        let lists = &rules.lists;
        let owner = Owner {
            id: &lists.id,
            origin: &lists.origin,
        };
        let line = lists.origin.line;
        let tier = lists.tier.as_str();
        if predefined(tier).is_none() && !self.tiers.contains(tier) {
            let message = "no such tier: the policy is enforced after all tiers, and what it does not decide is denied";
            let issue = owner.warn(line, "spec.tier", Some(tier), message);
            self.issues.push(issue);
        }
        if !self.holders.any_match(selector, true) {
            let message = "selects no endpoint in these files";
            let value = Some(selector.canonical());
            let issue = owner.warn(line, "spec.selector", value, message);
            self.issues.push(issue);
        }
        // Nearly always everything matches something, and the rules need not be looked at.
        if !rules.sets.iter().all(|number| self.is_found(*number)) {
            self.rules(owner, lists);
        }
    }

    fn is_found(&mut self, number: SetNumber) -> bool {
        if let Some(known) = self.tried.get(&number) {
            return *known;
        }
        let found = match self.sets.id(number) {
            SetId::Selector(_) => self.holders.any_match(self.sets.selector(number), false),
            SetId::NamedPort { port, protocol, .. } => self.holders.any_port(port, *protocol),
        };
        self.tried.insert(number, found);
        found
    }

    fn rules(&mut self, owner: Owner<'_>, lists: &RuleLists) {
        for direction in [Direction::Ingress, Direction::Egress] {
            for rule in lists.rules(direction) {
                self.rule(owner, rule, direction);
            }
        }
    }

    fn rule(&mut self, owner: Owner<'_>, rule: &Rule, direction: Direction) {
        for (side, name) in [(&rule.source, "source"), (&rule.destination, "destination")] {
            let path = format!("spec.{}[{}].{name}", direction.word(), rule.index);
            for id in &side.sets {
                self.set(owner, rule, id, &path);
            }
            for (ports, field) in [(&side.named, "ports"), (&side.not_named, "notPorts")] {
                for id in ports {
                    self.port(owner, rule, id, &format!("{path}.{field}"));
                }
            }
        }
    }

    fn set(&mut self, owner: Owner<'_>, rule: &Rule, id: &SetId, path: &str) {
        let (SetId::Selector(text), Some(number)) = (id, self.sets.find(id)) else {
            return;
        };
        if !self.is_found(number) {
            let message = "selects no endpoint and no network set: the rule matches nothing";
            let issue = owner.warn(rule.line, path, Some(text), message);
            self.issues.push(issue);
        }
    }

    fn port(&mut self, owner: Owner<'_>, rule: &Rule, id: &SetId, path: &str) {
        let (SetId::NamedPort { port, .. }, Some(number)) = (id, self.sets.find(id)) else {
            return;
        };
        if !self.is_found(number) {
            let message =
                "no endpoint with addresses has a port of this name and protocol: it has no effect";
            let issue = owner.warn(rule.line, path, Some(port), message);
            self.issues.push(issue);
        }
    }
}

fn lint_profiles(
    owner: Owner<'_>,
    profiles: &[String],
    exists: impl Fn(&str) -> bool,
    issues: &mut Vec<Issue>,
) {
    let is_missing = |name: &&String| !exists(name) && *name != DEFAULT_ALLOW;
    for name in profiles.iter().filter(is_missing) {
        let message = "no such profile: it denies everything until it exists";
        let line = owner.origin.line;
        issues.push(owner.warn(line, "spec.profiles", Some(name), message));
    }
}

fn lint_endpoint(owner: Owner<'_>, policy: &HostPolicy, issues: &mut Vec<Issue>) {
    let endpoint = policy.endpoints.get(&owner.id.name);
    let Some(ep) = endpoint.filter(|_| owner.id.kind == Kind::HostEndpoint) else {
        return;
    };
    let mut add = |path: &str, message: &str| {
        issues.push(owner.warn(owner.origin.line, path, None, message));
    };
    let has = |direction: Direction| has_policy(ep, direction);
    let both = [Direction::Ingress, Direction::Egress];
    if ep.profiles.is_empty() && !both.into_iter().any(has) {
        add(
            "spec",
            "no policy and no profile: everything but failsafes is denied in both directions",
        );
    } else if ep.profiles.is_empty() {
        for direction in both.into_iter().filter(|d| !has(*d)) {
            let word = direction.word();
            add(
                "spec",
                &format!("no {word} policy and no profile: all {word} but failsafes is denied"),
            );
        }
    }
    if ep.attach.is_empty() {
        add(
            "spec.interfaceName",
            "governs nothing here: another endpoint with a lower name has its interface, or the interface is a workload's or excluded",
        );
    }
}

fn has_policy(endpoint: &HostEp, direction: Direction) -> bool {
    let active = |tier: &TierBlock| !tier.policies(direction).is_empty();
    endpoint.tiers.values().flatten().any(active)
}

/// Names of nodes that endpoints in these resources belong to.
pub fn nodes(resources: &[Resource]) -> BTreeSet<String> {
    resources
        .iter()
        .filter_map(facts::node)
        .map(str::to_owned)
        .collect()
}
