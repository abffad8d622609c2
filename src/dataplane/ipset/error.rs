//! What the kernel says about IP sets, in words.

use std::io;

use rustix::io::Errno;

use crate::compile::SetKind;

/// Why IP sets could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// Not compiled in, or the module cannot be loaded.
    #[error("this kernel has no IP sets: the module ip_set is missing")]
    Absent,
    /// A protocol that nobody knows yet.
    #[error("this kernel speaks the ipset protocols {0} to {1}, moat speaks 6")]
    Protocol(u8, u8),
    /// The socket failed.
    #[error("cannot speak with the kernel about IP sets: {0}")]
    Socket(io::Error),
    /// An answer did not come in time.
    #[error("the kernel does not answer about IP sets")]
    Silent,
    /// A request was refused.
    #[error(
        "the kernel refuses to {action} IP set {set}{}: {reason}",
        member.as_ref().map_or(String::new(), |m| format!(", member {m}"))
    )]
    Refused {
        /// What was asked for.
        action: &'static str,
        /// Which set.
        set: String,
        /// The member that it was about, if it was about one.
        member: Option<String>,
        /// Why not.
        reason: Reason,
    },
}

impl SetError {
    /// Why the kernel refused, if it did.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            SetError::Refused { reason, .. } => Some(*reason),
            _ => None,
        }
    }

    /// Whether everything else would fail too.
    pub fn is_general(&self) -> bool {
        !matches!(self, SetError::Refused { .. })
    }
}

/// Why the difference between the sets that are there and those that are wanted is not known.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Members are changed of a set that is not known.
    #[error("the members of IP sets in the kernel are not known: all members are needed")]
    OutOfStep,
    /// The kernel cannot be asked.
    #[error(transparent)]
    Kernel(#[from] SetError),
}

/// Why the kernel refused a request (`enum ipset_errno`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// No set of this name.
    #[error("there is no such set")]
    Missing,
    /// A set of this name.
    #[error("a set of this name exists")]
    Exists,
    /// Rules or other sets use it.
    #[error("rules use it")]
    InUse,
    /// The member is there, or is not there.
    #[error("the member is there already, or is not there")]
    Member,
    /// No room for a member.
    #[error("it is full")]
    Full,
    /// Types that cannot be exchanged.
    #[error("a set of another type has this name")]
    OtherType,
    /// Types that cannot be exchanged, where the old set cannot be removed.
    #[error("a set of another type has this name, and is in use")]
    OtherTypeInUse,
    /// No such type.
    #[error("the kernel lacks this type of set: a module ip_set_* is missing")]
    NoType,
    /// No room for a set.
    #[error("there are too many sets")]
    TooManySets,
    /// No memory.
    #[error("out of memory")]
    Memory,
    /// No privilege.
    #[error("not permitted: CAP_NET_ADMIN is missing")]
    Privilege,
    /// Something else.
    #[error("error {0} of the ipset protocol")]
    Code(i32),
    /// Something else.
    #[error("{}", io::Error::from_raw_os_error(*.0))]
    System(i32),
}

/// The largest number of a system error; the protocol's own begin behind it.
const MAX_ERRNO: i32 = 4095;

impl Reason {
    /// From the negative code of an answer about a set of this kind.
    pub fn new(code: i32, kind: Option<SetKind>) -> Reason {
        let is_hash = matches!(kind, Some(SetKind::Nets | SetKind::AddrPorts));
        match -code {
            4098 => Reason::NoType,
            4099 => Reason::TooManySets,
            4100 | 4108 => Reason::InUse,
            4101 => Reason::Exists,
            4102 => Reason::OtherType,
            4103 => Reason::Member,
            4352 if is_hash => Reason::Full,
            code if code > MAX_ERRNO => Reason::Code(code),
            code => match Errno::from_raw_os_error(code) {
                Errno::NOENT => Reason::Missing,
                Errno::EXIST => Reason::Exists,
                Errno::BUSY => Reason::InUse,
                Errno::NOMEM | Errno::NOBUFS => Reason::Memory,
                Errno::PERM | Errno::ACCESS => Reason::Privilege,
                _ => Reason::System(code),
            },
        }
    }
}
