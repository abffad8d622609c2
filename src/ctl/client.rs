//! Asking the daemon.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{EX_UNAVAILABLE, EX_USAGE, Failure, Global};
use crate::daemon::Status;
use crate::daemon::control::{Reply, Request};

/// How long the daemon may take: it may be in the middle of a long write to the kernel.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest answer in bytes.
const MAX_ANSWER: u64 = 1 << 30;

/// Sends a request and waits for the answer.
pub fn ask<T: DeserializeOwned>(global: &Global, request: &Request) -> Result<T, Failure> {
    if let Some(node) = &global.node {
        let status: Status = exchange(global, &Request::Status)?;
        if *node != status.node {
            let message = format!(
                "moatd answers for its own host {} only: say --offline to ask about {node}",
                status.node
            );
            return Err(Failure::new(EX_USAGE, message));
        }
    }
    exchange(global, request)
}

fn exchange<T: DeserializeOwned>(global: &Global, request: &Request) -> Result<T, Failure> {
    let path = global.socket.display();
    let unavailable = |error: std::io::Error| {
        let hint = match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => "is moatd running?",
            ErrorKind::PermissionDenied => "only root may ask moatd",
            _ => "moatd did not answer",
        };
        Failure::new(EX_UNAVAILABLE, format!("{path}: {error}: {hint}"))
    };
    let mut stream = UnixStream::connect(&global.socket).map_err(unavailable)?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .map_err(unavailable)?;
    let mut line =
        serde_json::to_vec(request).map_err(|e| Failure::new(EX_UNAVAILABLE, e.to_string()))?;
    line.push(b'\n');
    let sent = stream.write_all(&line);
    let mut answer = Vec::new();
    let received = stream.take(MAX_ANSWER).read_to_end(&mut answer);
    // A request that is too long is answered before it is read to its end.
    if answer.is_empty() {
        sent.and(received.map(drop)).map_err(unavailable)?;
    }
    let foreign = |e: serde_json::Error| {
        Failure::new(
            EX_UNAVAILABLE,
            format!("{path}: an answer of another version of moatd: {e}"),
        )
    };
    match serde_json::from_slice(&answer).map_err(foreign)? {
        Reply::Ok(value) => serde_json::from_value(value).map_err(foreign),
        Reply::Error(message) => Err(Failure::new(EX_UNAVAILABLE, message)),
        Reply::Refused(message) => Err(Failure::new(EX_USAGE, message)),
    }
}
