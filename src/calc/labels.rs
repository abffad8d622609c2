//! Labels as small numbers, and who carries them.
//!
//! A label that nobody carries and no selector asks about is forgotten at once, so values that come and go leave nothing behind.

use std::sync::Arc;

use foldhash::HashMap;
use slab::Slab;

use super::posting::{HolderId, Posting};
use crate::selector;

/// Number of a label's name.
pub type KeyId = u32;
/// Number of a name and value together.
pub type LabelId = u32;

#[derive(Debug)]
struct Key {
    name: Arc<str>,
    values: HashMap<Arc<str>, LabelId>,
    /// How often it is kept although no value of it may be.
    pins: u32,
}

#[derive(Debug)]
struct Label {
    key: KeyId,
    value: Arc<str>,
    /// How often it is kept: by holders, and by selectors that name it.
    pins: u32,
    holders: Posting,
}

/// All labels in use.
#[derive(Debug, Default)]
pub struct LabelTable {
    keys: Slab<Key>,
    by_name: HashMap<Arc<str>, KeyId>,
    labels: Slab<Label>,
}

impl LabelTable {
    /// The number of a name, kept until it is unpinned.
    pub fn pin_key(&mut self, name: &str) -> KeyId {
        let id = self.key_id(name);
        self.keys[id as usize].pins += 1;
        id
    }

    /// Undoes [`LabelTable::pin_key`].
    pub fn unpin_key(&mut self, id: KeyId) {
        self.keys[id as usize].pins -= 1;
        self.sweep_key(id);
    }

    /// The number of a name and value, kept until it is unpinned.
    pub fn pin(&mut self, name: &str, value: &str) -> LabelId {
        let key = self.key_id(name);
        let values = &mut self.keys[key as usize].values;
        if let Some(id) = values.get(value) {
            self.labels[*id as usize].pins += 1;
            return *id;
        }
        let value: Arc<str> = value.into();
        let id = self.labels.insert(Label {
            key,
            value: value.clone(),
            pins: 1,
            holders: Posting::default(),
        }) as LabelId;
        values.insert(value, id);
        id
    }

    /// Keeps a label once more.
    pub fn repin(&mut self, id: LabelId) {
        self.labels[id as usize].pins += 1;
    }

    /// Undoes [`LabelTable::pin`].
    pub fn unpin(&mut self, id: LabelId) {
        let label = &mut self.labels[id as usize];
        label.pins -= 1;
        if label.pins > 0 {
            return;
        }
        let label = self.labels.remove(id as usize);
        self.keys[label.key as usize].values.remove(&label.value);
        self.sweep_key(label.key);
    }

    /// Files a holder under a label that it has pinned.
    pub fn file(&mut self, id: LabelId, holder: HolderId) {
        self.labels[id as usize].holders.insert(holder);
    }

    /// Undoes [`LabelTable::file`].
    pub fn unfile(&mut self, id: LabelId, holder: HolderId) {
        self.labels[id as usize].holders.remove(holder);
    }

    /// The number of a label's name.
    pub fn key(&self, id: LabelId) -> KeyId {
        self.labels[id as usize].key
    }

    /// A label's name.
    pub fn name(&self, id: LabelId) -> &str {
        &self.keys[self.key(id) as usize].name
    }

    /// A label's value.
    pub fn value(&self, id: LabelId) -> &str {
        &self.labels[id as usize].value
    }

    /// The holders of one label.
    pub fn with_value<'a>(
        &'a self,
        name: &str,
        value: &str,
    ) -> impl Iterator<Item = HolderId> + use<'a> {
        let key = self.by_name.get(name).map(|id| &self.keys[*id as usize]);
        let id = key.and_then(|key| key.values.get(value));
        let holders = id.map(|id| self.labels[*id as usize].holders.iter());
        holders.into_iter().flatten()
    }

    /// The holders of a label of this name, whatever its value.
    pub fn with_name<'a>(&'a self, name: &str) -> impl Iterator<Item = HolderId> + use<'a> {
        let key = self.by_name.get(name).map(|id| &self.keys[*id as usize]);
        let ids = key.into_iter().flat_map(|key| key.values.values());
        ids.flat_map(|id| self.labels[*id as usize].holders.iter())
    }

    fn key_id(&mut self, name: &str) -> KeyId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let name: Arc<str> = name.into();
        let id = self.keys.insert(Key {
            name: name.clone(),
            values: HashMap::default(),
            pins: 0,
        }) as KeyId;
        self.by_name.insert(name, id);
        id
    }

    fn sweep_key(&mut self, id: KeyId) {
        let key = &self.keys[id as usize];
        if key.pins == 0 && key.values.is_empty() {
            let key = self.keys.remove(id as usize);
            self.by_name.remove(&key.name);
        }
    }

    /// Numbers of names and labels in use.
    #[cfg(test)]
    pub fn sizes(&self) -> (usize, usize) {
        (self.keys.len(), self.labels.len())
    }
}

/// The labels of one holder.
#[derive(Clone, Copy, Debug)]
pub struct LabelView<'a> {
    /// Where the numbers mean something.
    pub table: &'a LabelTable,
    /// Its own labels, sorted by name.
    pub own: &'a [LabelId],
    /// Labels that it inherits and does not have itself, sorted by name.
    pub inherited: &'a [LabelId],
}

impl LabelView<'_> {
    /// All labels, each name once.
    pub fn iter(&self) -> impl Iterator<Item = LabelId> + '_ {
        self.own.iter().chain(self.inherited).copied()
    }
}

impl selector::Labels for LabelView<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let find = |list: &[LabelId]| {
            let place = list.binary_search_by(|id| self.table.name(*id).cmp(key));
            place.ok().map(|place| list[place])
        };
        let id = find(self.own).or_else(|| find(self.inherited))?;
        Some(self.table.value(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selector::Labels as _;

    #[test]
    fn nothing_is_left_of_labels_that_are_gone() {
        let mut table = LabelTable::default();
        let key = table.pin_key("app");
        for n in 0..1_000 {
            let id = table.pin("pod", &format!("p{n}"));
            table.file(id, n);
            let app = table.pin("app", "a");
            table.file(app, n);
            assert_eq!(
                table
                    .with_value("pod", &format!("p{n}"))
                    .collect::<Vec<_>>(),
                [n]
            );
            assert_eq!(table.with_name("pod").collect::<Vec<_>>(), [n]);
            table.unfile(id, n);
            table.unpin(id);
            table.unfile(app, n);
            table.unpin(app);
            assert_eq!(table.sizes(), (1, 0));
        }
        table.unpin_key(key);
        assert_eq!(table.sizes(), (0, 0));
        assert_eq!(table.with_name("app").count(), 0);
    }

    #[test]
    fn own_labels_and_inherited_ones_are_found() {
        let mut table = LabelTable::default();
        let own = [table.pin("a", "1"), table.pin("c", "3")];
        let inherited = [table.pin("b", "2")];
        let view = LabelView {
            table: &table,
            own: &own,
            inherited: &inherited,
        };
        let found = ["a", "b", "c", "d"].map(|key| view.get(key));
        assert_eq!(found, [Some("1"), Some("2"), Some("3"), None]);
    }
}
