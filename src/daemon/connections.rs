//! Connections that were under way when the policy changed: those that it denies now are cut, all others go on.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::task::JoinHandle;

use crate::calc::{HostChanges, HostPolicy, Member, SetChange};
use crate::dataplane::conntrack::{Flow, FlowTable};
use crate::dataplane::links::Links;
use crate::dataplane::route::Routes;
use crate::dataplane::sockets::Sockets;
use crate::verdict::FlowJudge;

/// More addresses than this and all flows are looked at: comparing costs more than judging.
const MAX_ADDRESSES: usize = 1024;

/// Which flows a change may have made unwanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Suspects {
    /// None.
    #[default]
    Nobody,
    /// Those with an address in one of these.
    Addresses(BTreeSet<IpNet>),
    /// Any.
    Everybody,
}

impl Suspects {
    /// What a change of the host policy makes suspect.
    pub fn of(changes: &HostChanges) -> Suspects {
        if changes.touches_rules() {
            return Suspects::Everybody;
        }
        let mut addresses = BTreeSet::new();
        for change in changes.sets.values() {
            let SetChange::Members { added, removed } = change else {
                return Suspects::Everybody;
            };
            addresses.extend(added.iter().chain(removed).map(|member| match member {
                Member::Net(net) => *net,
                Member::Port(address, ..) => IpNet::from(*address),
            }));
            if addresses.len() > MAX_ADDRESSES {
                return Suspects::Everybody;
            }
        }
        if addresses.is_empty() {
            Suspects::Nobody
        } else {
            Suspects::Addresses(addresses)
        }
    }

    /// Both together.
    pub fn join(&mut self, more: Suspects) {
        *self = match (std::mem::take(self), more) {
            (Suspects::Everybody, _) | (_, Suspects::Everybody) => Suspects::Everybody,
            (Suspects::Nobody, other) | (other, Suspects::Nobody) => other,
            (Suspects::Addresses(mut a), Suspects::Addresses(b)) => {
                a.extend(b);
                Suspects::Addresses(a)
            }
        };
    }

    fn include(&self, flow: &Flow) -> bool {
        let ends = [
            flow.original.src,
            flow.original.dst,
            flow.reply.src,
            flow.reply.dst,
        ];
        match self {
            Suspects::Nobody => false,
            Suspects::Everybody => true,
            Suspects::Addresses(nets) => ends.iter().any(|end| contains(nets, *end)),
        }
    }
}

fn contains(nets: &BTreeSet<IpNet>, address: IpAddr) -> bool {
    nets.contains(&IpNet::from(address)) || nets.iter().any(|net| net.contains(&address))
}

/// Changes closer together than this are looked at once.
const GATHER: Duration = Duration::from_millis(20);
/// A look at all flows is followed by a pause of so many times its duration, so that changes that come all the time do not keep
/// a core busy.
const PAUSE_FACTOR: u32 = 5;

/// Looks for unwanted flows beside the loop, one look at a time.
#[derive(Default)]
pub struct Cutter {
    suspects: Suspects,
    due: Option<Instant>,
    running: Option<(Instant, JoinHandle<io::Result<Cut>>)>,
    not_before: Option<Instant>,
}

impl Cutter {
    /// A change is in force that makes these flows suspect.
    pub fn suspect(&mut self, suspects: Suspects) {
        if suspects == Suspects::Nobody {
            return;
        }
        self.suspects.join(suspects);
        let soon = Instant::now() + GATHER;
        let due = self.not_before.map_or(soon, |at| at.max(soon));
        self.due.get_or_insert(due);
    }

    /// When [`Cutter::start`] is to be called.
    pub fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.running.is_none())
    }

    /// Begins a look.
    pub fn start(&mut self, policy: Arc<HostPolicy>, links: Links) {
        self.due = None;
        let suspects = std::mem::take(&mut self.suspects);
        let look = move || reevaluate(&policy, &links, &suspects);
        self.running = Some((Instant::now(), tokio::task::spawn_blocking(look)));
    }

    /// Waits until the look is over; for ever, when there is none. Nothing is lost when the wait is cancelled.
    pub async fn done(&mut self) -> io::Result<Cut> {
        let Some((began, look)) = &mut self.running else {
            return std::future::pending().await;
        };
        let result = look.await.unwrap_or_else(|e| Err(io::Error::other(e)));
        self.not_before = Some(Instant::now() + began.elapsed() * PAUSE_FACTOR);
        self.running = None;
        result
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Flows that were judged.
    pub judged: usize,
    /// Flows that were removed.
    pub removed: usize,
}

/// Removes the suspect flows that the policy denies from connection tracking, so that their next packet is judged as a first one.
/// Blocks; the network namespace is that of the calling thread.
///
/// # Errors
/// When the kernel does not list its flows.
pub fn reevaluate(policy: &HostPolicy, links: &Links, suspects: &Suspects) -> io::Result<Cut> {
    let mut cut = Cut::default();
    if *suspects == Suspects::Nobody || policy.is_empty() {
        return Ok(cut);
    }
    let mut table = FlowTable::open()?;
    let mut routes = Routes::open()?;
    let sockets = Sockets::read()?;
    let mut judge = FlowJudge::new(policy, links, |address| routes.interface(address));
    let mut denied = Vec::new();
    table.visit(|flow| {
        if !suspects.include(&flow) {
            return;
        }
        cut.judged += 1;
        let (original, reply) = (&flow.original, &flow.reply);
        let is_denied = if flow.may_be_reversed && sockets.is_reversed(original) {
            judge.denies(&original.reversed(), &reply.reversed())
        } else {
            judge.denies(original, reply)
        };
        if is_denied {
            denied.push(flow);
        }
    })?;
    for flow in denied {
        let original = &flow.original;
        match table.remove(&flow) {
            Ok(removed) => cut.removed += usize::from(removed),
            Err(error) => tracing::warn!(
                "cannot cut the connection from {} to {} that policy denies: {error}",
                original.src,
                original.dst
            ),
        }
    }
    Ok(cut)
}
