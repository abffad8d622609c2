//! Calico's layout of keys: which key holds which resource (facts 7.1).

use crate::api::{Kind, ResourceId};

/// What the keys of all resources begin with.
pub const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";
/// The resource that says whether the datastore may be used.
pub const CLUSTER_INFORMATION: &str =
    "/calico/resources/v3/projectcalico.org/clusterinformations/default";
/// What the keys of IP address management begin with.
pub const IPAM: &str = "/calico/ipam/v2/";
/// What old clients put before the names of policies in the default tier.
const OLD_PREFIX: &str = "default.";

/// The key of a resource, as a client of today writes it.
pub fn key(id: &ResourceId) -> String {
    let plural = id.kind.plural();
    match id.namespace.as_str() {
        "" => format!("{RESOURCES}{plural}/{}", id.name),
        namespace => format!("{RESOURCES}{plural}/{namespace}/{}", id.name),
    }
}

/// The key under which an old client wrote a policy of the default tier; none for what has only one key.
pub fn old_key(id: &ResourceId) -> Option<String> {
    // Copies of others' policies have prefixes of their own.
    let is_prefixed = [OLD_PREFIX, "knp.", "ossg."]
        .iter()
        .any(|prefix| id.name.starts_with(prefix));
    (is_policy(id.kind) && !is_prefixed).then(|| {
        let name = format!("{OLD_PREFIX}{}", id.name);
        key(&ResourceId { name, ..id.clone() })
    })
}

/// Whether the key is that of a policy of the default tier which an old client wrote.
pub fn is_old(key: &[u8]) -> bool {
    let id = std::str::from_utf8(key).ok().and_then(parse);
    id.is_some_and(|id| is_policy(id.kind) && id.name.starts_with(OLD_PREFIX))
}

/// What the keys of a kind begin with; of one namespace of it, if one is named.
pub fn prefix(kind: Kind, namespace: Option<&str>) -> String {
    let plural = kind.plural();
    match namespace.filter(|_| kind.is_namespaced()) {
        Some(namespace) => format!("{RESOURCES}{plural}/{namespace}/"),
        None => format!("{RESOURCES}{plural}/"),
    }
}

/// The resource that a key holds, by its name in the key; none if it is no key of a known kind.
pub fn parse(key: &str) -> Option<ResourceId> {
    let rest = key.strip_prefix(RESOURCES)?;
    let (plural, rest) = rest.split_once('/')?;
    let kind = Kind::all().find(|kind| kind.plural() == plural)?;
    let (namespace, name) = match kind.is_namespaced() {
        true => rest.split_once('/')?,
        false => ("", rest),
    };
    let is_part = |part: &str| !part.is_empty() && !part.contains('/');
    let is_whole = is_part(name) && (is_part(namespace) || !kind.is_namespaced());
    is_whole.then(|| ResourceId {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

/// Whether the resource is one that this key may hold: its name is that of the key, or a policy's without the prefix of its tier.
pub fn fits(key: &str, id: &ResourceId) -> bool {
    let Some(held) = parse(key) else { return false };
    let same_place = held.kind == id.kind && held.namespace == id.namespace;
    let short = held.name.split_once('.').map(|(_, rest)| rest);
    let same_name = held.name == id.name || (is_policy(id.kind) && short == Some(&*id.name));
    same_place && same_name
}

fn is_policy(kind: Kind) -> bool {
    use Kind::*;
    matches!(
        kind,
        GlobalNetworkPolicy | NetworkPolicy | StagedGlobalNetworkPolicy | StagedNetworkPolicy
    )
}

/// Whether resources of this kind matter to policy.
pub fn matters(kind: Kind) -> bool {
    use Kind::*;
    is_policy(kind)
        || matches!(
            kind,
            HostEndpoint
                | WorkloadEndpoint
                | Tier
                | NetworkSet
                | GlobalNetworkSet
                | Profile
                | StagedKubernetesNetworkPolicy
                | FelixConfiguration
        )
}

/// Keys that a host writes about itself (facts 7.1).
pub mod status {
    /// What the keys of all hosts begin with.
    pub const HOSTS: &str = "/calico/felix/v2/no-region/host/";
    const ENDPOINTS: &str = "/calico/felix/v1/host/";

    /// What is there only as long as the host is.
    pub fn alive(host: &str) -> String {
        format!("{HOSTS}{}/status", escape(host))
    }

    /// The last report, which stays.
    pub fn last(host: &str) -> String {
        format!("{HOSTS}{}/last_reported_status", escape(host))
    }

    /// The state of a HostEndpoint.
    pub fn endpoint(host: &str, name: &str) -> String {
        format!("{}{}", endpoints(host), escape(name))
    }

    /// The state of a workload endpoint: of which orchestrator and workload it is, and which of its endpoints.
    pub fn workload(host: &str, orchestrator: &str, workload: &str, endpoint: &str) -> String {
        let [orchestrator, workload, endpoint] = [orchestrator, workload, endpoint].map(escape);
        format!(
            "{}{orchestrator}/{workload}/endpoint/{endpoint}",
            workloads(host)
        )
    }

    /// What the keys of the states of a host's workload endpoints begin with.
    pub fn workloads(host: &str) -> String {
        format!("{HOSTS}{}/workload/", escape(host))
    }

    /// What the keys of the states of a host's endpoints begin with.
    pub fn endpoints(host: &str) -> String {
        format!("{ENDPOINTS}{}/endpoint/", escape(host))
    }

    fn escape(segment: &str) -> String {
        segment.replace('%', "%25").replace('/', "%2f")
    }

    /// A segment of a key as it was before it was escaped.
    pub fn unescape(segment: &str) -> String {
        segment.replace("%2f", "/").replace("%25", "%")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(kind: Kind, namespace: &str, name: &str) -> ResourceId {
        ResourceId {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Every row of facts 7.1.
    #[test]
    fn keys_of_kinds() {
        use Kind::*;
        let rows = [
            (id(HostEndpoint, "", "web1-eth0"), "hostendpoints/web1-eth0"),
            (
                id(GlobalNetworkPolicy, "", "allow-ssh"),
                "globalnetworkpolicies/allow-ssh",
            ),
            (id(NetworkPolicy, "ns", "web"), "networkpolicies/ns/web"),
            (
                id(NetworkPolicy, "ns", "knp.default.web"),
                "networkpolicies/ns/knp.default.web",
            ),
            (
                id(StagedGlobalNetworkPolicy, "", "x"),
                "stagedglobalnetworkpolicies/x",
            ),
            (
                id(StagedNetworkPolicy, "ns", "x"),
                "stagednetworkpolicies/ns/x",
            ),
            (
                id(StagedKubernetesNetworkPolicy, "ns", "x"),
                "stagedkubernetesnetworkpolicies/ns/x",
            ),
            (id(Tier, "", "t"), "tiers/t"),
            (id(Profile, "", "kns.ns1"), "profiles/kns.ns1"),
            (id(NetworkSet, "ns", "s"), "networksets/ns/s"),
            (id(GlobalNetworkSet, "", "s"), "globalnetworksets/s"),
            (
                id(WorkloadEndpoint, "ns1", "node1-k8s-pod1-eth0"),
                "workloadendpoints/ns1/node1-k8s-pod1-eth0",
            ),
            (id(Node, "", "n"), "nodes/n"),
            (id(IPPool, "", "p"), "ippools/p"),
            (id(IPReservation, "", "r"), "ipreservations/r"),
            (id(BGPPeer, "", "b"), "bgppeers/b"),
            (
                id(BGPConfiguration, "", "default"),
                "bgpconfigurations/default",
            ),
            (id(BGPFilter, "", "f"), "bgpfilters/f"),
            (
                id(FelixConfiguration, "", "node.h"),
                "felixconfigurations/node.h",
            ),
            (
                id(ClusterInformation, "", "default"),
                "clusterinformations/default",
            ),
            (
                id(KubeControllersConfiguration, "", "default"),
                "kubecontrollersconfigurations/default",
            ),
            (
                id(IPAMConfiguration, "", "default"),
                "ipamconfigurations/default",
            ),
            (id(CalicoNodeStatus, "", "s"), "caliconodestatuses/s"),
            (id(BlockAffinity, "", "a"), "blockaffinities/a"),
        ];
        for (id, end) in rows {
            let expected = format!("{RESOURCES}{end}");
            assert_eq!(key(&id), expected);
            assert_eq!(parse(&expected), Some(id.clone()));
            assert!(fits(&expected, &id));
        }
    }

    #[test]
    fn other_keys() {
        for key in [
            "",
            "/calico/ipam/v2/config",
            "/calico/resources/v3/projectcalico.org/tiers",
            "/calico/resources/v3/projectcalico.org/tiers/",
            "/calico/resources/v3/projectcalico.org/tiers/a/b",
            "/calico/resources/v3/projectcalico.org/networksets/a",
            "/calico/resources/v3/projectcalico.org/networksets//a",
            "/calico/resources/v3/projectcalico.org/livemigrations/a",
            "/calico/resources/v3/crd.projectcalico.org/tiers/a",
        ] {
            assert_eq!(parse(key), None, "{key}");
        }
    }

    #[test]
    fn old_names_of_policies() {
        let web = id(Kind::GlobalNetworkPolicy, "", "web");
        let old = old_key(&web).unwrap();
        assert!(old.ends_with("/globalnetworkpolicies/default.web"));
        assert!(fits(&old, &web) && fits(&key(&web), &web));
        assert!(!fits(&old, &id(Kind::GlobalNetworkPolicy, "", "other")));
        assert!(!fits(&old, &id(Kind::NetworkPolicy, "", "web")));
        assert_eq!(old_key(&id(Kind::Tier, "", "web")), None);
        let space = id(Kind::NetworkPolicy, "ns", "web");
        assert!(
            old_key(&space)
                .unwrap()
                .ends_with("/networkpolicies/ns/default.web")
        );
        assert!(!fits(
            &key(&space),
            &id(Kind::NetworkPolicy, "other", "web")
        ));
    }

    #[test]
    fn keys_of_status() {
        assert_eq!(
            status::alive("h/1%"),
            "/calico/felix/v2/no-region/host/h%2f1%25/status"
        );
        assert_eq!(
            status::endpoint("h", "eth0"),
            "/calico/felix/v1/host/h/endpoint/eth0"
        );
        assert_eq!(
            status::workload("h", "k8s", "ns/pod", "eth0"),
            "/calico/felix/v2/no-region/host/h/workload/k8s/ns%2fpod/endpoint/eth0"
        );
        assert!(status::last("h").ends_with("/h/last_reported_status"));
        assert!(status::endpoint("h", "a/%2f").ends_with("/endpoint/a%2f%252f"));
        assert_eq!(status::unescape("a%2f%252f"), "a/%2f");
    }
}
