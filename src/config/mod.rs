//! moat's own settings: one table of parameters, the layers in which they are given, and the
//! origin of every value (facts 6; the names are FelixConfiguration's where Calico has the setting).
//!
//! From low to high: defaults, FelixConfiguration `default` and `node.HOST`, the vendor's files,
//! the settings file, its drop-ins, the environment, the command line.

mod calico_env;
mod error;
mod failsafe;
mod file;
mod interfaces;
mod layer;
mod load;
mod params;
mod settings;
#[cfg(test)]
mod tests;
mod value;

pub use error::ConfigError;
pub use failsafe::Failsafe;
pub use interfaces::Interfaces;
pub use layer::Origin;
pub use load::{Input, Loaded, RESERVED_ENV, Row, load, load_saved};
pub use params::{PARAMS, Param, example_file, reference_markdown};
pub use settings::{
    AllowAction, BootFailurePolicy, ChainInsertMode, DatastoreType, DenyAction,
    ExistingConnections, HostAction, IptablesBackend, OnRemove, Settings, Severity,
};
pub use value::Kind;
