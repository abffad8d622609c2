//! Kinds: their names, plurals and aliases.

use std::fmt;
use std::str::FromStr;

use super::issue::did_you_mean;
use super::types::Kind;

/// Kind, its name in documents, its plural (also the datastore key), its aliases (the first is the short name).
const KINDS: [(Kind, &str, &str, &[&str]); 25] = [
    (
        Kind::HostEndpoint,
        "HostEndpoint",
        "hostendpoints",
        &["hep", "heps"],
    ),
    (
        Kind::GlobalNetworkPolicy,
        "GlobalNetworkPolicy",
        "globalnetworkpolicies",
        &["gnp", "gnps"],
    ),
    (
        Kind::NetworkPolicy,
        "NetworkPolicy",
        "networkpolicies",
        &["np", "nps", "cnp", "policy", "policies", "pol", "pols"],
    ),
    (Kind::Tier, "Tier", "tiers", &["tier"]),
    (
        Kind::NetworkSet,
        "NetworkSet",
        "networksets",
        &["netset", "netsets"],
    ),
    (
        Kind::GlobalNetworkSet,
        "GlobalNetworkSet",
        "globalnetworksets",
        &["gns", "gnetset", "gnetsets"],
    ),
    (Kind::Profile, "Profile", "profiles", &["pro", "pros"]),
    (
        Kind::WorkloadEndpoint,
        "WorkloadEndpoint",
        "workloadendpoints",
        &["wep", "weps"],
    ),
    (
        Kind::StagedGlobalNetworkPolicy,
        "StagedGlobalNetworkPolicy",
        "stagedglobalnetworkpolicies",
        &[
            "sgnp",
            "sgnps",
            "stagedglobalpolicy",
            "stagedglobalpolicies",
        ],
    ),
    (
        Kind::StagedNetworkPolicy,
        "StagedNetworkPolicy",
        "stagednetworkpolicies",
        &["snp", "snps", "stagedpolicy", "stagedpolicies"],
    ),
    (
        Kind::StagedKubernetesNetworkPolicy,
        "StagedKubernetesNetworkPolicy",
        "stagedkubernetesnetworkpolicies",
        &[
            "sknp",
            "sknps",
            "stagedkubernetespolicy",
            "stagedkubernetespolicies",
            "skpol",
            "skpols",
        ],
    ),
    (
        Kind::FelixConfiguration,
        "FelixConfiguration",
        "felixconfigurations",
        &["felixconfig", "felixconfigs"],
    ),
    (Kind::Node, "Node", "nodes", &["no", "nos"]),
    (
        Kind::IPPool,
        "IPPool",
        "ippools",
        &["pool", "pools", "ipp", "ipps"],
    ),
    (
        Kind::BGPConfiguration,
        "BGPConfiguration",
        "bgpconfigurations",
        &["bgpconfig", "bgpconfigs"],
    ),
    (
        Kind::BGPPeer,
        "BGPPeer",
        "bgppeers",
        &["bgpp", "bgpps", "bp", "bps"],
    ),
    (
        Kind::BGPFilter,
        "BGPFilter",
        "bgpfilters",
        &["bgpf", "bgpfs", "bf", "bfs"],
    ),
    (
        Kind::BlockAffinity,
        "BlockAffinity",
        "blockaffinities",
        &["affinity", "affinities"],
    ),
    (Kind::IPAMBlock, "IPAMBlock", "ipamblocks", &["block"]),
    (Kind::IPAMHandle, "IPAMHandle", "ipamhandles", &["handle"]),
    (
        Kind::IPAMConfiguration,
        "IPAMConfiguration",
        "ipamconfigurations",
        &["ipamconfig", "ipamconfigs"],
    ),
    (
        Kind::IPReservation,
        "IPReservation",
        "ipreservations",
        &["ipres", "reservation", "reservations"],
    ),
    (
        Kind::ClusterInformation,
        "ClusterInformation",
        "clusterinformations",
        &["clusterinfo", "clusterinfos"],
    ),
    (
        Kind::KubeControllersConfiguration,
        "KubeControllersConfiguration",
        "kubecontrollersconfigurations",
        &[
            "kcconfig",
            "kubecontrollersconfig",
            "kubecontrollersconfigs",
        ],
    ),
    (
        Kind::CalicoNodeStatus,
        "CalicoNodeStatus",
        "caliconodestatuses",
        &["nodestatus"],
    ),
];

impl Kind {
    /// Every kind, in the order in which kinds are listed to users.
    pub fn all() -> impl Iterator<Item = Kind> {
        KINDS.iter().map(|row| row.0)
    }

    fn row(self) -> &'static (Kind, &'static str, &'static str, &'static [&'static str]) {
        // The table follows the order of the enum; the unit test holds the two together.
        &KINDS[self as usize]
    }

    /// The name that documents use: `HostEndpoint`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The lower-case plural, which is also the part of a datastore key: `hostendpoints`.
    pub fn plural(self) -> &'static str {
        self.row().2
    }

    /// The shortest usual alias: `hep`.
    pub fn short(self) -> &'static str {
        self.row().3[0]
    }

    /// Whether resources of this kind live in a namespace.
    pub fn is_namespaced(self) -> bool {
        use Kind::*;
        matches!(
            self,
            NetworkPolicy
                | NetworkSet
                | WorkloadEndpoint
                | StagedNetworkPolicy
                | StagedKubernetesNetworkPolicy
        )
    }

    /// Whether documents of this kind may carry a `status`.
    pub fn has_status(self) -> bool {
        use Kind::*;
        matches!(
            self,
            Tier | Node | IPPool | KubeControllersConfiguration | CalicoNodeStatus
        )
    }

    /// The kind of a document: the exact name only.
    pub fn from_document(name: &str) -> Option<Kind> {
        Kind::all().find(|kind| kind.name() == name)
    }
}

/// What a list of resources is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListOf {
    /// Resources of any kind, each with its own: `List`.
    Anything,
    /// Resources of one kind, which they may leave to the list: `TierList`.
    Only(Kind),
}

impl ListOf {
    /// The list of that name, if it is one.
    pub fn named(name: &str) -> Option<ListOf> {
        match name.strip_suffix("List")? {
            "" => Some(ListOf::Anything),
            kind => Kind::from_document(kind).map(ListOf::Only),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that is no kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind `{word}`{}", .help.as_deref().map(|h| format!(", {h}")).unwrap_or_default())]
pub struct UnknownKind {
    /// The word.
    pub word: String,
    /// `did you mean ...?`
    pub help: Option<String>,
}

impl FromStr for Kind {
    type Err = UnknownKind;

    /// A name, plural or alias as on a command line, in any case.
    fn from_str(word: &str) -> Result<Kind, UnknownKind> {
        let lower = word.to_ascii_lowercase();
        KINDS
            .iter()
            .find(|(_, name, plural, aliases)| {
                name.eq_ignore_ascii_case(&lower)
                    || *plural == lower
                    || aliases.contains(&lower.as_str())
            })
            .map(|row| row.0)
            .ok_or_else(|| UnknownKind {
                word: super::issue::shorten(word),
                help: did_you_mean(word, KINDS.iter().flat_map(|row| [row.1, row.2])),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_follows_the_enum() {
        for (n, kind) in Kind::all().enumerate() {
            assert_eq!(kind as usize, n);
            assert_eq!(kind.to_string(), format!("{kind:?}"));
            assert_eq!(kind.plural().parse(), Ok(kind));
            assert_eq!(kind.short().parse(), Ok(kind));
        }
    }

    #[test]
    fn names_of_any_case() {
        assert_eq!("HEP".parse(), Ok(Kind::HostEndpoint));
        assert_eq!("hostEndpoint".parse(), Ok(Kind::HostEndpoint));
        assert_eq!("networkPolicy".parse(), Ok(Kind::NetworkPolicy));
        let error = "hostendpont".parse::<Kind>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown kind `hostendpont`, did you mean `HostEndpoint`?"
        );
        assert_eq!(Kind::from_document("hostendpoint"), None);
    }
}
