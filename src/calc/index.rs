//! Selectors filed by what they require, so that a change of labels asks only those that it may concern.

use std::collections::BTreeMap;

use foldhash::HashMap;

use super::labels::{KeyId, LabelId, LabelTable, LabelView};
use crate::selector::{Restriction, Selector};

/// What labels must have at least one of to match a selector, in words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bucket {
    /// A label with a value.
    Value(String, String),
    /// A label with any value.
    Present(String),
    /// Nothing in particular.
    Any,
}

/// The narrowest set of buckets that the restrictions of a selector allow. No labels are in two of them. None at all when
/// nothing can match.
pub fn buckets(selector: &Selector) -> Vec<Bucket> {
    if selector.never_matches() {
        return Vec::new();
    }
    let mut best: Option<(usize, Vec<Bucket>)> = None;
    for (label, restriction) in selector.restrictions() {
        let (cost, found) = match restriction {
            Restriction::OneOf(values) => (
                values.len(),
                values
                    .into_iter()
                    .map(|v| Bucket::Value(label.clone(), v))
                    .collect(),
            ),
            Restriction::Present => (usize::MAX - 1, vec![Bucket::Present(label)]),
            Restriction::Absent => continue,
        };
        if best.as_ref().is_none_or(|(c, _)| cost < *c) {
            best = Some((cost, found));
        }
    }
    best.map_or_else(|| vec![Bucket::Any], |(_, b)| b)
}

/// A bucket in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Value(LabelId),
    Present(KeyId),
    Any,
}

/// Numbered selectors by place.
#[derive(Debug, Default)]
pub struct SelectorIndex {
    places: BTreeMap<u32, Vec<Place>>,
    filed: HashMap<Place, Vec<Filed>>,
}

#[derive(Debug)]
struct Filed {
    id: u32,
    /// What else must hold. Most selectors are one term, which the place says.
    rest: Option<Selector>,
}

impl SelectorIndex {
    /// Adds or replaces.
    pub fn insert(&mut self, table: &mut LabelTable, id: u32, selector: &Selector) {
        let places = buckets(selector).into_iter().map(|bucket| match bucket {
            Bucket::Value(name, value) => Place::Value(table.pin(&name, &value)),
            Bucket::Present(name) => Place::Present(table.pin_key(&name)),
            Bucket::Any => Place::Any,
        });
        let places: Vec<Place> = places.collect();
        self.remove(table, id);
        for place in &places {
            let rest = (!selector.is_plain()).then(|| selector.clone());
            let filed = self.filed.entry(*place).or_default();
            filed.push(Filed { id, rest });
        }
        self.places.insert(id, places);
    }

    /// Removes; unknown ids are fine.
    pub fn remove(&mut self, table: &mut LabelTable, id: u32) {
        for place in self.places.remove(&id).unwrap_or_default() {
            if let Some(filed) = self.filed.get_mut(&place) {
                filed.retain(|other| other.id != id);
                if filed.is_empty() {
                    self.filed.remove(&place);
                }
            }
            match place {
                Place::Value(label) => table.unpin(label),
                Place::Present(key) => table.unpin_key(key),
                Place::Any => {}
            }
        }
    }

    /// The ids whose selectors match these labels, in order.
    pub fn matching(&self, labels: &LabelView<'_>) -> Vec<u32> {
        let mut found = Vec::new();
        let mut look = |place: Place| {
            let filed = self.filed.get(&place).into_iter().flatten();
            let holds = |f: &&Filed| f.rest.as_ref().is_none_or(|s| s.matches(labels));
            found.extend(filed.filter(holds).map(|f| f.id));
        };
        look(Place::Any);
        for label in labels.iter() {
            look(Place::Value(label));
            look(Place::Present(labels.table.key(label)));
        }
        found.sort_unstable();
        found
    }
}
