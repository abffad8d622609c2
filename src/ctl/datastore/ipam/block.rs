//! Blocks of addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::read;
use crate::ctl::Failure;
use crate::ctl::datastore::db::Db;
use crate::etcd::keys;

/// The handle of addresses that hosts with Windows reserve.
pub const WINDOWS_RESERVED: &str = "windows-reserved-ipam-handle";
/// What Calico stores of a block, in its order.
const FIELDS: [&str; 8] = [
    "cidr",
    "affinity",
    "allocations",
    "unallocated",
    "attributes",
    "sequenceNumber",
    "sequenceNumberForAllocation",
    "deleted",
];

/// A block and where it is stored.
pub struct Block {
    /// Its key.
    pub key: String,
    /// The revision that wrote it.
    pub revision: i64,
    /// Its addresses.
    pub net: IpNet,
    value: Value,
}

impl Block {
    /// All blocks.
    pub fn all(db: &mut Db) -> Result<Vec<Block>, Failure> {
        let found = db.scan(&format!("{}assignment/", keys::IPAM))?;
        let block = |kv: crate::etcd::KeyValue| {
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            Block::new(key, kv.revision, read(&kv.value))
        };
        Ok(found.into_iter().filter_map(block).collect())
    }

    /// The block of a key, if it holds one.
    pub fn get(db: &mut Db, key: &str) -> Result<Option<Block>, Failure> {
        let found = db.get_key(key)?;
        Ok(found.and_then(|kv| Block::new(key.to_owned(), kv.revision, read(&kv.value))))
    }

    /// A block in its stored form, if it is one.
    pub fn new(key: String, revision: i64, value: Value) -> Option<Block> {
        let net = value["cidr"].as_str()?.parse().ok()?;
        value["allocations"].as_array()?;
        Some(Block {
            key,
            revision,
            net,
            value,
        })
    }

    fn allocations(&self) -> &[Value] {
        self.value["allocations"]
            .as_array()
            .map_or(&[], Vec::as_slice)
    }

    /// How many of its addresses are in use.
    pub fn used(&self) -> usize {
        self.allocations().iter().filter(|a| !a.is_null()).count()
    }

    /// Whether no host has it.
    pub fn is_nobodys(&self) -> bool {
        self.value["affinity"].as_str().is_none_or(str::is_empty)
    }

    /// The attributes of an address, if it is in use.
    pub fn attributes(&self, ip: IpAddr) -> Option<&Value> {
        let index = self.allocations().get(self.place(ip)?)?.as_u64()?;
        self.value["attributes"].get(usize::try_from(index).ok()?)
    }

    /// The addresses in use, each with its attributes.
    pub fn uses(&self) -> impl Iterator<Item = (IpAddr, &Value)> {
        let used = |(n, index): (u128, &Value)| {
            let attributes = self.value["attributes"].get(index.as_u64()? as usize);
            let ip = match self.net.network() {
                IpAddr::V4(v4) => IpAddr::from((u32::from(v4) + n as u32).to_be_bytes()),
                IpAddr::V6(v6) => IpAddr::from((u128::from(v6) + n).to_be_bytes()),
            };
            Some((ip, attributes.unwrap_or(&Value::Null)))
        };
        (0..).zip(self.allocations()).filter_map(used)
    }

    /// Whose it is, if anybody's.
    pub fn affinity(&self) -> Option<&str> {
        self.value["affinity"].as_str()
    }

    /// Of which host it is, if of one.
    pub fn host(&self) -> Option<&str> {
        self.affinity()?.strip_prefix("host:")
    }

    fn place(&self, ip: IpAddr) -> Option<usize> {
        let inside = self.net.contains(&ip);
        let place = number(ip).checked_sub(number(self.net.network()))?;
        usize::try_from(place).ok().filter(|_| inside)
    }

    /// Whether nothing uses any of its addresses; those that hosts with Windows reserve in each block do not count.
    pub fn is_empty(&self) -> bool {
        let handle = |attributes: &Value| attributes["handle_id"].as_str().map(str::to_lowercase);
        self.uses()
            .all(|(_, attributes)| handle(attributes).as_deref() == Some(WINDOWS_RESERVED))
    }

    /// The block as nobody's, in the form in which Calico writes it.
    pub fn disowned(&self) -> Value {
        self.rewritten(&[("affinity", Value::Null)])
    }

    /// The block without those of these addresses that are in use, in the form in which Calico writes it.
    pub fn without(&self, ips: &[IpAddr]) -> Value {
        let mut allocations = self.allocations().to_vec();
        let mut unallocated = self.list("unallocated");
        let mut sequences = self.value["sequenceNumberForAllocation"].clone();
        let mut gone = BTreeSet::new();
        for place in ips.iter().filter_map(|ip| self.place(*ip)) {
            let Some(index) = allocations.get_mut(place).and_then(|a| a.take().as_u64()) else {
                continue;
            };
            gone.insert(index);
            unallocated.push(place.into());
            if let Some(sequences) = sequences.as_object_mut() {
                sequences.shift_remove(&place.to_string());
            }
        }
        gone.retain(|index| !allocations.contains(&json!(index)));
        // Attributes that no address has any more go, and those behind them move up.
        for allocation in &mut allocations {
            if let Some(index) = allocation.as_u64() {
                *allocation = json!(index - gone.range(..index).count() as u64);
            }
        }
        let attributes = (0..).zip(self.list("attributes"));
        let attributes = attributes.filter(|(index, _)| !gone.contains(index));
        self.rewritten(&[
            ("allocations", allocations.into()),
            ("unallocated", unallocated.into()),
            ("attributes", attributes.map(|(_, a)| a).collect()),
            ("sequenceNumberForAllocation", sequences),
        ])
    }

    fn list(&self, field: &str) -> Vec<Value> {
        self.value[field].as_array().cloned().unwrap_or_default()
    }

    /// The block with changes, as a next version of it.
    fn rewritten(&self, changes: &[(&str, Value)]) -> Value {
        let mut block = Map::new();
        for field in FIELDS {
            let changed = changes.iter().find(|(name, _)| *name == field);
            let value = changed.map_or(&self.value[field], |(_, value)| value);
            let value = match field {
                "attributes" => value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(attribute)
                    .collect(),
                "sequenceNumber" => (value.as_u64().unwrap_or(0) + 1).into(),
                "deleted" => value.as_bool().unwrap_or(false).into(),
                _ => value.clone(),
            };
            block.insert(field.to_owned(), value);
        }
        block.into()
    }
}

fn attribute(stored: &Value) -> Value {
    json!({"handle_id": stored["handle_id"], "secondary": stored["secondary"]})
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_goes() {
        let value = json!({"cidr": "192.168.1.0/30", "affinity": "host:h", "allocations": [0, 1, 1, null], "unallocated": [3],
            "attributes": [{"handle_id": "a", "secondary": {"node": "h"}}, {"handle_id": "b"}], "deleted": false});
        let block = Block::new(String::new(), 1, value).unwrap();
        assert_eq!((block.used(), block.is_nobodys()), (3, false));
        let ip = |n: u8| IpAddr::from([192, 168, 1, n]);
        assert_eq!(block.attributes(ip(1)).unwrap()["handle_id"], "b");
        assert!(block.attributes(ip(3)).is_none() && block.attributes(ip(9)).is_none());
        let uses: Vec<IpAddr> = block.uses().map(|(ip, _)| ip).collect();
        assert_eq!(uses, [ip(0), ip(1), ip(2)]);
        let six = json!({"cidr": "fd00::/122", "allocations": [null, 0], "attributes": []});
        let six = Block::new(String::new(), 1, six).unwrap();
        let uses: Vec<String> = six.uses().map(|(ip, _)| ip.to_string()).collect();
        assert_eq!(uses, ["fd00::1"]);
        let after = block.without(&[ip(0)]);
        assert_eq!(after["allocations"], json!([null, 0, 0, null]));
        assert_eq!(after["unallocated"], json!([3, 0]));
        assert_eq!(
            after["attributes"],
            json!([{"handle_id": "b", "secondary": null}])
        );
        let after = block.without(&[ip(1)]);
        assert_eq!(after["allocations"], json!([0, null, 1, null]));
        assert_eq!(after["attributes"].as_array().unwrap().len(), 2);
        let after = block.without(&[ip(0), ip(3), ip(9)]);
        assert_eq!(after["allocations"], json!([null, 0, 0, null]));
        let after = block.without(&[ip(2), ip(0), ip(1)]);
        assert_eq!(after["allocations"], json!([null, null, null, null]));
        assert_eq!(after["unallocated"], json!([3, 2, 0, 1]));
        assert_eq!(
            (&after["attributes"], &after["sequenceNumber"]),
            (&json!([]), &json!(1))
        );
        let after = block.disowned();
        assert_eq!(
            (&after["affinity"], &after["allocations"]),
            (&Value::Null, &json!([0, 1, 1, null]))
        );
        assert!(Block::new(String::new(), 1, json!({})).is_none());
    }
}
