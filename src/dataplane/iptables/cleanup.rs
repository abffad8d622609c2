//! Taking moat out of the kernel, and plans for a reader.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::ipset::{SetPlan, SetTable};
use super::super::nft::fallback;
use super::super::plan::Plan;
use super::super::{Dataplane, DataplaneError};
use super::detect::Backend;
use super::diff::{Before, FamilyEdit, Kept, edits};
use super::{Iptables, SetError};
use crate::api::Family;
use crate::calc::HostPolicy;
use crate::compile::Ruleset;

/// The edits as lines: sets, rules, old chains, old sets.
pub(super) fn plan(edits: &BTreeMap<Family, FamilyEdit>, sets: Option<&SetPlan>) -> Plan {
    let (mut lines, gone) = sets.map(SetPlan::lines).unwrap_or_default();
    let mut changed = sets.map(SetPlan::changed).unwrap_or_default();
    let tool = |family: &Family| match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    };
    for (family, edits) in edits {
        for edit in edits {
            changed.add(edit.changed);
            let (tool, table) = (tool(family), edit.table.name());
            let line = |l: &String| format!("{tool} -t {table}: {l}");
            lines.extend(edit.lines.iter().map(line));
        }
    }
    for (family, edits) in edits {
        for edit in edits {
            let (tool, table) = (tool(family), edit.table.name());
            let line = |c: &String| format!("{tool} -t {table}: -X {c}");
            lines.extend(edit.stale.iter().map(line));
        }
    }
    lines.extend(gone);
    Plan { lines, changed }
}

/// Everything that a ruleset would put into a kernel that holds nothing of moat.
pub fn plan_from_nothing(wanted: &Ruleset, policy: &HostPolicy) -> Plan {
    let before = Before::Known(Arc::default());
    let mut families: BTreeMap<Family, FamilyEdit> = BTreeMap::new();
    for family in Family::ALL {
        families.insert(family, edits(wanted, &before, &Kept::new(), family));
    }
    let sets = SetPlan::from_nothing(wanted, &policy.sets);
    plan(&families, Some(&sets))
}

/// Removes the rules, not the sets, that moat left in a backend that is not in use. Nothing to do is fine, a missing tool too.
///
/// # Errors
/// When the tool fails.
pub fn remove_rules(backend: Backend) -> Result<Plan, DataplaneError> {
    if !backend.may_hold_rules() {
        return Ok(Plan::default());
    }
    match Iptables::new(backend, 0).cleanup(false) {
        Err(error) if error.is_missing_tool() => Ok(Plan::default()),
        other => other,
    }
}

/// Removes everything that moat ever put into the kernel: both backends, both families, all sets.
///
/// # Errors
/// When a tool fails; what could be removed is removed.
pub fn cleanup_all(dry_run: bool) -> Result<Vec<String>, DataplaneError> {
    let mut lines = Vec::new();
    let mut result = Ok(());
    let backends = [Backend::Nft, Backend::Legacy];
    for backend in backends.into_iter().filter(|b| b.may_hold_rules()) {
        match Iptables::new(backend, 0).cleanup(dry_run) {
            Ok(plan) => lines.extend(plan.lines.iter().map(|l| format!("{backend} {l}"))),
            Err(error) if error.is_missing_tool() => {}
            Err(error) => result = result.and(Err(error)),
        }
    }
    let table = format!("nft: delete table inet {}", fallback::TABLE);
    match dry_run {
        true if fallback::is_closed() => lines.push(table),
        true => {}
        false => match fallback::open() {
            Ok(true) => lines.push(table),
            Ok(false) => {}
            Err(error) => result = result.and(Err(DataplaneError::Fallback(error))),
        },
    }
    match SetTable::new(0).destroy_all(dry_run) {
        Ok((names, held)) => {
            lines.extend(names.iter().map(|s| format!("ipset: destroy {s}")));
            if !held.is_empty() {
                result = result.and(Err(DataplaneError::Held(held)));
            }
        }
        Err(SetError::Absent) => {}
        Err(error) => result = result.and(Err(error.into())),
    }
    result.map(|()| lines)
}
