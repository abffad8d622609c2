//! Who made a chain, by the names that programs give to theirs; and what to do about it.

use super::{Chain, Effect};

/// A program that filters packets.
pub struct Owner {
    /// Its name.
    pub name: &'static str,
    /// Starts of the names of its tables and chains.
    names: &'static [&'static str],
    /// What to do when it denies.
    deny: &'static str,
}

const OWNERS: &[Owner] = &[
    Owner {
        name: "firewalld",
        names: &[
            "firewalld",
            "IN_",
            "FWD",
            "INPUT_ZONES",
            "FORWARD_ZONES",
            "filter_IN",
            "filter_FWD",
        ],
        deny: "nothing that moat accepts passes what firewalld denies: open the same ports there (firewall-cmd --add-port), \
               or stop it (systemctl disable --now firewalld)",
    },
    Owner {
        name: "ufw",
        names: &["ufw-", "ufw6-"],
        deny: "open the same ports there (ufw allow), or turn it off (ufw disable)",
    },
    Owner {
        name: "Docker",
        names: &["DOCKER", "docker-bridges"],
        deny: "these are rules for containers, which Docker keeps up itself: publish the port that is to be reached",
    },
    Owner {
        name: "fail2ban",
        names: &["f2b-"],
        deny: "these are banned addresses: fail2ban-client unban ADDRESS lets one in again",
    },
    Owner {
        name: "CrowdSec",
        names: &["crowdsec", "CROWDSEC"],
        deny: "these are banned addresses: cscli decisions delete --ip ADDRESS lets one in again",
    },
    Owner {
        name: "libvirt",
        names: &["LIBVIRT_", "libvirt_network", "guest_"],
        deny: "these are rules for the networks of virtual machines: choose another forward mode of the network (virsh net-edit)",
    },
    Owner {
        name: "kube-proxy",
        names: &["KUBE-", "kube-proxy"],
        deny: "these are rules of services and node ports of a cluster, which kube-proxy keeps up itself",
    },
    Owner {
        name: "podman",
        names: &["NETAVARK", "netavark", "CNI-"],
        deny: "these are rules for containers, which podman keeps up itself: publish the port that is to be reached",
    },
    Owner {
        name: "Calico",
        names: &["cali-", "calico"],
        deny: "two programs enforce policy on this host: stop Felix, or remove moat",
    },
    Owner {
        name: "Tailscale",
        names: &["ts-"],
        deny: "these are rules for its own interface: tailscale set --netfilter-mode=off leaves the interface to policy",
    },
    Owner {
        name: "shorewall",
        names: &["shorewall", "net-fw", "fw-net", "net2fw", "fw2net"],
        deny: "write what is to pass as policy, and stop it (systemctl disable --now shorewall shorewall6)",
    },
];

const ADMINISTRATOR: Owner = Owner {
    name: "unknown",
    names: &[],
    deny: "rules of this host, such as /etc/nftables.conf or saved iptables rules: write what they allow as policy and remove them, \
           or open the same ports there",
};

/// The owner of a base chain, or of the chain through which it does what it does.
pub fn of(base: &Chain, through: Option<&str>) -> &'static Owner {
    let names = [through, Some(base.table.as_str()), Some(base.name.as_str())];
    names
        .into_iter()
        .flatten()
        .find_map(find)
        .unwrap_or(&ADMINISTRATOR)
}

/// The name of the owner of a chain with this name.
pub fn of_name(chain: &str) -> &'static str {
    find(chain).unwrap_or(&ADMINISTRATOR).name
}

fn find(name: &str) -> Option<&'static Owner> {
    OWNERS
        .iter()
        .find(|o| o.names.iter().any(|n| name.starts_with(n)))
}

impl Owner {
    /// What to do.
    pub fn advice(&self, effect: Effect) -> &'static str {
        match effect {
            Effect::Deny => self.deny,
            Effect::AcceptFirst => {
                "its rules stand before moat's: with chainInsertMode = \"Insert\" moat puts its own first; if that is set, restart moatd"
            }
        }
    }
}
