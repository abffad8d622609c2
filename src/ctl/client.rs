//! Asking the daemon.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{EX_UNAVAILABLE, EX_USAGE, Failure, Global};
use crate::daemon::control::{Reply, Request};
use crate::daemon::{Event, Status};

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

/// Asks for events and hands on each of them, until moatd ends or `each` fails.
pub fn watch(
    global: &Global,
    mut each: impl FnMut(Event) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut stream = connect(global)?;
    stream
        .set_read_timeout(None)
        .and_then(|()| stream.write_all(&line(&Request::Watch)?))
        .map_err(|e| unavailable(global, &e))?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(|e| unavailable(global, &e))?;
        each(serde_json::from_str(&line).map_err(|e| foreign(global, &e))?)?;
    }
    Ok(())
}

fn unavailable(global: &Global, error: &std::io::Error) -> Failure {
    let hint = match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => "is moatd running?",
        ErrorKind::PermissionDenied => "only root may ask moatd",
        _ => "moatd did not answer",
    };
    let path = global.socket.display();
    Failure::new(EX_UNAVAILABLE, format!("{path}: {error}: {hint}"))
}

fn foreign(global: &Global, error: &serde_json::Error) -> Failure {
    let path = global.socket.display();
    let message = format!("{path}: an answer of another version of moatd: {error}");
    Failure::new(EX_UNAVAILABLE, message)
}

fn connect(global: &Global) -> Result<UnixStream, Failure> {
    let stream = UnixStream::connect(&global.socket);
    stream
        .and_then(|s| s.set_read_timeout(Some(PATIENCE)).map(|()| s))
        .map_err(|e| unavailable(global, &e))
}

fn line(request: &Request) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    Ok(line)
}

fn exchange<T: DeserializeOwned>(global: &Global, request: &Request) -> Result<T, Failure> {
    let unavailable = |e: std::io::Error| unavailable(global, &e);
    let foreign = |e: serde_json::Error| foreign(global, &e);
    let mut stream = connect(global)?;
    let sent = stream.write_all(&line(request).map_err(unavailable)?);
    let mut answer = Vec::new();
    let received = stream.take(MAX_ANSWER).read_to_end(&mut answer);
    // A request that is too long is answered before it is read to its end.
    if answer.is_empty() {
        sent.and(received.map(drop)).map_err(unavailable)?;
    }
    match serde_json::from_slice(&answer).map_err(foreign)? {
        Reply::Ok(value) => serde_json::from_value(value).map_err(foreign),
        Reply::Error(message) => Err(Failure::new(EX_UNAVAILABLE, message)),
        Reply::Refused(message) => Err(Failure::new(EX_USAGE, message)),
    }
}
