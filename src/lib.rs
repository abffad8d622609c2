//! moat enforces Calico network policy on hosts that are not in a cluster.
//!
//! The rooms, in the order data flows (see `docs/design.md`).

pub mod api;
pub mod calc;
pub mod compile;
pub mod config;
pub mod ctl;
pub mod daemon;
pub mod dataplane;
pub mod selector;
pub mod source;
pub mod store;
pub mod verdict;
