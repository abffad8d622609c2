//! Which interface the kernel's routes lead an address through, by rtnetlink. Blocks.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};
use rustix::net::netdevice::index_to_name;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

/// Room for one answer.
const BUFFER: usize = 8 << 10;
/// How long the kernel may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the kernel once for each address and remembers the answers.
pub struct Routes {
    socket: Socket,
    known: HashMap<IpAddr, Option<String>>,
}

impl Routes {
    /// Opens a socket, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the system has no socket left.
    pub fn open() -> io::Result<Routes> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Routes {
            socket,
            known: HashMap::new(),
        })
    }

    /// The interface towards an address; none when no route leads there or the kernel does not say.
    pub fn interface(&mut self, to: IpAddr) -> Option<String> {
        if let Some(known) = self.known.get(&to) {
            return known.clone();
        }
        let found = self.ask(to).unwrap_or_default();
        self.known.insert(to, found.clone());
        found
    }

    fn ask(&mut self, to: IpAddr) -> io::Result<Option<String>> {
        let mut route = RouteMessage::default();
        let (family, length, address) = match to {
            IpAddr::V4(a) => (AddressFamily::Inet, 32, RouteAddress::Inet(a)),
            IpAddr::V6(a) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(a)),
        };
        route.header.address_family = family;
        route.header.destination_prefix_length = length;
        route.attributes.push(RouteAttribute::Destination(address));
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(route));
        message.header.flags = NLM_F_REQUEST;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answer = Vec::with_capacity(BUFFER);
        self.socket.recv(&mut answer, 0)?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) = answer.payload
        else {
            return Ok(None);
        };
        let index = route.attributes.iter().find_map(|a| match a {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        Ok(index.and_then(|index| index_to_name(&self.socket, index).ok()))
    }
}
