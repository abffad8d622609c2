//! Members of sets of the host policy as the kernel keeps them.

use proptest::prelude::*;

use super::*;
use crate::compile::SetKind;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn id(name: &str) -> SetId {
    SetId::Selector(name.into())
}

fn spec(parts: &[&str]) -> Arc<SetSpec> {
    Arc::new(SetSpec {
        family: Family::V4,
        kind: SetKind::Nets,
        content: SetContent::Policy(parts.iter().map(|p| id(p)).collect()),
        note: "".into(),
    })
}

fn sets(parts: &[(&str, &[&str])]) -> PolicySets {
    let set = |nets: &[&str]| Arc::new(IpSet::Nets(nets.iter().map(|n| net(n)).collect()));
    parts
        .iter()
        .map(|(name, nets)| (id(name), set(nets)))
        .collect()
}

fn shown(members: impl Iterator<Item = Member>) -> Vec<String> {
    let text = |m| match m {
        Member::Net(net) => IpNet::to_string(&net),
        other => format!("{other:?}"),
    };
    let mut all: Vec<String> = members.map(text).collect();
    all.sort();
    all
}

#[test]
fn a_union_has_each_member_of_its_family_once() {
    let sets = sets(&[
        ("a", &["10.0.0.0/8", "10.1.0.0/16", "fd00::/8"]),
        ("b", &["10.1.0.0/16", "10.2.0.0/16"]),
    ]);
    let content = Content::new(&spec(&["a", "b", "gone"]), &sets);
    let all = ["10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16"];
    assert_eq!(shown(content.iter()), all);
    assert_eq!(content.count(), 3);
    assert!(all.iter().all(|n| content.contains(&Member::Net(net(n)))));
    assert!(!content.contains(&Member::Net(net("10.3.0.0/16"))));
}

#[test]
fn everything_is_two_halves_and_neither_is_counted_twice() {
    let sets = sets(&[("a", &["0.0.0.0/0", "0.0.0.0/1"]), ("b", &["128.0.0.0/1"])]);
    let content = Content::new(&spec(&["b", "a"]), &sets);
    assert_eq!(shown(content.iter()), ["0.0.0.0/1", "128.0.0.0/1"]);
    assert!(content.contains(&Member::Net(net("128.0.0.0/1"))));
    assert!(!content.contains(&Member::Net(net("0.0.0.0/2"))));
}

fn part() -> impl Strategy<Value = BTreeSet<IpNet>> {
    let some = [
        "0.0.0.0/0",
        "0.0.0.0/1",
        "128.0.0.0/1",
        "10.0.0.1/32",
        "fd00::/8",
        "::/0",
    ];
    prop::collection::btree_set(prop::sample::select(some.map(net).to_vec()), 0..5)
}

proptest! {
    /// The listed changes of the parts lead to the difference of the unions.
    #[test]
    fn differences_are_exact(old in [part(), part()], new in [part(), part()]) {
        let ids = [id("a"), id("b")];
        let of = |parts: &[BTreeSet<IpNet>; 2]| -> PolicySets {
            let all = ids.iter().cloned().zip(parts);
            all.map(|(id, nets)| (id, Arc::new(IpSet::Nets(nets.clone())))).collect()
        };
        let minus = |a: &BTreeSet<IpNet>, b: &BTreeSet<IpNet>| {
            a.difference(b).map(|n| Listed::Net(*n)).collect()
        };
        let changes = (0..2).map(|n| (ids[n].clone(), SetChange::Members {
            added: minus(&new[n], &old[n]),
            removed: minus(&old[n], &new[n]),
        }));
        let spec = spec(&["a", "b"]);
        let (added, removed) = difference(&spec, &of(&new), &changes.collect()).unwrap();
        let mut all: BTreeSet<Member> = Content::new(&spec, &of(&old)).iter().collect();
        for member in removed {
            prop_assert!(all.remove(&member));
        }
        for member in added {
            prop_assert!(all.insert(member));
        }
        let wanted: BTreeSet<Member> = Content::new(&spec, &of(&new)).iter().collect();
        prop_assert_eq!(all, wanted);
    }
}

#[test]
fn a_set_that_changed_beyond_a_list_has_no_difference() {
    let changes = BTreeMap::from([(id("a"), SetChange::Replaced)]);
    assert!(difference(&spec(&["a", "b"]), &sets(&[]), &changes).is_none());
}
