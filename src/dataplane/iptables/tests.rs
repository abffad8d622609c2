//! Rendering, reading and comparing without a kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::diff::{MembersOf, expected, plan};
use super::render::{identity, render};
use super::save::{hook_of, incompatible_tables, parse_sets, parse_tables};
use crate::api::{Family, Protocol};
use crate::compile::{
    End, Hook, KRule, Match, Member, Ruleset, SetContent, SetKind, SetSpec, Table, TableRules,
    Target,
};
use crate::dataplane::plan::{Found, FoundRule};

const MEMBERS: MembersOf<'static> = &|set| match &set.content {
    SetContent::Constant(members) => members.clone(),
    SetContent::Policy(_) => BTreeSet::new(),
};

fn rule(port: u16) -> KRule {
    let matches = vec![
        Match::Protocol(Protocol::TCP, false),
        Match::Ports(End::Dst, [crate::api::PortRange::one(port)].into(), false),
    ];
    KRule::new(
        matches,
        Target::Drop,
        format!("tier=default policy=p ingress[{port}]"),
    )
}

fn ruleset(ports: &[u16]) -> Ruleset {
    let jump = KRule::new(vec![], Target::Jump("moat-INPUT".into()), "");
    let mut table = TableRules::default();
    table.hooks.push(Hook {
        chain: "INPUT",
        rule: jump,
        first: true,
    });
    table.chains.insert(
        "moat-INPUT".into(),
        ports.iter().map(|p| rule(*p)).collect(),
    );
    let mut ruleset = Ruleset::default();
    ruleset
        .tables
        .insert(Family::V4, BTreeMap::from([(Table::Filter, table)]));
    ruleset
}

fn lines(wanted: &Ruleset, found: &Found) -> Vec<String> {
    let plan = plan(wanted, MEMBERS, found, &[Family::V4], 1024);
    let edits = plan
        .families
        .get(&Family::V4)
        .map(|f| f.edits.clone())
        .unwrap_or_default();
    edits.into_values().flatten().collect()
}

#[test]
fn a_rendered_rule_is_known_again_by_its_comment() {
    let rendered = render(&rule(80), Family::V4);
    assert!(rendered.text.contains("-p 6 -m multiport --dports 80 "));
    assert_eq!(
        identity(&format!("INPUT {}", rendered.text)),
        Some(rendered.id.clone())
    );
    // The tools leave the quotes away when the comment has no blank.
    assert_eq!(
        identity("-m comment --comment moat:Ab3 -j DROP"),
        Some("Ab3".to_owned())
    );
    assert_eq!(identity("-m comment --comment \"other\" -j DROP"), None);
    assert_eq!(identity("-j DROP"), None);
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
fn what_is_applied_needs_no_further_change() {
    let wanted = ruleset(&[1, 2, 3]);
    assert!(!lines(&wanted, &Found::default()).is_empty());
    assert_eq!(
        lines(&wanted, &expected(&wanted, MEMBERS, 1024)),
        Vec::<String>::new()
    );
}

#[test]
fn rules_that_stay_are_not_touched() {
    let found = expected(&ruleset(&[1, 2, 3, 4, 5]), MEMBERS, 1024);
    let edits = lines(&ruleset(&[1, 2, 9, 5]), &found);
    assert_eq!(edits.len(), 3, "{edits:?}");
    assert!(edits[0].starts_with("-I moat-INPUT 3 -p 6 -m multiport --dports 9 "));
    assert_eq!(
        edits[1..],
        ["-D moat-INPUT 4".to_owned(), "-D moat-INPUT 4".to_owned()]
    );
}

#[test]
fn a_chain_somebody_wrote_into_is_rewritten() {
    let wanted = ruleset(&[1]);
    let mut found = expected(&wanted, MEMBERS, 1024);
    let table = found
        .tables
        .get_mut(&Family::V4)
        .and_then(|t| t.get_mut("filter"))
        .unwrap();
    let foreign = FoundRule {
        id: None,
        text: "-j ACCEPT".to_owned(),
    };
    table
        .chains
        .get_mut("moat-INPUT")
        .unwrap()
        .insert(0, foreign);
    let edits = lines(&wanted, &found);
    assert_eq!(edits[0], ":moat-INPUT - [0:0]");
    assert_eq!(edits.len(), 2);
}

#[test]
fn a_displaced_jump_comes_back_to_the_head() {
    let wanted = ruleset(&[1]);
    let mut found = expected(&wanted, MEMBERS, 1024);
    let table = found
        .tables
        .get_mut(&Family::V4)
        .and_then(|t| t.get_mut("filter"))
        .unwrap();
    let foreign = FoundRule {
        id: None,
        text: "-j DOCKER".to_owned(),
    };
    table.hooks.get_mut("INPUT").unwrap().insert(0, foreign);
    let edits = lines(&wanted, &found);
    assert!(edits[0].starts_with("-D INPUT -m comment"), "{edits:?}");
    assert!(edits[1].starts_with("-I INPUT 1 -m comment"), "{edits:?}");
}

#[test]
fn nothing_wanted_removes_ours_and_only_ours() {
    let text = "*filter\n:INPUT ACCEPT [0:0]\n:moat-INPUT - [0:0]\n:DOCKER - [0:0]\n\
        -A INPUT -m comment --comment \"moat:Ab3\" -j moat-INPUT\n-A INPUT -j DOCKER\n\
        -A moat-INPUT -m comment --comment \"moat:Cd4\" -j DROP\nCOMMIT\n";
    let mut found = Found::default();
    found.tables.insert(Family::V4, parse_tables(text));
    let plan = plan(&Ruleset::default(), MEMBERS, &found, &[Family::V4], 1024);
    let family = &plan.families[&Family::V4];
    assert_eq!(
        family.edits["filter"],
        ["-D INPUT -m comment --comment \"moat:Ab3\" -j moat-INPUT"]
    );
    assert_eq!(family.removals["filter"], ["moat-INPUT"]);
}

#[test]
fn sets_change_by_member_and_grow_by_swap() {
    let member = |n: u8| Member::Net(format!("10.0.0.{n}/32").parse().unwrap());
    let spec = |members: &[u8]| {
        let members = members.iter().map(|n| member(*n)).collect();
        Arc::new(SetSpec {
            family: Family::V4,
            kind: SetKind::Nets,
            content: SetContent::Constant(members),
            note: "".into(),
        })
    };
    let wanted = |members: &[u8]| {
        let mut ruleset = Ruleset::default();
        ruleset.sets.insert("moat4-x".into(), spec(members));
        ruleset
    };
    let saved = "create moat4-x hash:net family inet hashsize 64 maxelem 2 bucketsize 12 initval 0x1\n\
        add moat4-x 10.0.0.1\nadd moat4-x 10.0.0.2\ncreate other hash:net family inet maxelem 9\nadd other 1.1.1.1\n";
    let found = Found {
        sets: parse_sets(saved),
        ..Found::default()
    };
    assert_eq!(found.sets.len(), 1);
    let small = plan(&wanted(&[2, 3]), MEMBERS, &found, &[], 2);
    assert_eq!(
        small.set_lines,
        ["add moat4-x 10.0.0.3 -exist", "del moat4-x 10.0.0.1 -exist"]
    );
    let grown = plan(&wanted(&[1, 2, 3]), MEMBERS, &found, &[], 2);
    assert_eq!(
        grown.set_lines[0],
        "create moat4-tmp hash:net family inet maxelem 8"
    );
    assert_eq!(
        grown.set_lines[4..],
        ["swap moat4-tmp moat4-x", "destroy moat4-tmp"]
    );
    assert_eq!(
        plan(&Ruleset::default(), MEMBERS, &found, &[], 2).destroy,
        ["moat4-x"]
    );
}

#[test]
fn tables_that_the_tool_cannot_show_are_noticed() {
    let text = "# Table `filter' is incompatible, use 'nft' tool.\n\
        # Table `nat' is incompatible, use 'nft' tool.\n*raw\nCOMMIT\n";
    assert_eq!(incompatible_tables(text), ["filter"]);
    assert!(incompatible_tables("# Generated by iptables-nft-save\n*filter\nCOMMIT\n").is_empty());
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
