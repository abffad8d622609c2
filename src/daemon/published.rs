//! Which policy sees what comes for a published port.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::calc::{Category, HostEp, HostPolicy};
use crate::dataplane::firewalls::Published;

/// A port of this host that leads elsewhere, and whose policy decides who comes there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedReport {
    /// The port.
    #[serde(flatten)]
    pub port: Published,
    /// HostEndpoints with policy for what comes in there and goes through this host.
    pub governed_by: Vec<String>,
    /// HostEndpoints without: what comes in there passes.
    pub not_governed_by: Vec<String>,
}

/// The HostEndpoints of this host with and without policy for what goes through it.
pub struct Governors {
    with: Vec<String>,
    without: Vec<String>,
}

impl Governors {
    /// Those of a policy.
    pub fn of(policy: &HostPolicy) -> Governors {
        let endpoints = policy.endpoints.values().filter(|ep| !ep.attach.is_empty());
        let (with, without): (Vec<_>, Vec<_>) = endpoints.partition(|ep| governs_forwarded(ep));
        let names =
            |endpoints: &[&Arc<HostEp>]| endpoints.iter().map(|ep| ep.name.clone()).collect();
        Governors {
            with: names(&with),
            without: names(&without),
        }
    }

    /// Says for each port whose policy it is under.
    pub fn reports(&self, ports: Vec<Published>) -> Vec<PublishedReport> {
        let report = |port| PublishedReport {
            port,
            governed_by: self.with.clone(),
            not_governed_by: self.without.clone(),
        };
        ports.into_iter().map(report).collect()
    }
}

/// Policy for local processes sees nothing of what goes to a container, but that before destination NAT and that for
/// forwarded traffic do.
fn governs_forwarded(endpoint: &HostEp) -> bool {
    let of = |category| endpoint.tiers(category).iter();
    of(Category::PreDnat)
        .chain(of(Category::Forward))
        .any(|tier| !tier.ingress.is_empty())
}

impl PublishedReport {
    /// In words.
    pub fn text(&self) -> String {
        let port = &self.port;
        let at = port
            .address
            .as_ref()
            .map(|a| format!("{a} "))
            .unwrap_or_default();
        let (protocol, number) = (&port.protocol, &port.port);
        let rule = format!("{protocol} {at}{number} -> {} ({})", port.to, port.owner);
        let (with, without) = (self.governed_by.join(", "), self.not_governed_by.join(", "));
        let lacks = format!(
            "not governed at HostEndpoint {without}: no policy with preDNAT or applyOnForward selects it for ingress"
        );
        let has = format!("preDNAT and forward policy of HostEndpoint {with} applies");
        let policy = match (with.is_empty(), without.is_empty()) {
            (true, true) => "not governed: there is no HostEndpoint".to_owned(),
            (true, false) => lacks,
            (false, true) => has,
            (false, false) => format!("{has}; {lacks}"),
        };
        format!("{rule}: {policy}")
    }

    /// Whether there is a way to it that policy does not see.
    pub fn is_open(&self) -> bool {
        self.governed_by.is_empty() || !self.not_governed_by.is_empty()
    }
}
