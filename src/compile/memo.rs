//! Policies and profiles that are written as kernel rules already. Only what changed is written again.

use std::collections::HashMap;
use std::sync::Arc;

use super::Options;
use super::names;
use super::policy::{Targets, Writer, notes};
use super::ruleset::{Chain, KRule, Match, Name, Target};
use super::sets::Sets;
use crate::api::{Family, ResourceId};
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
    /// Whether a rule allows.
    pub(super) allows: bool,
    /// Whether a rule passes.
    pub(super) passes: bool,
}

/// What makes the same policy be written in several ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Variant {
    pub(super) direction: Direction,
    pub(super) family: Family,
    /// Denied packets are answered.
    pub(super) reject: bool,
}

#[derive(Debug)]
struct Entry {
    lists: Arc<RuleLists>,
    notes: HashMap<Direction, Vec<Name>>,
    /// Each with the number of the last compilation that asked for it.
    variants: HashMap<Variant, (Arc<Written>, u64)>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Memo {
    entries: HashMap<Arc<ResourceId>, Entry>,
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
            entry.variants.retain(|_, (_, used)| *used == run);
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
        let entry = match self.entries.get_mut(&lists.id) {
            Some(entry) => entry,
            None => self
                .entries
                .entry(lists.id.clone())
                .or_insert_with(|| Entry {
                    lists: lists.clone(),
                    notes: HashMap::new(),
                    variants: HashMap::new(),
                }),
        };
        if !Arc::ptr_eq(&entry.lists, lists) {
            entry.lists = lists.clone();
            entry.notes.clear();
            entry.variants.clear();
        }
        if let Some((written, used)) = entry.variants.get_mut(&variant) {
            *used = self.run;
            return written.clone();
        }
        let notes = entry
            .notes
            .entry(variant.direction)
            .or_insert_with(|| notes(lists, variant.direction));
        let [allow, pass] = self.marking.clone();
        let deny = if variant.reject {
            Target::Reject
        } else {
            Target::Drop
        };
        let targets = Targets { allow, pass, deny };
        let mut writer = Writer {
            options,
            targets: &targets,
            family: variant.family,
            sets: &mut self.sets,
        };
        let rules: Chain = writer.chain(lists, variant.direction, notes).into();
        let goes = |to: &Target| rules.iter().any(|r| r.target == *to);
        self.serial += 1;
        let written = Arc::new(Written {
            serial: self.serial,
            name: names::rules_chain(&lists.id, variant.direction).into(),
            note: lists.id.to_string().into(),
            allows: goes(&targets.allow),
            passes: goes(&targets.pass),
            rules,
        });
        entry.variants.insert(variant, (written.clone(), self.run));
        written
    }
}

/// The names of the sets that a rule looks into.
pub(super) fn sets_of(rule: &KRule) -> impl Iterator<Item = &Name> {
    rule.matches.iter().filter_map(|m| match m {
        Match::Set(_, name, _) | Match::PortSet(_, name, _) => Some(name),
        _ => None,
    })
}
