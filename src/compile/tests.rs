//! Properties of the compiler that need no kernel; what the rules mean is tried in the kernel.

use proptest::prelude::*;

use super::members::storable;
use super::names;
use super::ruleset::{End, KRule, Match, Target};
use super::sets::Sets;
use super::union::Merger;
use super::{Marks, Options};
use crate::api::{Family, Kind, Protocol, ResourceId};
use crate::calc::{Direction, SetId};
use crate::config::{Input, Settings, load};

fn policy(name: &str) -> ResourceId {
    ResourceId {
        kind: Kind::GlobalNetworkPolicy,
        namespace: String::new(),
        name: name.to_owned(),
    }
}

fn default_settings() -> Settings {
    load(&Input::bare("host1")).unwrap().settings
}

#[test]
fn names_are_readable() {
    let chain = names::rules_chain(&policy("allow-web"), Direction::Ingress);
    assert!(chain.starts_with("moat-pi-allow-web-"), "{chain}");
    let set = names::set(&SetId::Selector("role == \"db\"".into()), Family::V6);
    assert!(set.starts_with("moat6-role-db-"), "{set}");
    assert_eq!(names::chain("moat-fi-", "eth0"), "moat-fi-eth0");
}

#[test]
fn long_names_that_begin_alike_differ() {
    let long = |end: &str| policy(&format!("a-very-long-name-of-a-policy-{end}"));
    let chain = |end| names::rules_chain(&long(end), Direction::Egress);
    assert_ne!(chain("one"), chain("two"));
    assert_ne!(
        names::chain("moat-i-", &"x".repeat(40)),
        names::chain("moat-i-", &"x".repeat(41))
    );
}

#[test]
fn the_prefix_of_length_zero_is_two_halves() {
    let halves = |net: &str| {
        storable(net.parse().unwrap())
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(halves("0.0.0.0/0"), ["0.0.0.0/1", "128.0.0.0/1"]);
    assert_eq!(halves("::/0"), ["::/1", "8000::/1"]);
    assert_eq!(halves("10.1.2.3/8"), ["10.0.0.0/8"]);
}

#[test]
fn marks_are_the_lowest_bits_of_the_mask() {
    let options = Options {
        mark_mask: 0xf000,
        ..Options::new(&default_settings(), true)
    };
    let Marks {
        accept,
        pass,
        later,
    } = options.marks();
    assert_eq!((accept, pass, later), (0x1000, 0x2000, 0x4000));
}

proptest! {
    #[test]
    fn names_fit_the_kernel(name in "[a-z0-9.-]{1,253}", selector in ".{0,60}") {
        for direction in [Direction::Ingress, Direction::Egress] {
            let chain = names::rules_chain(&policy(&name), direction);
            prop_assert!(chain.len() <= 28 && chain.starts_with("moat-"));
        }
        for prefix in ["moat-i-", "moat-fo-", "moat-wi-"] {
            prop_assert!(names::chain(prefix, &name).len() <= 28);
        }
        for family in Family::ALL {
            let set = names::set(&SetId::Selector(selector.as_str().into()), family);
            prop_assert!(set.len() <= 31, "{}", set);
            prop_assert!(set.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.'));
        }
    }
}

/// Rules of one port, each with a set of its own.
fn rules_with_sets(sets: &mut Sets, actions: &[Target]) -> Vec<KRule> {
    let mut rule = |(n, target): (usize, &Target)| {
        let id = SetId::Selector(format!("app == \"{n}\"").as_str().into());
        let name = sets.policy(&id, Family::V4);
        let matches = vec![
            Match::Protocol(Protocol::TCP, false),
            Match::Set(End::Src, name, false),
        ];
        KRule::new(matches, target.clone(), format!("rule {n}"))
    };
    actions
        .iter()
        .enumerate()
        .map(|(n, t)| rule((n, t)))
        .collect()
}

#[test]
fn rules_of_one_action_that_differ_in_one_set_become_one() {
    use Target::{Accept, Drop};
    let mut sets = Sets::default();
    let rules = rules_with_sets(&mut sets, &[Accept, Accept, Accept, Drop, Drop, Accept]);
    let mut merger = Merger {
        from: 3,
        family: Family::V4,
        sets: &mut sets,
    };
    let merged = merger.merge(rules.clone());
    assert_eq!(merged[1..], rules[3..], "too few next to each other");
    assert_eq!(&*merged[0].note, "3 rules: rule 0; rule 1; rule 2");
    let Match::Set(End::Src, union, false) = &merged[0].matches[1] else {
        panic!("{merged:?}");
    };
    let spec = sets.spec(union).unwrap();
    assert_eq!(spec.selectors().map(<[SetId]>::len), Some(3));
}

#[test]
fn rules_that_log_are_never_merged() {
    let mut sets = Sets::default();
    let rules = rules_with_sets(&mut sets, &vec![Target::Log("x".into()); 5]);
    let mut merger = Merger {
        from: 2,
        family: Family::V4,
        sets: &mut sets,
    };
    assert_eq!(merger.merge(rules.clone()), rules);
}
