//! `moatctl datastore migrate`, in calicoctl's words and with its form of an export.
//!
//! An export has three parts: the resources as YAML, ClusterInformation, and the keys of address management as JSON. calicoctl leaves
//! some kinds out; they are in the third part, where it passes over them.

mod export;
mod import;

use std::path::PathBuf;

use clap::Subcommand;

use super::change::initialize;
use super::db::{Db, Stored};
use crate::api::{Kind, ResourceId};
use crate::ctl::datastore::words::said;
use crate::ctl::{EX_NO, EX_OK, Failure, Global, Outcome};
use crate::etcd::Condition;

/// The line between the parts of an export.
const SEPARATOR: &str = "===\n";
/// The field of the third part with the resources of other kinds.
const OTHERS: &str = "resources";

/// Commands about the datastore as a whole.
#[derive(Debug, Subcommand)]
pub enum Datastore {
    /// Move a datastore to another place
    #[command(subcommand)]
    Migrate(Migrate),
}

/// Steps of a move.
#[derive(Debug, Subcommand)]
pub enum Migrate {
    /// Print everything that the datastore holds
    Export,
    /// Fill an empty datastore with an export
    Import {
        /// The export, or - for standard input
        #[arg(short = 'f', long = "filename", value_name = "FILE")]
        filename: PathBuf,
    },
    /// Make all hosts keep what they have, whatever happens to the datastore
    Lock,
    /// Make all hosts follow the datastore again
    Unlock,
}

impl Datastore {
    /// Runs the command.
    pub fn run(&self, global: &Global) -> Outcome {
        let Datastore::Migrate(step) = self;
        let mut db = Db::open(global)?;
        match step {
            Migrate::Export => export::run(&mut db),
            Migrate::Import { filename } => import::run(&mut db, filename),
            Migrate::Lock => ready(&mut db, false, "Datastore locked."),
            Migrate::Unlock => ready(&mut db, true, "Datastore unlocked."),
        }
    }
}

fn information(db: &mut Db) -> Result<Option<Stored>, Failure> {
    db.get(&ResourceId {
        kind: Kind::ClusterInformation,
        namespace: String::new(),
        name: "default".to_owned(),
    })
}

fn ready(db: &mut Db, ready: bool, text: &str) -> Outcome {
    change(db, &[("datastoreReady", ready.into())])?;
    let form = db.global().output;
    said(form, text)?;
    Ok(EX_OK)
}

/// Changes fields of ClusterInformation, which is made if there is none.
fn change(db: &mut Db, fields: &[(&str, serde_json::Value)]) -> Result<(), Failure> {
    if information(db)?.is_none() {
        initialize(db)?;
    }
    let Some(found) = information(db)? else {
        let text = "ClusterInformation/default cannot be written";
        return Err(Failure::new(EX_NO, text));
    };
    let mut stored = found.document.clone();
    if let Some(metadata) = stored["metadata"].as_object_mut() {
        metadata.shift_remove("resourceVersion");
    }
    for (field, value) in fields {
        stored["spec"][field] = value.clone();
    }
    match db.put(&found.key, Condition::Revision(found.revision), &stored)? {
        Some(_) => Ok(()),
        None => {
            let text = "somebody else changed it meanwhile: try again";
            Err(Failure::new(EX_NO, text))
        }
    }
}
