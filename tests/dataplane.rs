//! The iptables backend against the kernel: deltas, drift, refusals, tools that misbehave. Each test has a network namespace of
//! its own; root only.

#[path = "dataplane/drift.rs"]
mod drift;
#[path = "dataplane/faults.rs"]
mod faults;
#[path = "dataplane/refusals.rs"]
mod refusals;
#[path = "dataplane/site.rs"]
mod site;

use std::sync::Arc;

use moat::dataplane::{Applier, Dataplane, DataplaneError};

use site::{net, on_both};

#[test]
fn members_change_without_a_change_of_rules() {
    on_both(|site| {
        site.apply_all();
        let rules = site.rules();
        site.policy.insert("a", "10.0.0.9/32");
        site.policy.remove("a", "10.0.0.1/32");
        let applied = site.apply_changes();
        assert_eq!(applied.changed.members, 4, "in a and in the union");
        assert_eq!(applied.changed.rules_added, 0);
        assert_eq!(site.members("moat4-a"), ["10.0.0.2", "10.0.0.9"]);
        assert_eq!(site.rules(), rules);
        // A union loses a member with its last part.
        site.policy.insert("b", "10.0.0.2/32");
        site.apply_changes();
        site.policy.remove("a", "10.0.0.2/32");
        assert_eq!(site.apply_changes().changed.members, 1);
        assert!(site.members("moat4-union").contains(&"10.0.0.2".to_owned()));
        site.policy.remove("b", "10.0.0.2/32");
        assert_eq!(site.apply_changes().changed.members, 2);
        assert!(!site.members("moat4-union").contains(&"10.0.0.2".to_owned()));
        assert!(site.verify().changed.is_nothing());
    });
}

#[test]
fn a_set_grows_before_it_is_full() {
    on_both(|site| {
        site.apply_all();
        assert!(site.listed("moat4-a").contains("maxelem 8 "));
        for n in 10..40 {
            site.policy.insert("a", &format!("10.0.1.{n}/32"));
            site.apply_changes();
        }
        assert_eq!(site.members("moat4-a").len(), 32);
        assert!(site.listed("moat4-a").contains("maxelem 32 "));
        assert!(!site.run("ipset", &["list", "-n"]).contains("tmp"));
        // Rules use the grown set still.
        let terse = site.run("ipset", &["list", "-t", "moat4-a"]);
        assert!(terse.contains("References: 1"), "{terse}");
        assert!(site.verify().changed.is_nothing());
    });
}

#[test]
fn rules_and_sets_come_and_go() {
    on_both(|site| {
        site.apply_all();
        site.policy.insert("c", "10.0.3.3/32");
        site.sets.push(("moat4-c", &["c"]));
        site.allow(443, "moat4-c");
        let applied = site.apply_changes();
        assert_eq!(applied.changed.sets_created, 1);
        assert_eq!(applied.changed.rules_added, 2, "one in each family");
        assert_eq!(site.members("moat4-c"), ["10.0.3.3"]);
        site.rules.pop();
        site.sets.pop();
        let applied = site.apply_changes();
        assert_eq!(applied.changed.sets_removed, 1);
        assert_eq!(applied.changed.rules_removed, 2);
        assert!(site.verify().changed.is_nothing());
    });
}

#[test]
fn changes_alone_are_refused_when_nothing_is_known() {
    on_both(|site| {
        site.apply_all();
        site.dataplane.distrust();
        site.policy.insert("a", "10.0.0.9/32");
        let wanted = site.changes();
        let result = site.dataplane.apply(&wanted);
        assert!(matches!(result, Err(DataplaneError::OutOfStep)));
        // And so they are after any other failure: a set that is gone cannot change.
        site.apply_all();
        site.run("iptables-nft", &["-F"]);
        site.run("iptables-legacy", &["-F"]);
        let destroyed = || site.try_run("ipset", &["destroy", "moat4-b"]).is_ok();
        site::wait_until(destroyed);
        site.policy.insert("b", "10.0.0.9/32");
        let wanted = site.changes();
        let applied = site.dataplane.apply(&wanted).unwrap();
        let reason = &applied.refused["set of b"];
        assert!(reason.contains("no such set"), "{reason}");
        let applied = site.apply_all();
        assert!(applied.refused.is_empty());
        assert_eq!(site.members("moat4-b"), ["10.0.0.3", "10.0.0.9"]);
    });
}

#[test]
fn a_new_driver_finds_everything_in_place() {
    on_both(|site| {
        site.apply_all();
        let (rules, sets) = (site.rules(), site.run("ipset", &["save"]));
        site.restart();
        assert!(site.apply_all().changed.is_nothing());
        assert_eq!((site.rules(), site.run("ipset", &["save"])), (rules, sets));
    });
}

#[test]
fn a_plan_says_what_an_apply_does_and_does_nothing() {
    on_both(|site| {
        site.apply_all();
        site.policy.insert("a", "10.0.0.9/32");
        site.allow(443, "moat4-b");
        let wanted = site.all();
        let plan = site.dataplane.plan(&wanted).unwrap();
        let lines = plan.lines.join("\n");
        assert_eq!(plan.lines.len(), 4, "{lines}");
        for part in [
            "ipset: add moat4-a 10.0.0.9",
            "ipset: add moat4-union 10.0.0.9",
            "iptables -t filter: -I moat-INPUT 3 ",
            "ip6tables -t filter: -I moat-INPUT 3 ",
        ] {
            assert!(lines.contains(part), "{lines}");
        }
        assert_eq!(site.apply_all().changed, plan.changed);
    });
}

#[test]
fn a_thread_writes_for_whoever_asks() {
    on_both(|site| {
        let dataplane = site.take_dataplane();
        let applier = Applier::new(Box::new(dataplane)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let first = applier.apply(site.all());
        site.policy.insert("a", "10.0.0.9/32");
        // Handed over before the first one is done.
        let second = applier.apply(site.changes());
        drop(applier.check());
        let (first, second) = runtime.block_on(async { (first.await, second.await) });
        assert_eq!(first.unwrap().changed.sets_created, 3);
        assert_eq!(second.unwrap().changed.members, 2);
        let name = runtime.block_on(applier.ask(|d| Ok(d.name())));
        assert!(name.unwrap().starts_with("iptables-"));
        assert!(site.members("moat4-a").contains(&"10.0.0.9".to_owned()));
    });
}

#[test]
fn many_members_of_both_families() {
    on_both(|site| {
        let set = Arc::make_mut(site.policy.set("a"));
        if let moat::calc::IpSet::Nets(nets) = set {
            nets.extend(
                (0..50_000u32)
                    .map(|n| net(&format!("10.{}.{}.{}/32", n >> 16, n >> 8 & 255, n & 255))),
            );
        }
        site.apply_all();
        let count = site.members("moat4-a").len();
        assert_eq!(count, 50_000);
        site.run("ipset", &["del", "moat4-a", "10.0.7.7"]);
        site.run("ipset", &["add", "moat4-a", "192.0.2.1"]);
        let applied = site.verify();
        assert_eq!(
            (applied.changed.members, applied.changed.sets_created),
            (2, 0)
        );
        // Where nearly everything is wrong, another set takes the place.
        site.run("ipset", &["flush", "moat4-a"]);
        assert_eq!(site.verify().changed.sets_created, 1);
        assert_eq!(site.members("moat4-a").len(), 50_000);
    });
}
