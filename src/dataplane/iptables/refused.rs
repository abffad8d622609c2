//! What takes the place of rules that the kernel refuses, so that one of them does not stop the others.
//!
//! A chain with a refused rule stays as it was. If it is new, a refused rule that allows is left out, and any other becomes a
//! denial of at least the packets that it is about: the host is stricter than its policy, never more open.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::diff::{Before, Kept};
use super::render::{RuleId, render};
use crate::api::Family;
use crate::compile::{ALLOW_CHAIN, Chain, KRule, Match, Name, Ruleset, Table, TableRules, Target};
use crate::dataplane::plan::Refused;

/// A table of a family.
type Place = (Family, Table);
/// A chain in it.
type At = (Family, Table, Name);

/// What the kernel or a tool has refused, with the words of the refusal.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Rules.
    pub rules: BTreeMap<(Family, Table, RuleId), String>,
    /// Tables that cannot be written at all.
    pub tables: BTreeMap<Place, String>,
    /// Sets that are not there.
    pub sets: BTreeMap<Name, String>,
    /// Chains that hold substitutes, and so nothing to go back to.
    stricter: Kept,
}

/// What is written instead of a ruleset of which something is refused.
#[derive(Clone, Debug)]
pub struct Possible {
    /// The rules.
    pub ruleset: Arc<Ruleset>,
    /// Chains that stay as they were found.
    pub kept: Kept,
    /// Tables that stay as they were found.
    pub closed: BTreeSet<Place>,
    /// What of the policy is not in force.
    pub refused: Refused,
    /// Whether, once it is written, the kernel holds just these rules.
    pub is_exact: bool,
}

impl Possible {
    /// Whether a rule that is written or stays may use a set. Of a chain that stays as it was found it is not known.
    pub fn may_need(&self, set: &str) -> bool {
        !self.kept.is_empty() || self.ruleset.sets.contains_key(set)
    }
}

impl Refusals {
    /// Whether nothing is refused.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.tables.is_empty() && self.sets.is_empty()
    }

    /// The best that can be written.
    pub fn possible(&mut self, wanted: &Arc<Ruleset>, before: &Before) -> Possible {
        let mut possible = Possible {
            ruleset: wanted.clone(),
            kept: Kept::new(),
            closed: BTreeSet::new(),
            refused: Refused::new(),
            is_exact: true,
        };
        if self.is_empty() {
            self.stricter.clear();
            return possible;
        }
        let mut ruleset = (**wanted).clone();
        let mut stricter = Kept::new();
        for (at, chain) in all_chains(wanted) {
            if !self.is_refused(&at, chain, &mut possible.refused) {
                continue;
            }
            match fallback(before, &at) {
                Fallback::Known(old, rules) if !self.stricter.contains(&at) => {
                    put_back(&mut ruleset, old, &at, rules);
                }
                Fallback::Found if !self.stricter.contains(&at) => {
                    possible.kept.insert(at);
                }
                _ => {
                    put(&mut ruleset, &at, self.stricter_chain(&at, chain));
                    stricter.insert(at);
                }
            }
        }
        self.stricter = stricter;
        self.close_tables(&mut ruleset, before, &mut possible);
        possible.ruleset = Arc::new(ruleset);
        let is_known = matches!(before, Before::Known(_));
        possible.is_exact = possible.kept.is_empty() && (possible.closed.is_empty() || is_known);
        possible
    }

    /// Whether a rule of a chain is refused; says so of each of them.
    fn is_refused(&self, at: &At, chain: &Chain, said: &mut Refused) -> bool {
        let mut any = false;
        for rule in chain.iter() {
            if let Some(reason) = self.reason(at, rule) {
                any = true;
                // A rule that only leads on has no words of its own.
                let what = match &*rule.note {
                    "" => format!("chain {}", at.2),
                    note => note.to_owned(),
                };
                said.entry(what).or_insert_with(|| reason.to_owned());
            }
        }
        any
    }

    fn reason(&self, at: &At, rule: &KRule) -> Option<&str> {
        let mut sets = rule.matches.iter().filter_map(set_name);
        if let Some(reason) = sets.find_map(|name| self.sets.get(name)) {
            return Some(reason);
        }
        self.refusal(at, rule)
    }

    /// Rules are rendered only when one of the table is refused.
    fn refusal(&self, (family, table, _): &At, rule: &KRule) -> Option<&str> {
        let mut places = self.rules.keys().map(|(f, t, _)| (f, t));
        places.find(|place| *place == (family, table))?;
        let id = render(rule, *family).id?;
        self.rules.get(&(*family, *table, id)).map(String::as_str)
    }

    fn stricter_chain(&self, at: &At, chain: &Chain) -> Chain {
        let substitute = |rule: &KRule| match self.reason(at, rule) {
            None => Some(rule.clone()),
            Some(_) => self.stricter_rule(at, rule),
        };
        chain.iter().filter_map(substitute).collect()
    }

    fn stricter_rule(&self, at: &At, rule: &KRule) -> Option<KRule> {
        match &rule.target {
            Target::Accept | Target::Log(_) => return None,
            Target::Goto(chain) | Target::Jump(chain) if **chain == *ALLOW_CHAIN => return None,
            _ => {}
        }
        // Fewer conditions hold for more packets.
        let plain = rule.matches.iter().filter(|m| is_plain(m)).cloned();
        let denial = KRule::new(plain.collect(), Target::Drop, rule.note.clone());
        Some(match self.refusal(at, &denial) {
            None => denial,
            Some(_) => KRule::new(Vec::new(), Target::Drop, rule.note.clone()),
        })
    }

    /// Leaves tables that cannot be written as they are, and those from which a chain was to move there.
    fn close_tables(&self, ruleset: &mut Ruleset, before: &Before, possible: &mut Possible) {
        for ((family, table), reason) in &self.tables {
            let name = format!("table {} of IPv{}", table.name(), family.number());
            possible.refused.insert(name, reason.clone());
            let wanted = ruleset.tables.get(family);
            let comes: BTreeSet<Name> = wanted
                .and_then(|t| t.get(table))
                .map(|t| t.chains.keys().cloned().collect())
                .unwrap_or_default();
            for from in Table::ALL {
                let stays = wanted.and_then(|t| t.get(&from));
                let leaves = |name: &Name| {
                    chain_is_there(before, &(*family, from, name.clone()))
                        && !stays.is_some_and(|t| t.chains.contains_key(name))
                };
                if from == *table || comes.iter().any(leaves) {
                    possible.closed.insert((*family, from));
                }
            }
        }
        if let Before::Known(old) = before {
            for (family, table) in &possible.closed {
                let old = old.tables.get(family).and_then(|t| t.get(table));
                let tables = ruleset.tables.entry(*family).or_default();
                match old {
                    Some(old) => tables.insert(*table, old.clone()),
                    None => tables.remove(table),
                };
            }
        }
    }
}

/// What a chain with a refused rule goes back to.
enum Fallback<'a> {
    /// What it was made to be before.
    Known(&'a Ruleset, &'a Chain),
    /// What was found in it.
    Found,
    /// It was not there.
    None,
}

fn fallback<'a>(before: &'a Before, (family, table, name): &At) -> Fallback<'a> {
    match before {
        Before::Known(old) => {
            let rules = old.tables.get(family).and_then(|t| t.get(table));
            match rules.and_then(|t| t.chains.get(name)) {
                Some(rules) => Fallback::Known(old, rules),
                None => Fallback::None,
            }
        }
        Before::Found(found) => {
            let rules = found.get(family).and_then(|f| f.tables.get(table));
            match rules.and_then(|t| t.chains.get(&**name)) {
                // An empty chain, or one that somebody else wrote into, is nothing to go back to.
                Some(ids) if !ids.is_empty() && ids.iter().all(Option::is_some) => Fallback::Found,
                _ => Fallback::None,
            }
        }
    }
}

fn chain_is_there(before: &Before, at: &At) -> bool {
    !matches!(fallback(before, at), Fallback::None)
}

fn all_chains(ruleset: &Ruleset) -> impl Iterator<Item = (At, &Chain)> {
    let tables = ruleset
        .tables
        .iter()
        .flat_map(|(family, tables)| tables.iter().map(move |(t, rules)| (*family, *t, rules)));
    tables.flat_map(|(family, table, rules)| {
        let chains = rules.chains.iter();
        chains.map(move |(name, chain)| ((family, table, name.clone()), chain))
    })
}

fn chain<'a>(ruleset: &'a Ruleset, (family, table, name): &At) -> Option<&'a Chain> {
    ruleset.tables.get(family)?.get(table)?.chains.get(name)
}

fn put(ruleset: &mut Ruleset, (family, table, name): &At, rules: Chain) {
    let tables = ruleset.tables.entry(*family).or_default();
    let table: &mut TableRules = tables.entry(*table).or_default();
    table.chains.insert(name.clone(), rules);
}

/// Puts an old chain back, with the chains that it leads to and the sets that it asks, as far as they are gone.
fn put_back(ruleset: &mut Ruleset, old: &Ruleset, at: &At, rules: &Chain) {
    put(ruleset, at, rules.clone());
    for rule in rules.iter() {
        for set in rule.matches.iter().filter_map(set_name) {
            if let Some(spec) = old.sets.get(set) {
                let sets = &mut ruleset.sets;
                sets.entry(set.clone()).or_insert_with(|| spec.clone());
            }
        }
        if let Target::Jump(name) | Target::Goto(name) = &rule.target {
            let to = (at.0, at.1, name.clone());
            if let (None, Some(rules)) = (chain(ruleset, &to), chain(old, &to)) {
                put_back(ruleset, old, &to, rules);
            }
        }
    }
}

fn set_name(condition: &Match) -> Option<&Name> {
    match condition {
        Match::Set(_, name, _) | Match::PortSet(_, name, _) => Some(name),
        _ => None,
    }
}

/// Conditions that every kernel can judge.
fn is_plain(condition: &Match) -> bool {
    matches!(
        condition,
        Match::InIface(_) | Match::OutIface(_) | Match::Protocol(..) | Match::Net(..)
    )
}
