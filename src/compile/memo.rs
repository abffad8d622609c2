//! Policies and profiles that are written as kernel rules already. Only what changed is written again.

use std::collections::HashMap;
use std::sync::Arc;

use super::Options;
use super::entry::Key;
use super::names;
use super::policy::{Targets, Writer, notes};
use super::ruleset::{Chain, KRule, Match, Name, Target};
use super::sets::Sets;
use crate::api::Family;
use crate::calc::{Direction, RuleLists};

/// The rules of a policy or profile in one direction, for one family and way to deny.
#[derive(Debug)]
pub(super) struct Written {
    /// Of all rules ever written, these only have this number.
    pub(super) serial: u64,
    /// The name of the chain, should they have one of their own.
    pub(super) name: Name,
    /// Whose they are.
    pub(super) note: Name,
    /// The rules.
    pub(super) rules: Chain,
    /// Where in a port tree each of them belongs.
    pub(super) keys: Vec<Key>,
    /// Whether a rule sets the accept mark.
    pub(super) marks: bool,
    /// Whether a rule sets the pass mark.
    pub(super) passes: bool,
}

/// What makes the same policy be written in several ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) direction: Direction,
    pub(super) family: Family,
    /// Denied packets are answered.
    pub(super) reject: bool,
    /// Allowed packets are accepted at once, not marked.
    pub(super) accept: bool,
}

#[derive(Debug)]
struct Entry {
    /// Kept, so that nothing else can have the address by which they are found.
    lists: Arc<RuleLists>,
    notes: Vec<(Direction, Vec<Name>)>,
    /// Each with the number of the last compilation that asked for it.
    variants: Vec<(Variant, Arc<Written>, u64)>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Memo {
    /// By the address of the rules: rules that change are other rules.
    entries: HashMap<usize, Entry>,
    pub(super) sets: Sets,
    /// Targets of Allow and Pass.
    marking: [Target; 2],
    serial: u64,
    run: u64,
}

impl Memo {
    /// An empty one. Chain names are given once, so that all rules share them.
    pub(super) fn new(allow: Target, pass: Target) -> Memo {
        Memo {
            entries: HashMap::new(),
            sets: Sets::default(),
            marking: [allow, pass],
            serial: 0,
            run: 0,
        }
    }

    /// Begins a compilation.
    pub(super) fn begin(&mut self) {
        self.run += 1;
    }

    /// Forgets what no policy asked for in this compilation.
    pub(super) fn end(&mut self) {
        let run = self.run;
        let mut forgotten = false;
        self.entries.retain(|_, entry| {
            let before = entry.variants.len();
            entry.variants.retain(|(_, _, used)| *used == run);
            forgotten |= entry.variants.len() < before;
            !entry.variants.is_empty()
        });
        if forgotten {
            self.sets.forget_unused();
        }
    }

    /// The rules of a policy or profile, written now if they were not.
    pub(super) fn written(
        &mut self,
        lists: &Arc<RuleLists>,
        variant: Variant,
        options: &Options,
    ) -> Arc<Written> {
        let address = Arc::as_ptr(lists).addr();
        let entry = self.entries.entry(address).or_insert_with(|| Entry {
            lists: lists.clone(),
            notes: Vec::new(),
            variants: Vec::new(),
        });
        if let Some((_, written, used)) = entry.variants.iter_mut().find(|(v, ..)| *v == variant) {
            *used = self.run;
            return written.clone();
        }
        let notes = entry.notes(variant.direction);
        let [mark, pass] = self.marking.clone();
        let targets = Targets {
            allow: if variant.accept { Target::Accept } else { mark },
            pass,
            deny: if variant.reject {
                Target::Reject
            } else {
                Target::Drop
            },
        };
        let mut writer = Writer {
            options,
            targets: &targets,
            family: variant.family,
            sets: &mut self.sets,
        };
        let rules: Chain = writer.chain(lists, variant.direction, &notes).into();
        self.serial += 1;
        let written = Arc::new(Written::new(self.serial, lists, variant, rules, &targets));
        entry.variants.push((variant, written.clone(), self.run));
        written
    }
}

impl Written {
    fn new(
        serial: u64,
        lists: &RuleLists,
        variant: Variant,
        rules: Chain,
        targets: &Targets,
    ) -> Written {
        let goes = |to: &Target| rules.iter().any(|r| r.target == *to);
        Written {
            serial,
            name: names::rules_chain(&lists.id, variant.direction).into(),
            note: lists.id.to_string().into(),
            marks: !variant.accept && goes(&targets.allow),
            passes: goes(&targets.pass),
            keys: rules.iter().map(Key::of).collect(),
            rules,
        }
    }
}

impl Entry {
    /// The notes of a direction, which all variants share.
    fn notes(&mut self, direction: Direction) -> Vec<Name> {
        if let Some((_, notes)) = self.notes.iter().find(|(d, _)| *d == direction) {
            return notes.clone();
        }
        let notes = notes(&self.lists, direction);
        self.notes.push((direction, notes.clone()));
        notes
    }
}

/// The names of the sets that a rule looks into.
pub(super) fn sets_of(rule: &KRule) -> impl Iterator<Item = &Name> {
    rule.matches.iter().filter_map(|m| match m {
        Match::Set(_, name, _) | Match::PortSet(_, name, _) => Some(name),
        _ => None,
    })
}
