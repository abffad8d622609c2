//! Backends that print a ruleset, compare it with the kernel and apply the difference; and the links of the host.

pub mod links;
