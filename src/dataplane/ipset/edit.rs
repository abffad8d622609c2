//! What changes in the sets of moat.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::content::{Content, PolicySets};
use super::super::plan::{Changed, Refused};
use super::{member_text, wire};
use crate::api::Family;
use crate::compile::{Member, Name, Ruleset, SetKind, SetSpec};

/// One set that changes.
#[derive(Debug)]
pub struct SetEdit {
    /// Its name.
    pub name: Name,
    /// What it is for.
    pub spec: Arc<SetSpec>,
    /// How it changes.
    pub how: How,
}

/// How a set changes.
#[derive(Debug)]
pub enum How {
    /// There is none.
    Create(Content),
    /// Another one takes its place.
    Rebuild(Content),
    /// Members, new and old ones.
    Change(Vec<Member>, Vec<Member>),
}

/// Everything that changes.
#[derive(Debug, Default)]
pub struct SetPlan {
    /// Sets that are new or change.
    pub edits: Vec<SetEdit>,
    /// Sets of ours that nothing needs any more.
    pub gone: Vec<String>,
    /// What sets do for the rules, when rules change together with members.
    pub effects: Option<BTreeMap<Name, Effect>>,
}

/// What more members of a set do, for the rules that use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// More packets are allowed.
    Opens,
    /// Fewer packets are allowed.
    Closes,
    /// Some of both.
    Mixed,
}

/// Sets that the kernel refused.
#[derive(Debug, Default)]
pub struct SetFailures {
    /// They are not there.
    pub missing: BTreeMap<Name, String>,
    /// They keep the members that they had.
    pub stale: BTreeMap<Name, String>,
}

impl SetFailures {
    /// Whether nothing was refused.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.stale.is_empty()
    }

    /// Says what was refused in policy words.
    pub fn tell(&self, ruleset: &Ruleset, refused: &mut Refused) {
        for (name, reason) in self.stale.iter().chain(&self.missing) {
            let note = ruleset.sets.get(name).map_or(&**name, |spec| &*spec.note);
            refused.insert(note.to_owned(), reason.clone());
        }
    }
}

impl SetEdit {
    /// A change, unless nothing changes.
    pub fn new(name: &Name, spec: &Arc<SetSpec>, how: How) -> Option<SetEdit> {
        let is_nothing = matches!(&how, How::Change(a, r) if a.is_empty() && r.is_empty());
        (!is_nothing).then(|| SetEdit {
            name: name.clone(),
            spec: spec.clone(),
            how,
        })
    }

    fn lines(&self) -> Vec<String> {
        let name = &self.name;
        let verb = |verb: &str, m: &Member| format!("ipset: {verb} {name} {}", member_text(m));
        let create = |word: &str, content: &Content| {
            let kind = wire::type_name(self.spec.kind);
            let family = match (self.spec.kind, self.spec.family) {
                (SetKind::Ports, _) => "",
                (_, Family::V4) => " family inet",
                (_, Family::V6) => " family inet6",
            };
            let mut lines = vec![format!("ipset: {word} {name} {kind}{family}")];
            lines.extend(content.iter().map(|m| verb("add", &m)));
            lines
        };
        match &self.how {
            How::Create(content) => create("create", content),
            How::Rebuild(content) => create("replace", content),
            How::Change(added, removed) => {
                let added = added.iter().map(|m| verb("add", m));
                added
                    .chain(removed.iter().map(|m| verb("del", m)))
                    .collect()
            }
        }
    }
}

impl SetPlan {
    /// All sets of a ruleset, none of which is there.
    pub fn from_nothing(wanted: &Ruleset, policy: &PolicySets) -> SetPlan {
        let create = |(name, spec): (&Name, &Arc<SetSpec>)| SetEdit {
            name: name.clone(),
            spec: spec.clone(),
            how: How::Create(Content::new(spec, policy)),
        };
        SetPlan {
            edits: wanted.sets.iter().map(create).collect(),
            ..SetPlan::default()
        }
    }

    /// What a set does, when rules change too.
    pub fn effect(&self, name: &Name) -> Option<Effect> {
        let effects = self.effects.as_ref()?;
        Some(*effects.get(name).unwrap_or(&Effect::Mixed))
    }

    /// Whether members come or go in sets that rules may use.
    pub fn changes_members(&self) -> bool {
        self.edits.iter().any(|e| matches!(e.how, How::Change(..)))
    }

    /// What changes in numbers.
    pub fn changed(&self) -> Changed {
        let mut changed = Changed {
            sets_removed: self.gone.len(),
            ..Changed::default()
        };
        for edit in &self.edits {
            match &edit.how {
                How::Create(content) | How::Rebuild(content) => {
                    changed.sets_created += 1;
                    changed.members += content.count();
                }
                How::Change(added, removed) => changed.members += added.len() + removed.len(),
            }
        }
        changed
    }

    /// Lines for a reader: what comes before the rules, and what comes after them.
    pub fn lines(&self) -> (Vec<String>, Vec<String>) {
        let before = self.edits.iter().flat_map(SetEdit::lines).collect();
        let gone = self
            .gone
            .iter()
            .map(|name| format!("ipset: destroy {name}"));
        (before, gone.collect())
    }
}
