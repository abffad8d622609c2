//! Notice of changes of nf_tables, so that a foreign flush is repaired at once and an idle host costs nothing.
//!
//! The legacy backend notifies nobody: there the refresh interval finds such changes.

use std::io;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

/// Multicast group of nf_tables (`NFNLGRP_NFTABLES`), as a bit of the group mask.
const NFTABLES: u32 = 1 << 6;

/// A subscription to changes of nf_tables in this network namespace.
pub struct RuleEvents {
    socket: TokioSocket,
}

impl RuleEvents {
    /// Subscribes.
    ///
    /// # Errors
    /// When the kernel has no nf_tables, or the privilege is missing.
    pub fn new() -> io::Result<RuleEvents> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind(&SocketAddr::new(0, NFTABLES))?;
        Ok(RuleEvents { socket })
    }

    /// Waits until some rule changed, ours or not. Nothing is lost when the wait is cancelled.
    ///
    /// # Errors
    /// The subscription came to its end.
    pub async fn changed(&mut self) -> io::Result<()> {
        match self.socket.recv_from_full().await {
            Ok(_) => Ok(()),
            // More changes than the buffer holds are a change.
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
