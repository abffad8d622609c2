//! Connections that began before the kernel tracked any: made known, so that the first enforcement on a running host does not take
//! an answer for the beginning of a connection from outside.

use std::io;

use super::conntrack::FlowTable;
use super::sockets::Sockets;

/// Makes all connections of this host's processes known to connection tracking. Those that it knows stay as they are.
///
/// Called before the first rule of ours, which is what makes the kernel track connections, and once more after it for those that
/// began in between.
pub fn make_known() {
    match connections() {
        Ok(0) => {}
        Ok(number) => tracing::info!(
            "{number} connections that began before connection tracking were made known to it"
        ),
        Err(error) => tracing::warn!(
            "connections that began before connection tracking may stall until their own side sends: {error}"
        ),
    }
}

fn connections() -> io::Result<usize> {
    let sockets = Sockets::read()?;
    let mut table = FlowTable::open()?;
    let mut made = 0;
    for flow in sockets.flows() {
        if flow.src.is_loopback() || flow.dst.is_loopback() {
            continue;
        }
        match table.make_known(&flow) {
            Ok(is_new) => made += usize::from(is_new),
            // One that ended meanwhile, or an address of a kind that is not tracked.
            Err(error) => tracing::debug!("{} to {}: {error}", flow.src, flow.dst),
        }
    }
    Ok(made)
}
