//! The indexes find exactly what looking at everything finds, and keep nothing of what is gone.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::index::SelectorIndex;
use super::{Calculator, Host};
use crate::api::{Resource, ResourceId, Spec, parse_bytes};
use crate::config::{Input, Settings, load};
use crate::selector::Selector;

fn settings() -> Settings {
    load(&Input::bare("here"))
        .expect("defaults are valid")
        .settings
}

fn calculator() -> Calculator {
    let host = Host {
        node: "here".to_owned(),
        ..Host::default()
    };
    Calculator::new(host, &settings())
}

fn parse(kind: &str, metadata: &str, spec: &str) -> Resource {
    let text = format!(
        "{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {{{metadata}}}, spec: {{{spec}}}}}"
    );
    let parsed = parse_bytes("test.yaml", text.as_bytes());
    assert!(!parsed.has_errors(), "{text}\n{:?}", parsed.issues);
    parsed.resources.into_iter().next().expect("one resource")
}

fn braces(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}: '{v}'")).collect();
    format!("{{{}}}", pairs.join(", "))
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map("[abc]", "[xyz]", 0..3)
}

prop_compose! {
    fn endpoint()(n in 0..6_u8, labels in labels(), profiles in 0..3_usize, node in 0..3_usize, port in 1..3_u8) -> Resource {
        let profiles = ["", "p0", "p1, p0"][profiles];
        let node = ["here", "there", "elsewhere"][node];
        let metadata = format!("name: h{n}, labels: {}", braces(&labels));
        let spec = format!("node: {node}, interfaceName: eth{n}, expectedIPs: [10.0.0.{n}, 10.0.1.1], profiles: [{profiles}], ports: [{{name: web, protocol: TCP, port: {port}}}]");
        parse("HostEndpoint", &metadata, &spec)
    }
}

prop_compose! {
    fn profile()(n in 0..2_u8, labels in labels()) -> Resource {
        parse("Profile", &format!("name: p{n}"), &format!("labelsToApply: {}", braces(&labels)))
    }
}

prop_compose! {
    fn policy()(n in 0..3_u8, selector in selector(), source in selector()) -> Resource {
        let rule = format!("{{action: Allow, protocol: TCP, source: {{selector: \"{source}\", notSelector: \"c == 'z'\"}}, destination: {{ports: [web]}}}}");
        parse("GlobalNetworkPolicy", &format!("name: g{n}"), &format!("selector: \"{selector}\", ingress: [{rule}]"))
    }
}

fn selector() -> impl Strategy<Value = String> {
    let term = prop_oneof![
        Just("all()".to_owned()),
        "has\\([abc]\\)",
        "[abc] (==|!=|contains|starts with) '[xyz]'",
        "[abc] (in|not in) \\{'[xyz]', '[xyz]'\\}",
    ];
    let term = (any::<bool>(), term).prop_map(|(not, term)| match not {
        true => format!("!({term})"),
        false => term,
    });
    (term.clone(), term, 0..3_usize).prop_map(|(a, b, join)| match join {
        0 => a,
        1 => format!("({a}) && ({b})"),
        _ => format!("({a}) || ({b})"),
    })
}

/// Labels by the rules of facts 1.9, from the resources alone.
fn expected(resource: &Resource, all: &BTreeMap<ResourceId, Resource>) -> BTreeMap<String, String> {
    let mut labels = resource.meta.labels.clone();
    for name in super::facts::profiles(resource) {
        let profile = all.values().find(|r| r.id.name == *name);
        if let Some(Spec::Profile(profile)) = profile.map(|r| &r.spec) {
            for (key, value) in &profile.labels {
                labels.entry(key.clone()).or_insert(value.clone());
            }
        }
    }
    labels
}

proptest! {
    #[test]
    fn indexes_find_what_looking_at_everything_finds(
        steps in prop::collection::vec((prop_oneof![4 => endpoint(), 1 => profile()], prop::bool::weighted(0.2)), 1..30),
        texts in prop::collection::vec(selector(), 1..10),
    ) {
        let mut calculator = calculator();
        let selectors: Vec<Selector> = texts.iter().map(|t| Selector::parse(t).expect(t)).collect();
        let mut index = SelectorIndex::default();
        for (id, selector) in (0..).zip(&selectors) {
            index.insert(calculator.holders.table(), id, selector);
        }
        let mut all = BTreeMap::new();
        for (resource, delete) in steps {
            if delete {
                calculator.delete(&resource.id);
                all.remove(&resource.id);
            } else {
                calculator.upsert(&resource);
                all.insert(resource.id.clone(), resource);
            }
        }
        let holders = &calculator.holders;
        let mut found: Vec<BTreeSet<u32>> = vec![BTreeSet::new(); selectors.len()];
        for resource in all.values().filter(|r| matches!(r.spec, Spec::HostEndpoint(_))) {
            let labels = expected(resource, &all);
            prop_assert_eq!(calculator.labels(&resource.id), Some(labels.clone()));
            let number = holders.find(&resource.id).expect("it exists");
            let view = holders.labels(holders.get(number).expect("it exists"));
            let matches = |n: &u32| selectors[*n as usize].matches(&labels);
            let matching: Vec<u32> = (0..selectors.len() as u32).filter(matches).collect();
            prop_assert_eq!(index.matching(&view), matching.clone());
            for n in matching {
                prop_assert!(selectors[n as usize].matches(&view));
                found[n as usize].insert(number);
            }
        }
        for (selector, found) in selectors.iter().zip(found) {
            let candidates: Vec<u32> = holders.candidates(selector).map(|(n, _)| n).collect();
            let distinct: BTreeSet<u32> = candidates.iter().copied().collect();
            prop_assert_eq!(distinct.len(), candidates.len());
            prop_assert!(distinct.is_superset(&found));
            prop_assert_eq!(holders.matching(selector).count(), found.len());
        }
    }

    #[test]
    fn nothing_is_kept_of_what_is_gone(
        steps in prop::collection::vec(prop_oneof![4 => endpoint(), 1 => profile(), 2 => policy()], 1..30),
    ) {
        let mut calculator = calculator();
        for resource in &steps {
            calculator.upsert(resource);
        }
        calculator.flush();
        for resource in &steps {
            calculator.delete(&resource.id);
        }
        let policy = calculator.policy();
        prop_assert!(policy.is_empty() && policy.policies.is_empty());
        prop_assert!(policy.profiles.is_empty() && policy.sets.is_empty());
        prop_assert_eq!(calculator.holders.sizes(), [0; 7]);
        prop_assert_eq!(calculator.sets.len(), 0);
        prop_assert_eq!(calculator.policies.iter().count(), 0);
    }
}
