//! Which holders have something in common: the lists of an inverted index.

use roaring::RoaringBitmap;

/// Number of a holder while it exists.
pub type HolderId = u32;

/// Up to here a plain list is smaller than a bitmap.
const FEW: usize = 32;

/// A set of holders. Most have few members (a pod's own label), some nearly all (an environment).
#[derive(Clone, Debug)]
pub enum Posting {
    /// Sorted.
    Few(Vec<HolderId>),
    /// Boxed, because it is the rarer and larger form.
    Many(Box<RoaringBitmap>),
}

impl Default for Posting {
    fn default() -> Posting {
        Posting::Few(Vec::new())
    }
}

impl Posting {
    /// Adds a holder.
    pub fn insert(&mut self, holder: HolderId) {
        match self {
            Posting::Many(bitmap) => {
                bitmap.insert(holder);
            }
            Posting::Few(list) => {
                if let Err(place) = list.binary_search(&holder) {
                    list.insert(place, holder);
                }
                if list.len() > FEW {
                    let bitmap = list.iter().copied().collect();
                    *self = Posting::Many(Box::new(bitmap));
                }
            }
        }
    }

    /// Takes a holder out.
    pub fn remove(&mut self, holder: HolderId) {
        match self {
            Posting::Few(list) => {
                if let Ok(place) = list.binary_search(&holder) {
                    list.remove(place);
                }
            }
            Posting::Many(bitmap) => {
                bitmap.remove(holder);
                // Half of the limit, so that one holder that comes and goes does not convert it each time.
                if bitmap.len() <= (FEW / 2) as u64 {
                    *self = Posting::Few(bitmap.iter().collect());
                }
            }
        }
    }

    /// The holders in order.
    pub fn iter(&self) -> impl Iterator<Item = HolderId> + '_ {
        let (few, many) = match self {
            Posting::Few(list) => (list.as_slice(), None),
            Posting::Many(bitmap) => (&[][..], Some(bitmap.iter())),
        };
        few.iter().copied().chain(many.into_iter().flatten())
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        match self {
            Posting::Few(list) => list.is_empty(),
            Posting::Many(bitmap) => bitmap.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn is_a_set_in_both_forms() {
        let mut posting = Posting::default();
        let mut plain = BTreeSet::new();
        // Up over the limit, down below it, and over it again; every number comes several times.
        for step in 0..1_000_u32 {
            let holder = step.wrapping_mul(2_654_435_761) % 97;
            if (step / 200) % 2 == 0 {
                posting.insert(holder);
                plain.insert(holder);
            } else {
                posting.remove(holder);
                plain.remove(&holder);
            }
            assert!(posting.iter().eq(plain.iter().copied()), "step {step}");
            assert_eq!(posting.is_empty(), plain.is_empty());
        }
    }
}
