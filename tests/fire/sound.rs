//! Whether everything is as it was before the fault: what moat says, the kernel, processes, descriptors.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::netns::output;
use super::world::World;

/// Descriptors that moatd may have open beyond those of a quiet one: connections of this harness, a tool under way.
const SPARE_DESCRIPTORS: usize = 12;

impl World {
    /// Waits until everything is as it was before the fault; how long that took.
    ///
    /// # Errors
    /// What is not.
    pub fn settle(&self) -> Result<Duration, String> {
        let begin = Instant::now();
        self.wait(|w| {
            w.is_in_force()?;
            w.is_as_wanted()?;
            w.has_no_leftovers()
        })?;
        Ok(begin.elapsed())
    }

    pub fn is_in_force(&self) -> Result<(), String> {
        let status = self.moat.status()?;
        if status["state"] != "enforcing" {
            return Err(format!(
                "not enforcing: {} {}",
                status["state"], status["degraded"]
            ));
        }
        let plan = self.moat.plan()?;
        match plan.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "`moatctl plan` has {} changes:\n{}",
                plan.len(),
                some(&plan)
            )),
        }
    }

    /// The kernel itself, not as moat sees it.
    fn is_as_wanted(&self) -> Result<(), String> {
        let found = self.kernel()?;
        if found == self.wanted {
            return Ok(());
        }
        let only = |a: &[String], b: &[String]| {
            let lines: Vec<String> = a.iter().filter(|l| !b.contains(l)).cloned().collect();
            some(&lines)
        };
        Err(format!(
            "the kernel is not as it was; missing:\n{}too much:\n{}",
            only(&self.wanted, &found),
            only(&found, &self.wanted)
        ))
    }

    fn has_no_leftovers(&self) -> Result<(), String> {
        let moatd = self.moat.pid()?.to_string();
        let pids = output(Command::new("ip").args(["netns", "pids", self.net.host().name()]))?;
        // moatd's own children are its business: it may be comparing. What has ended meanwhile has no status.
        let orphan = |pid: &str| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let value = |name: &str| {
                status
                    .lines()
                    .find_map(|l| l.strip_prefix(name))
                    .map(str::trim)
            };
            (value("PPid:") != Some(&moatd)).then(|| value("Name:").unwrap_or_default().to_owned())
        };
        let orphans: Vec<String> = pids
            .lines()
            .filter(|pid| *pid != moatd)
            .filter_map(orphan)
            .collect();
        if !orphans.is_empty() {
            return Err(format!("processes are left: {}", orphans.join(", ")));
        }
        let open = self.moat.descriptors()?;
        match open <= self.descriptors + SPARE_DESCRIPTORS {
            true => Ok(()),
            false => Err(format!(
                "moatd has {open} descriptors open, {} before",
                self.descriptors
            )),
        }
    }

    /// What the kernel holds of moat, in the words of the tools, of both backends: rules in order, sets sorted.
    ///
    /// # Errors
    /// A tool fails.
    pub fn kernel(&self) -> Result<Vec<String>, String> {
        let mut lines = Vec::new();
        for backend in [Backend::Nft, Backend::Legacy] {
            for family in ["iptables", "ip6tables"] {
                let text = self
                    .net
                    .host()
                    .run(&format!("{family}-{}-save", backend.name()), &[])?;
                let ours = text.lines().filter(|l| l.contains("moat"));
                let without_counters =
                    |l: &str| l.split(" - [").next().unwrap_or_default().to_owned();
                lines.extend(
                    ours.map(without_counters)
                        .map(|l| format!("{family}-{} {l}", backend.name())),
                );
            }
        }
        let sets = self.net.host().run("ipset", &["save"])?;
        let mut sets: Vec<String> = sets
            .lines()
            .filter(|l| l.contains(" moat"))
            .map(set_line)
            .collect();
        sets.sort();
        lines.extend(sets);
        Ok(lines)
    }
}

/// Without the sizes that the kernel chooses.
fn set_line(line: &str) -> String {
    match line.starts_with("create") {
        true => line.split(' ').take(3).collect::<Vec<_>>().join(" "),
        false => line.to_owned(),
    }
}

fn some(lines: &[String]) -> String {
    let mut text: String = lines
        .iter()
        .take(12)
        .map(|l| format!("    {l}\n"))
        .collect();
    if lines.len() > 12 {
        text += &format!("    and {} more\n", lines.len() - 12);
    }
    text
}
