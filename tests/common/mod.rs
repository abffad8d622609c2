//! What tests with real hosts share: cases as data, network namespaces as hosts, packets as probes.

pub mod backend;
pub mod case;
pub mod daemon;
pub mod datastore;
pub mod judge;
pub mod kernel;
pub mod netns;
pub mod packet;
pub mod shot;
pub mod topology;
pub mod wire;
pub mod yaml;
