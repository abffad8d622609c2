//! Changes by others: seen, repaired, and not fought over.

use moat::dataplane::Dataplane;
use moat::dataplane::iptables::Backend;

use super::site::{Site, on_both};

/// Whether a look sees that something is wrong.
fn is_suspicious(site: &mut Site) -> bool {
    site.dataplane.check().unwrap()
}

#[test]
fn a_cheap_look_sees_changes_of_sets() {
    on_both(|site| {
        site.run("ipset", &["create", "other", "hash:net"]);
        site.apply_all();
        site.verify();
        assert!(!is_suspicious(site));
        site.run("ipset", &["add", "other", "192.0.2.1"]);
        assert!(!is_suspicious(site), "sets of others do not count");
        for harm in [
            "flush moat4-a",
            "del moat4-union 10.0.0.1",
            "add moat4-b 192.0.2.1",
            "destroy moat4-union",
            "create moat4-x hash:net",
            "swap moat4-a other",
        ] {
            site.run("ipset", &harm.split(' ').collect::<Vec<_>>());
            assert!(is_suspicious(site), "{harm}");
            assert!(!site.verify().changed.is_nothing(), "{harm}");
            site.verify();
            assert!(!is_suspicious(site), "{harm}");
        }
        assert_eq!(site.members("moat4-a"), ["10.0.0.1", "10.0.0.2"]);
    });
}

#[test]
fn a_cheap_look_sees_changes_of_legacy_rules() {
    on_both(|site| {
        if site.backend == Backend::Nft {
            return;
        }
        site.apply_all();
        assert!(is_suspicious(site), "nobody has compared yet");
        site.verify();
        assert!(!is_suspicious(site));
        let good = site.rules();
        for harm in [
            "-F",
            "-F INPUT",
            "-I INPUT -j ACCEPT",
            "-I moat-INPUT 2 -j ACCEPT",
            "-D moat-INPUT 1",
            "-t mangle -N moat-x",
        ] {
            site.iptables(harm);
            assert!(is_suspicious(site), "{harm}");
            assert!(!site.verify().changed.is_nothing(), "{harm}");
            if harm.contains("ACCEPT") && harm.contains(" INPUT") {
                site.iptables("-D INPUT -j ACCEPT");
            }
            site.verify();
            assert!(!is_suspicious(site), "{harm}");
        }
        let rules = site.rules();
        assert!(good.iter().all(|line| rules.contains(line)), "{rules:#?}");
        assert_eq!(site.chain("INPUT").len(), 1);
    });
}

#[test]
fn nobody_fights_without_end_for_the_first_place() {
    on_both(|site| {
        site.apply_all();
        let mut said = Vec::new();
        for n in 0..8 {
            site.iptables("-I INPUT -p udp -j ACCEPT");
            let applied = site.verify();
            said.push(!applied.refused.is_empty());
            assert_eq!(said[n], n >= 5, "{applied:?}");
            // What is lost altogether always comes back.
            if n == 7 {
                site.iptables("-F INPUT");
                site.verify();
                assert_eq!(site.chain("INPUT").len(), 1);
            }
        }
    });
}
