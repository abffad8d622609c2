//! Notice of changes of nf_tables, so that a foreign flush is repaired at once and an idle host costs nothing.
//!
//! The legacy backend notifies nobody: there a look every few seconds finds such changes.

use std::io;

use rtnetlink::packet_core::{NetlinkBuffer, NlaBuffer, NlasIterator};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use super::command::is_own;

/// Multicast group of nf_tables (`NFNLGRP_NFTABLES`), as a bit of the group mask.
const NFTABLES: u32 = 1 << 6;
/// Ends the messages of one transaction (`NFNL_SUBSYS_NFTABLES`, `NFT_MSG_NEWGEN`).
const NEW_GENERATION: u16 = 10 << 8 | 15;
/// Attribute of that message: the process that made the transaction (`NFTA_GEN_PROC_PID`), as the first PID namespace counts.
const GENERATION_PID: u16 = 2;
/// Length of `struct nfgenmsg`, before the attributes.
const FAMILY_HEADER: usize = 4;

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

    /// Waits until somebody else changed a rule, anybody's. Nothing is lost when the wait is cancelled.
    ///
    /// # Errors
    /// The subscription came to its end.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            match self.socket.recv_from_full().await {
                Ok((messages, _)) if is_of_somebody_else(&messages) => return Ok(()),
                Ok(_) => {}
                // More changes than the buffer holds are a change.
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) =>
                {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether these messages end a transaction that none of our own tools made. In a PID namespace of its own a program is known to
/// the kernel by another number: then its own changes are compared, too, which costs time and nothing else.
fn is_of_somebody_else(mut messages: &[u8]) -> bool {
    while let Ok(message) = NetlinkBuffer::new_checked(messages) {
        if message.message_type() == NEW_GENERATION {
            let pid = maker(message.payload());
            if !pid.is_some_and(is_own) {
                return true;
            }
        }
        let length = (message.length() as usize).next_multiple_of(4);
        messages = messages.get(length..).unwrap_or_default();
    }
    false
}

fn maker(payload: &[u8]) -> Option<u32> {
    let attributes = payload.get(FAMILY_HEADER..)?;
    let is_pid = |a: &NlaBuffer<&[u8]>| a.kind() == GENERATION_PID;
    let pid = NlasIterator::new(attributes)
        .filter_map(Result::ok)
        .find(is_pid)?;
    pid.value().try_into().ok().map(u32::from_be_bytes)
}
