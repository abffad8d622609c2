//! The iptables backend: one restore transaction per table and family, `ipset restore` for sets.

mod detect;
mod diff;
mod features;
mod render;
mod save;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

pub use detect::{Backend, Choice, choose, would_choose};
pub use features::{Feature, check_features};

use super::command::{CommandError, run};
use super::plan::{FamilyPlan, Found, FoundSet, FoundTable, Plan};
use super::{Dataplane, DataplaneError};
use crate::api::Family;
use crate::calc::HostPolicy;
use crate::compile::{Ruleset, Table};
use crate::config::Settings;

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
    /// Sets of ours that rules of somebody else keep in the kernel.
    held: BTreeSet<String>,
    /// Why sets could not be read the last time.
    sets_problem: Option<String>,
}

/// Tables of ours that the tool cannot show.
type HiddenTables = BTreeSet<(Family, String)>;

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
            held: BTreeSet::new(),
            sets_problem: None,
        }
    }

    fn try_apply(&mut self, wanted: &Ruleset, policy: &HostPolicy) -> Result<Plan, DataplaneError> {
        let mut plan = self.difference(wanted, policy)?;
        if plan.is_empty() {
            return Ok(plan);
        }
        // Until everything below went well, what the kernel holds is unknown.
        self.known = None;
        if !plan.set_lines.is_empty() {
            run("ipset", &["restore"], &(plan.set_lines.join("\n") + "\n"))?;
        }
        // What one family refuses must not keep the other one unprotected.
        let edit =
            |(family, edits): (&Family, &FamilyPlan)| self.restore(*family, &edits.edit_text());
        plan.families.iter().map(edit).fold(Ok(()), Result::and)?;
        let remove =
            |(family, edits): (&Family, &FamilyPlan)| self.restore(*family, &edits.removal_text());
        plan.families
            .iter()
            .map(remove)
            .fold(Ok(()), Result::and)
            .map_err(DataplaneError::OldChains)?;
        let held = destroy_sets(&plan.destroy);
        if !held.is_subset(&self.held) {
            tracing::warn!("rules that are not moat's hold old IP sets of moat: {held:?}");
        }
        self.held = held;
        self.release_later(&mut plan);
        let mut known = diff::expected(wanted, &|set| set.members(policy), self.min_capacity);
        known.sets.extend(
            self.held
                .iter()
                .map(|name| (name.clone(), FoundSet::default())),
        );
        self.known = Some(known);
        Ok(plan)
    }

    /// The sets in the kernel. A host without IP sets can still enforce what needs none: what does need one fails when it is made.
    fn known_sets(&mut self) -> BTreeMap<String, FoundSet> {
        let (sets, problem) = match read_sets() {
            Ok(sets) => (sets, None),
            Err(error) => (BTreeMap::new(), Some(error.to_string())),
        };
        if let Some(problem) = problem
            .as_ref()
            .filter(|p| self.sets_problem.as_ref() != Some(p))
        {
            tracing::warn!("cannot read IP sets: {problem}");
        }
        self.sets_problem = problem;
        sets
    }

    fn difference(
        &mut self,
        wanted: &Ruleset,
        policy: &HostPolicy,
    ) -> Result<Plan, DataplaneError> {
        let (found, hidden) = match self.known.clone() {
            Some(known) => (known, BTreeSet::new()),
            None => self.look()?,
        };
        let mut plan = diff::plan(
            wanted,
            &|set| set.members(policy),
            &found,
            &self.families,
            self.min_capacity,
        );
        for (family, table) in &hidden {
            self.keep_standing_hooks(&mut plan, *family, table);
        }
        if hidden.is_empty() {
            self.known = Some(found);
        }
        Ok(plan)
    }

    /// Looks at the kernel. A table that native nft rules hide is taken for empty: its chains are then written anew in one
    /// transaction, which changes nothing for packets, and the host is not left open because of somebody else's rule.
    fn look(&mut self) -> Result<(Found, HiddenTables), DataplaneError> {
        let mut found = Found::default();
        let mut hidden = HiddenTables::new();
        for family in self.families.clone() {
            let (tables, names) = read_tables(self.backend, family)?;
            found.tables.insert(family, tables);
            hidden.extend(names.into_iter().map(|name| (family, name)));
        }
        found.sets = self.known_sets();
        Ok((found, hidden))
    }

    /// In a table that cannot be shown a rule can still be asked for: one that stands is not written a second time.
    fn keep_standing_hooks(&self, plan: &mut Plan, family: Family, table: &str) {
        let Some(edits) = plan.families.get_mut(&family) else {
            return;
        };
        if let Some(lines) = edits.edits.get_mut(table) {
            lines.retain(|line| {
                save::hook_of(line)
                    .is_none_or(|(chain, rule)| !self.stands(family, table, chain, rule))
            });
        }
    }

    fn stands(&self, family: Family, table: &str, chain: &str, rule: &str) -> bool {
        let Ok(mut tables) = iptables::new(family == Family::V6) else {
            return false;
        };
        tables.cmd = match (self.backend, family) {
            (Backend::Nft, Family::V4) => "iptables-nft",
            (Backend::Nft, Family::V6) => "ip6tables-nft",
            (Backend::Legacy, Family::V4) => "iptables-legacy",
            (Backend::Legacy, Family::V6) => "ip6tables-legacy",
        };
        // The tool gives up at the first rule it cannot show; ours stands before it or is put there.
        tables.exists(table, chain, rule).unwrap_or(false)
    }

    /// Sets that somebody holds are tried again with the next change; until then they are no difference.
    fn release_later(&self, plan: &mut Plan) {
        plan.destroy.retain(|name| !self.held.contains(name));
        plan.changed.sets_removed = plan.destroy.len();
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
            &|_| BTreeSet::new(),
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

    fn configure(&mut self, settings: &Settings) {
        self.min_capacity = settings.max_ipset_size as usize;
    }

    fn read(&mut self) -> Result<Found, DataplaneError> {
        let (found, hidden) = self.look()?;
        if let Some((_, table)) = hidden.into_iter().next() {
            return Err(DataplaneError::Incompatible(table));
        }
        self.known = Some(found.clone());
        Ok(found)
    }

    fn plan(&mut self, wanted: &Ruleset, policy: &HostPolicy) -> Result<Plan, DataplaneError> {
        let mut plan = self.difference(wanted, policy)?;
        self.release_later(&mut plan);
        Ok(plan)
    }

    fn apply(&mut self, wanted: &Ruleset, policy: &HostPolicy) -> Result<Plan, DataplaneError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match self.try_apply(wanted, policy) {
                Ok(plan) => return Ok(plan),
                Err(error) if error.is_missing_tool() => return Err(error),
                Err(error) => tracing::debug!("apply failed, trying again: {error}"),
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        match self.try_apply(wanted, policy) {
            Err(error @ DataplaneError::OldChains(_)) => {
                tracing::warn!("{error}");
                Ok(Plan::default())
            }
            other => other,
        }
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
    plan.set_lines.clear();
    plan.destroy.clear();
    Ok(plan)
}

/// Everything that a ruleset would put into a kernel that holds nothing of moat.
pub fn plan_from_nothing(wanted: &Ruleset, policy: &HostPolicy, min_capacity: usize) -> Plan {
    diff::plan(
        wanted,
        &|set| set.members(policy),
        &Found::default(),
        &Family::ALL,
        min_capacity,
    )
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
            Ok(mut plan) => {
                plan.set_lines.clear();
                plan.destroy.clear();
                lines.extend(plan.lines().into_iter().map(|l| format!("{backend} {l}")));
            }
            Err(error) if error.is_missing_tool() => {}
            Err(error) => result = result.and(Err(error)),
        }
    }
    let sets: Vec<String> = match read_sets() {
        Ok(sets) => sets.into_keys().collect(),
        Err(error) if error.is_missing() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    lines.extend(sets.iter().map(|s| format!("ipset: destroy {s}")));
    if !dry_run {
        let held = destroy_sets(&sets);
        if !held.is_empty() {
            result = result.and(Err(DataplaneError::Held(held)));
        }
    }
    result.map(|()| lines)
}

/// The tables that the tool can show, and the names of those of ours that it cannot.
fn read_tables(
    backend: Backend,
    family: Family,
) -> Result<(BTreeMap<String, FoundTable>, Vec<String>), CommandError> {
    let tool = backend.tool(family, "save");
    match run(&tool, &[], "") {
        Err(error) if error.is_unreadable_rule() => {}
        other => {
            let text = other?;
            return Ok((save::parse_tables(&text), save::incompatible_tables(&text)));
        }
    }
    // One by one: a rule that ends the tool is in one of them, or in a table that is not of ours.
    let mut tables = BTreeMap::new();
    let mut hidden = Vec::new();
    for table in Table::ALL {
        match run(&tool, &["-t", table.name()], "") {
            Err(error) if error.is_unreadable_rule() => hidden.push(table.name().to_owned()),
            other => {
                let text = other?;
                tables.extend(save::parse_tables(&text));
                hidden.extend(save::incompatible_tables(&text));
            }
        }
    }
    Ok((tables, hidden))
}

/// Reads our sets only: a set of somebody else may be huge, or of a type this tool does not know.
fn read_sets() -> Result<BTreeMap<String, FoundSet>, CommandError> {
    let names = run("ipset", &["list", "-n"], "")?;
    let ours: Vec<&str> = names.lines().filter(|n| save::is_ours(n)).collect();
    if ours.is_empty() {
        return Ok(BTreeMap::new());
    }
    // One process for all of them: thousands of processes would take minutes.
    let batch: String = ours.iter().map(|n| format!("save {n}\n")).collect();
    if let Ok(text) = run("ipset", &["restore"], &batch) {
        return Ok(save::parse_sets(&text));
    }
    let mut sets = BTreeMap::new();
    for name in ours {
        sets.extend(save::parse_sets(&run("ipset", &["save", name], "")?));
    }
    Ok(sets)
}

/// Destroys sets and returns those that are still there, because rules of somebody else use them. One by one after a failed
/// batch: they must not keep the others.
fn destroy_sets(names: &[String]) -> BTreeSet<String> {
    let batch: String = names.iter().map(|n| format!("destroy {n}\n")).collect();
    if names.is_empty() || run("ipset", &["restore"], &batch).is_ok() {
        return BTreeSet::new();
    }
    let stays = |name: &String| {
        run("ipset", &["destroy", name], "").is_err()
            && run("ipset", &["list", "-n", name], "").is_ok()
    };
    let mut held: BTreeSet<String> = names.iter().cloned().collect();
    let mut pause = FIRST_PAUSE;
    for _ in 0..TRIES {
        held.retain(stays);
        if held.is_empty() {
            break;
        }
        // nf_tables lets go of the sets of removed rules in its own time.
        std::thread::sleep(pause);
        pause *= 2;
    }
    held
}

/// Whether the kernel has IPv6 at all (`ipv6.disable=1` takes it away).
pub fn ipv6_available() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}
