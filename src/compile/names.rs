//! Names of chains and sets: short, stable, readable, and within the kernel's limits.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::api::{Family, Kind, ResourceId};
use crate::calc::{Direction, SetId};

/// iptables accepts chain names of up to 28 characters.
const CHAIN_MAX: usize = 28;
/// The kernel accepts set names of up to 31 characters.
const SET_MAX: usize = 31;
/// Characters of the hash that tells two long names apart.
const HASH_LEN: usize = 8;

/// First characters of a hash of the text, letters and digits only.
pub fn short_hash(text: &str, len: usize) -> String {
    let encoded = URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes()));
    encoded
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(len)
        .collect()
}

/// `prefix` and as much of `readable` as fits, with a hash of `identity`.
fn hashed(prefix: &str, readable: &str, identity: &str, max: usize) -> String {
    let room = max - prefix.len() - HASH_LEN - 1;
    let mut slug = String::new();
    for c in readable.chars() {
        let c = if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        };
        if !(c == '-' && (slug.is_empty() || slug.ends_with('-'))) {
            slug.push(c);
        }
        if slug.len() == room {
            break;
        }
    }
    format!(
        "{prefix}{}-{}",
        slug.trim_end_matches('-'),
        short_hash(identity, HASH_LEN)
    )
}

/// A chain named after an endpoint or interface; hashed only when the name is long. The underscore, with which no name of an
/// endpoint begins, keeps a short name from being the hashed form of a long one.
pub fn chain(prefix: &str, name: &str) -> String {
    if prefix.len() + name.len() <= CHAIN_MAX {
        return format!("{prefix}{name}");
    }
    hashed(&format!("{prefix}_"), name, name, CHAIN_MAX)
}

/// The chain of a policy or profile in one direction.
pub fn rules_chain(id: &ResourceId, direction: Direction) -> String {
    let prefix = match (id.kind == Kind::Profile, direction) {
        (false, Direction::Ingress) => "moat-pi-",
        (false, Direction::Egress) => "moat-po-",
        (true, Direction::Ingress) => "moat-pri-",
        (true, Direction::Egress) => "moat-pro-",
    };
    hashed(prefix, &id.name, &id.to_string(), CHAIN_MAX)
}

/// The root of the tree that stands for the policies of one tier in a chain of an endpoint.
pub fn tree(chain: &str, tier: &str, direction: Direction) -> String {
    let prefix = match direction {
        Direction::Ingress => "moat-ti-",
        Direction::Egress => "moat-te-",
    };
    let hash = short_hash(&format!("{chain} {tier}"), HASH_LEN);
    format!("{prefix}{hash}")
}

/// `moat4-` or `moat6-`.
pub fn set_prefix(family: Family) -> &'static str {
    match family {
        Family::V4 => "moat4-",
        Family::V6 => "moat6-",
    }
}

/// The set of a selector or named port.
pub fn set(id: &SetId, family: Family) -> String {
    let readable = match id {
        SetId::Selector(selector) => selector.to_string(),
        SetId::NamedPort { port, .. } => format!("port.{port}"),
    };
    hashed(set_prefix(family), &readable, &format!("{id:?}"), SET_MAX)
}

/// A set that is named after its contents, because they never change.
pub fn constant_set(what: &str, contents: &str, family: Family) -> String {
    hashed(set_prefix(family), what, contents, SET_MAX)
}

/// `namespace/name`, or the name alone.
pub fn qualified(id: &ResourceId) -> String {
    if id.namespace.is_empty() {
        id.name.clone()
    } else {
        format!("{}/{}", id.namespace, id.name)
    }
}
