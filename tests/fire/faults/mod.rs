//! The faults: each a function that makes it and undoes what others have to undo, with a sentence for the reader.

mod changes;
mod connections;
mod disk;
mod files;
mod foreign;
mod links;
mod process;
mod socket;
mod tools;

pub use foreign::LOCK;

use super::backend::Backend;
use super::world::World;

/// What is promised while a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Not one wrong verdict.
    Never,
    /// Somebody else takes rules away, adds or edits them: wrong verdicts until that is found and repaired.
    Repaired,
}

/// One fault.
pub struct Fault {
    /// Short name.
    pub name: &'static str,
    /// What happens, for the table.
    pub about: &'static str,
    /// What is promised.
    pub promise: Promise,
    /// The only backend for which it means something.
    pub only: Option<Backend>,
    /// Makes it, in a world where all is well.
    pub make: fn(&mut World) -> Result<(), String>,
}

const fn fault(
    name: &'static str,
    promise: Promise,
    make: fn(&mut World) -> Result<(), String>,
    about: &'static str,
) -> Fault {
    Fault {
        name,
        about,
        promise,
        only: None,
        make,
    }
}

const fn only(backend: Backend, fault: Fault) -> Fault {
    Fault {
        only: Some(backend),
        ..fault
    }
}

/// All of them, in the order in which they are made.
pub fn all() -> Vec<&'static Fault> {
    let rooms = [
        process::FAULTS,
        changes::FAULTS,
        foreign::FAULTS,
        tools::FAULTS,
        disk::FAULTS,
        links::FAULTS,
        files::FAULTS,
        socket::FAULTS,
        connections::FAULTS,
    ];
    rooms.into_iter().flatten().collect()
}
