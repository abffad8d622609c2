//! What the reference verdict says of a shot.

use std::collections::BTreeSet;
use std::path::Path as FilePath;

use moat::api::{self, Resource, Spec};
use moat::calc::{Host, HostPolicy, compute};
use moat::config::{self, Settings};
use moat::verdict::{Conntrack, Packet, Path, Step, Verdict, decide};

use super::backend::Backend;
use super::case::{Case, Expect, Head, Resources};
use super::daemon::Files;
use super::shot::{Shot, expand};
use super::topology::{self, HOST_LINKS};

/// Source port of probes that name none; any port of clients would do.
const CLIENT_PORT: u16 = 40_000;

/// Runs every stage of a case without packets.
///
/// # Errors
/// The probes that policy judges otherwise than expected, with the trace.
pub fn run(case: &Case) -> Result<(), String> {
    let mut resources = Resources::new();
    let mut links: BTreeSet<&str> = HOST_LINKS.iter().map(|l| l.name).collect();
    for step in &case.stages {
        if !step.rejected {
            step.change(&mut resources)?;
        }
        links.retain(|name| !step.link.remove.iter().any(|r| r == name));
        links.extend(step.link.add.iter().map(String::as_str));
        let judge = Judge::new(&case.head, &resources, &links)?;
        let mut wrong = String::new();
        for probe in &step.probes {
            for shot in expand(probe)? {
                wrong += &judge.complaint(&shot).unwrap_or_default();
            }
        }
        if !wrong.is_empty() {
            return Err(format!("{}\n{wrong}", step.title));
        }
    }
    Ok(())
}

/// One host policy to ask.
pub struct Judge {
    policy: HostPolicy,
}

impl Judge {
    /// Calculates the host policy of a state of a case.
    ///
    /// # Errors
    /// Resources or settings that are not valid.
    pub fn new(
        head: &Head,
        resources: &Resources,
        links: &BTreeSet<&str>,
    ) -> Result<Judge, String> {
        let resources = parse(resources)?;
        let settings = settings(head, &resources)?;
        let host = Host {
            node: settings.felix_hostname.clone(),
            links: topology::links(links)?,
        };
        Ok(Judge {
            policy: compute(&resources, &host, &settings),
        })
    }

    /// Whether policy lets a shot through, and its answer where that is judged too.
    pub fn judge(&self, shot: &Shot<'_>) -> Verdict {
        let packet = packet(shot);
        let mut whole = Verdict {
            allow: true,
            trace: Vec::new(),
        };
        let mut ask = |packet: &Packet, path: &Path| {
            if whole.allow {
                let verdict = decide(&self.policy, packet, path);
                whole.allow = verdict.allow;
                whole.trace.extend(verdict.trace);
            }
        };
        shot.paths.iter().for_each(|path| ask(&packet, path));
        if shot.probe.untracked {
            let reply = reply(&packet);
            shot.paths.iter().for_each(|path| ask(&reply, &back(path)));
        }
        whole
    }

    fn complaint(&self, shot: &Shot<'_>) -> Option<String> {
        let verdict = self.judge(shot);
        let got = if verdict.allow {
            Expect::Allow
        } else {
            Expect::Deny
        };
        let decider = shot.probe.by.as_deref();
        let fault = if got != shot.verdict() {
            format!(
                "expected {:?}, got {got:?}. {}",
                shot.verdict(),
                shot.probe.why
            )
        } else if decider.is_some_and(|by| !verdict.trace.iter().any(|s| decided(s, by))) {
            format!(
                "{got:?} as expected, but {} did not decide",
                decider.unwrap_or_default()
            )
        } else {
            return None;
        };
        Some(format!("{shot}: {fault}\n{}", describe(&verdict.trace)))
    }
}

/// A trace for people.
pub fn describe(trace: &[Step]) -> String {
    let line = |s: &Step| {
        let tier = s.tier.as_deref().unwrap_or("-");
        let policy = s.policy.as_deref().unwrap_or("-");
        let rule = s.rule.map_or(String::new(), |r| format!(" rule {r}"));
        format!(
            "    {:5} tier {tier} policy {policy}{rule}: {}\n",
            s.action, s.why
        )
    };
    trace.iter().map(line).collect()
}

/// Whether a step of a trace is the decision of `TIER/POLICY`.
fn decided(step: &Step, by: &str) -> bool {
    let policy = step.policy.as_deref().and_then(|p| p.rsplit('/').next());
    let decides = matches!(step.action.as_str(), "allow" | "deny");
    decides
        && by
            .split_once('/')
            .is_some_and(|(tier, name)| step.tier.as_deref() == Some(tier) && policy == Some(name))
}

fn parse(resources: &Resources) -> Result<Vec<Resource>, String> {
    let mut parsed = Vec::new();
    for (name, document) in resources {
        let one = api::parse_bytes(name, document.to_string().as_bytes());
        let errors: Vec<String> = one
            .issues
            .iter()
            .filter(|i| i.severity == api::Severity::Error)
            .map(ToString::to_string)
            .collect();
        if !errors.is_empty() {
            return Err(format!("{name}: {}", errors.join("; ")));
        }
        parsed.extend(one.resources);
    }
    Ok(parsed)
}

fn settings(head: &Head, resources: &[Resource]) -> Result<Settings, String> {
    let files = Files::new(&head.node, &head.settings, Backend::Nft)?;
    let felix = resources.iter().filter_map(|r| match &r.spec {
        Spec::FelixConfiguration(felix) => Some((r.id.name.clone(), &felix.fields)),
        _ => None,
    });
    let input = config::Input {
        config_file: &files.settings(),
        explicit: true,
        vendor_dir: FilePath::new("/nonexistent"),
        env: Vec::new(),
        node: None,
        felix: felix.collect(),
        hostname: head.node.clone(),
    };
    let loaded = config::load(&input).map_err(|errors| {
        errors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    })?;
    Ok(loaded.settings)
}

fn packet(shot: &Shot<'_>) -> Packet {
    let probe = shot.probe;
    let has_ports = shot.port.is_some();
    let translated = shot.dst != shot.server || shot.port != shot.server_port;
    let discovery =
        shot.proto == 58 && shot.icmp.is_some_and(|m| matches!(m.kind, 130..=137 | 143));
    let conntrack = match () {
        () if probe.resume.is_some() => Conntrack::Established,
        () if probe.invalid => Conntrack::Invalid,
        () if discovery => Conntrack::Untracked,
        () => Conntrack::New,
    };
    Packet {
        src: shot.src,
        dst: shot.server,
        proto: shot.proto,
        sport: has_ports.then(|| probe.sport.unwrap_or(CLIENT_PORT)),
        dport: shot.server_port,
        icmp: shot.icmp.map(|m| (m.kind, m.code)),
        hop_limit: probe.hops.unwrap_or(64),
        conntrack,
        original: translated.then_some((shot.dst, shot.port)),
    }
}

/// The answer to a packet of a flow that is not tracked: without its request, the kernel takes an
/// answer by TCP for invalid and one by UDP for a new flow.
fn reply(packet: &Packet) -> Packet {
    Packet {
        src: packet.dst,
        dst: packet.src,
        sport: packet.dport,
        dport: packet.sport,
        conntrack: if packet.proto == 17 {
            Conntrack::New
        } else {
            Conntrack::Invalid
        },
        ..packet.clone()
    }
}

fn back(path: &Path) -> Path {
    match path.clone() {
        Path::In { iface } => Path::Out { iface },
        Path::Out { iface } => Path::In { iface },
        Path::Forward {
            in_iface,
            out_iface,
        } => Path::Forward {
            in_iface: out_iface,
            out_iface: in_iface,
        },
    }
}
