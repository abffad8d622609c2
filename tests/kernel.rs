//! moatd beside everything else that writes into the kernel's tables: restarts, repairs, leftovers, refusals. Each test has
//! a network namespace of its own; root only.

#[path = "kernel/boot.rs"]
mod boot;
#[path = "kernel/faults.rs"]
mod faults;
#[path = "common/host.rs"]
mod host;
#[path = "kernel/programs.rs"]
mod programs;
#[path = "kernel/start.rs"]
mod start;

use host::{Host, wait_until};

const BACKENDS: [&str; 2] = ["nft", "legacy"];

/// Uses every table, sets of every kind, both families.
const POLICY: &str = r#"
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: eth0, labels: {role: web}}
spec: {node: h, interfaceName: eth0, expectedIPs: [10.1.0.1], ports: [{name: http, protocol: TCP, port: 80}]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: friends, labels: {group: friends}}
spec: {nets: [10.1.0.0/24, 10.1.0.7, 0.0.0.0/0, "fd01::/64", "::/0", "::ffff:10.0.0.0/104", "::ffff:10.1.2.3"]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: web}
spec:
  selector: role == 'web'
  applyOnForward: true
  types: [Ingress, Egress]
  ingress:
  - {action: Allow, protocol: TCP, source: {selector: group == 'friends'}, destination: {ports: [http, 443]}}
  - {action: Log, protocol: UDP, destination: {ports: [1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,33]}}
  - {action: Allow, source: {nets: [10.1.0.2, 10.1.0.4]}, metadata: {annotations: {"example.com/why": "odd \"quotes\" and \\ and ünïcode 'x' $(y) `z` -- -j ACCEPT"}}}
  egress:
  - {action: Allow, notProtocol: UDP, destination: {notNets: ["fd09::/64", "fd0a::/64"]}}
  - {action: Pass, protocol: ICMPv6, icmp: {type: 128, code: 0}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: early}
spec:
  selector: role == 'web'
  preDNAT: true
  applyOnForward: true
  ingress: [{action: Deny, protocol: TCP, destination: {ports: [23]}}]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: raw}
spec:
  selector: role == 'web'
  doNotTrack: true
  applyOnForward: true
  types: [Ingress, Egress]
  ingress: [{action: Allow, protocol: UDP, destination: {ports: [53]}}]
  egress: [{action: Allow, protocol: UDP, source: {ports: [53]}}]
"#;

/// A rule of the host's administrator.
const FOREIGN: [&str; 8] = ["-A", "INPUT", "-p", "tcp", "--dport", "9999", "-j", "DROP"];

fn host(backend: &'static str) -> Host {
    let host = Host::new(backend);
    host.policy("main.yaml", POLICY);
    host
}

fn on_both(test: impl Fn(&Host)) {
    for backend in BACKENDS {
        test(&host(backend));
    }
}

/// Tables and chains are listed in the order in which they were made.
fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

fn ours(host: &Host) -> usize {
    host.rules().iter().filter(|l| l.contains("moat")).count()
}

#[test]
fn what_others_destroy_is_repaired() {
    on_both(|host| {
        host.settings("iptablesRefreshInterval = \"1s\"");
        host.both(&FOREIGN);
        let daemon = host.start();
        let (good, sets) = (sorted(host.rules()), host.sets());
        let repaired = |what: &str| {
            let complaint = || format!("{what}: {:#?}\n{}", host.rules(), daemon.log());
            wait_until(
                || sorted(host.rules()) == good && host.sets() == sets,
                complaint,
            );
        };
        host.both(&["-F"]);
        host.both(&FOREIGN);
        repaired("everything was flushed");
        host.both(&["-F", "INPUT"]);
        host.both(&FOREIGN);
        repaired("our jump was lost");
        host.both(&["-I", "moat-INPUT", "-j", "ACCEPT"]);
        repaired("a foreign rule in a chain of ours");
        host.both(&["-D", "moat-INPUT", "1"]);
        repaired("a rule of ours was lost");
        host.both(&["-N", "moat-stray"]);
        repaired("a chain with our prefix");
        host.run("ipset", &["flush"]);
        repaired("sets were emptied");
    });
}

#[test]
fn our_jump_comes_first_again_and_foreign_rules_stay() {
    on_both(|host| {
        host.settings("iptablesRefreshInterval = \"1s\"");
        host.both(&FOREIGN);
        let _daemon = host.start();
        host.both(&["-I", "INPUT", "-p", "udp", "-j", "ACCEPT"]);
        let first = || host.chain("INPUT")[0].ends_with("-j moat-INPUT");
        wait_until(first, || format!("{:#?}", host.chain("INPUT")));
        let chain = host.chain("INPUT");
        assert_eq!(chain.len(), 3, "{chain:#?}");
        assert!(
            chain[1].contains("udp") && chain[2].contains("9999"),
            "{chain:#?}"
        );
    });
}

#[test]
fn native_nft_rules_do_not_confuse() {
    let host = host("nft");
    host.settings("iptablesRefreshInterval = \"1s\"");
    host.both(&FOREIGN);
    // The tool shows a set of addresses as a rule without condition.
    let foreign = "ip saddr { 192.0.2.1, 192.0.2.2 } counter accept";
    let native = |what: &str| host.run("nft", &[what]);
    native(&format!("insert rule ip filter INPUT {foreign}"));
    let daemon = host.start();
    let rules = host.rules();
    native(&format!("insert rule ip filter moat-INPUT {foreign}"));
    native(&format!("insert rule ip filter INPUT {foreign}"));
    let is_clean = || !native("list chain ip filter moat-INPUT").contains("192.0.2.1");
    wait_until(is_clean, || native("list ruleset") + &daemon.log());
    let is_first = || host.chain("INPUT")[0].contains("moat-INPUT");
    wait_until(is_first, || native("list ruleset") + &daemon.log());
    let ours = |lines: &[String]| -> Vec<String> {
        lines
            .iter()
            .filter(|l| l.contains("moat"))
            .cloned()
            .collect()
    };
    assert_eq!(ours(&host.rules()), ours(&rules));
    assert_eq!(
        native("list chain ip filter INPUT")
            .matches("192.0.2.1")
            .count(),
        2
    );
}

/// The tool cannot show a table with such rules at all.
#[test]
fn native_nft_rules_that_hide_a_table_do_not_open_the_host() {
    // With the one the tool says that it cannot show the table, with the other it fails.
    for rule in ["ct mark 5 ip length 40-50 accept", "meta skuid 4711 accept"] {
        behind(&format!("insert rule ip filter INPUT {rule}"));
    }
}

fn behind(rule: &str) {
    let host = host("nft");
    let native = |what: &str| host.run("nft", &[what]);
    host.run("iptables-nft", &["-A", "INPUT", "-j", "ACCEPT"]);
    native(rule);
    let jumps = || {
        native("list chain ip filter INPUT")
            .matches("jump moat-INPUT")
            .count()
    };
    for run in 1..3 {
        let daemon = host.start();
        assert_eq!(jumps(), 1, "{}", native("list ruleset") + &daemon.log());
        assert!(native("list table ip filter").contains("goto moat-i-"));
        // What changes later is written there too.
        let port = 4000 + run;
        host.policy("main.yaml", &POLICY.replace("443", &port.to_string()));
        let is_written = || native("list table ip filter").contains(&port.to_string());
        wait_until(is_written, || native("list ruleset") + &daemon.log());
        daemon.stop();
    }
    assert_eq!(
        native("list chain ip filter INPUT")
            .matches(" accept")
            .count(),
        3
    );
}

#[test]
fn a_switch_of_the_backend_removes_what_the_other_one_holds() {
    for (from, to) in [("nft", "legacy"), ("legacy", "nft")] {
        let mut host = host(from);
        host.both(&FOREIGN);
        host.start().stop();
        // Sets that the new policy does not use are held by rules of the backend that is left.
        host.policy("main.yaml", POLICY.split("---").next().unwrap());
        host.backend = to;
        host.settings("");
        let daemon = host.start();
        let left = || {
            host.rules_of(from, &[])
                .into_iter()
                .filter(|l| l.contains("moat"))
                .collect::<Vec<_>>()
        };
        wait_until(
            || left().is_empty(),
            || format!("{:#?}\n{}", left(), daemon.log()),
        );
        assert!(
            host.rules_of(from, &[]).iter().any(|l| l.contains("9999")),
            "foreign rules stay"
        );
        assert!(ours(&host) > 0);
        wait_until(
            || host.sets().is_empty(),
            || format!("{:#?}\n{}", host.sets(), daemon.log()),
        );
        assert_eq!(host.status()["state"], "enforcing");
    }
}

#[test]
fn a_set_that_somebody_else_uses_does_not_stop_the_policy() {
    on_both(|host| {
        let daemon = host.start();
        let set = host.run("ipset", &["list", "-n"]);
        let set = set.lines().find(|n| n.starts_with("moat4-")).unwrap();
        host.run(
            &format!("iptables-{}", host.backend),
            &["-w", "-A", "INPUT", "-m", "set", "--match-set", set, "src"],
        );
        host.policy("main.yaml", POLICY.split("---").next().unwrap());
        let gone = || !host.rules().iter().any(|l| l.contains("moat-pi-web"));
        wait_until(gone, || daemon.log());
        daemon.stop();
        host.start().stop();
    });
}

#[test]
fn a_foreign_jump_to_an_old_chain_does_not_stop_the_policy() {
    on_both(|host| {
        host.start().stop();
        let rules = host.rules();
        let chain = rules.iter().find_map(|r| r.strip_prefix(":moat-pi-web"));
        let chain = format!("moat-pi-web{}", chain.unwrap().split(' ').next().unwrap());
        host.both(&["-N", "other"]);
        host.both(&["-A", "other", "-j", &chain]);
        host.policy("main.yaml", POLICY.split("---").next().unwrap());
        let daemon = host.start();
        assert!(
            !host
                .rules()
                .iter()
                .any(|r| r.starts_with("-A moat-i-eth0") && r.contains(&chain))
        );
        assert!(daemon.log().contains("old chains stay"), "{}", daemon.log());
        host.both(&["-F", "other"]);
        daemon.stop();
        host.start().stop();
        assert!(!host.rules().iter().any(|r| r.contains(&chain)));
    });
}

#[test]
fn rules_that_cannot_be_compared_are_a_problem_that_status_shows() {
    let host = host("nft");
    host.settings("iptablesRefreshInterval = \"1s\"");
    let daemon = host.start();
    host.run("nft", &["add rule ip filter INPUT ct mark 5 accept"]);
    wait_until(|| host.status()["state"] == "degraded", || daemon.log());
    host.run("nft", &["flush chain ip filter INPUT"]);
    wait_until(|| host.status()["state"] == "enforcing", || daemon.log());
    assert!(host.chain("INPUT")[0].contains("moat-INPUT"));
}

#[test]
fn what_the_kernel_refuses_does_not_stop_the_rest_and_is_said() {
    on_both(|host| {
        host.start().stop();
        let sets = host.run("ipset", &["list", "-n"]);
        let set = sets.lines().find(|n| n.starts_with("moat6-port.http"));
        let set = set.unwrap().to_owned();
        let rules = host.rules();
        host.policy("main.yaml", POLICY.split("---").next().unwrap());
        let daemon = host.start();
        // A set of another type under the name of one of ours, which somebody uses.
        host.run("ipset", &["create", &set, "hash:ip", "family", "inet6"]);
        host.run("ipset", &["create", "other", "list:set"]);
        host.run("ipset", &["add", "other", &set]);
        host.policy("main.yaml", POLICY);
        wait_until(|| host.status()["state"] == "degraded", || daemon.log());
        let status = host.status().to_string();
        assert!(
            status.contains("is not in force") && status.contains(&set),
            "{status}"
        );
        // Only the rule that needs the set is missing, and what it would have allowed is not allowed.
        let now = host.rules();
        let missing: Vec<&String> = rules.iter().filter(|r| !now.contains(r)).collect();
        assert_eq!(missing.len(), 1, "{missing:#?}");
        assert!(missing[0].contains(&set), "{missing:#?}");
        assert!(missing[0].ends_with("-g moat-allow"), "{missing:#?}");
        assert_eq!(now.len() + 1, rules.len(), "{now:#?}");
        host.run("ipset", &["destroy", "other"]);
        wait_until(|| host.status()["state"] == "enforcing", || daemon.log());
        assert_eq!(sorted(host.rules()), sorted(rules));
    });
}

#[test]
fn a_set_of_another_type_under_one_of_our_names_is_replaced() {
    on_both(|host| {
        let daemon = host.start();
        let (rules, sets) = (host.rules(), host.sets());
        daemon.stop();
        let names = host.run("ipset", &["list", "-n"]);
        host.cleanup(&[]);
        for name in names.lines() {
            host.run("ipset", &["create", name, "list:set"]);
        }
        let _daemon = host.start();
        assert_eq!(sorted(host.rules()), sorted(rules));
        let members = |lines: Vec<String>| -> Vec<String> {
            lines.into_iter().filter(|l| l.starts_with("add")).collect()
        };
        assert_eq!(members(host.sets()), members(sets));
    });
}

#[test]
fn a_scratch_set_of_a_killed_moatd_is_no_obstacle() {
    on_both(|host| {
        host.start().stop();
        let sets = host.sets();
        // Smaller than its members, so that it must be built anew, and the leftover of a try to do that.
        let name = "moat4-tmp";
        host.run("ipset", &["create", name, "hash:net", "maxelem", "8"]);
        let friends = sets
            .iter()
            .find(|l| l.starts_with("create moat4-") && l.contains("hash:net"))
            .unwrap();
        let friends = friends.split(' ').nth(1).unwrap();
        host.run("ipset", &["create", "other", "hash:net", "maxelem", "1"]);
        host.run("ipset", &["swap", "other", friends]);
        host.run("ipset", &["destroy", "other"]);
        host.start().stop();
        let members = |lines: &[String]| {
            lines
                .iter()
                .filter(|l| l.starts_with("add"))
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(members(&host.sets()), members(&sets));
        assert!(!host.sets().iter().any(|l| l.contains(name)));
    });
}

#[test]
fn cleanup_removes_what_is_ours_and_nothing_else() {
    on_both(|host| {
        host.both(&FOREIGN);
        host.both(&["-N", "other"]);
        host.run("ipset", &["create", "other", "hash:net"]);
        // Restore tools make the built-in chains that the clean-up leaves.
        host.start().stop();
        let before = (host.rules(), host.sets());
        let said = host.cleanup(&["--dry-run"]);
        assert!(said.contains("would be undone"), "{said}");
        assert_eq!(
            (host.rules(), host.sets()),
            before,
            "--dry-run changes nothing"
        );
        let said = host.cleanup(&[]);
        assert!(said.contains("undone"), "{said}");
        assert_eq!(ours(host), 0, "{:#?}", host.rules());
        assert_eq!(host.sets().len(), 1, "{:#?}", host.sets());
        let kept = |rules: &[String]| {
            rules
                .iter()
                .filter(|l| l.contains("9999") || l.contains("other"))
                .count()
        };
        assert_eq!(kept(&host.rules()), 4);
        let said = host.cleanup(&[]);
        assert!(said.contains("nothing of moat"), "{said}");
    });
}

#[test]
fn an_interface_with_a_name_that_is_a_pattern_is_governed_by_its_addresses() {
    on_both(|host| {
        for name in ["e+", "q\"x"] {
            host.run("ip", &["link", "add", name, "type", "veth"]);
        }
        host.run("ip", &["address", "add", "10.7.0.1/24", "dev", "e+"]);
        host.run("ip", &["address", "add", "10.8.0.1/24", "dev", "q\"x"]);
        host.policy(
            "odd.yaml",
            "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: odd}\n\
             spec: {node: h, expectedIPs: [10.7.0.1, 10.8.0.1]}\n",
        );
        let _daemon = host.start();
        let rules = host.rules();
        let named = |r: &&String| r.contains("-i e+") || r.contains("-i q");
        assert_eq!(rules.iter().find(named), None);
        for address in ["10.7.0.1", "10.8.0.1"] {
            let to_chain = |r: &&String| {
                r.contains(&format!("-d {address}/32")) && r.ends_with("-g moat-i-odd")
            };
            assert_eq!(rules.iter().filter(to_chain).count(), 1, "{rules:#?}");
        }
    });
}
