//! NetworkSet and GlobalNetworkSet (facts 1.10).

use std::sync::Arc;

use super::at::{At, Fields};
use super::{read, schema};
use crate::api::types::{NetworkSet, Spec};

/// Either kind of set: their specifications are alike.
pub fn decode(at: &At<'_>) -> Option<Spec> {
    let fields = Fields::of(at)?;
    let mut nets = fields.list("nets", schema::MAX_ITEMS, read::masked_net);
    fields.finish();
    nets.sort();
    nets.dedup();
    Some(Spec::NetworkSet(Arc::new(NetworkSet { nets })))
}
