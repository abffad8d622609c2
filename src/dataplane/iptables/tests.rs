//! Rendering, reading and comparing without a kernel.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::diff::{Before, FamilyEdit, Kept, edits};
use super::render::{identity, identity_inside, render, render_hook};
use super::save::{Reader, Saved, hook_of};
use crate::api::{Family, PortRange, Protocol};
use crate::compile::{End, Hook, KNOWN, KRule, Match, Ruleset, Table, TableRules, Target};

fn rule(port: u16) -> KRule {
    let matches = vec![
        Match::Protocol(Protocol::TCP, false),
        Match::Ports(End::Dst, [PortRange::one(port)].into(), false),
    ];
    KRule::new(
        matches,
        Target::Drop,
        format!("tier=default policy=p ingress[{port}]"),
    )
}

fn table(chains: &[(&str, &[u16])]) -> TableRules {
    let mut table = TableRules::default();
    for (name, ports) in chains {
        let rules = ports.iter().map(|p| rule(*p)).collect();
        table.chains.insert((*name).into(), rules);
    }
    table
}

fn with_tables(tables: impl IntoIterator<Item = (Table, TableRules)>) -> Ruleset {
    let mut ruleset = Ruleset::default();
    let tables = BTreeMap::from_iter(tables);
    ruleset.tables.insert(Family::V4, tables);
    ruleset
}

fn ruleset(ports: &[u16]) -> Ruleset {
    let jump = KRule::new(vec![], Target::Jump("moat-INPUT".into()), "");
    let mut table = table(&[("moat-INPUT", ports)]);
    table.hooks.push(Hook {
        chain: "INPUT",
        rule: jump,
        first: true,
    });
    with_tables([(Table::Filter, table)])
}

/// What a save tool would print of a ruleset, with these lines of others before everything of ours in a chain.
fn saved(ruleset: &Ruleset, foreign: &[&str]) -> Saved {
    let mut reader = Reader::default();
    let mut take = |line: String| assert!(reader.line(&line), "{line}");
    for (table, rules) in &ruleset.tables[&Family::V4] {
        take(format!("*{}", table.name()));
        take(":INPUT ACCEPT [12:345]".to_owned());
        for name in rules.chains.keys() {
            take(format!(":{name} - [0:0]"));
        }
        foreign.iter().for_each(|line| take((*line).to_owned()));
        for hook in &rules.hooks {
            let text = render_hook(&hook.rule, Family::V4).text;
            take(format!("-A {} {text}", hook.chain));
        }
        for (name, rules) in &rules.chains {
            for rule in rules.iter() {
                take(format!("-A {name} {}", render(rule, Family::V4).text));
            }
        }
        take("COMMIT".to_owned());
    }
    reader.finish().unwrap()
}

fn found(ruleset: &Ruleset, foreign: &[&str]) -> Before {
    Before::Found(BTreeMap::from([(Family::V4, saved(ruleset, foreign))]))
}

fn known(ruleset: Ruleset) -> Before {
    Before::Known(Arc::new(ruleset))
}

fn plan(wanted: &Ruleset, before: &Before) -> FamilyEdit {
    edits(wanted, before, &Kept::new(), Family::V4)
}

fn lines(wanted: &Ruleset, before: &Before) -> Vec<String> {
    let edits = plan(wanted, before).into_iter();
    edits.flat_map(|edit| edit.lines).collect()
}

#[test]
fn a_rendered_rule_is_known_again_by_its_comment() {
    let rendered = render(&rule(80), Family::V4);
    assert!(rendered.text.contains("-p 6 -m multiport --dports 80 "));
    assert!(rendered.id.is_some());
    assert_eq!(identity(&format!("INPUT {}", rendered.text)), rendered.id);
    // The tools leave the quotes away when the comment has no blank.
    let short = |comment: &str| identity(&format!("-m comment --comment {comment} -j DROP"));
    assert!(short("moat:Ab3Cd6Ef9G").is_some());
    assert_eq!(short("moat:Ab3Cd6Ef9G"), short("\"moat:Ab3Cd6Ef9G x\""));
    for foreign in ["\"other\"", "moat:", "moat:Ab3", "moat:Ab3Cd6Ef9Gh"] {
        assert_eq!(short(foreign), None, "{foreign}");
    }
    assert_eq!(identity("-j DROP"), None);
}

#[test]
fn rules_that_only_lead_on_are_known_by_what_they_say() {
    let rule = |matches: Vec<Match>, target| render(&KRule::new(matches, target, ""), Family::V4);
    let udp = Match::Protocol(Protocol::UDP, false);
    let range = crate::api::PortRange {
        first: 0,
        last: 4095,
    };
    let ports = Match::Ports(End::Dst, [range].into(), false);
    let way = rule(vec![udp, ports], Target::Goto("moat-x".into()));
    assert_eq!(way.text, "-p 17 -m multiport --dports 0:4095 -g moat-x");
    let printed = "-p udp -m multiport --dports 0:4095 -g moat-x";
    assert_eq!(identity_inside(printed), way.id);
    // In chains of others our rules have a comment.
    assert_eq!(identity(printed), None);
    let known = vec![Match::InIface("eth0".into()), Match::State(KNOWN)];
    let known = rule(known, Target::Accept);
    let printed = "-i eth0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
    assert_eq!(
        (&*known.text, identity_inside(printed)),
        (printed, known.id)
    );
    for foreign in [
        "-j ACCEPT",
        "-i eth0 -j ACCEPT",
        "-g other",
        "-s 10.0.0.0/8 -j moat-x",
        "-p udp -j",
        "! -i eth0 -j moat-x",
    ] {
        assert_eq!(identity_inside(foreign), None, "{foreign}");
    }
    let marks = vec![Match::Mark(1, 1, false)];
    assert!(
        rule(marks, Target::Goto("moat-x".into()))
            .text
            .contains("--comment")
    );
}

#[test]
fn hostile_notes_stay_inside_the_comment() {
    let note = "x\" -j ACCEPT\n-A INPUT -j ACCEPT \\ ".repeat(30);
    let rendered = render(&KRule::new(vec![], Target::Drop, note), Family::V6);
    assert_eq!(rendered.text.matches('"').count(), 2);
    assert!(!rendered.text.contains(['\n', '\\']));
    assert!(rendered.text.ends_with("\" -j DROP"));
    assert!(rendered.text.len() < 255 + 60);
}

#[test]
fn what_is_there_needs_no_further_change() {
    let wanted = ruleset(&[1, 2, 3]);
    assert_eq!(lines(&wanted, &known(Ruleset::default())).len(), 5);
    assert!(plan(&wanted, &known(ruleset(&[1, 2, 3]))).is_empty());
    assert!(plan(&wanted, &found(&wanted, &[])).is_empty());
}

#[test]
fn rules_that_stay_are_not_touched() {
    let old = ruleset(&[1, 2, 3, 4, 5]);
    for before in [found(&old, &[]), known(old)] {
        let edits = lines(&ruleset(&[1, 2, 9, 5]), &before);
        assert_eq!(edits.len(), 3, "{edits:?}");
        assert!(edits[0].starts_with("-I moat-INPUT 3 -p 6 -m multiport --dports 9 "));
        assert_eq!(
            edits[1..],
            ["-D moat-INPUT 4".to_owned(), "-D moat-INPUT 4".to_owned()]
        );
    }
}

#[test]
fn a_chain_somebody_wrote_into_is_rewritten() {
    let wanted = ruleset(&[1]);
    let edits = lines(&wanted, &found(&wanted, &["-A moat-INPUT -j ACCEPT"]));
    assert_eq!(edits[0], ":moat-INPUT - [0:0]");
    assert_eq!(edits.len(), 2);
}

#[test]
fn a_displaced_jump_comes_back_to_the_head() {
    let wanted = ruleset(&[1]);
    let edits = lines(&wanted, &found(&wanted, &["-A INPUT -j DOCKER"]));
    assert!(edits[0].starts_with("-D INPUT -m comment"), "{edits:?}");
    assert!(edits[1].starts_with("-I INPUT 1 -m comment"), "{edits:?}");
}

#[test]
fn nothing_wanted_removes_ours_and_only_ours() {
    let old = ruleset(&[1]);
    let before = found(&old, &["-A INPUT -j DOCKER", ":DOCKER - [0:0]"]);
    let edits = plan(&Ruleset::default(), &before);
    assert_eq!(edits.len(), 1);
    assert_eq!(edits[0].lines.len(), 1);
    assert!(edits[0].lines[0].starts_with("-D INPUT -m comment --comment \"moat:"));
    assert_eq!(edits[0].stale, ["moat-INPUT"]);
}

#[test]
fn a_chain_that_is_kept_is_neither_changed_nor_removed() {
    let old = with_tables([(Table::Filter, table(&[("moat-a", &[1]), ("moat-b", &[1])]))]);
    let wanted = with_tables([(Table::Filter, table(&[("moat-a", &[2])]))]);
    let kept = ["moat-a", "moat-b"].map(|name| (Family::V4, Table::Filter, name.into()));
    for before in [found(&old, &[]), known(old)] {
        assert!(edits(&wanted, &before, &Kept::from(kept.clone()), Family::V4).is_empty());
    }
}

/// In which order tables are written on the way from one ruleset to the other.
fn order(old: &[(Table, &[&str])], new: &[(Table, &[&str])]) -> Vec<Table> {
    let ruleset = |tables: &[(Table, &[&str])]| {
        let chains = |names: &[&str]| {
            let all: Vec<(&str, &[u16])> = names.iter().map(|n| (*n, &[1][..])).collect();
            table(&all)
        };
        with_tables(tables.iter().map(|(table, names)| (*table, chains(names))))
    };
    let edits = plan(&ruleset(new), &known(ruleset(old)));
    edits.into_iter().map(|edit| edit.table).collect()
}

#[test]
fn a_policy_that_moves_is_there_before_it_is_gone_here() {
    use Table::{Filter, Mangle, Raw};
    let all: &[(Table, &[&str])] = &[(Raw, &["r"]), (Mangle, &["m"]), (Filter, &["f"])];
    assert_eq!(order(&[], all), [Raw, Mangle, Filter]);
    assert_eq!(order(all, &[]), [Filter, Mangle, Raw]);
    let (early, late): (&[_], &[_]) = (&[(Raw, &["p"][..])], &[(Filter, &["p"][..])]);
    assert_eq!(order(early, late), [Filter, Raw]);
    assert_eq!(order(late, early), [Raw, Filter]);
    // Each table gains and loses.
    assert_eq!(
        order(
            &[(Raw, &["p"]), (Mangle, &["q"])],
            &[(Raw, &["new"]), (Mangle, &["p"]), (Filter, &["q"])]
        ),
        [Filter, Mangle, Raw]
    );
}

#[test]
fn tables_that_the_tool_cannot_show_are_noticed() {
    let read = |text: &str| {
        let mut reader = Reader::default();
        assert!(text.lines().all(|line| reader.line(line)));
        reader.finish().unwrap().hidden
    };
    let text = "# Table `filter' is incompatible, use 'nft' tool.\n\
        # Table `nat' is incompatible, use 'nft' tool.\n*raw\nCOMMIT\n";
    assert!(read(text).into_iter().eq([Table::Filter]));
    assert!(read("# Generated by iptables-nft-save\n*filter\nCOMMIT\n").is_empty());
}

#[test]
fn nonsense_is_no_ruleset() {
    for line in [
        "moo",
        "-A INPUT -j DROP",
        "COMMIT",
        ":INPUT ACCEPT [0:0]",
        "\u{0}",
    ] {
        assert!(!Reader::default().line(line), "{line}");
    }
    let mut reader = Reader::default();
    assert!(reader.line("*filter") && !reader.line("*raw") && !reader.line("-X moat-x"));
    assert!(reader.finish().is_none(), "the end is missing");
    assert!(
        Reader::default().finish().is_some(),
        "a kernel without rules"
    );
}

#[test]
fn the_fingerprint_tells_rules_and_not_counters() {
    let digest = |text: &str| {
        let mut reader = Reader::default();
        assert!(text.lines().all(|line| reader.line(line)));
        reader.finish().unwrap().digest
    };
    let text = "# at noon\n*filter\n:INPUT ACCEPT [1:2]\n-A INPUT -j DROP\nCOMMIT\n";
    let later = text.replace("noon", "midnight").replace("[1:2]", "[3:4]");
    assert_eq!(digest(text), digest(&later));
    for (line, other) in [
        ("*filter", "*raw"),
        (":INPUT ACCEPT", ":INPUT DROP"),
        ("-j DROP", "-j ACCEPT"),
    ] {
        assert_ne!(digest(text), digest(&text.replace(line, other)), "{other}");
    }
}

#[test]
fn lines_for_built_in_chains_are_told_apart() {
    assert_eq!(
        hook_of("-I INPUT 1 -j moat-INPUT"),
        Some(("INPUT", "-j moat-INPUT"))
    );
    assert_eq!(
        hook_of("-A FORWARD -j ACCEPT"),
        Some(("FORWARD", "-j ACCEPT"))
    );
    assert_eq!(hook_of("-A moat-INPUT -j DROP"), None);
    assert_eq!(hook_of(":moat-INPUT - [0:0]"), None);
    assert_eq!(hook_of("-D INPUT -j moat-INPUT"), None);
}
