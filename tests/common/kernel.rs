//! Runs a case with real packets through a real moatd.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::backend::Backend;
use super::case::{Case, Expect, Head, Resources, Step};
use super::daemon::{Daemon, Files, Programs};
use super::datastore::Datastore;
use super::judge::{Judge, describe};
use super::shot::{Shot, expand};
use super::topology::{Actor, HOST_LINKS, World, find_actor};
use super::wire::Wire;

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// Where moatd has the resources of a case from.
#[derive(Clone, Copy)]
pub enum Origin {
    /// Policy files.
    Files,
    /// etcd, written by this tool.
    Datastore(&'static str),
}

/// Runs every stage of a case.
///
/// # Errors
/// What went wrong, with everything needed to understand it.
pub fn run(
    case: &Case,
    backend: Backend,
    origin: Origin,
    programs: Programs,
) -> Result<(), String> {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let first = case.stages.first().ok_or("a case without stages")?;
    let world = World::new(number, &first.link.remove)?;
    add_sources(&world, case)?;
    let mut settings = case.head.settings.clone();
    if let Origin::Datastore(_) = origin {
        Datastore::settings(&mut settings);
    }
    let files = Files::new(&case.head.node, &settings, backend)?;
    let datastore = match origin {
        Origin::Files => None,
        Origin::Datastore(tool) => {
            let host = world.namespace("host");
            Some(Datastore::start(host, tool, &files.path(""))?)
        }
    };
    let mut run = Run {
        head: &case.head,
        links: HOST_LINKS.iter().map(|l| l.name).collect(),
        world,
        backend,
        wire: Wire::default(),
        resources: Resources::new(),
        files,
        datastore,
    };
    run.links
        .retain(|name| !first.link.remove.iter().any(|r| r == name));
    run.host_rules(first)?;
    run.change(first)?;
    let daemon = Daemon::start(run.world.namespace("host"), programs, &run.files)?;
    if run.datastore.is_some() {
        daemon.wait_enforcing()?;
    }
    run.probe(first, &daemon)?;
    for step in &case.stages[1..] {
        run.step(step, &daemon)
            .map_err(|e| format!("step `{}`: {e}", step.title))?;
    }
    Ok(())
}

struct Run<'c> {
    head: &'c Head,
    world: World,
    /// Interfaces that exist.
    links: BTreeSet<&'c str>,
    backend: Backend,
    wire: Wire,
    resources: Resources,
    files: Files,
    datastore: Option<Datastore>,
}

impl<'c> Run<'c> {
    fn host_rules(&self, step: &Step) -> Result<(), String> {
        let host = self.world.namespace("host");
        // An etcd on the host itself is reached whatever the host's own rules are.
        let loopback =
            ["INPUT -i", "OUTPUT -o"].map(|way| format!("ip46tables -I {way} lo -j ACCEPT"));
        let own = match (&self.datastore, step.host_rules.as_slice()) {
            (Some(_), [_, ..]) => loopback.as_slice(),
            _ => &[],
        };
        (step.host_rules.iter().chain(own)).try_for_each(|line| self.backend.host_rule(host, line))
    }

    /// Writes the resources of a step. Says whether there were any to write.
    fn change(&mut self, step: &Step) -> Result<bool, String> {
        let before = self.resources.clone();
        step.change(&mut self.resources)?;
        match &self.datastore {
            Some(datastore) => datastore.change(&before, &self.resources)?,
            None => self.files.change(&before, &self.resources)?,
        }
        Ok(before != self.resources)
    }

    fn step(&mut self, step: &'c Step, daemon: &Daemon) -> Result<(), String> {
        self.host_rules(step)?;
        let generation = daemon.generation()?;
        if self.change(step)? {
            daemon.wait_change(generation, step.rejected)?;
        }
        for name in &step.link.remove {
            self.world
                .namespace("host")
                .ip(&[format!("link del {name}")])?;
            self.links.remove(name.as_str());
        }
        for name in &step.link.add {
            self.world.add_link(name)?;
            self.links.insert(name);
        }
        if !step.keep_conntrack {
            self.world.namespace("host").run("conntrack", &["-F"])?;
        }
        self.probe(step, daemon)
    }

    /// Fires all probes of a step, and once more those that should have got through.
    fn probe(&mut self, step: &Step, daemon: &Daemon) -> Result<(), String> {
        let mut shots = Vec::new();
        for probe in &step.probes {
            shots.extend(expand(probe)?);
        }
        let mut wrong = self.fire(shots)?;
        if wrong
            .iter()
            .all(|s| s.expect() == Expect::Allow && s.probe.resume.is_none())
        {
            wrong = self.fire(wrong)?;
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let host = self.world.namespace("host");
        let judge = Judge::new(self.head, &self.resources, &self.links);
        let trace = |shot: &Shot<'_>| match &judge {
            Ok(judge) => describe(&judge.judge(shot).trace),
            Err(error) => format!("    no trace: {error}\n"),
        };
        let probes: String = wrong.iter().map(|s| report(s) + &trace(s)).collect();
        Err(format!(
            "{probes}--- moatctl status\n{}\n--- moatd\n{}\n--- rules and sets: {}",
            daemon.status(),
            daemon.log(),
            keep(host.name(), &self.backend.dump(host)),
        ))
    }

    /// The shots that did not end as expected.
    fn fire<'a>(&mut self, shots: Vec<Shot<'a>>) -> Result<Vec<Shot<'a>>, String> {
        if shots.is_empty() {
            return Ok(shots);
        }
        let got = self.wire.fire(&self.world, &shots)?;
        let pairs = shots.into_iter().zip(got);
        Ok(pairs
            .filter(|(shot, got)| shot.expect() != *got)
            .map(|(shot, _)| shot)
            .collect())
    }
}

/// Writes what is too long to print to a file, and says where.
fn keep(name: &str, text: &str) -> String {
    let path = FilePath::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.txt"));
    match std::fs::write(&path, text) {
        Ok(()) => path.display().to_string(),
        Err(error) => format!("{}: {error}", path.display()),
    }
}

fn report(shot: &Shot<'_>) -> String {
    let (expected, got) = match shot.expect() {
        Expect::Allow => ("allow", "deny"),
        Expect::Deny => ("deny", "allow"),
    };
    format!(
        "{shot}: expected {expected}, got {got}. {}\n",
        shot.probe.why
    )
}

/// The further source addresses that probes use.
fn add_sources(world: &World, case: &Case) -> Result<(), String> {
    for probe in case.stages.iter().flat_map(|s| &s.probes) {
        if let (Some(src), Some(actor)) = (probe.src, find_actor(&probe.from)) {
            add_source(world, actor, src)?;
        }
    }
    Ok(())
}

/// Gives an actor one more address, which the protected host reaches through the actor's own.
fn add_source(world: &World, actor: &Actor, addr: IpAddr) -> Result<(), String> {
    let (length, nodad) = if addr.is_ipv4() {
        (32, "")
    } else {
        (128, " nodad")
    };
    let line = format!("address replace {addr}/{length} dev eth0{nodad}");
    world.namespace(actor.name).ip(&[line])?;
    let via = actor.addresses[usize::from(addr.is_ipv6())];
    world
        .namespace("host")
        .ip(&[format!("route replace {addr}/{length} via {via}")])
}
