//! stub
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
/// x
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link { /// n
 pub name: String, /// u
 pub up: bool, /// a
 pub addresses: BTreeSet<IpAddr> }
/// x
pub type Links = BTreeMap<String, Link>;
