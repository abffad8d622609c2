//! moat enforces Calico network policy on hosts that are not in a cluster.
//!
//! The rooms, in the order data flows (see `docs/design.md`):
//!
//! | room | what it is for |
//! |---|---|
//! | [`api`] | the `projectcalico.org/v3` resources: types, names, defaults, validation with positions |
//! | [`selector`] | the label language |
//! | [`config`] | moat's own settings, and the origin of every value |
//! | `etcd` | a client of etcd, and Calico's layout of keys there |
//! | [`source`] | where resources come from |
//! | [`store`] | the merged, validated view of all resources, and its snapshot on disk |
//! | [`calc`] | store to host policy, incrementally |
//! | [`verdict`] | the reference meaning of a host policy |
//! | [`compile`] | host policy to ruleset |
//! | [`dataplane`] | ruleset to kernel, and the links of the host |
//! | `publish` | what this host tells a datastore about itself |
//! | [`daemon`] | moatd: the loop, readiness, reload, control socket |
//! | [`ctl`] | moatctl: one file per command |

// Here and not for all targets: tests may unwrap.
#![warn(clippy::unwrap_used)]

pub mod api;
pub mod calc;
pub mod compile;
pub mod config;
pub mod ctl;
pub mod daemon;
pub mod dataplane;
#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(feature = "etcd")]
pub mod publish;
pub mod selector;
pub mod source;
pub mod store;
pub mod verdict;
