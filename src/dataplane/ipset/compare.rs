//! The members that a set has in the kernel against those that it shall have, without a second copy of either.

use std::collections::BTreeSet;

use super::super::content::Content;
use super::{Header, IpSets, SetError};
use crate::compile::{Member, SetKind};

/// A set with so many more members than it shall have, beyond twice as many, is built anew instead of being read.
const SURPLUS: usize = 4096;

/// What a set lacks, and what it has too much.
#[derive(Debug, PartialEq, Eq)]
pub enum Difference {
    /// Members to add and to remove.
    Members(Vec<Member>, Vec<Member>),
    /// So much that it is better built anew.
    Everything,
}

/// Reads a set and compares it.
///
/// # Errors
/// The kernel cannot be asked.
pub fn compare(
    kernel: &mut IpSets,
    header: &Header,
    kind: SetKind,
    content: &Content,
) -> Result<Difference, SetError> {
    let total = content.count();
    let limit = 2 * total + SURPLUS;
    if header.members.is_some_and(|n| n as usize > limit) {
        return Ok(Difference::Everything);
    }
    let (mut shared, mut surplus, mut strange) = (0, Vec::new(), false);
    kernel.members(&header.name, kind, |member| match member {
        Some(member) if content.contains(&member) => shared += 1,
        Some(member) if surplus.len() < limit => surplus.push(member),
        _ => strange = true,
    })?;
    if strange {
        return Ok(Difference::Everything);
    }
    // The usual case: nothing had to be remembered.
    if shared == total {
        return Ok(Difference::Members(Vec::new(), surplus));
    }
    let mut there = BTreeSet::new();
    kernel.members(&header.name, kind, |member| {
        there.extend(member.filter(|_| there.len() < limit));
    })?;
    let missing: Vec<Member> = content.iter().filter(|m| !there.contains(m)).collect();
    if missing.len() + surplus.len() > total.max(SURPLUS) {
        return Ok(Difference::Everything);
    }
    Ok(Difference::Members(missing, surplus))
}
