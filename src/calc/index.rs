//! Two indexes by label, so that a change costs what it touches: labels to the selectors that may match them, and a
//! selector to the labelled things it may match.

use std::collections::{BTreeMap, BTreeSet};

use crate::selector::{Restriction, Selector};

/// Labels of a thing after inheritance.
pub type LabelMap = BTreeMap<String, String>;

/// Where a selector is filed: it cannot match labels that hit none of its buckets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bucket {
    Value(String, String),
    Present(String),
    Any,
}

/// The narrowest set of buckets that the restrictions of a selector allow.
fn buckets(selector: &Selector) -> Vec<Bucket> {
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

/// Selectors filed by what they require.
#[derive(Debug)]
pub struct SelectorIndex<I> {
    selectors: BTreeMap<I, Selector>,
    buckets: BTreeMap<Bucket, BTreeSet<I>>,
}

impl<I> Default for SelectorIndex<I> {
    fn default() -> Self {
        SelectorIndex {
            selectors: BTreeMap::new(),
            buckets: BTreeMap::new(),
        }
    }
}

impl<I: Ord + Clone> SelectorIndex<I> {
    /// Adds or replaces.
    pub fn insert(&mut self, id: I, selector: Selector) {
        self.remove(&id);
        for bucket in buckets(&selector) {
            self.buckets.entry(bucket).or_default().insert(id.clone());
        }
        self.selectors.insert(id, selector);
    }

    /// Removes; unknown ids are fine.
    pub fn remove(&mut self, id: &I) {
        let Some(selector) = self.selectors.remove(id) else {
            return;
        };
        for bucket in buckets(&selector) {
            if let Some(ids) = self.buckets.get_mut(&bucket) {
                ids.remove(id);
                if ids.is_empty() {
                    self.buckets.remove(&bucket);
                }
            }
        }
    }

    /// The ids whose selectors match these labels.
    pub fn matching(&self, labels: &LabelMap) -> BTreeSet<I> {
        let mut found = BTreeSet::new();
        let mut look = |bucket: &Bucket| {
            for id in self.buckets.get(bucket).into_iter().flatten() {
                if self.selectors[id].matches(labels) {
                    found.insert(id.clone());
                }
            }
        };
        look(&Bucket::Any);
        for (label, value) in labels {
            look(&Bucket::Present(label.clone()));
            look(&Bucket::Value(label.clone(), value.clone()));
        }
        found
    }
}

/// Labelled things filed by label and by label and value.
#[derive(Debug)]
pub struct LabelIndex<I> {
    by_value: BTreeMap<(String, String), BTreeSet<I>>,
    by_label: BTreeMap<String, BTreeSet<I>>,
}

impl<I> Default for LabelIndex<I> {
    fn default() -> Self {
        LabelIndex {
            by_value: BTreeMap::new(),
            by_label: BTreeMap::new(),
        }
    }
}

impl<I: Ord + Clone> LabelIndex<I> {
    /// Files a thing under its labels.
    pub fn insert(&mut self, id: &I, labels: &LabelMap) {
        for (label, value) in labels {
            self.by_value
                .entry((label.clone(), value.clone()))
                .or_default()
                .insert(id.clone());
            self.by_label
                .entry(label.clone())
                .or_default()
                .insert(id.clone());
        }
    }

    /// Takes a thing out; `labels` must be those it was filed under.
    pub fn remove(&mut self, id: &I, labels: &LabelMap) {
        for (label, value) in labels {
            remove_from(&mut self.by_value, &(label.clone(), value.clone()), id);
            remove_from(&mut self.by_label, label, id);
        }
    }

    /// Whether a test holds for any of the things a selector may match; `None` as in [`LabelIndex::candidates`].
    pub fn any(&self, selector: &Selector, test: impl Fn(&I) -> bool) -> Option<bool> {
        let mut found = false;
        for bucket in buckets(selector) {
            found = found || self.filed(&bucket)?.any(&test);
        }
        Some(found)
    }

    /// The things in one bucket.
    fn filed(&self, bucket: &Bucket) -> Option<impl Iterator<Item = &I>> {
        let ids = match bucket {
            Bucket::Any => return None,
            Bucket::Present(label) => self.by_label.get(label),
            Bucket::Value(label, value) => self.by_value.get(&(label.clone(), value.clone())),
        };
        Some(ids.into_iter().flatten())
    }

    /// The things a selector may match; `None` when it restricts no label and everything must be looked at.
    pub fn candidates(&self, selector: &Selector) -> Option<BTreeSet<I>> {
        let mut found = BTreeSet::new();
        for bucket in buckets(selector) {
            found.extend(self.filed(&bucket)?.cloned());
        }
        Some(found)
    }
}

fn remove_from<K: Ord, I: Ord>(map: &mut BTreeMap<K, BTreeSet<I>>, key: &K, id: &I) {
    if let Some(ids) = map.get_mut(key) {
        ids.remove(id);
        if ids.is_empty() {
            map.remove(key);
        }
    }
}
