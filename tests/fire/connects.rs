//! TCP connects to the protected host: one of each kind every 50 ms.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::{self as sys, AddressFamily, SocketFlags, SocketType};

use super::flows::{HOST, Place, STRANGER, TCP_ALLOWED, TCP_DENIED, address};
use super::net::Net;
use super::prober::Shared;
use super::tally::Connect;

const EVERY: Duration = Duration::from_millis(50);
const LOOK: Duration = Duration::from_millis(5);
/// The kernels of both sides do without a program: an answer takes microseconds, and the first repetition comes after 1 s.
const PATIENCE: Duration = Duration::from_millis(500);

/// Opens the listeners and starts the thread.
///
/// # Errors
/// A listener cannot be opened.
pub fn start(net: &Net, shared: Arc<Shared>) -> Result<JoinHandle<()>, String> {
    let mut listeners = Vec::new();
    for (host, port) in targets() {
        let at = SocketAddr::new(address(host), port);
        let listener = net.at(Place::Host).enter(|| {
            let listener = TcpListener::bind(at)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        listeners.push(listener.map_err(|e: std::io::Error| format!("listener at {at}: {e}"))?);
    }
    // A thread stays in the namespace of the one that starts it.
    let outside = net.at(Place::Outside);
    Ok(outside.enter(|| thread::spawn(move || serve(&listeners, &shared))))
}

fn targets() -> impl Iterator<Item = (&'static str, u16)> {
    let ports = [TCP_ALLOWED, TCP_DENIED];
    HOST.into_iter()
        .flat_map(move |host| ports.map(|port| (host, port)))
}

fn serve(listeners: &[TcpListener], shared: &Shared) {
    let mut next = Instant::now();
    let mut open: Vec<(TcpStream, Connect)> = Vec::new();
    loop {
        thread::sleep(LOOK);
        for listener in listeners {
            while let Ok((stream, _)) = listener.accept() {
                drop(stream);
            }
        }
        let excused = shared.excused.load(Ordering::SeqCst);
        let mut state = shared.lock();
        if state.stop {
            return;
        }
        let sending = state.sending;
        if sending && Instant::now() >= next {
            next = Instant::now() + EVERY;
            open.extend(
                targets()
                    .enumerate()
                    .filter_map(|(i, (host, port))| begin(i / 2, host, port, excused)),
            );
        }
        open.retain_mut(|(stream, connect)| {
            connect.answered = stream.peer_addr().is_ok();
            connect.excused |= excused;
            let waits = connect.at.elapsed() < PATIENCE && (sending || connect.allowed);
            let is_over = connect.answered || !waits;
            if is_over {
                state.window.connects.push(*connect);
            }
            !is_over
        });
        state.connects_done = open.is_empty();
    }
}

fn begin(family: usize, host: &str, port: u16, excused: bool) -> Option<(TcpStream, Connect)> {
    let connect = Connect {
        at: Instant::now(),
        allowed: port == TCP_ALLOWED,
        answered: false,
        excused,
    };
    let domain = [AddressFamily::INET, AddressFamily::INET6][family];
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = sys::socket_with(domain, SocketType::STREAM, flags, None).ok()?;
    sys::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).ok()?;
    sys::bind(&socket, &SocketAddr::new(address(STRANGER[family]), 0)).ok()?;
    // It is under way; what becomes of it is looked at later.
    let _ = sys::connect(&socket, &SocketAddr::new(address(host), port));
    Some((socket.into(), connect))
}
