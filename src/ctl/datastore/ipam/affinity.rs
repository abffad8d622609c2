//! Which host has which block of addresses, and what becomes of the blocks of a host or pool that goes.

use ipnet::IpNet;

use super::block::Block;
use super::{TRIES, conflict, put};
use crate::ctl::Failure;
use crate::ctl::datastore::db::Db;
use crate::etcd::{Condition, Write, keys};

/// What a host that gives a block back says meanwhile (facts 1.16).
const PENDING_DELETION: &str = r#"{"state":"pendingDeletion","deleted":false}"#;

/// That a host has a block, as it is stored beside the block.
#[derive(Debug)]
pub struct Affinity {
    /// The host.
    pub host: String,
    /// The addresses of the block.
    pub net: IpNet,
    key: String,
}

impl Affinity {
    /// All that are stored.
    fn all(db: &mut Db) -> Result<Vec<Affinity>, Failure> {
        let found = db.scan(&format!("{}host/", keys::IPAM))?;
        let found = found.iter().map(|kv| String::from_utf8_lossy(&kv.key));
        Ok(found.filter_map(|key| Affinity::of(&key)).collect())
    }

    fn of(key: &str) -> Option<Affinity> {
        let rest = key.strip_prefix(keys::IPAM)?.strip_prefix("host/")?;
        let (host, rest) = rest.split_once("/ipv")?;
        let (_, block) = rest.split_once("/block/")?;
        Some(Affinity {
            host: host.to_owned(),
            net: block.replacen('-', "/", 1).parse().ok()?,
            key: key.to_owned(),
        })
    }

    fn block_key(&self) -> String {
        let version = if self.net.addr().is_ipv4() { 4 } else { 6 };
        let net = self.net.to_string().replacen('/', "-", 1);
        format!("{}assignment/ipv{version}/block/{net}", keys::IPAM)
    }

    /// Takes the block from the host: it goes if nothing uses its addresses, or stays as nobody's, as Calico's client does it.
    fn release(&self, db: &mut Db) -> Result<(), Failure> {
        for _ in 0..TRIES {
            let Some(own) = db.get_key(&self.key)? else {
                return Ok(());
            };
            // The host is about to take the block: what it began, it finds undone.
            let Some(block) = Block::get(db, &self.block_key())? else {
                return Ok(());
            };
            let own = Condition::Revision(own.revision);
            let is_others = block.affinity().is_some() && block.host() != Some(&self.host);
            if is_others {
                db.write(&self.key, own, Write::Delete)?;
                return Ok(());
            }
            let value = PENDING_DELETION.into();
            let Some(own) = db.write(&self.key, own, Write::Put { value, lease: 0 })? else {
                continue;
            };
            let write = match block.is_empty() {
                true => Write::Delete,
                false => put(&block.disowned()),
            };
            let condition = Condition::Revision(block.revision);
            if db.write(&block.key, condition, write)?.is_some() {
                db.write(&self.key, Condition::Revision(own), Write::Delete)?;
                return Ok(());
            }
        }
        Err(conflict(&self.key))
    }
}

/// Takes from hosts the blocks that are wanted.
pub fn release(db: &mut Db, wanted: impl Fn(&Affinity) -> bool) -> Result<(), Failure> {
    for affinity in Affinity::all(db)?.iter().filter(|a| wanted(a)) {
        affinity.release(db)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_blocks() {
        let of = |rest: &str| Affinity::of(&format!("/calico/ipam/v2/{rest}"));
        let four = of("host/web-1/ipv4/block/10.0.0.64-26").unwrap();
        assert_eq!(
            (&*four.host, &*four.net.to_string()),
            ("web-1", "10.0.0.64/26")
        );
        assert_eq!(
            four.block_key(),
            "/calico/ipam/v2/assignment/ipv4/block/10.0.0.64-26"
        );
        let six = of("host/n/ipv6/block/fd00::40-122").unwrap();
        assert_eq!(
            six.block_key(),
            "/calico/ipam/v2/assignment/ipv6/block/fd00::40-122"
        );
        for other in [
            "host/n",
            "host/n/ipv4/block/x",
            "handle/n",
            "host/n/ipv4/x/10.0.0.0-26",
        ] {
            assert!(of(other).is_none(), "{other}");
        }
    }
}
