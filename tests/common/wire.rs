//! Real packets: receivers opened in advance, all probes of a step sent at once, none blocking.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::case::Expect;
use super::packet::{Token, payload};
use super::shot::{ECHO, Shot};
use super::topology::World;

/// An answer that is not there after this time does not come.
const DENIED: Duration = Duration::from_millis(400);
/// An answer that must come is given this long, on a machine with other work.
const PATIENCE: Duration = Duration::from_millis(2500);
/// Datagrams may be lost to a slow start: they are sent again after each of these times.
const AGAIN: Duration = Duration::from_millis(600);
const PAUSE: Duration = Duration::from_millis(2);

/// The receivers of a case, and the connections it keeps from step to step.
#[derive(Default)]
pub struct Wire {
    servers: BTreeMap<(&'static str, u8, SocketAddr), Server>,
    held: BTreeMap<(String, u8), TcpStream>,
    sent: u64,
}

enum Server {
    Tcp(TcpListener, Vec<TcpStream>),
    Udp(UdpSocket),
}

/// A probe under way.
struct Attempt<'a, 'b> {
    shot: &'a Shot<'b>,
    token: Token,
    kind: Kind,
    /// Whether an answer came, once that is known.
    answer: Option<bool>,
}

enum Kind {
    Connect(TcpStream),
    Datagram(UdpSocket),
    /// Data on a connection made earlier.
    Resume(TcpStream),
    /// Sender and receiver; the same socket when the answer to an echo is awaited.
    Raw(OwnedFd, OwnedFd),
}

impl Wire {
    /// Sends every shot and says for each whether it was answered, or for protocols that do not
    /// answer, whether it arrived.
    ///
    /// # Errors
    /// A socket cannot be made: a fault of the case or of the harness.
    pub fn fire(&mut self, world: &World, shots: &[Shot<'_>]) -> Result<Vec<Expect>, String> {
        for shot in shots {
            self.serve(world, shot)
                .map_err(|e| format!("receiver of {shot}: {e}"))?;
        }
        let mut attempts = Vec::new();
        for shot in shots {
            attempts.push(
                self.prepare(world, shot)
                    .map_err(|e| format!("sender of {shot}: {e}"))?,
            );
        }
        let start = Instant::now();
        let mut next_send = start;
        while !done(&attempts, start.elapsed()) {
            if Instant::now() >= next_send {
                attempts
                    .iter_mut()
                    .filter(|a| a.answer.is_none())
                    .for_each(Attempt::send);
                next_send += AGAIN;
            }
            std::thread::sleep(PAUSE);
            self.servers.values_mut().for_each(Server::answer);
            attempts
                .iter_mut()
                .filter(|a| a.answer.is_none())
                .for_each(Attempt::look);
        }
        Ok(attempts.into_iter().map(|a| self.finish(a)).collect())
    }

    /// Opens the receiver of a shot unless it is open already.
    fn serve(&mut self, world: &World, shot: &Shot<'_>) -> std::io::Result<()> {
        let addr = SocketAddr::new(shot.server, shot.server_port.unwrap_or(0));
        let key = (shot.to, shot.proto, addr);
        if self.servers.contains_key(&key) || shot.probe.resume.is_some() {
            return Ok(());
        }
        let server = match shot.proto {
            6 => {
                let listener = world.namespace(shot.to).enter(|| TcpListener::bind(addr))?;
                listener.set_nonblocking(true)?;
                Server::Tcp(listener, Vec::new())
            }
            17 => {
                let socket = world.namespace(shot.to).enter(|| UdpSocket::bind(addr))?;
                socket.set_nonblocking(true)?;
                Server::Udp(socket)
            }
            _ => return Ok(()),
        };
        self.servers.insert(key, server);
        Ok(())
    }

    fn prepare<'a, 'b>(
        &mut self,
        world: &World,
        shot: &'a Shot<'b>,
    ) -> std::io::Result<Attempt<'a, 'b>> {
        self.sent += 1;
        let stamp = u64::from(std::process::id()) << 40 | self.sent << 16 | 0xa5;
        let token = stamp.to_be_bytes();
        let from = SocketAddr::new(bind_address(shot), shot.probe.sport.unwrap_or(0));
        let sender = world.namespace(shot.from);
        let kind = match (&shot.probe.resume, shot.proto) {
            (Some(name), _) => {
                let key = (name.clone(), shot.family());
                Kind::Resume(self.held.remove(&key).ok_or(ErrorKind::NotFound)?)
            }
            (None, 6) => Kind::Connect(sender.enter(|| client(SocketType::STREAM, from))?.into()),
            (None, 17) => Kind::Datagram(sender.enter(|| client(SocketType::DGRAM, from))?.into()),
            (None, proto) => {
                let receiver = if is_echo(shot) { shot.from } else { shot.to };
                let local = if is_echo(shot) {
                    from.ip()
                } else {
                    shot.server
                };
                Kind::Raw(
                    sender.enter(|| raw(proto, from.ip(), shot.probe.hops))?,
                    world
                        .namespace(receiver)
                        .enter(|| raw(proto, local, None))?,
                )
            }
        };
        Ok(Attempt {
            shot,
            token,
            kind,
            answer: None,
        })
    }

    /// The outcome of an attempt; connections that the case wants to keep are kept.
    fn finish(&mut self, attempt: Attempt<'_, '_>) -> Expect {
        let allowed = attempt.answer == Some(true);
        let probe = attempt.shot.probe;
        match (attempt.kind, probe.hold.as_ref().or(probe.resume.as_ref())) {
            (Kind::Connect(stream) | Kind::Resume(stream), Some(name)) if allowed => {
                self.held
                    .insert((name.clone(), attempt.shot.family()), stream);
            }
            _ => {}
        }
        if allowed { Expect::Allow } else { Expect::Deny }
    }
}

/// Whether every outcome is known, or need not be waited for.
fn done(attempts: &[Attempt<'_, '_>], elapsed: Duration) -> bool {
    let open = || attempts.iter().filter(|a| a.answer.is_none());
    let awaited = open().any(|a| a.shot.expect() == Expect::Allow);
    open().next().is_none() || elapsed > PATIENCE || (elapsed > DENIED && !awaited)
}

impl Attempt<'_, '_> {
    /// Sends, or sends again. What the host's own output rules refuse is an answer: no.
    fn send(&mut self) {
        let shot = self.shot;
        let target = SocketAddr::new(shot.dst, shot.port.unwrap_or(0));
        let sent = match &mut self.kind {
            Kind::Connect(stream) => match net::connect(&*stream, &target) {
                Ok(()) | Err(Errno::INPROGRESS | Errno::ALREADY | Errno::ISCONN) => Ok(()),
                Err(error) => Err(error.kind()),
            },
            Kind::Datagram(socket) => socket
                .connect(target)
                .and_then(|()| socket.send(&self.token))
                .map(drop)
                .map_err(|e| e.kind()),
            Kind::Resume(stream) => stream.write_all(&self.token).map_err(|e| e.kind()),
            Kind::Raw(sender, _) => {
                let bytes = payload(
                    shot.proto,
                    shot.icmp,
                    (shot.probe.sport, shot.port),
                    &self.token,
                );
                let target = SocketAddr::new(shot.dst, 0);
                net::sendto(&*sender, &bytes, SendFlags::empty(), &target)
                    .map(drop)
                    .map_err(|e| e.kind())
            }
        };
        if let Err(ErrorKind::PermissionDenied | ErrorKind::ConnectionRefused) = sent {
            self.answer = Some(false);
        }
    }

    /// Notes an answer, if there is one.
    fn look(&mut self) {
        let token = self.token;
        let mut buffer = [0_u8; 2048];
        match &mut self.kind {
            Kind::Connect(stream) => {
                if stream.peer_addr().is_ok() {
                    self.answer = Some(true);
                } else if let Ok(Some(_)) = stream.take_error() {
                    self.answer = Some(false);
                }
            }
            Kind::Datagram(socket) => match socket.recv(&mut buffer) {
                Ok(length) if buffer[..length] == token => self.answer = Some(true),
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => self.answer = Some(false),
                _ => {}
            },
            Kind::Resume(stream) => {
                if let Ok(length) = stream.read(&mut buffer)
                    && length > 0
                {
                    self.answer = Some(true);
                }
            }
            Kind::Raw(_, receiver) => {
                while let Ok((length, _)) =
                    net::recv(&*receiver, &mut buffer[..], RecvFlags::DONTWAIT)
                {
                    if is_answer(self.shot, &buffer[..length], &token) {
                        self.answer = Some(true);
                    }
                }
            }
        }
    }
}

impl Server {
    /// Accepts what waits and sends back what came.
    fn answer(&mut self) {
        let mut buffer = [0_u8; 64];
        match self {
            Server::Tcp(listener, streams) => {
                while let Ok((stream, _)) = listener.accept() {
                    if stream.set_nonblocking(true).is_ok() {
                        streams.push(stream);
                    }
                }
                streams.retain_mut(|stream| match stream.read(&mut buffer) {
                    Ok(length) => length > 0 && stream.write_all(&buffer[..length]).is_ok(),
                    Err(e) => e.kind() == ErrorKind::WouldBlock,
                });
            }
            Server::Udp(socket) => {
                while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    // A refused answer is an answer that does not arrive.
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
        }
    }
}

/// Packets of the host itself get their source from the kernel, as those of its programs do.
fn bind_address(shot: &Shot<'_>) -> IpAddr {
    match (shot.from, shot.probe.src, shot.dst) {
        ("host", None, IpAddr::V4(_)) => IpAddr::from([0_u8; 4]),
        ("host", None, IpAddr::V6(_)) => IpAddr::from([0_u16; 8]),
        _ => shot.src,
    }
}

fn is_echo(shot: &Shot<'_>) -> bool {
    shot.icmp
        .is_some_and(|m| m.kind == ECHO[usize::from(shot.family() == 6)] && m.code == 0)
}

/// Whether a received packet is the answer to an echo, or the packet itself.
fn is_answer(shot: &Shot<'_>, bytes: &[u8], token: &Token) -> bool {
    // IPv4 raw sockets deliver the IP header too.
    let header = if shot.family() == 4 {
        usize::from(bytes[0] & 15) * 4
    } else {
        0
    };
    let body = bytes.get(header..).unwrap_or_default();
    let kind = body.first().copied();
    body.windows(token.len()).any(|w| w == token)
        && (!is_echo(shot) || kind == Some(if shot.family() == 4 { 0 } else { 129 }))
}

/// A socket of one family that leaves nothing behind when closed.
fn client(kind: SocketType, from: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(family(from.ip()), kind, flags, None)?;
    net::sockopt::set_socket_reuseaddr(&socket, true)?;
    if from.is_ipv6() {
        net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if kind == SocketType::STREAM {
        net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    }
    net::bind(&socket, &from)?;
    Ok(socket)
}

fn raw(proto: u8, local: IpAddr, hops: Option<u8>) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let proto = NonZeroU32::new(u32::from(proto)).map(Protocol::from_raw);
    let socket = net::socket_with(family(local), SocketType::RAW, flags, proto)?;
    if local.is_ipv6() && hops.is_some() {
        net::sockopt::set_ipv6_unicast_hops(&socket, hops)?;
    }
    net::bind(&socket, &SocketAddr::new(local, 0))?;
    Ok(socket)
}

fn family(addr: IpAddr) -> AddressFamily {
    if addr.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    }
}
