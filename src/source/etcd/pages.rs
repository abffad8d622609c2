//! A list in parts, all of one revision.

use super::news::{Item, Part, Value};
use crate::etcd::{Client, EtcdError, KeyValue, Moment, Page, prefix_end};

/// Keys of one part, unless they are large or the network is slow.
pub const MOST: i64 = 1000;

/// A list under way.
pub struct Pages {
    next: Option<Vec<u8>>,
    end: Vec<u8>,
    limit: i64,
    most: i64,
    moment: Moment,
}

impl Pages {
    /// A list of the keys with this prefix, at most so many in one part.
    pub fn new(prefix: &[u8], most: i64) -> Pages {
        Pages {
            next: Some(prefix.to_vec()),
            end: prefix_end(prefix),
            limit: most,
            most,
            moment: Moment::default(),
        }
    }

    /// The moment that the list is of, once a part was read.
    pub fn moment(&self) -> Moment {
        self.moment
    }

    /// The next part; none when the list is complete.
    pub async fn next(&mut self, client: &mut Client) -> Result<Option<Part>, EtcdError> {
        let Some(from) = self.next.take() else {
            return Ok(None);
        };
        loop {
            let revision = self.moment.revision;
            match client.range(&from, &self.end, self.limit, revision).await {
                Ok(page) => {
                    // Large values tend to stand together.
                    self.limit = (self.limit * 2).min(self.most);
                    return Ok(Some(self.part(page, Value::Is)));
                }
                Err(EtcdError::TooLarge { .. }) if self.limit > 1 => {
                    self.limit = (self.limit / 8).max(1);
                }
                Err(EtcdError::TooLarge { .. }) => {
                    let page = client.first_key(&from, &self.end, revision).await?;
                    return Ok(Some(self.part(page, |_| Value::TooLarge)));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn part(&mut self, page: Page, value: fn(Vec<u8>) -> Value) -> Part {
        if self.moment == Moment::default() {
            self.moment = page.now;
        }
        let last = page.items.last().filter(|_| page.more);
        self.next = last.map(|last| [&last.key[..], b"\0"].concat());
        let item = |kv: KeyValue| Item {
            key: kv.key,
            value: value(kv.value),
            revision: kv.revision,
        };
        Part {
            items: page.items.into_iter().map(item).collect(),
            end: self.next.clone(),
        }
    }
}
