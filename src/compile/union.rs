//! Rules that differ in one IP set only, as one rule with the union of their sets: a packet pays for one look instead of many.
//!
//! Rules next to each other with the same action commute, and whether any of them matches is all that counts. So among those,
//! rules that say the same but for one set become one, in the place of the first.

use std::collections::{BTreeSet, HashMap};

use super::ruleset::{End, KRule, Match, Name, Target};
use super::sets::Sets;
use crate::api::Family;

/// Bytes of the note of a merged rule; a comment in the kernel has no room for more.
const NOTE_MAX: usize = 200;

/// Merges rules of one family.
pub(super) struct Merger<'a> {
    /// Fewer rules than this are left as they are.
    pub(super) from: usize,
    pub(super) family: Family,
    pub(super) sets: &'a mut Sets,
}

/// What rules have in common that differ in one set: its place, whose addresses it is about, and all other matches.
type Key<'a> = (usize, End, &'a [Match], &'a [Match]);

impl Merger<'_> {
    /// The same verdict with fewer rules.
    pub(super) fn merge(&mut self, rules: Vec<KRule>) -> Vec<KRule> {
        if rules.len() < self.from {
            return rules;
        }
        let runs = rules.chunk_by(|a, b| a.target == b.target);
        runs.flat_map(|run| self.run(run)).collect()
    }

    /// The rules of one action, next to each other.
    fn run(&mut self, run: &[KRule]) -> Vec<KRule> {
        let mut groups: HashMap<Key<'_>, Vec<&KRule>> = HashMap::new();
        // Each Log rule that matches writes a line of its own.
        for rule in run.iter().filter(|r| !matches!(r.target, Target::Log(_))) {
            if let Some(key) = self.key(rule) {
                groups.entry(key).or_default().push(rule);
            }
        }
        groups.retain(|_, group| group.len() >= self.from);
        let mut merged = Vec::new();
        for rule in run {
            let key = self.key(rule);
            match key.and_then(|key| Some((key.0, groups.get(&key)?))) {
                None => merged.push(rule.clone()),
                Some((at, group)) if std::ptr::eq(group[0], rule) => {
                    merged.push(self.one(at, group))
                }
                // In the rule of the first one already.
                Some(_) => {}
            }
        }
        merged
    }

    fn key<'a>(&self, rule: &'a KRule) -> Option<Key<'a>> {
        let of_selector = |m: &Match| match m {
            Match::Set(end, name, false) if self.sets.is_of_selectors(name) => Some(*end),
            _ => None,
        };
        let mut found = rule.matches.iter().map(of_selector).enumerate();
        let (at, end) = found.find_map(|(at, end)| Some((at, end?)))?;
        Some((at, end, &rule.matches[..at], &rule.matches[at + 1..]))
    }

    /// The rule that says what all of these say, which differ in the match at this place.
    fn one(&mut self, at: usize, group: &[&KRule]) -> KRule {
        let names: BTreeSet<&Name> = group.iter().filter_map(|r| set_at(r, at)).collect();
        let union = self.sets.union(&names, self.family);
        let mut matches = group[0].matches.to_vec();
        if let Some(Match::Set(_, name, _)) = matches.get_mut(at) {
            *name = union;
        }
        KRule::new(matches, group[0].target.clone(), note(group))
    }
}

fn set_at(rule: &KRule, at: usize) -> Option<&Name> {
    match rule.matches.get(at) {
        Some(Match::Set(_, name, _)) => Some(name),
        _ => None,
    }
}

/// Whose rules they are: as many as there is room for, and how many there are.
fn note(group: &[&KRule]) -> String {
    let mut note = format!("{} rules: {}", group.len(), group[0].note);
    for rule in &group[1..] {
        if note.len() + rule.note.len() > NOTE_MAX {
            note += "; ...";
            break;
        }
        note += "; ";
        note += &rule.note;
    }
    note
}
