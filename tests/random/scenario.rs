//! One random world: resources and settings, what the verdict says of packets, and how to make it smaller.

use std::collections::BTreeSet;

use moat::api::{self, Resource};
use moat::calc::{Category, Host, HostEp, HostPolicy, compute};
use moat::compile::{Options, compile};
use moat::config::{self, HostAction, Settings};
use moat::verdict::{Verdict, decide};
use serde_json::Value;

use super::field::Field;
use super::packets::Shot;
use super::resources;
use super::rng::Rng;
use super::topology::{self, HOST_LINKS};

/// Resources and settings.
#[derive(Clone)]
pub struct Scenario {
    /// The documents.
    pub documents: Vec<Value>,
    /// The settings.
    pub settings: Settings,
}

/// How to try a smaller scenario.
enum Cut {
    Document(usize),
    /// The value at a JSON pointer of a document.
    Part(usize, String),
}

impl Scenario {
    /// A random one; resources that are not valid are left out.
    ///
    /// # Errors
    /// The default settings are not valid.
    pub fn random(rng: &mut Rng) -> Result<Scenario, String> {
        let mut documents = resources::resources(rng);
        documents.retain(|d| parse(d).is_some());
        let mut settings = defaults()?;
        settings.default_endpoint_to_host_action =
            rng.pick(&[HostAction::Drop, HostAction::Return, HostAction::Accept]);
        settings.disable_conntrack_invalid_check = rng.percent(20);
        if rng.percent(20) {
            settings.failsafe_inbound_host_ports.clear();
            settings.failsafe_outbound_host_ports.clear();
        }
        if rng.percent(20) {
            settings.iptables_filter_deny_action = config::DenyAction::Reject;
        }
        if rng.percent(15) {
            settings.iptables_filter_allow_action = config::AllowAction::Return;
            settings.iptables_mangle_allow_action = config::AllowAction::Return;
        }
        Ok(Scenario {
            documents,
            settings,
        })
    }

    /// What nothing at all means.
    ///
    /// # Errors
    /// The default settings are not valid.
    pub fn empty() -> Result<Scenario, String> {
        Ok(Scenario {
            documents: Vec::new(),
            settings: defaults()?,
        })
    }

    /// The host policy of the scenario.
    ///
    /// # Errors
    /// None but a slip in the topology.
    pub fn policy(&self) -> Result<HostPolicy, String> {
        let resources: Vec<Resource> = self.documents.iter().filter_map(parse).collect();
        let names: BTreeSet<&str> = HOST_LINKS.iter().map(|l| l.name).collect();
        let host = Host {
            node: "host1".into(),
            links: topology::links(&names)?,
        };
        Ok(compute(&resources, &host, &self.settings))
    }

    /// Sends packets through the rules of the scenario. Returns those of which kernel and verdict disagree.
    ///
    /// # Errors
    /// The kernel refuses the rules, or a tool fails.
    pub fn try_out(
        &self,
        field: &mut Field,
        shots: &[Shot],
    ) -> Result<Vec<(Shot, Verdict)>, String> {
        let policy = self.policy()?;
        let ruleset = compile(&policy, &Options::new(&self.settings, true));
        field.apply(&ruleset, &policy)?;
        let seen = field.send(shots)?;
        let untracked = |e: &HostEp| !e.tiers(Category::Untracked).is_empty();
        let untracked = policy.endpoints.values().any(|e| untracked(e));
        let mut wrong = Vec::new();
        for shot in shots {
            if untracked && needs_tracking(shot) {
                continue;
            }
            let verdict = decide(&policy, &shot.packet, &shot.path);
            if verdict.allow != seen.contains(&(shot.packet.src.is_ipv6(), shot.id)) {
                wrong.push((shot.clone(), verdict));
            }
        }
        Ok(wrong)
    }

    /// The smallest scenario found in which kernel and verdict still disagree about a packet.
    ///
    /// # Errors
    /// As [`Scenario::try_out`].
    pub fn shrink(mut self, field: &mut Field, shot: &Shot) -> Result<Scenario, String> {
        let mut again = true;
        while again {
            again = false;
            let mut cuts = self.cuts();
            while let Some(cut) = cuts.pop() {
                let Some(smaller) = self.cut(&cut) else {
                    continue;
                };
                if !smaller
                    .try_out(field, std::slice::from_ref(shot))?
                    .is_empty()
                {
                    self = smaller;
                    again = true;
                    // Positions have moved.
                    cuts = self.cuts();
                }
            }
        }
        Ok(self)
    }

    /// Whole documents last, because they are tried from the end.
    fn cuts(&self) -> Vec<Cut> {
        let mut cuts = Vec::new();
        for (i, document) in self.documents.iter().enumerate() {
            for root in ["/spec", "/metadata/labels"] {
                let mut pointers = Vec::new();
                document
                    .pointer(root)
                    .into_iter()
                    .for_each(|v| collect(v, root, &mut pointers));
                cuts.extend(pointers.into_iter().rev().map(|p| Cut::Part(i, p)));
            }
        }
        cuts.extend((0..self.documents.len()).map(Cut::Document));
        cuts
    }

    fn cut(&self, cut: &Cut) -> Option<Scenario> {
        let mut smaller = self.clone();
        match cut {
            Cut::Document(i) => {
                smaller.documents.remove(*i);
            }
            Cut::Part(i, pointer) => {
                remove(&mut smaller.documents[*i], pointer);
                parse(&smaller.documents[*i])?;
            }
        }
        Some(smaller)
    }
}

/// Whether a packet would be another one if policy took it out of connection tracking: the kernel would not translate it.
/// The verdict is asked about the packet as it is with tracking.
fn needs_tracking(shot: &Shot) -> bool {
    shot.packet.original.is_some()
}

/// A valid document, warnings or not.
fn parse(document: &Value) -> Option<Resource> {
    let parsed = api::parse_bytes("random", document.to_string().as_bytes());
    if parsed.has_errors() {
        None
    } else {
        parsed.resources.into_iter().next()
    }
}

fn defaults() -> Result<Settings, String> {
    config::load(&config::Input::bare("host1"))
        .map(|l| l.settings)
        .map_err(|e| format!("default settings: {e:?}"))
}

/// Pointers to everything below a value, parents first.
fn collect(value: &Value, at: &str, pointers: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => map
            .iter()
            .map(|(k, v)| (k.replace('~', "~0").replace('/', "~1"), v))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(i, v)| (i.to_string(), v))
            .collect(),
        _ => Vec::new(),
    };
    for (key, child) in children {
        let pointer = format!("{at}/{key}");
        pointers.push(pointer.clone());
        collect(child, &pointer, pointers);
    }
}

fn remove(document: &mut Value, pointer: &str) {
    let Some((parent, key)) = pointer.rsplit_once('/') else {
        return;
    };
    match document.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.shift_remove(&key.replace("~1", "/").replace("~0", "~"));
        }
        Some(Value::Array(items)) => {
            if let Some(index) = key.parse::<usize>().ok().filter(|i| *i < items.len()) {
                items.remove(index);
            }
        }
        _ => {}
    }
}
