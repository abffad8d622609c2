//! nf_tables by netlink, without any tool: the table that closes a host at boot, and what others have there.

pub mod fallback;
pub mod survey;
#[cfg(test)]
mod tests;
mod wire;

use std::io;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

use super::ipset::wire::{Body, replies};
use crate::api::Family;
use wire::{Batch, Command, Query, Value};

/// How long the kernel may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
const INBOX: usize = 128 << 10;

/// Removes a built-in table of the iptables tools, if it has no rule and no chain but built-in ones that accept; all or nothing.
/// Says whether it did.
///
/// # Errors
/// The kernel refused: somebody uses it.
pub fn remove_unused(family: Family, table: &str) -> io::Result<bool> {
    let name = match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    let chains = survey::chains()?;
    let of_table: Vec<_> = chains
        .iter()
        .filter(|c| c.family == name && c.table == table)
        .collect();
    if of_table.is_empty() || of_table.iter().any(|c| c.hook.is_none() || c.denies_at_end) {
        return Ok(false);
    }
    let mut batch = Batch::new(match family {
        Family::V4 => 2,
        Family::V6 => 10,
    });
    for chain in of_table {
        let names = [(1, Value::Text(table)), (3, Value::Text(&chain.name))];
        batch.add(Command::DeleteEmptyChain, &names);
    }
    batch.add(Command::DeleteTable, &[(1, Value::Text(table))]);
    exchange(batch).map(|()| true)
}

fn open_socket() -> io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(NETFILTER),
    )?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

/// Sends a batch and takes the answers; the first error counts.
fn exchange(batch: Batch) -> io::Result<()> {
    let (bytes, mut answers) = batch.end();
    let socket = open_socket()?;
    send(&socket, &bytes, SendFlags::empty())?;
    let mut inbox = vec![0; INBOX];
    while answers > 0 {
        let (length, _) = recv(&socket, &mut inbox[..], RecvFlags::empty())?;
        for reply in replies(&inbox[..length]) {
            let Body::End(code, _) = reply.body else {
                continue;
            };
            if code != 0 {
                // After an error the kernel may leave out the answers of those behind.
                return Err(io::Error::from_raw_os_error(-code));
            }
            answers -= 1;
        }
    }
    Ok(())
}

/// Lists everything of a kind, of all families, as the number of its family and its attributes. A kernel without nf_tables has nothing.
fn dump(query: Query, mut take: impl FnMut(u8, &[u8])) -> io::Result<()> {
    let socket = open_socket()?;
    send(&socket, &query.bytes(), SendFlags::empty())?;
    let mut inbox = vec![0; INBOX];
    loop {
        let (length, _) = recv(&socket, &mut inbox[..], RecvFlags::empty())?;
        for reply in replies(&inbox[..length]) {
            match reply.body {
                Body::Data(attributes) => take(reply.family, attributes),
                Body::End(0, _) => return Ok(()),
                Body::End(code, _) => {
                    let error = io::Error::from_raw_os_error(-code);
                    return match Errno::from_io_error(&error) {
                        Some(Errno::OPNOTSUPP | Errno::PROTONOSUPPORT | Errno::INVAL) => Ok(()),
                        _ => Err(error),
                    };
                }
                Body::Other => {}
            }
        }
    }
}
