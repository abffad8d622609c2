//! Equal lists stored once.

use std::collections::BTreeMap;
use std::sync::Arc;

use slab::Slab;

/// Number of a value in a pool.
pub type PoolId = u32;

/// Values that many holders have in common, each kept as long as somebody uses it.
#[derive(Debug)]
pub struct Pool<T: ?Sized> {
    ids: BTreeMap<Arc<T>, PoolId>,
    slots: Slab<(Arc<T>, u32)>,
}

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Pool {
            ids: BTreeMap::new(),
            slots: Slab::new(),
        }
    }
}

impl<T: ?Sized + Ord> Pool<T>
where
    for<'a> Arc<T>: From<&'a T>,
{
    /// The number of a value, which one more user keeps.
    pub fn acquire(&mut self, value: &T) -> PoolId {
        if let Some(id) = self.ids.get(value) {
            self.slots[*id as usize].1 += 1;
            return *id;
        }
        let value: Arc<T> = value.into();
        let id = self.slots.insert((value.clone(), 1)) as PoolId;
        self.ids.insert(value, id);
        id
    }

    /// One more user of a value.
    pub fn reacquire(&mut self, id: PoolId) {
        self.slots[id as usize].1 += 1;
    }

    /// One user less.
    pub fn release(&mut self, id: PoolId) {
        let slot = &mut self.slots[id as usize];
        slot.1 -= 1;
        if slot.1 == 0 {
            let (value, _) = self.slots.remove(id as usize);
            self.ids.remove(&value);
        }
    }

    /// The value.
    pub fn get(&self, id: PoolId) -> &Arc<T> {
        &self.slots[id as usize].0
    }

    /// Every value in use.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.ids.keys().map(|value| &**value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_with_their_last_user() {
        let mut pool: Pool<str> = Pool::default();
        let (a, b) = (pool.acquire("a"), pool.acquire("b"));
        assert_eq!(pool.acquire("a"), a);
        assert_eq!(&**pool.get(b), "b");
        pool.release(a);
        assert_eq!(pool.values().collect::<Vec<_>>(), ["a", "b"]);
        pool.release(a);
        assert_eq!(pool.values().collect::<Vec<_>>(), ["b"]);
    }
}
