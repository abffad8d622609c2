//! A host that is closed but for failsafes, without any tool: one native nf_tables table, written by netlink.
//!
//! For the boot at which the firewall tools do not work. It is gone as soon as moatd has its policy in the kernel.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use rustix::io::Errno;

use super::exchange;
use super::wire::{Batch, Command, Compare, INET, Rule, Value};
use crate::api::Protocol;
use crate::config::{Failsafe, Settings};

/// The table's name. IPv4 and IPv6 share it.
pub const TABLE: &str = "moat-boot";
/// The loopback interface has this index in every network namespace.
const LOOPBACK: u32 = 1;
/// Keys of `meta`: interface that a packet comes in by and goes out by, family, transport protocol.
const META: (u32, u32, u32, u32) = (4, 5, 15, 16);
/// Bits of established and related connections.
const KNOWN: u32 = 1 << 1 | 1 << 2;
/// The ICMPv6 types of neighbour discovery.
const DISCOVERY: (u8, u8) = (133, 137);
/// `NF_DROP`.
const DROP: u32 = 0;

/// A direction: the chain's name, its hook, and where the loopback interface, the failsafes' ports and addresses are.
struct Direction<'a> {
    chain: &'static str,
    hook: u32,
    interface: u32,
    failsafes: &'a [Failsafe],
    /// Offsets of the other end's address in the headers of IPv4 and IPv6.
    address: (u32, u32),
}

/// Closes this network namespace but for the loopback interface, known connections, neighbour discovery and failsafes.
///
/// # Errors
/// The kernel has no nf_tables, or the privilege is missing.
pub fn close(settings: &Settings) -> io::Result<()> {
    exchange(closing(settings))
}

/// Takes away what [`close`] made; says whether there was anything.
///
/// # Errors
/// The kernel refused. One without nf_tables holds nothing of it.
pub fn open() -> io::Result<bool> {
    let mut batch = Batch::new(INET);
    batch.add(Command::DeleteTable, &[(1, Value::Text(TABLE))]);
    match exchange(batch) {
        Ok(()) => Ok(true),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::OPNOTSUPP | Errno::PROTONOSUPPORT | Errno::INVAL) => {
                Ok(false)
            }
            _ => Err(error),
        },
    }
}

/// Whether there is anything that [`close`] made.
pub fn is_closed() -> bool {
    exchange(Batch::question(&[(1, Value::Text(TABLE))])).is_ok()
}

fn closing(settings: &Settings) -> Batch {
    let mut batch = Batch::new(INET);
    // Made, removed, made again: so it is as it shall be whatever was there.
    batch.add(Command::NewTable, &[(1, Value::Text(TABLE))]);
    batch.add(Command::DeleteTable, &[(1, Value::Text(TABLE))]);
    batch.add(Command::NewTable, &[(1, Value::Text(TABLE))]);
    let directions = [
        Direction {
            chain: "input",
            hook: 1,
            interface: META.0,
            failsafes: &settings.failsafe_inbound_host_ports,
            address: (12, 8),
        },
        Direction {
            chain: "forward",
            hook: 2,
            interface: META.0,
            failsafes: &[],
            address: (12, 8),
        },
        Direction {
            chain: "output",
            hook: 3,
            interface: META.1,
            failsafes: &settings.failsafe_outbound_host_ports,
            address: (16, 24),
        },
    ];
    for direction in &directions {
        direction.add(&mut batch);
    }
    batch
}

impl Direction<'_> {
    fn add(&self, batch: &mut Batch) {
        let hook = [(1, Value::Number(self.hook)), (2, Value::Number(0))];
        batch.add(
            Command::NewChain,
            &[
                (1, Value::Text(TABLE)),
                (3, Value::Text(self.chain)),
                (4, Value::Nest(&hook)),
                (5, Value::Number(DROP)),
                (7, Value::Text("filter")),
            ],
        );
        let icmpv6 = [Protocol::ICMPV6.0];
        let common = [
            Rule::default().meta(self.interface, &LOOPBACK.to_ne_bytes()),
            Rule::default().state(KNOWN),
            Rule::default()
                .meta(META.3, &icmpv6)
                .header(2, 0, Compare::AtLeast, &[DISCOVERY.0])
                .header(2, 0, Compare::AtMost, &[DISCOVERY.1]),
        ];
        let failsafes = self.failsafes.iter().map(|f| self.failsafe(f));
        for rule in common.into_iter().chain(failsafes) {
            let expressions = rule.accept();
            batch.add(
                Command::NewRule,
                &[
                    (1, Value::Text(TABLE)),
                    (2, Value::Text(self.chain)),
                    (4, Value::Written(&expressions)),
                ],
            );
        }
    }

    fn failsafe(&self, failsafe: &Failsafe) -> Rule {
        let rule = match failsafe.net {
            Some(net) => self.net(net),
            None => Rule::default(),
        };
        // The port at the destination, in both directions.
        rule.meta(META.3, &[failsafe.protocol.0]).header(
            2,
            2,
            Compare::Equal,
            &failsafe.port.to_be_bytes(),
        )
    }

    fn net(&self, net: IpNet) -> Rule {
        let bytes = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let (family, offset) = match net {
            IpNet::V4(_) => (2, self.address.0),
            IpNet::V6(_) => (10, self.address.1),
        };
        Rule::default().meta(META.2, &[family]).masked(
            offset,
            &bytes(net.netmask()),
            &bytes(net.network()),
        )
    }
}
