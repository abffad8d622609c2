//! The ruleset: chains, rules and IP sets as an abstract table that any backend can print.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use super::members;
use crate::api::{Family, PortRange, Protocol};
use crate::calc::{HostPolicy, SetId};

/// The name of a chain, set or interface, or a note: text that many rules share.
pub type Name = Arc<str>;

/// The rules of a chain. As long as a chain does not change, every ruleset holds the same pointer.
pub type Chain = Arc<[KRule]>;

/// The tables that moat uses, in the order in which the kernel passes packets through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Table {
    /// Before connection tracking.
    Raw,
    /// Before destination NAT on input, after it on output.
    Mangle,
    /// Where local and forwarded traffic is decided.
    Filter,
}

impl Table {
    /// All of them.
    pub const ALL: [Table; 3] = [Table::Raw, Table::Mangle, Table::Filter];

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Table::Raw => "raw",
            Table::Mangle => "mangle",
            Table::Filter => "filter",
        }
    }
}

/// Which addresses of the packet a set match looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum End {
    /// Source.
    Src,
    /// Destination.
    Dst,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Match {
    /// Arrives on; a trailing `+` means any suffix.
    InIface(Name),
    /// Leaves through; a trailing `+` means any suffix.
    OutIface(Name),
    /// IP protocol.
    Protocol(Protocol, bool),
    /// Address in a prefix; the flag negates.
    Net(End, IpNet, bool),
    /// Port in one of at most 15 slots; the flag negates.
    Ports(End, Arc<[PortRange]>, bool),
    /// Address in a set; the flag negates.
    Set(End, Name, bool),
    /// Address and port in a set; the flag negates.
    PortSet(End, Name, bool),
    /// ICMP of the table's family; the flag negates.
    Icmp(u8, Option<u8>, bool),
    /// `mark & mask == value`; the flag negates.
    Mark(u32, u32, bool),
    /// Connection tracking states, as the kernel names them.
    State(&'static str),
    /// Hop limit or TTL equals.
    HopLimit(u8),
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Target {
    /// Ends the table.
    Accept,
    /// Ends the packet.
    Drop,
    /// Ends the packet with an answer; filter only.
    Reject,
    /// Back to the calling chain.
    Return,
    /// Into a chain and back.
    Jump(Name),
    /// Into a chain; its end returns to the caller of this chain.
    Goto(Name),
    /// `mark = mark & !mask | value`.
    SetMark(u32, u32),
    /// No connection tracking.
    NoTrack,
    /// Kernel log with this prefix.
    Log(Name),
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KRule {
    /// All must hold.
    pub matches: Arc<[Match]>,
    /// Then this happens.
    pub target: Target,
    /// Where it comes from, in policy words. Empty where it only leads on, or is one of several that belong together.
    pub note: Name,
}

impl KRule {
    /// A rule.
    pub fn new(matches: Vec<Match>, target: Target, note: impl Into<Name>) -> KRule {
        KRule {
            matches: matches.into(),
            target,
            note: note.into(),
        }
    }
}

/// Our rule in a built-in chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hook {
    /// Built-in chain.
    pub chain: &'static str,
    /// The rule.
    pub rule: KRule,
    /// At the head of the chain (else at its end).
    pub first: bool,
}

/// One table of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TableRules {
    /// Rules in built-in chains.
    pub hooks: Vec<Hook>,
    /// Our chains by name.
    pub chains: BTreeMap<Name, Chain>,
}

/// One member of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Member {
    /// A prefix.
    Net(IpNet),
    /// Address, protocol and port.
    AddrPort(IpAddr, Protocol, u16),
    /// A port.
    Port(u16),
}

/// How a set is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum SetKind {
    /// Prefixes.
    Nets,
    /// Address, protocol and port.
    AddrPorts,
    /// Ports.
    Ports,
}

/// Where the members of a set come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum SetContent {
    /// The members that these sets of the host policy have in the family, all together. They stay in the host policy, so that a
    /// change of members is no change of the ruleset.
    Policy(Vec<SetId>),
    /// Members that never change.
    Constant(Arc<BTreeSet<Member>>),
}

/// One IP set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SetSpec {
    /// Family of the addresses.
    pub family: Family,
    /// Storage.
    pub kind: SetKind,
    /// Members.
    pub content: SetContent,
    /// What it stands for, in policy words.
    pub note: Name,
}

impl SetSpec {
    /// The sets of the host policy that its members come from; `None` for members that never change.
    pub fn selectors(&self) -> Option<&[SetId]> {
        match &self.content {
            SetContent::Policy(ids) => Some(ids),
            SetContent::Constant(_) => None,
        }
    }

    /// The members, in the form in which the kernel keeps them.
    pub fn members(&self, policy: &HostPolicy) -> BTreeSet<Member> {
        match &self.content {
            SetContent::Constant(members) => BTreeSet::clone(members),
            SetContent::Policy(ids) => {
                let sets = ids.iter().filter_map(|id| policy.sets.get(id));
                sets.flat_map(|set| members::of(set, self.family)).collect()
            }
        }
    }
}

/// Everything for the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ruleset {
    /// Tables with content.
    pub tables: BTreeMap<Family, BTreeMap<Table, TableRules>>,
    /// Sets by name.
    pub sets: BTreeMap<Name, Arc<SetSpec>>,
}
