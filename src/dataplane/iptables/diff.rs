//! The smallest edit from what was found to what is wanted, so that rules which stay keep their counters.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::render::{Rendered, render};
use crate::api::Family;
use crate::compile::{Hook, KRule, Member, Ruleset, SetKind, SetSpec, TableRules};
use crate::dataplane::plan::{Changed, FamilyPlan, Found, FoundRule, FoundSet, FoundTable, Plan};

/// Says what members a set has.
pub type MembersOf<'a> = &'a dyn Fn(&SetSpec) -> BTreeSet<Member>;

/// The plan from `found` to `wanted`. Families that are not in `families` are left alone.
pub fn plan(
    wanted: &Ruleset,
    members: MembersOf<'_>,
    found: &Found,
    families: &[Family],
    min_capacity: usize,
) -> Plan {
    let mut plan = Plan::default();
    // Left by a moat that was killed while it built a set.
    let scratch: Vec<String> = Family::ALL
        .map(scratch_set)
        .into_iter()
        .filter(|n| found.sets.contains_key(n))
        .collect();
    plan.set_lines
        .extend(scratch.iter().map(|n| format!("destroy {n}")));
    for (name, spec) in &wanted.sets {
        let members = members(spec);
        edit_set(
            &mut plan,
            name,
            (spec, &members),
            found.sets.get(&**name),
            min_capacity,
        );
    }
    let no_tables = BTreeMap::new();
    for family in families {
        let found = found.tables.get(family).unwrap_or(&no_tables);
        let mut edits = FamilyPlan::default();
        let wanted_tables = wanted.tables.get(family);
        let empty = TableRules::default();
        let by_name: BTreeMap<&str, &TableRules> = wanted_tables
            .into_iter()
            .flatten()
            .map(|(t, r)| (t.name(), r))
            .collect();
        let names: BTreeSet<&str> = by_name
            .keys()
            .copied()
            .chain(found.keys().map(String::as_str))
            .collect();
        for name in names {
            let wanted = by_name.get(name).copied().unwrap_or(&empty);
            let found = found.get(name).cloned().unwrap_or_default();
            edit_table(&mut edits, &mut plan.changed, name, wanted, &found, *family);
        }
        if edits != FamilyPlan::default() {
            plan.families.insert(*family, edits);
        }
    }
    plan.destroy = found
        .sets
        .keys()
        .filter(|name| !wanted.sets.contains_key(name.as_str()) && !scratch.contains(name))
        .cloned()
        .collect();
    plan.changed.sets_removed = plan.destroy.len();
    plan
}

/// What the kernel holds once the plan is applied, as far as it is ours.
pub fn expected(wanted: &Ruleset, members: MembersOf<'_>, min_capacity: usize) -> Found {
    let mut found = Found::default();
    for (family, tables) in &wanted.tables {
        for (table, rules) in tables {
            let to_found = |rule: &KRule| {
                let rendered = render(rule, *family);
                FoundRule {
                    id: Some(rendered.id),
                    text: rendered.text,
                }
            };
            let mut hooks: BTreeMap<String, Vec<FoundRule>> = BTreeMap::new();
            for hook in rules
                .hooks
                .iter()
                .filter(|h| h.first)
                .chain(rules.hooks.iter().filter(|h| !h.first))
            {
                hooks
                    .entry(hook.chain.to_owned())
                    .or_default()
                    .push(to_found(&hook.rule));
            }
            let chains = rules
                .chains
                .iter()
                .map(|(n, r)| (n.to_string(), r.iter().map(to_found).collect()))
                .collect();
            let table_found = FoundTable { chains, hooks };
            found
                .tables
                .entry(*family)
                .or_default()
                .insert(table.name().to_owned(), table_found);
        }
    }
    for (name, spec) in &wanted.sets {
        let members = members(spec);
        let capacity = capacity(spec.kind, members.len(), min_capacity);
        found.sets.insert(
            name.to_string(),
            FoundSet {
                kind: kind_text(spec),
                capacity,
                members,
            },
        );
    }
    found
}

fn edit_table(
    edits: &mut FamilyPlan,
    changed: &mut Changed,
    name: &str,
    wanted: &TableRules,
    found: &FoundTable,
    family: Family,
) {
    let mut heads = Vec::new();
    let mut lines = Vec::new();
    for (chain, rules) in &wanted.chains {
        let rendered: Vec<Rendered> = rules.iter().map(|r| render(r, family)).collect();
        let before = lines.len() + heads.len();
        edit_chain(
            &mut heads,
            &mut lines,
            changed,
            chain,
            &rendered,
            found.chains.get(&**chain),
        );
        changed.chains += usize::from(lines.len() + heads.len() > before);
    }
    // Jumps come after the chains they lead to.
    edit_hooks(&mut lines, changed, wanted, found, family);
    heads.append(&mut lines);
    if !heads.is_empty() {
        edits.edits.insert(name.to_owned(), heads);
    }
    let stale: Vec<String> = found
        .chains
        .keys()
        .filter(|c| !wanted.chains.contains_key(c.as_str()))
        .cloned()
        .collect();
    changed.chains_removed += stale.len();
    if !stale.is_empty() {
        edits.removals.insert(name.to_owned(), stale);
    }
}

fn edit_chain(
    heads: &mut Vec<String>,
    lines: &mut Vec<String>,
    changed: &mut Changed,
    chain: &str,
    wanted: &[Rendered],
    found: Option<&Vec<FoundRule>>,
) {
    let foreign_inside = found.is_some_and(|rules| rules.iter().any(|r| r.id.is_none()));
    let Some(found) = found.filter(|_| !foreign_inside) else {
        // The head line creates the chain, or empties it when somebody wrote into it.
        heads.push(format!(":{chain} - [0:0]"));
        lines.extend(wanted.iter().map(|r| format!("-A {chain} {}", r.text)));
        changed.rules_added += wanted.len();
        return;
    };
    let same = |(w, f): &(&Rendered, &FoundRule)| Some(&w.id) == f.id.as_ref();
    let prefix = wanted.iter().zip(found).take_while(same).count();
    let (wanted_rest, found_rest) = (&wanted[prefix..], &found[prefix..]);
    let suffix = wanted_rest
        .iter()
        .rev()
        .zip(found_rest.iter().rev())
        .take_while(same)
        .count();
    let removed = found_rest.len() - suffix;
    let added = &wanted_rest[..wanted_rest.len() - suffix];
    // New rules first: between the edits of one transaction nothing is visible, but a reader of the plan sees no hole.
    for (i, rule) in added.iter().enumerate() {
        lines.push(format!("-I {chain} {} {}", prefix + 1 + i, rule.text));
    }
    for _ in 0..removed {
        lines.push(format!("-D {chain} {}", prefix + 1 + added.len()));
    }
    changed.rules_added += added.len();
    changed.rules_removed += removed;
}

/// Our rules in built-in chains: at the head exactly there and in order, appended ones anywhere.
fn edit_hooks(
    lines: &mut Vec<String>,
    changed: &mut Changed,
    wanted: &TableRules,
    found: &FoundTable,
    family: Family,
) {
    let chains: BTreeSet<&str> = found
        .hooks
        .keys()
        .map(String::as_str)
        .chain(wanted.hooks.iter().map(|h| h.chain))
        .collect();
    for chain in chains {
        let hooks: Vec<&Hook> = wanted.hooks.iter().filter(|h| h.chain == chain).collect();
        let of = |first: bool| -> Vec<Rendered> {
            hooks
                .iter()
                .filter(|h| h.first == first)
                .map(|h| render(&h.rule, family))
                .collect()
        };
        let (head, tail) = (of(true), of(false));
        let found = found.hooks.get(chain).map_or(&[][..], Vec::as_slice);
        if hooks_stand(&head, &tail, found) {
            continue;
        }
        // By text, not by position: others may have added rules that the tool does not show.
        let ours: Vec<&FoundRule> = found.iter().filter(|r| r.id.is_some()).collect();
        lines.extend(ours.iter().map(|r| format!("-D {chain} {}", r.text)));
        lines.extend(
            head.iter()
                .enumerate()
                .map(|(i, r)| format!("-I {chain} {} {}", i + 1, r.text)),
        );
        lines.extend(tail.iter().map(|r| format!("-A {chain} {}", r.text)));
        changed.rules_removed += ours.len();
        changed.rules_added += head.len() + tail.len();
    }
}

fn hooks_stand(head: &[Rendered], tail: &[Rendered], found: &[FoundRule]) -> bool {
    let ids = |rules: &[Rendered]| rules.iter().map(|r| r.id.clone()).collect::<Vec<_>>();
    let is_head = found.len() >= head.len()
        && found
            .iter()
            .zip(head)
            .all(|(f, h)| f.id.as_ref() == Some(&h.id));
    let rest: Vec<String> = found
        .iter()
        .skip(head.len())
        .filter_map(|r| r.id.clone())
        .collect();
    is_head && rest == ids(tail)
}

fn edit_set(
    plan: &mut Plan,
    name: &str,
    (spec, members): (&SetSpec, &BTreeSet<Member>),
    found: Option<&FoundSet>,
    min_capacity: usize,
) {
    let kind = kind_text(spec);
    let create = |name: &str| match spec.kind {
        SetKind::Ports => format!("create {name} bitmap:port range 0-65535"),
        _ => {
            let (kind, family) = kind.split_once(' ').unwrap_or((&kind, "inet"));
            format!(
                "create {name} {kind} family {family} maxelem {}",
                capacity(spec.kind, members.len(), min_capacity)
            )
        }
    };
    let add = |name: &str| -> Vec<String> {
        members
            .iter()
            .map(|m| format!("add {name} {} -exist", member_text(m)))
            .collect()
    };
    match found {
        None => {
            plan.set_lines.push(create(name));
            plan.set_lines.extend(add(name));
            plan.changed.sets_created += 1;
            plan.changed.members += members.len();
        }
        Some(found) if found.kind != kind || found.capacity < members.len() => {
            // Built beside it and swapped, so that rules never see it half full.
            let temporary = scratch_set(spec.family);
            plan.set_lines.push(create(&temporary));
            plan.set_lines.extend(add(&temporary));
            plan.set_lines.push(format!("swap {temporary} {name}"));
            plan.set_lines.push(format!("destroy {temporary}"));
            plan.changed.sets_created += 1;
            plan.changed.members += members.len();
        }
        Some(found) => {
            let new = members
                .difference(&found.members)
                .map(|m| format!("add {name} {} -exist", member_text(m)));
            let old = found
                .members
                .difference(members)
                .map(|m| format!("del {name} {} -exist", member_text(m)));
            let before = plan.set_lines.len();
            plan.set_lines.extend(new);
            plan.set_lines.extend(old);
            plan.changed.members += plan.set_lines.len() - before;
        }
    }
}

/// Where a set is built anew.
fn scratch_set(family: Family) -> String {
    format!("{}tmp", crate::compile::set_prefix(family))
}

fn kind_text(spec: &SetSpec) -> String {
    let family = match spec.family {
        Family::V4 => "inet",
        Family::V6 => "inet6",
    };
    match spec.kind {
        SetKind::Nets => format!("hash:net {family}"),
        SetKind::AddrPorts => format!("hash:ip,port {family}"),
        SetKind::Ports => "bitmap:port".to_owned(),
    }
}

fn capacity(kind: SetKind, members: usize, min_capacity: usize) -> usize {
    match kind {
        SetKind::Ports => usize::MAX,
        // Room to grow: reaching the capacity means building the whole set anew.
        _ => min_capacity.max((members * 2).next_power_of_two()),
    }
}

fn member_text(member: &Member) -> String {
    match member {
        Member::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
        Member::Net(net) => IpNet::to_string(net),
        Member::AddrPort(addr, protocol, port) => {
            format!("{addr},{}:{port}", protocol.to_string().to_lowercase())
        }
        Member::Port(port) => port.to_string(),
    }
}
