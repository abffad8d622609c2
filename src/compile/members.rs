//! Members of the host policy's sets in the form in which the kernel keeps them.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::ruleset::Member;
use crate::api::Family;
use crate::calc::IpSet;

/// The members of a set in one family.
pub fn of(set: &IpSet, family: Family) -> Vec<Member> {
    match set {
        IpSet::Nets(nets) => {
            let own = nets.iter().filter(|n| Family::of_net(n) == family);
            own.flat_map(|n| storable(*n)).map(Member::Net).collect()
        }
        IpSet::Ports(ports) => {
            let own = ports.iter().filter(|(a, ..)| Family::of(*a) == family);
            own.map(|(a, p, n)| Member::AddrPort(*a, *p, *n)).collect()
        }
    }
}

/// `hash:net` refuses the prefix of length zero: two halves say the same.
pub fn storable(net: IpNet) -> Vec<IpNet> {
    if net.prefix_len() > 0 {
        return vec![net.trunc()];
    }
    match net {
        IpNet::V4(_) => [Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(128, 0, 0, 0)]
            .map(|a| IpNet::V4(Ipv4Net::new_assert(a, 1)))
            .to_vec(),
        IpNet::V6(_) => [
            Ipv6Addr::UNSPECIFIED,
            Ipv6Addr::new(0x8000, 0, 0, 0, 0, 0, 0, 0),
        ]
        .map(|a| IpNet::V6(Ipv6Net::new_assert(a, 1)))
        .to_vec(),
    }
}
