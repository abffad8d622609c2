//! The iptables backend: one restore transaction per table and family, `ipset restore` for sets.

mod detect;
mod diff;
mod features;
mod render;
mod save;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

pub use detect::{Backend, Choice, choose, would_choose};
pub use features::{Feature, check_features};

use super::command::{CommandError, run};
use super::plan::{Found, FoundTable, Plan};
use super::{Dataplane, DataplaneError};
use crate::api::Family;
use crate::compile::Ruleset;

/// Seconds that a tool waits for the lock of the legacy backend.
const LOCK_WAIT: &str = "10";
/// Tries of one apply, with a fresh look at the kernel each time.
const TRIES: u32 = 4;
/// Pause before the second try; doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// One backend of the two.
#[derive(Debug)]
pub struct Iptables {
    backend: Backend,
    families: Vec<Family>,
    min_capacity: usize,
    /// What the kernel holds, when nothing has failed since it was known.
    known: Option<Found>,
}

impl Iptables {
    /// A driver for this backend. `min_capacity` is the least size given to sets.
    pub fn new(backend: Backend, min_capacity: usize) -> Iptables {
        let mut families = vec![Family::V4];
        if ipv6_available() {
            families.push(Family::V6);
        }
        Iptables {
            backend,
            families,
            min_capacity,
            known: None,
        }
    }

    /// Another least size of sets, from the next plan on.
    pub fn set_min_capacity(&mut self, min_capacity: usize) {
        self.min_capacity = min_capacity;
    }

    /// The families that this kernel filters.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    fn try_apply(&mut self, wanted: &Ruleset) -> Result<Plan, DataplaneError> {
        let plan = self.plan(wanted)?;
        if plan.is_empty() {
            return Ok(plan);
        }
        // Until everything below went well, what the kernel holds is unknown.
        self.known = None;
        if !plan.set_lines.is_empty() {
            run("ipset", &["restore"], &(plan.set_lines.join("\n") + "\n"))?;
        }
        for (family, edits) in &plan.families {
            self.restore(*family, &edits.edit_text())?;
        }
        for (family, edits) in &plan.families {
            self.restore(*family, &edits.removal_text())?;
        }
        destroy_sets(&plan.destroy)?;
        self.known = Some(diff::expected(wanted, self.min_capacity));
        Ok(plan)
    }

    fn restore(&self, family: Family, text: &str) -> Result<(), CommandError> {
        if text.is_empty() {
            return Ok(());
        }
        run(
            &self.backend.tool(family, "restore"),
            &["--noflush", "--wait", LOCK_WAIT],
            text,
        )
        .map(drop)
    }

    fn clean_plan(&mut self) -> Result<Plan, DataplaneError> {
        self.known = None;
        let found = self.read()?;
        Ok(diff::plan(
            &Ruleset::default(),
            &found,
            &self.families,
            self.min_capacity,
        ))
    }
}

impl Dataplane for Iptables {
    fn name(&self) -> String {
        format!("iptables-{}", self.backend)
    }

    fn read(&mut self) -> Result<Found, DataplaneError> {
        let mut found = Found::default();
        for family in self.families.clone() {
            found
                .tables
                .insert(family, read_tables(self.backend, family)?);
        }
        found.sets = read_sets()?;
        self.known = Some(found.clone());
        Ok(found)
    }

    fn plan(&mut self, wanted: &Ruleset) -> Result<Plan, DataplaneError> {
        if self.known.is_none() {
            self.read()?;
        }
        let known = self.known.as_ref().ok_or(DataplaneError::Unknown)?;
        Ok(diff::plan(wanted, known, &self.families, self.min_capacity))
    }

    fn apply(&mut self, wanted: &Ruleset) -> Result<Plan, DataplaneError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match self.try_apply(wanted) {
                Ok(plan) => return Ok(plan),
                Err(error) if error.is_missing_tool() => return Err(error),
                Err(error) => tracing::debug!("apply failed, trying again: {error}"),
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        self.try_apply(wanted)
    }

    fn cleanup(&mut self, dry_run: bool) -> Result<Plan, DataplaneError> {
        // Sets are shared by both backends: rules of the other one must not hold them.
        let plan = self.clean_plan()?;
        if !dry_run {
            for (family, edits) in &plan.families {
                self.restore(*family, &edits.edit_text())?;
                self.restore(*family, &edits.removal_text())?;
            }
            self.known = None;
        }
        Ok(plan)
    }
}

/// Removes the rules, not the sets, that moat left in a backend that is not in use. Nothing to do is fine, a missing tool too.
///
/// # Errors
/// When the tool fails.
pub fn remove_rules(backend: Backend) -> Result<Plan, DataplaneError> {
    if !backend.may_hold_rules() {
        return Ok(Plan::default());
    }
    let mut plan = match Iptables::new(backend, 0).cleanup(false) {
        Err(error) if error.is_missing_tool() => Plan::default(),
        other => other?,
    };
    plan.destroy.clear();
    Ok(plan)
}

/// Everything that a ruleset would put into a kernel that holds nothing of moat.
pub fn plan_from_nothing(wanted: &Ruleset, min_capacity: usize) -> Plan {
    diff::plan(wanted, &Found::default(), &Family::ALL, min_capacity)
}

/// Removes everything that moat ever put into the kernel: both backends, both families, all sets.
///
/// # Errors
/// When a tool fails; what could be removed is removed.
pub fn cleanup_all(dry_run: bool) -> Result<Vec<String>, DataplaneError> {
    let mut lines = Vec::new();
    for backend in [Backend::Nft, Backend::Legacy] {
        if !backend.may_hold_rules() {
            continue;
        }
        match Iptables::new(backend, 0).cleanup(dry_run) {
            Ok(mut plan) => {
                plan.destroy.clear();
                lines.extend(plan.lines().into_iter().map(|l| format!("{backend} {l}")));
            }
            Err(error) if error.is_missing_tool() => {}
            Err(error) => return Err(error),
        }
    }
    let sets: Vec<String> = match read_sets() {
        Ok(sets) => sets.into_keys().collect(),
        Err(error) if error.is_missing() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    lines.extend(sets.iter().map(|s| format!("ipset: destroy {s}")));
    if !dry_run {
        destroy_sets(&sets)?;
    }
    Ok(lines)
}

fn read_tables(
    backend: Backend,
    family: Family,
) -> Result<BTreeMap<String, FoundTable>, DataplaneError> {
    let text = run(&backend.tool(family, "save"), &[], "")?;
    match save::incompatible_table(&text) {
        Some(table) => Err(DataplaneError::Incompatible(table)),
        None => Ok(save::parse_tables(&text)),
    }
}

/// Reads our sets only: a set of somebody else may be huge, or of a type this tool does not know.
fn read_sets() -> Result<BTreeMap<String, super::plan::FoundSet>, CommandError> {
    let names = run("ipset", &["list", "-n"], "")?;
    let mut sets = BTreeMap::new();
    for name in names.lines().filter(|n| save::is_ours(n)) {
        sets.extend(save::parse_sets(&run("ipset", &["save", name], "")?));
    }
    Ok(sets)
}

/// One by one after a failed batch: a set that somebody else uses must not keep the others.
fn destroy_sets(names: &[String]) -> Result<(), CommandError> {
    if names.is_empty() {
        return Ok(());
    }
    let batch: String = names.iter().map(|n| format!("destroy {n}\n")).collect();
    if run("ipset", &["restore"], &batch).is_ok() {
        return Ok(());
    }
    let mut last = Ok(());
    for name in names {
        let present = run("ipset", &["list", "-n", name], "").is_ok();
        if present && let Err(error) = run("ipset", &["destroy", name], "") {
            last = Err(error);
        }
    }
    last
}

/// Whether the kernel has IPv6 at all (`ipv6.disable=1` takes it away).
pub fn ipv6_available() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}
