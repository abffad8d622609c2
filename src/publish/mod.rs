//! What this host tells a datastore about itself, as Felix does (facts 7.1): that it is alive, the state of its endpoints, and,
//! if it shall register, a HostEndpoint of its own.
//!
//! A task with a connection of its own. Nothing of what is enforced depends on it: a host that may only read enforces all the same.

mod endpoint;
mod task;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use endpoint::{Registration, id as own_endpoint};

use crate::etcd::Access;

/// Everything that is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Name of this host.
    pub host: String,
    /// That it is alive, unless nobody shall know.
    pub alive: Option<Alive>,
    /// The state of each endpoint by its key, unless nobody shall know.
    pub endpoints: Option<BTreeMap<String, EndpointState>>,
    /// The HostEndpoint of this host, if it shall register.
    pub registration: Option<Registration>,
    /// Whether the datastore is known to hold that one: when somebody deletes it, this changes, and it is written again.
    pub is_registered: bool,
}

/// How the host tells that it is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alive {
    /// Time between two reports.
    pub interval: Duration,
    /// How long a report counts.
    pub ttl: Duration,
}

/// The state of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// Its policy is in force on an interface that is up.
    Up,
    /// No interface of it is up.
    Down,
    /// Its policy is not in force.
    Error,
}

impl EndpointState {
    /// Felix's word.
    fn word(self) -> &'static str {
        match self {
            EndpointState::Up => "up",
            EndpointState::Down => "down",
            EndpointState::Error => "error",
        }
    }
}

/// The task, which ends when this is dropped.
#[derive(Debug)]
pub struct Publisher {
    access: Access,
    wish: watch::Sender<Wish>,
    problems: watch::Receiver<Vec<String>>,
    task: JoinHandle<()>,
}

impl Publisher {
    /// Begins to tell; must be called within tokio's runtime.
    pub fn start(access: Access) -> Publisher {
        let (wish, wishes) = watch::channel(Wish::default());
        let (sender, problems) = watch::channel(Vec::new());
        let task = task::Task::new(access.clone(), wishes, sender);
        Publisher {
            access,
            wish,
            problems,
            task: tokio::spawn(task.run()),
        }
    }

    /// How etcd is reached.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// This is to be told from now on.
    pub fn tell(&self, wish: Wish) {
        self.wish.send_if_modified(|held| {
            let differs = *held != wish;
            *held = wish;
            differs
        });
    }

    /// Why something could not be told.
    pub fn problems(&self) -> Vec<String> {
        self.problems.borrow().clone()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}
