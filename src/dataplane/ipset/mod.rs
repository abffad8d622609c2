//! IP sets by netlink: what the `ipset` program does, without starting it for each member.
//!
//! One request at a time. The kernel handles it while it is being sent, so the answer is there at once. Sets are those of the
//! network namespace of the thread that opened the socket.

mod compare;
mod edit;
mod error;
mod header;
mod table;
#[cfg(test)]
mod tests;
pub(super) mod wire;
mod write;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

pub use edit::{Effect, SetFailures, SetPlan};
pub use error::{PlanError, Reason, SetError};
pub use header::Header;
pub use table::SetTable;
use wire::{Body, Command, Request, attributes, cmd, data, find, flag};

use crate::api::Family;
use crate::compile::{Member, SetKind};

/// How long an answer may take. It is there when the request has been sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest answer: an error that carries the request which caused it. Lists come in smaller pieces.
const INBOX: usize = 128 << 10;
/// Members that a bucket of a hash shall hold on average: it is searched one by one, and the kernel doubles the hash when one
/// is full.
const PER_BUCKET: usize = 2;
/// The least number of buckets that the kernel accepts.
const MIN_BUCKETS: usize = 64;
/// The most that are asked for; the kernel goes on doubling by itself.
const MAX_BUCKETS: usize = 1 << 20;

/// The sets of a network namespace.
#[derive(Debug)]
pub struct IpSets {
    socket: OwnedFd,
    sequence: u32,
    request: Request,
    inbox: Vec<u8>,
    /// The newest revision of each type that the kernel has.
    revisions: BTreeMap<(SetKind, Family), u8>,
}

/// An answer that is an error, with the attributes of the request if the kernel sent them back.
struct Refusal {
    code: i32,
    request: Vec<u8>,
}

/// Why there is no good answer.
enum Failure {
    Refused(Refusal),
    Broken(SetError),
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Failure {
        Failure::Broken(match error {
            Errno::AGAIN => SetError::Silent,
            error => SetError::Socket(error.into()),
        })
    }
}

impl IpSets {
    /// Opens the sets of the thread's network namespace.
    ///
    /// # Errors
    /// The kernel has no IP sets, or the privilege is missing.
    pub fn open() -> Result<IpSets, SetError> {
        let failed = |e: Errno| SetError::Socket(e.into());
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(NETFILTER),
        )
        .map_err(failed)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).map_err(failed)?;
        // From now on only the kernel can send to us.
        connect(&socket, &SocketAddrNetlink::new(0, 0)).map_err(failed)?;
        let mut sets = IpSets {
            socket,
            sequence: 0,
            request: Request::default(),
            inbox: vec![0; INBOX],
            revisions: BTreeMap::new(),
        };
        sets.check_protocol()?;
        Ok(sets)
    }

    fn check_protocol(&mut self) -> Result<(), SetError> {
        self.begin(Command::Protocol, flag::ACK);
        let (mut newest, mut oldest) = (None, None);
        self.exchange(|answer| {
            let byte = |kind| find(answer, kind).and_then(|v| v.first().copied());
            newest = byte(cmd::PROTOCOL);
            // One number means one protocol.
            oldest = byte(cmd::PROTOCOL_MIN).or(newest);
        })
        .map_err(|failure| match failure {
            Failure::Broken(error) => error,
            // What nfnetlink says when nobody serves a subsystem.
            Failure::Refused(r) if r.code == -Errno::INVAL.raw_os_error() => SetError::Absent,
            Failure::Refused(r) => SetError::Socket(io::Error::from_raw_os_error(-r.code)),
        })?;
        let (oldest, newest) = (oldest.unwrap_or(0), newest.unwrap_or(0));
        match (oldest..=newest).contains(&wire::PROTOCOL) {
            true => Ok(()),
            false => Err(SetError::Protocol(oldest, newest)),
        }
    }

    /// All sets, also those that are not ours, without their members.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn headers(&mut self) -> Result<Vec<Header>, SetError> {
        self.begin(Command::List, flag::ACK | flag::DUMP);
        self.request.number(cmd::FLAGS, wire::LIST_HEADER);
        let mut headers = Vec::new();
        self.exchange(|answer| headers.extend(Header::parse(answer)))
            .map_err(|f| refused(f, "list", "*", None))?;
        Ok(headers)
    }

    /// Shows each member of a set of this kind; nothing for one that is unlike any of ours.
    ///
    /// # Errors
    /// There is no such set, or the kernel cannot be asked.
    pub fn members(
        &mut self,
        name: &str,
        kind: SetKind,
        mut visit: impl FnMut(Option<Member>),
    ) -> Result<(), SetError> {
        self.begin(Command::List, flag::ACK | flag::DUMP);
        self.request.text(cmd::SETNAME, name);
        self.exchange(|answer| {
            for (_, one) in find(answer, cmd::ADT).into_iter().flat_map(attributes) {
                visit(wire::member(kind, one));
            }
        })
        .map_err(|f| refused(f, "list", name, Some(kind)))
    }

    /// Creates an empty set that shall soon have about so many members.
    ///
    /// # Errors
    /// The kernel refuses, also when there is a set of this name.
    pub fn create(
        &mut self,
        name: &str,
        kind: SetKind,
        family: Family,
        capacity: u32,
        members: usize,
    ) -> Result<(), SetError> {
        let revision = self.revision(name, kind, family)?;
        self.begin(Command::Create, flag::ACK | flag::EXCL);
        self.request.text(cmd::SETNAME, name);
        self.request.text(cmd::TYPENAME, wire::type_name(kind));
        self.request.attribute(cmd::REVISION, &[revision]);
        let number = wire::family_number(kind, family);
        self.request.attribute(cmd::FAMILY, &[number]);
        let options = self.request.open(cmd::DATA);
        match kind {
            SetKind::Ports => {
                self.request.port(data::PORT, 0);
                self.request.port(data::PORT_TO, u16::MAX);
            }
            SetKind::Nets | SetKind::AddrPorts => {
                let buckets = (members / PER_BUCKET)
                    .clamp(MIN_BUCKETS, MAX_BUCKETS)
                    .next_power_of_two();
                let buckets = u32::try_from(buckets).unwrap_or(u32::MAX);
                self.request.number(data::HASHSIZE, buckets);
                self.request.number(data::MAXELEM, capacity);
            }
        }
        self.request.close(options);
        self.finish("create", name, Some(kind))
    }

    /// The newest revision of a type: a kernel may have given up old ones.
    fn revision(&mut self, name: &str, kind: SetKind, family: Family) -> Result<u8, SetError> {
        if let Some(known) = self.revisions.get(&(kind, family)) {
            return Ok(*known);
        }
        self.begin(Command::Type, flag::ACK);
        self.request.text(cmd::TYPENAME, wire::type_name(kind));
        let number = wire::family_number(kind, family);
        self.request.attribute(cmd::FAMILY, &[number]);
        let mut revision = 0;
        self.exchange(|answer| {
            let value = find(answer, cmd::REVISION).and_then(|v| v.first().copied());
            revision = value.unwrap_or(0);
        })
        .map_err(|f| refused(f, "create", name, Some(kind)))?;
        self.revisions.insert((kind, family), revision);
        Ok(revision)
    }

    /// Adds members; those that are there stay. A refusal leaves those before the refused one added.
    ///
    /// # Errors
    /// The kernel refuses a member, or there is no such set.
    pub fn add(
        &mut self,
        name: &str,
        kind: SetKind,
        members: impl IntoIterator<Item = Member>,
    ) -> Result<(), SetError> {
        self.change(Command::Add, name, kind, members.into_iter())
    }

    /// Removes members; those that are not there are no error.
    ///
    /// # Errors
    /// There is no such set, or the kernel refuses.
    pub fn remove(
        &mut self,
        name: &str,
        kind: SetKind,
        members: impl IntoIterator<Item = Member>,
    ) -> Result<(), SetError> {
        self.change(Command::Remove, name, kind, members.into_iter())
    }

    /// As few messages as the members fit in.
    fn change(
        &mut self,
        command: Command,
        name: &str,
        kind: SetKind,
        members: impl Iterator<Item = Member>,
    ) -> Result<(), SetError> {
        let action = match command {
            Command::Add => "add to",
            _ => "remove from",
        };
        let mut members = members.peekable();
        while members.peek().is_some() {
            self.begin(command, flag::ACK);
            self.request.text(cmd::SETNAME, name);
            // The kernel writes the line of a refused member here.
            self.request.number(cmd::LINENO, 0);
            let all = self.request.open(cmd::ADT);
            let mut line = 0;
            while !self.request.is_full()
                && let Some(member) = members.next()
            {
                line += 1;
                self.request.member(member, line);
            }
            self.request.close(all);
            self.finish(action, name, Some(kind))?;
        }
        Ok(())
    }

    /// Exchanges the contents of two sets: rules see the one or the other, nothing in between.
    ///
    /// # Errors
    /// One is missing, or they are of different types.
    pub fn swap(&mut self, one: &str, other: &str) -> Result<(), SetError> {
        self.begin(Command::Swap, flag::ACK);
        self.request.text(cmd::SETNAME, one);
        self.request.text(cmd::SETNAME2, other);
        self.finish("swap", other, None)
    }

    /// Gives an unused set another name.
    ///
    /// # Errors
    /// It is missing or in use, or the other name is taken.
    pub fn rename(&mut self, name: &str, other: &str) -> Result<(), SetError> {
        self.begin(Command::Rename, flag::ACK);
        self.request.text(cmd::SETNAME, name);
        self.request.text(cmd::SETNAME2, other);
        self.finish("rename", name, None)
    }

    /// Removes all members.
    ///
    /// # Errors
    /// There is no such set.
    pub fn flush(&mut self, name: &str) -> Result<(), SetError> {
        self.begin(Command::Flush, flag::ACK);
        self.request.text(cmd::SETNAME, name);
        self.finish("empty", name, None)
    }

    /// Removes a set.
    ///
    /// # Errors
    /// There is no such set, or it is in use.
    pub fn destroy(&mut self, name: &str) -> Result<(), SetError> {
        self.begin(Command::Destroy, flag::ACK);
        self.request.text(cmd::SETNAME, name);
        self.finish("destroy", name, None)
    }

    fn begin(&mut self, command: Command, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        self.request.begin(command, flags, self.sequence);
    }

    fn finish(
        &mut self,
        action: &'static str,
        set: &str,
        kind: Option<SetKind>,
    ) -> Result<(), SetError> {
        self.exchange(|_| {})
            .map_err(|f| refused(f, action, set, kind))
    }

    /// Sends the request and takes the answers up to the last one.
    fn exchange(&mut self, mut take: impl FnMut(&[u8])) -> Result<(), Failure> {
        send(&self.socket, self.request.end(), SendFlags::empty())?;
        loop {
            // With this flag the second length is that of the whole message.
            let (length, whole) = match recv(&self.socket, &mut self.inbox[..], RecvFlags::TRUNC) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            if whole > length {
                return Err(Errno::MSGSIZE.into());
            }
            for reply in wire::replies(&self.inbox[..length]) {
                // An answer that came too late for an earlier request.
                if reply.sequence != self.sequence {
                    continue;
                }
                match reply.body {
                    Body::Data(answer) => take(answer),
                    Body::End(0, _) => return Ok(()),
                    Body::End(code, request) => {
                        let request = request.to_vec();
                        return Err(Failure::Refused(Refusal { code, request }));
                    }
                    Body::Other => {}
                }
            }
        }
    }
}

fn refused(failure: Failure, action: &'static str, set: &str, kind: Option<SetKind>) -> SetError {
    match failure {
        Failure::Broken(error) => error,
        Failure::Refused(refusal) => SetError::Refused {
            action,
            set: set.to_owned(),
            member: kind.and_then(|k| refusal.member(k)),
            reason: Reason::new(refusal.code, kind),
        },
    }
}

impl Refusal {
    /// The member that was refused: the one whose line the kernel wrote into the request.
    fn member(&self, kind: SetKind) -> Option<String> {
        let line = find(&self.request, cmd::LINENO)?;
        let is_meant = |one: &[u8]| find(one, data::LINENO) == Some(line);
        let all = attributes(find(&self.request, cmd::ADT)?);
        let one = all.map(|(_, one)| one).find(|one| is_meant(one))?;
        wire::member(kind, one).map(|m| member_text(&m))
    }
}

/// A member as the `ipset` program writes it.
pub fn member_text(member: &Member) -> String {
    match member {
        Member::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
        Member::Net(net) => net.to_string(),
        Member::AddrPort(addr, protocol, port) => {
            format!("{addr},{}:{port}", protocol.to_string().to_lowercase())
        }
        Member::Port(port) => port.to_string(),
    }
}
