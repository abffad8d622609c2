//! Tables that the nft tool made when it wrote moat's rules, and that nobody uses any more.

use super::super::fallback;
use super::detect::Backend;
use super::restore::Writer;
use crate::api::Family;

/// Removes a table in which there is nothing but built-in chains that accept, so that the kernel is as it was before moat. The
/// legacy tool's tables belong to the kernel and stay.
pub(super) fn remove(writer: &Writer, family: Family, table: &str) {
    if writer.backend != Backend::Nft {
        return;
    }
    let tool = writer.backend.tool(family, "save");
    let mut chains = Vec::new();
    let mut is_used = false;
    let read = writer
        .tools
        .read(&tool, &["-t", table], String::new(), |line| {
            match line
                .strip_prefix(':')
                .map(|l| l.split(' ').collect::<Vec<_>>())
            {
                Some(words) if words.get(1) == Some(&"ACCEPT") => chains.push(words[0].to_owned()),
                Some(_) => is_used = true,
                None => is_used |= line.starts_with('-'),
            }
            true
        });
    if read.is_err() || is_used || chains.is_empty() {
        return;
    }
    if let Err(error) = fallback::remove_unused(family, table, &chains) {
        tracing::debug!("the empty table {table} stays: {error}");
    }
}
