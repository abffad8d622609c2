//! The host's interfaces and their addresses, by rtnetlink.
//!
//! Subscribes first and dumps second, so that nothing falls between; what the kernel could not deliver is made up
//! for by another dump. The netlink crates appear in this file only.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::Stream;
use rtnetlink::packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{AsyncSocket, SocketAddr};
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Whether it is up and can carry packets (`IFF_UP` and `IFF_RUNNING`, which Felix calls up).
    pub up: bool,
    /// Its own addresses of both families, link-local ones included.
    pub addresses: BTreeSet<IpAddr>,
}

/// All interfaces of a network namespace by name.
pub type Links = BTreeMap<String, Link>;

/// Why interfaces cannot be followed (any longer).
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    /// The netlink socket could not be set up.
    #[error("cannot open a netlink socket for interface events")]
    Socket(#[source] Arc<io::Error>),
    /// The kernel did not list interfaces or addresses.
    #[error("cannot list interfaces: {0}")]
    Dump(String),
    /// The event socket broke. Start another monitor.
    #[error("the netlink socket for interface events was closed")]
    Closed,
}

/// Room for events that the program is too busy to take, in bytes.
const BUFFER: usize = 16 << 20;
/// Events closer together than this are one change,
const QUIET: Duration = Duration::from_millis(20);
/// unless they go on for longer than this.
const PATIENCE: Duration = Duration::from_millis(200);
/// Least time between two dumps made because events were lost.
const DUMP_INTERVAL: Duration = Duration::from_secs(1);
const DUMP_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an inconsistent dump is repeated at once.
const DUMP_TRIES: u32 = 5;

/// Follows the interfaces of the network namespace of the thread that makes it.
pub struct LinkMonitor {
    links: Arc<Links>,
    updates: watch::Receiver<Result<Arc<Links>, LinkError>>,
    /// End with the monitor.
    _tasks: JoinSet<()>,
}

impl LinkMonitor {
    /// Subscribes and takes the first picture. Must run in a tokio runtime.
    ///
    /// # Errors
    /// No socket, or no answer.
    pub async fn new() -> Result<LinkMonitor, LinkError> {
        LinkMonitor::with_buffer(BUFFER).await
    }

    async fn with_buffer(bytes: usize) -> Result<LinkMonitor, LinkError> {
        let mut tasks = JoinSet::new();
        let events = subscribe(bytes, &mut tasks)?;
        // Dumps have a socket of their own: their answers must not be lost in a flood of events.
        let (mut connection, kernel, _) = rtnetlink::new_connection().map_err(socket_error)?;
        connection.set_forward_done(true);
        tasks.spawn(connection);
        let mut follower = Follower {
            kernel,
            table: Table::default(),
            lost: false,
        };
        follower.dump().await?;
        let links = Arc::new(follower.table.links());
        let (sender, updates) = watch::channel(Ok(links.clone()));
        tasks.spawn(async move {
            let end = follower.follow(events, &sender).await;
            // Nobody listens when the monitor is gone, and this task is about to end with it.
            let _ = sender.send(Err(end));
        });
        Ok(LinkMonitor {
            links,
            updates,
            _tasks: tasks,
        })
    }

    /// The interfaces as of the last [`LinkMonitor::changed`].
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Waits until the interfaces differ from [`LinkMonitor::links`], which then has the new state.
    /// Nothing is lost when the wait is cancelled.
    ///
    /// # Errors
    /// The monitor has come to its end; [`LinkMonitor::links`] keeps the last state.
    pub async fn changed(&mut self) -> Result<(), LinkError> {
        loop {
            self.updates
                .changed()
                .await
                .map_err(|_| LinkError::Closed)?;
            let now = self.updates.borrow_and_update().clone()?;
            if now != self.links {
                self.links = now;
                return Ok(());
            }
        }
    }
}

type Message = NetlinkMessage<RouteNetlinkMessage>;

fn socket_error(error: io::Error) -> LinkError {
    LinkError::Socket(Arc::new(error))
}

fn subscribe(
    bytes: usize,
    tasks: &mut JoinSet<()>,
) -> Result<impl Stream<Item = Message> + use<>, LinkError> {
    use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
    let (mut connection, _, messages) = rtnetlink::new_connection().map_err(socket_error)?;
    let socket = connection.socket_mut().socket_mut();
    // Without the privilege the system's limit applies; a smaller buffer only means more dumps.
    if set_socket_recv_buffer_size_force(&*socket, bytes).is_err()
        && let Err(e) = set_socket_recv_buffer_size(&*socket, bytes)
    {
        tracing::debug!("the receive buffer for interface events keeps its size: {e}");
    }
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ];
    let mask = groups
        .iter()
        .fold(0, |mask, group| mask | 1 << (*group as u32 - 1));
    socket
        .bind(&SocketAddr::new(0, mask))
        .map_err(socket_error)?;
    tasks.spawn(connection);
    Ok(messages.map(|(message, _)| message))
}

/// Keeps a [`Table`] up to date.
struct Follower {
    kernel: Handle,
    table: Table,
    /// Whether events were lost or a dump was inconsistent, so that another dump is due.
    lost: bool,
}

impl Follower {
    /// Publishes every change; returns only when it cannot go on.
    async fn follow(
        mut self,
        events: impl Stream<Item = Message>,
        sender: &watch::Sender<Result<Arc<Links>, LinkError>>,
    ) -> LinkError {
        let mut events = std::pin::pin!(events);
        let mut next_dump = Instant::now() + DUMP_INTERVAL;
        loop {
            if !self.lost {
                let Some(event) = events.next().await else {
                    return LinkError::Closed;
                };
                self.take(event.payload);
            }
            let patience = Instant::now() + PATIENCE;
            while Instant::now() < patience
                && let Ok(event) = timeout(QUIET, events.next()).await
            {
                let Some(event) = event else {
                    return LinkError::Closed;
                };
                self.take(event.payload);
            }
            if self.lost {
                sleep_until(next_dump).await;
                if let Err(e) = self.dump().await {
                    return e;
                }
                next_dump = Instant::now() + DUMP_INTERVAL;
            }
            self.publish(sender);
        }
    }

    fn take(&mut self, payload: NetlinkPayload<RouteNetlinkMessage>) {
        match payload {
            NetlinkPayload::InnerMessage(message) => self.table.apply(message),
            NetlinkPayload::Overrun(_) => self.lost = true,
            _ => {}
        }
    }

    fn publish(&self, sender: &watch::Sender<Result<Arc<Links>, LinkError>>) {
        let links = self.table.links();
        sender.send_if_modified(|last| {
            let differs = !matches!(last, Ok(last) if **last == links);
            if differs {
                *last = Ok(Arc::new(links));
            }
            differs
        });
    }

    /// Replaces the table by what the kernel lists. Events from before the dump may be applied again on top of it:
    /// each key ends as its last event left it, so the order does no harm.
    async fn dump(&mut self) -> Result<(), LinkError> {
        for pause in 0..DUMP_TRIES {
            sleep(QUIET * pause).await;
            let mut table = Table::default();
            let mut consistent = true;
            for request in [list_links(), list_addresses()] {
                let answer = timeout(DUMP_TIMEOUT, list(&mut self.kernel, request, &mut table));
                consistent &= answer
                    .await
                    .map_err(|_| LinkError::Dump("no answer".to_owned()))??;
            }
            self.table = table;
            self.lost = !consistent;
            if consistent {
                break;
            }
        }
        Ok(())
    }
}

fn list_links() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(message)
}

fn list_addresses() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

/// Makes one dump; tells whether it is consistent, which it is not when things changed while the kernel walked its lists.
async fn list(
    kernel: &mut Handle,
    request: RouteNetlinkMessage,
    table: &mut Table,
) -> Result<bool, LinkError> {
    let mut request = NetlinkMessage::from(request);
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let failed = |e: &dyn std::fmt::Display| LinkError::Dump(e.to_string());
    let mut answers = kernel.request(request).map_err(|e| failed(&e))?;
    let mut consistent = true;
    while let Some(answer) = answers.next().await {
        consistent &= answer.header.flags & NLM_F_DUMP_INTR == 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => table.apply(message),
            NetlinkPayload::Done(_) => return Ok(consistent),
            NetlinkPayload::Error(e) => return Err(failed(&e.to_io())),
            _ => {}
        }
    }
    Err(LinkError::Closed)
}

/// Interfaces by index, because names can change.
#[derive(Debug, Default)]
struct Table(BTreeMap<u32, Entry>);

#[derive(Debug, Default)]
struct Entry {
    name: String,
    up: bool,
    /// With prefix lengths: one address may be there twice with different ones, and one of them be deleted.
    addresses: BTreeSet<(IpAddr, u8)>,
}

impl Table {
    fn apply(&mut self, message: RouteNetlinkMessage) {
        match message {
            RouteNetlinkMessage::NewLink(link) if is_link(&link) => {
                let entry = self.0.entry(link.header.index).or_default();
                entry.up = link
                    .header
                    .flags
                    .contains(LinkFlags::Up | LinkFlags::Running);
                for attribute in link.attributes {
                    if let LinkAttribute::IfName(name) = attribute {
                        entry.name = name;
                    }
                }
            }
            RouteNetlinkMessage::DelLink(link) if is_link(&link) => {
                self.0.remove(&link.header.index);
            }
            RouteNetlinkMessage::NewAddress(message) => {
                if let (Some(entry), Some(key)) =
                    (self.0.get_mut(&message.header.index), address(&message))
                {
                    entry.addresses.insert(key);
                }
            }
            RouteNetlinkMessage::DelAddress(message) => {
                if let (Some(entry), Some(key)) =
                    (self.0.get_mut(&message.header.index), address(&message))
                {
                    entry.addresses.remove(&key);
                }
            }
            _ => {}
        }
    }

    fn links(&self) -> Links {
        let link = |entry: &Entry| Link {
            name: entry.name.clone(),
            up: entry.up,
            addresses: entry
                .addresses
                .iter()
                .map(|(address, _)| *address)
                .collect(),
        };
        self.0
            .values()
            .map(|entry| (entry.name.clone(), link(entry)))
            .collect()
    }
}

/// Bridges tell of their ports with the same messages under another family: a port that leaves is no deleted interface.
fn is_link(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

/// The host's own address: `Local` where there is a peer, whose address `Address` then is.
fn address(message: &AddressMessage) -> Option<(IpAddr, u8)> {
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let plain = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    Some((local.or(plain)?, message.header.prefix_len))
}

#[cfg(test)]
mod tests;
