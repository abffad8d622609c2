//! What is to change in the kernel, and what was changed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What changes in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// Chains created or changed.
    pub chains: usize,
    /// Rules added.
    pub rules_added: usize,
    /// Rules removed.
    pub rules_removed: usize,
    /// Sets created.
    pub sets_created: usize,
    /// Set members added or removed.
    pub members: usize,
    /// Chains removed.
    pub chains_removed: usize,
    /// Sets removed.
    pub sets_removed: usize,
}

impl Changed {
    /// Whether nothing changes.
    pub fn is_nothing(&self) -> bool {
        *self == Changed::default()
    }

    /// Adds other changes.
    pub fn add(&mut self, other: Changed) {
        self.chains += other.chains;
        self.rules_added += other.rules_added;
        self.rules_removed += other.rules_removed;
        self.sets_created += other.sets_created;
        self.members += other.members;
        self.chains_removed += other.chains_removed;
        self.sets_removed += other.sets_removed;
    }
}

/// The difference between what is wanted and what is there, as lines for a reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Every change, prefixed by the short name of the tool that would make it, in order.
    pub lines: Vec<String>,
    /// Numbers.
    pub changed: Changed,
}

impl Plan {
    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

/// Something of the policy that is not in force.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refused {
    /// What, in policy words.
    pub object: String,
    /// Why, in the words of who refused it.
    pub reason: String,
}

impl Refused {
    /// Says so.
    pub fn new(object: &str, reason: &str) -> Refused {
        Refused {
            object: object.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Numbers.
    pub changed: Changed,
    /// What is not in force. Everything else is. The caller shows it and tries again, with all members, after a while.
    pub refused: BTreeSet<Refused>,
}
