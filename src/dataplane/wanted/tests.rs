//! What is handed over after what was handed over before.

use super::*;
use crate::api::Family;
use crate::calc::{IpSet, Member as Listed, Options, SetChange, ToHost};
use crate::compile::SetContent;
use crate::compile::SetKind;

fn id(name: &str) -> SetId {
    SetId::Selector(name.into())
}

fn policy(sets: &[(&str, &[&str])]) -> HostPolicy {
    let set = |nets: &[&str]| {
        let nets = nets.iter().map(|n| n.parse().unwrap()).collect();
        Arc::new(IpSet::Nets(nets))
    };
    HostPolicy {
        node: String::new(),
        endpoints: BTreeMap::new(),
        workloads: BTreeMap::new(),
        policies: BTreeMap::new(),
        profiles: BTreeMap::new(),
        sets: sets
            .iter()
            .map(|(name, nets)| (id(name), set(nets)))
            .collect(),
        options: Options {
            failsafe_in: Vec::new(),
            failsafe_out: Vec::new(),
            workload_prefixes: Vec::new(),
            workload_to_host: ToHost::Return,
            drop_invalid: false,
        },
    }
}

fn ruleset(sets: &[(&str, &[&str])]) -> Arc<Ruleset> {
    let spec = |parts: &[&str]| {
        Arc::new(SetSpec {
            family: Family::V4,
            kind: SetKind::Nets,
            content: SetContent::Policy(parts.iter().map(|p| id(p)).collect()),
            note: "".into(),
        })
    };
    let sets = sets
        .iter()
        .map(|(name, parts)| ((*name).into(), spec(parts)));
    Arc::new(Ruleset {
        sets: sets.collect(),
        ..Ruleset::default()
    })
}

fn changes(set: &str, change: SetChange) -> HostChanges {
    HostChanges {
        sets: BTreeMap::from([(id(set), change)]),
        ..HostChanges::default()
    }
}

fn added(net: &str) -> SetChange {
    SetChange::Members {
        added: BTreeSet::from([Listed::Net(net.parse().unwrap())]),
        removed: BTreeSet::new(),
    }
}

/// The sets that change, `+` for whole ones.
fn shown(wanted: &Wanted) -> String {
    let Members::Changed(updates) = &wanted.members else {
        return "all".to_owned();
    };
    let one = |(name, update): (&Name, &Update)| match update {
        Update::Whole(_) => format!("+{name}"),
        Update::Few { added, removed } => format!("{name}:{}:{}", added.len(), removed.len()),
    };
    updates.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn only_the_difference_is_handed_over() {
    let policy = policy(&[("a", &["10.0.0.1/32"]), ("b", &["10.0.0.1/32"])]);
    let one = ruleset(&[("A", &["a"]), ("AB", &["a", "b"]), ("B", &["b"])]);
    let mut handover = Handover::default();
    assert_eq!(shown(&handover.whole(&one, &policy)), "all");
    let nothing = HostChanges::default();
    assert_eq!(shown(&handover.changed(&one, &policy, &nothing)), "");
    // Another part had the member before.
    let change = changes("a", added("10.0.0.1/32"));
    assert_eq!(
        shown(&handover.changed(&one, &policy, &change)),
        "A:1:0 AB:0:0"
    );
    let change = changes("b", SetChange::Replaced);
    assert_eq!(shown(&handover.changed(&one, &policy, &change)), "+AB +B");
    let two = ruleset(&[("A", &["a"]), ("AB", &["b", "a"]), ("C", &["a"])]);
    let change = changes("a", added("10.0.0.1/32"));
    assert_eq!(
        shown(&handover.changed(&two, &policy, &change)),
        "A:1:0 +AB +C"
    );
    // The same sets in another ruleset are no news.
    let same = Arc::new((*two).clone());
    assert_eq!(shown(&handover.changed(&same, &policy, &nothing)), "");
}
