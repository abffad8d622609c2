//! What the kernel or a tool refuses: it does not stop the rest, and never opens.

use moat::api::{PortRange, Protocol};
use moat::compile::{End, KRule, Match, Table, Target};
use moat::dataplane::Dataplane;

use super::site::{Site, allowed, on_both, port_rule};

/// A rule that no tool accepts: too many ports.
fn impossible(target: Target) -> KRule {
    let ports: Vec<PortRange> = (0..20).map(|n| PortRange::one(2 * n + 1)).collect();
    let matches = vec![
        Match::Protocol(Protocol::TCP, false),
        Match::Ports(End::Dst, ports.into(), false),
    ];
    KRule::new(matches, target, "the impossible rule")
}

fn refused(site: &mut Site) -> Vec<String> {
    let wanted = site.all();
    let applied = site.dataplane.apply(&wanted).unwrap();
    applied.refused.into_keys().collect()
}

#[test]
fn a_refused_rule_that_allows_is_left_out_of_a_new_chain() {
    on_both(|site| {
        site.rules.insert(1, impossible(allowed()));
        assert_eq!(refused(site), ["the impossible rule"]);
        let chain = site.chain("moat-INPUT");
        assert_eq!(chain.len(), 2, "{chain:#?}");
        assert_eq!(site.chain("INPUT").len(), 1, "everything else is in force");
        assert_eq!(site.members("moat4-a").len(), 2);
        // Nothing is written again and again.
        let rules = site.rules();
        assert_eq!(refused(site), ["the impossible rule"]);
        assert_eq!(site.rules(), rules);
        site.rules.remove(1);
        assert!(refused(site).is_empty());
    });
}

#[test]
fn a_refused_rule_that_denies_becomes_a_wider_denial_in_a_new_chain() {
    on_both(|site| {
        site.rules.insert(1, impossible(Target::Drop));
        assert_eq!(refused(site), ["the impossible rule"]);
        let chain = site.chain("moat-INPUT");
        assert_eq!(chain.len(), 3, "{chain:#?}");
        assert!(
            chain[1].starts_with("-A moat-INPUT -p tcp -m comment"),
            "{chain:#?}"
        );
        assert!(chain[1].ends_with("-j DROP"), "{chain:#?}");
    });
}

#[test]
fn a_chain_with_a_refused_rule_keeps_its_last_good_content() {
    for restarts in [false, true] {
        on_both(|site| {
            site.chains.push((
                Table::Filter,
                "moat-other",
                vec![port_rule(1, Target::Drop)],
            ));
            site.apply_all();
            let chain = site.chain("moat-INPUT");
            if restarts {
                site.restart();
            }
            site.rules.push(impossible(allowed()));
            site.rules.remove(0);
            site.chains[0].2.push(port_rule(2, Target::Drop));
            assert_eq!(refused(site), ["the impossible rule"]);
            assert_eq!(site.chain("moat-INPUT"), chain);
            assert_eq!(site.chain("moat-other").len(), 2, "the others change");
            // What it needs stays with it.
            site.sets.remove(0);
            assert_eq!(refused(site), ["the impossible rule"]);
            assert_eq!(site.chain("moat-INPUT"), chain);
            assert_eq!(site.members("moat4-a").len(), 2);
            site.rules.pop();
            assert!(refused(site).is_empty());
            assert_eq!(site.chain("moat-INPUT").len(), 1);
            assert!(site.verify().changed.is_nothing());
            assert!(site.try_run("ipset", &["list", "moat4-a"]).is_err());
        });
    }
}

#[test]
fn several_refused_rules_in_several_chains_are_all_found() {
    on_both(|site| {
        let mut many: Vec<KRule> = (1..60).map(|n| port_rule(n, Target::Drop)).collect();
        many.insert(7, impossible(allowed()));
        many.insert(50, impossible(allowed()));
        site.chains.push((Table::Filter, "moat-a", many.clone()));
        site.chains.push((Table::Mangle, "moat-b", many));
        assert_eq!(refused(site), ["the impossible rule"]);
        assert_eq!(site.chain("moat-a").len(), 59);
        assert_eq!(site.chain("moat-b").len(), 59);
    });
}

#[test]
fn a_set_that_cannot_be_made_does_not_stop_the_rest() {
    on_both(|site| {
        // Somebody else's, of another type, and in use.
        site.run("ipset", &["create", "moat4-a", "hash:ip"]);
        site.run("ipset", &["create", "user", "list:set"]);
        site.run("ipset", &["add", "user", "moat4-a"]);
        assert_eq!(refused(site), ["port 80", "set of a"]);
        let chain = site.chain("moat-INPUT");
        assert_eq!(chain.len(), 1, "{chain:#?}");
        assert_eq!(site.members("moat4-union").len(), 3);
        site.run("ipset", &["destroy", "user"]);
        assert!(refused(site).is_empty());
        assert_eq!(site.chain("moat-INPUT").len(), 2);
        assert_eq!(site.members("moat4-a").len(), 2);
    });
}
