//! Tables that the nft tool made when it wrote moat's rules, and that nobody uses any more.

use super::super::nft;
use super::detect::Backend;
use crate::api::Family;

/// Removes a table in which there is nothing but built-in chains that accept, so that the kernel is as it was before moat. The
/// legacy tool's tables belong to the kernel and stay.
pub(super) fn remove(backend: Backend, family: Family, table: &str) {
    if backend == Backend::Nft
        && let Err(error) = nft::remove_unused(family, table)
    {
        tracing::debug!("the empty table {table} stays: {error}");
    }
}
