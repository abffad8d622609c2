//! The `projectcalico.org/v3` resources: types, names, defaults, validation with positions.

mod cursor;
mod decode;
mod document;
mod emit;
mod issue;
mod json;
mod kind;
pub mod net;
mod node;
mod scalar;
#[cfg(test)]
mod tests;
mod text;
mod tree;
mod types;
pub mod yaml;

pub use decode::MAX_ISSUES;
#[doc(hidden)]
pub use decode::parse_bytes_as_yaml;
pub use decode::{
    Outcome, Parsed, RuleLines, parse_bytes, parse_document, parse_each, parse_value,
};
pub use document::Document;
pub use emit::to_yaml;
pub use issue::{Issue, Severity, did_you_mean, nearest, shorten};
pub use kind::UnknownKind;
pub use net::{Family, Port, PortRange, Protocol};
pub use types::*;
