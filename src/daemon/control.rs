//! The control socket: one JSON request per connection, one JSON answer. Only root can open it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

use super::report::Event;
use crate::verdict::Query;

/// Name of the socket in the run directory.
pub const SOCKET: &str = "moatd.sock";
/// The longest request in bytes: candidate files of a plan are sent along.
const MAX_REQUEST: u64 = 16 << 20;
/// How long a client may take to send its request, and to take its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Events that wait for a client that reads slowly; it is told how many more there were.
const MAX_EVENTS: usize = 256;
/// Connections served at a time.
const MAX_CLIENTS: usize = 128;

/// What a client may ask.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "command")]
pub enum Request {
    /// A [`super::Status`].
    Status,
    /// Every [`super::PublishedReport`], for which the tools list the rules of others.
    Published,
    /// Resources in force, as a list of objects.
    Get {
        /// Kind as in resources.
        kind: String,
        /// Only this namespace.
        namespace: Option<String>,
        /// Only this name.
        name: Option<String>,
    },
    /// A [`super::ConfigReport`].
    Config,
    /// A [`super::PlanReport`]: the kernel read anew against what is wanted, or against candidate files.
    Plan {
        /// Name and text of files whose resources are added to those in force.
        files: Vec<(String, String)>,
    },
    /// A verdict with its trace.
    Explain(Query),
    /// A list of features.
    Checksystem,
    /// What packet filters of this host can do to policy.
    Firewalls,
    /// Metrics in the Prometheus text format, as one text.
    Metrics,
    /// Whether policy is in force, as true or false.
    Ready,
    /// Every [`super::Event`] from now on, one JSON object in a line, until the client leaves.
    Watch,
}

/// What the daemon answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    /// The answer.
    Ok(serde_json::Value),
    /// Why there is none: moatd could not find it.
    Error(String),
    /// Why there is none: the question makes no sense here.
    Refused(String),
}

/// A request on its way to the loop.
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Reply>,
}

/// Binds the socket and serves it in tasks of its own.
///
/// # Errors
/// When another daemon serves it, or it cannot be made.
pub fn serve(run_dir: &Path) -> std::io::Result<Served> {
    std::fs::create_dir_all(run_dir)?;
    let path = run_dir.join(SOCKET);
    if BlockingStream::connect(&path).is_ok() {
        let message = format!("another moatd serves {}", path.display());
        return Err(std::io::Error::new(std::io::ErrorKind::AddrInUse, message));
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The umask of the daemon makes it root's alone from the beginning.
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    let (sender, calls) = mpsc::channel(MAX_CLIENTS);
    let (events, _) = broadcast::channel(MAX_EVENTS);
    let desk = Desk {
        calls: sender.clone(),
        events: events.clone(),
    };
    tokio::spawn(accept(listener, desk));
    Ok(Served {
        path,
        calls,
        sender,
        events,
    })
}

/// The served socket, seen from the loop.
pub struct Served {
    /// Where it is.
    pub path: PathBuf,
    /// What clients ask.
    pub calls: mpsc::Receiver<Call>,
    /// For others who ask the same way.
    pub sender: mpsc::Sender<Call>,
    /// What happens, for those who watch.
    pub events: broadcast::Sender<Event>,
}

/// What a connection is answered from.
#[derive(Clone)]
struct Desk {
    calls: mpsc::Sender<Call>,
    events: broadcast::Sender<Event>,
}

async fn accept(listener: UnixListener, desk: Desk) {
    let places = std::sync::Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = desk.clone();
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, desk).await {
                        tracing::debug!("control connection: {error}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("control socket: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, desk: Desk) -> std::io::Result<()> {
    // Before the request is read, so that nothing that happens after it is missed.
    let events = desk.events.subscribe();
    let mut line = Vec::new();
    let (reading, mut writing) = stream.split();
    let mut reader = BufReader::new(reading).take(MAX_REQUEST);
    let read = tokio::time::timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await;
    let reply = match read {
        Err(_) => Reply::Error("the request took too long".to_owned()),
        Ok(Err(error)) => return Err(error),
        Ok(Ok(_)) if line.len() as u64 == MAX_REQUEST => Reply::Refused(format!(
            "the request has more than {MAX_REQUEST} bytes: ask with fewer files, or offline"
        )),
        Ok(Ok(_)) => match serde_json::from_slice(&line) {
            Err(error) => Reply::Error(format!("not a request: {error}")),
            Ok(Request::Watch) => return watch(stream, events).await,
            Ok(request) => ask(&desk.calls, request).await,
        },
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    let written = async {
        writing.write_all(&text).await?;
        writing.shutdown().await
    };
    tokio::time::timeout(PATIENCE, written).await?
}

/// Sends a line for each event until the client leaves.
async fn watch(
    mut stream: UnixStream,
    mut events: broadcast::Receiver<Event>,
) -> std::io::Result<()> {
    let (mut reading, mut writing) = stream.split();
    let mut left = [0; 1];
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            // Whatever comes, even the end: the client has had its say.
            _ = reading.read(&mut left) => return Ok(()),
        };
        let event = match event {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(missed)) => Event::missed(missed),
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        };
        let mut text = serde_json::to_vec(&event)?;
        text.push(b'\n');
        tokio::time::timeout(PATIENCE, writing.write_all(&text)).await??;
    }
}

/// Asks the loop.
pub(super) async fn ask(calls: &mpsc::Sender<Call>, request: Request) -> Reply {
    let (reply, answer) = oneshot::channel();
    let gone = || Reply::Error("moatd is stopping".to_owned());
    if calls.send(Call { request, reply }).await.is_err() {
        return gone();
    }
    answer.await.unwrap_or_else(|_| gone())
}
