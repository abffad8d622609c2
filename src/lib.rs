//! moat enforces Calico network policy on hosts that are not in a cluster.
//!
//! The rooms, in the order data flows (see `docs/design.md`).

pub mod api;
pub mod selector;
pub mod config;
pub mod source;
pub mod store;
pub mod calc;
pub mod verdict;
pub mod compile;
pub mod dataplane;
pub mod daemon;
pub mod ctl;
