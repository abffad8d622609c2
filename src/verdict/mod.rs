//! The reference meaning of a host policy: (host policy, packet) to verdict and trace.

mod packet;

pub use packet::{Conntrack, Packet, Path};
