//! The `projectcalico.org/v3` resources: types, names, defaults, validation with positions.

pub mod net;
mod types;

pub use net::{Family, Port, PortRange, Protocol};
pub use types::*;
