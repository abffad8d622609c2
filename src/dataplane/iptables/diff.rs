//! The smallest edit from the rules that are there to those that are wanted, so that rules which stay keep their counters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::render::{Rendered, RuleId, render, render_hook};
use super::save::{FoundRule, FoundTable, Saved};
use crate::api::Family;
use crate::compile::{Chain, Hook, Name, Ruleset, Table, TableRules};
use crate::dataplane::plan::Changed;

/// What the kernel holds of our rules.
#[derive(Clone, Debug)]
pub enum Before {
    /// Exactly these.
    Known(Arc<Ruleset>),
    /// As read back.
    Found(BTreeMap<Family, Saved>),
}

/// Chains of a table that are left as they are: neither changed nor removed.
pub type Kept = BTreeSet<(Family, Table, Name)>;

/// Edits of one table, which take effect together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableEdit {
    /// The table.
    pub table: Table,
    /// Chains, rules and jumps, a line each.
    pub lines: Vec<String>,
    /// Chains of ours that are removed afterwards.
    pub stale: Vec<String>,
    /// Chains of ours that are new in this table.
    pub new: Vec<String>,
    /// Numbers.
    pub changed: Changed,
}

/// Edits of one family in the order in which they are written.
pub type FamilyEdit = Vec<TableEdit>;

/// The edits of one family from what is there to what is wanted.
pub fn edits(wanted: &Ruleset, before: &Before, kept: &Kept, family: Family) -> FamilyEdit {
    let nothing = TableRules::default();
    let wanted = wanted.tables.get(&family);
    let edit = |table: Table| {
        let rules = wanted.and_then(|w| w.get(&table)).unwrap_or(&nothing);
        edit_table(rules, &TableBefore::new(before, family, table), |chain| {
            kept.contains(&(family, table, chain.into()))
        })
    };
    let all = Table::ALL.into_iter().map(edit);
    let is_change = |edit: &TableEdit| !edit.lines.is_empty() || !edit.stale.is_empty();
    in_order(all.filter(is_change).collect())
}

/// Tables are written one after the other. What gains rules comes first, in the order of the packets: what an early table allows
/// must not meet the denial of a later one alone. What only loses rules comes last, the other way round. And a chain that leaves
/// one table for another is there before it is gone here, so that no policy is in no table.
fn in_order(edits: Vec<TableEdit>) -> FamilyEdit {
    let gains = |edit: &TableEdit| edit.changed.rules_added > 0;
    let (mut edits, mut losers): (Vec<_>, Vec<_>) = edits.into_iter().partition(gains);
    losers.reverse();
    edits.append(&mut losers);
    let must_wait = |edits: &[TableEdit]| {
        let moves_to = |from: &TableEdit, to: &TableEdit| {
            from.stale.iter().any(|chain| to.new.contains(chain))
        };
        (0..edits.len())
            .flat_map(|n| (n + 1..edits.len()).map(move |later| (n, later)))
            .find(|(n, later)| moves_to(&edits[*n], &edits[*later]))
    };
    // Each move may bring another one about; policies that change places in a circle leave no good order.
    for _ in 0..Table::ALL.len() {
        let Some((n, later)) = must_wait(&edits) else {
            break;
        };
        let first = edits.remove(later);
        edits.insert(n, first);
    }
    edits
}

/// One table of what is there.
struct TableBefore<'a> {
    family: Family,
    table: Table,
    known: Option<&'a TableRules>,
    found: Option<&'a FoundTable>,
}

/// A chain that is there.
enum ChainBefore {
    Absent,
    /// It holds just what is wanted.
    Same,
    /// Rules; `None` is one that is not ours.
    Rules(Vec<Option<RuleId>>),
}

impl<'a> TableBefore<'a> {
    fn new(before: &'a Before, family: Family, table: Table) -> TableBefore<'a> {
        let (known, found) = match before {
            Before::Known(ruleset) => {
                let tables = ruleset.tables.get(&family);
                (tables.and_then(|t| t.get(&table)), None)
            }
            Before::Found(families) => {
                let tables = families.get(&family).map(|f| &f.tables);
                (None, tables.and_then(|t| t.get(&table)))
            }
        };
        TableBefore {
            family,
            table,
            known,
            found,
        }
    }

    fn chains(&self) -> Vec<&'a str> {
        let known = self.known.into_iter().flat_map(|t| t.chains.keys());
        let found = self.found.into_iter().flat_map(|t| t.chains.keys());
        known
            .map(|name| &**name)
            .chain(found.map(String::as_str))
            .collect()
    }

    fn chain(&self, name: &str, wanted: &Chain) -> ChainBefore {
        if let Some(rules) = self.known.and_then(|t| t.chains.get(name)) {
            if Arc::ptr_eq(rules, wanted) || rules == wanted {
                return ChainBefore::Same;
            }
            let ids = rules.iter().map(|r| render(r, self.family).id);
            return ChainBefore::Rules(ids.collect());
        }
        match self.found.and_then(|t| t.chains.get(name)) {
            Some(ids) => ChainBefore::Rules(ids.clone()),
            None => ChainBefore::Absent,
        }
    }

    fn hooks(&self) -> BTreeMap<&'a str, Vec<FoundRule>> {
        let mut hooks: BTreeMap<&str, Vec<FoundRule>> = BTreeMap::new();
        for hook in in_chain_order(self.known.map_or(&[], |t| &t.hooks)) {
            let Rendered { id, text } = render_hook(&hook.rule, self.family);
            let rules = hooks.entry(hook.chain).or_default();
            rules.push(FoundRule { id, text });
        }
        for (chain, rules) in self.found.into_iter().flat_map(|t| &t.hooks) {
            hooks.insert(chain, rules.clone());
        }
        hooks
    }
}

/// Those at the head of a chain come first.
fn in_chain_order(hooks: &[Hook]) -> impl Iterator<Item = &Hook> {
    let of = |first: bool| hooks.iter().filter(move |h| h.first == first);
    of(true).chain(of(false))
}

fn edit_table(
    wanted: &TableRules,
    before: &TableBefore<'_>,
    is_kept: impl Fn(&str) -> bool,
) -> TableEdit {
    let mut edit = TableEdit {
        table: before.table,
        lines: Vec::new(),
        stale: Vec::new(),
        new: Vec::new(),
        changed: Changed::default(),
    };
    let mut lines = Vec::new();
    for (chain, rules) in wanted.chains.iter().filter(|(name, _)| !is_kept(name)) {
        let found = match before.chain(chain, rules) {
            ChainBefore::Same => continue,
            ChainBefore::Absent => {
                edit.new.push(chain.to_string());
                None
            }
            ChainBefore::Rules(ids) => Some(ids),
        };
        let rendered: Vec<Rendered> = rules.iter().map(|r| render(r, before.family)).collect();
        let size = edit.lines.len() + lines.len();
        edit_chain(&mut edit, &mut lines, chain, &rendered, found.as_deref());
        edit.changed.chains += usize::from(edit.lines.len() + lines.len() > size);
    }
    edit.lines.append(&mut lines);
    // Jumps come after the chains they lead to.
    edit_hooks(&mut edit, wanted, before);
    let is_stale = |c: &&str| !wanted.chains.contains_key(*c) && !is_kept(c);
    let stale = before.chains().into_iter().filter(is_stale);
    edit.stale = stale.map(str::to_owned).collect();
    edit.changed.chains_removed = edit.stale.len();
    edit
}

fn edit_chain(
    edit: &mut TableEdit,
    lines: &mut Vec<String>,
    chain: &str,
    wanted: &[Rendered],
    found: Option<&[Option<RuleId>]>,
) {
    let Some(found) = found.filter(|rules| rules.iter().all(Option::is_some)) else {
        // The head line creates the chain, or empties it when somebody wrote into it.
        edit.lines.push(format!(":{chain} - [0:0]"));
        lines.extend(wanted.iter().map(|r| format!("-A {chain} {}", r.text)));
        edit.changed.rules_added += wanted.len();
        edit.changed.rules_removed += found.map_or(0, <[_]>::len);
        return;
    };
    let same = |(w, f): &(&Rendered, &Option<RuleId>)| w.id == **f;
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
    edit.changed.rules_added += added.len();
    edit.changed.rules_removed += removed;
}

/// Our rules in built-in chains: at the head exactly there and in order, appended ones anywhere.
fn edit_hooks(edit: &mut TableEdit, wanted: &TableRules, before: &TableBefore<'_>) {
    let found = before.hooks();
    let chains = found.keys().copied();
    let chains: BTreeSet<&str> = chains.chain(wanted.hooks.iter().map(|h| h.chain)).collect();
    for chain in chains {
        let of = |first: bool| -> Vec<Rendered> {
            let hooks = wanted.hooks.iter();
            let hooks = hooks.filter(|h| h.chain == chain && h.first == first);
            hooks.map(|h| render_hook(&h.rule, before.family)).collect()
        };
        let (head, tail) = (of(true), of(false));
        let found = found.get(chain).map_or(&[][..], Vec::as_slice);
        if hooks_stand(&head, &tail, found) {
            continue;
        }
        // By text, not by position: others may have added rules that the tool does not show.
        let ours: Vec<&FoundRule> = found.iter().filter(|r| r.id.is_some()).collect();
        let lines = &mut edit.lines;
        lines.extend(ours.iter().map(|r| format!("-D {chain} {}", r.text)));
        let first = head.iter().enumerate();
        lines.extend(first.map(|(i, r)| format!("-I {chain} {} {}", i + 1, r.text)));
        lines.extend(tail.iter().map(|r| format!("-A {chain} {}", r.text)));
        edit.changed.rules_removed += ours.len();
        edit.changed.rules_added += head.len() + tail.len();
    }
}

fn hooks_stand(head: &[Rendered], tail: &[Rendered], found: &[FoundRule]) -> bool {
    let is_head = found.len() >= head.len() && found.iter().zip(head).all(|(f, h)| f.id == h.id);
    let rest = found.iter().skip(head.len()).filter(|f| f.id.is_some());
    is_head && rest.map(|f| f.id).eq(tail.iter().map(|t| t.id))
}
