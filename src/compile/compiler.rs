//! The compiler with a memory: what did not change is not compiled again, and stays the same pointer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::builder::{Builder, Lists, TreeState, Trees};
use super::memo::{Memo, sets_of};
use super::ruleset::{Chain, Name, Ruleset, Table, TableRules, Target};
use super::tiers::tree_room;
use super::tree::Edits;
use super::{ALLOW_CHAIN, Options, PASS_CHAIN};
use crate::api::Family;
use crate::calc::HostPolicy;

/// Compiles one host policy after the other. The result is that of compiling from scratch; the cost follows what changed.
#[derive(Debug)]
pub struct Compiler {
    options: Options,
    memo: Memo,
    trees: Trees,
    /// What the last policy was compiled to, without its trees.
    frame: Ruleset,
    /// Rules that name a set.
    uses: HashMap<Name, usize>,
    ruleset: Arc<Ruleset>,
}

/// Changes of all chains, by family and table.
type AllEdits = BTreeMap<(Family, Table), Edits>;

impl Compiler {
    /// A compiler that has seen no policy yet.
    pub fn new(options: Options) -> Compiler {
        let goto = |chain: &str| Target::Goto(chain.into());
        Compiler {
            options,
            memo: Memo::new(goto(ALLOW_CHAIN), goto(PASS_CHAIN)),
            trees: Trees::new(),
            frame: Ruleset::default(),
            uses: HashMap::new(),
            ruleset: Arc::default(),
        }
    }

    /// The ruleset of a policy. When nothing changed it is the same pointer as before.
    pub fn compile(&mut self, policy: &HostPolicy, options: &Options) -> Arc<Ruleset> {
        if self.options != *options {
            *self = Compiler::new(options.clone());
        }
        self.memo.begin();
        let mut edits = AllEdits::new();
        let frame = self.build(policy, &mut edits);
        frame_edits(&self.frame, &frame, &mut edits);
        let same_hooks = hooks(&self.frame).eq(hooks(&frame));
        self.frame = frame;
        if !same_hooks || !edits.is_empty() {
            self.publish(edits);
        }
        self.memo.end();
        self.ruleset.clone()
    }

    fn build(&mut self, policy: &HostPolicy, edits: &mut AllEdits) -> Ruleset {
        let mut frame = Ruleset::default();
        let mut old = std::mem::take(&mut self.trees);
        let families: &[Family] = match policy.is_empty() {
            true => &[],
            false => &self.options.families,
        };
        let lists = Lists::new(policy);
        for family in families {
            let trees = TreeState {
                old: &mut old,
                new: &mut self.trees,
                edits,
                shared: HashMap::new(),
                room: tree_room(policy),
            };
            let mut builder = Builder {
                policy,
                lists: &lists,
                options: &self.options,
                marks: self.options.marks(),
                family: *family,
                table: Table::Raw,
                frame: &mut frame,
                memo: &mut self.memo,
                trees,
            };
            builder.family();
        }
        for ((family, table, _), tree) in old {
            tree.remove(edits.entry((family, table)).or_default());
        }
        edits.retain(|_, e| !e.is_empty());
        frame
    }

    /// Brings the ruleset to the new state. Others may still hold the old one, so it is copied then: pointers, not rules.
    fn publish(&mut self, edits: AllEdits) {
        let ruleset = Arc::make_mut(&mut self.ruleset);
        let mut uses: HashMap<Name, isize> = HashMap::new();
        for ((family, table), mut edits) in edits {
            let tables = ruleset.tables.entry(family).or_default();
            let chains = &mut tables.entry(table).or_default().chains;
            // A chain may be gone at one place of a tree and new at another.
            edits.sort_by_key(|(_, chain)| chain.is_some());
            for (name, chain) in edits {
                count(&mut uses, chain.as_ref(), 1);
                let old = match chain {
                    Some(chain) => chains.insert(name, chain),
                    None => chains.remove(&name),
                };
                count(&mut uses, old.as_ref(), -1);
            }
        }
        for (name, change) in uses {
            let before = self.uses.get(&name).copied().unwrap_or(0);
            match before.saturating_add_signed(change) {
                0 => {
                    self.uses.remove(&name);
                    ruleset.sets.remove(&name);
                }
                now => {
                    self.uses.insert(name.clone(), now);
                    if let Some(spec) = self.memo.sets.spec(&name).filter(|_| before == 0) {
                        ruleset.sets.insert(name, spec.clone());
                    }
                }
            }
        }
        copy_hooks(&self.frame, ruleset);
    }
}

/// Counts the rules of a chain that name a set.
fn count(uses: &mut HashMap<Name, isize>, chain: Option<&Chain>, one: isize) {
    for set in chain.into_iter().flat_map(|c| c.iter()).flat_map(sets_of) {
        *uses.entry(set.clone()).or_default() += one;
    }
}

/// The chains in which two frames differ.
fn frame_edits(old: &Ruleset, new: &Ruleset, edits: &mut AllEdits) {
    let chain = |frame: &Ruleset, (family, table): (Family, Table), name: &Name| {
        let rules = frame.tables.get(&family)?.get(&table)?;
        rules.chains.get(name).cloned()
    };
    for (at, name, rules) in chains(new) {
        let same = |old: Chain| Arc::ptr_eq(&old, rules) || old == *rules;
        if !chain(old, at, name).is_some_and(same) {
            let edits = edits.entry(at).or_default();
            edits.push((name.clone(), Some(rules.clone())));
        }
    }
    for (at, name, _) in chains(old) {
        if chain(new, at, name).is_none() {
            edits.entry(at).or_default().push((name.clone(), None));
        }
    }
}

fn tables(ruleset: &Ruleset) -> impl Iterator<Item = ((Family, Table), &TableRules)> {
    let of_family = |(family, tables): (&Family, _)| {
        let family = *family;
        let tables: &BTreeMap<Table, TableRules> = tables;
        tables.iter().map(move |(t, rules)| ((family, *t), rules))
    };
    ruleset.tables.iter().flat_map(of_family)
}

fn chains(ruleset: &Ruleset) -> impl Iterator<Item = ((Family, Table), &Name, &Chain)> {
    tables(ruleset).flat_map(|(at, rules)| rules.chains.iter().map(move |(n, c)| (at, n, c)))
}

fn hooks(ruleset: &Ruleset) -> impl Iterator<Item = ((Family, Table), &super::Hook)> {
    tables(ruleset).flat_map(|(at, rules)| rules.hooks.iter().map(move |h| (at, h)))
}

/// Takes over the hooks of the frame, and drops tables without content.
fn copy_hooks(frame: &Ruleset, ruleset: &mut Ruleset) {
    for (family, tables) in &mut ruleset.tables {
        for (table, rules) in tables.iter_mut() {
            let of_frame = frame.tables.get(family).and_then(|t| t.get(table));
            rules.hooks = of_frame.map_or(Vec::new(), |r| r.hooks.clone());
        }
        tables.retain(|_, r| !(r.hooks.is_empty() && r.chains.is_empty()));
    }
    ruleset.tables.retain(|_, tables| !tables.is_empty());
}
