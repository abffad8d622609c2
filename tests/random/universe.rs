//! The few addresses, ports and names of which everything random is made, so that rules and packets meet.

/// An address outside the protected host, of both families, and the interface behind which it is.
pub struct Place {
    /// IPv4 and IPv6.
    pub addresses: [&'static str; 2],
    /// Interface of the protected host.
    pub iface: &'static str,
}

const fn place(iface: &'static str, v4: &'static str, v6: &'static str) -> Place {
    Place {
        addresses: [v4, v6],
        iface,
    }
}

/// Where packets come from and go to.
pub const PLACES: [Place; 10] = [
    place("eth0", "10.1.0.2", "fd01::2"),
    place("eth0", "10.1.0.3", "fd01::3"),
    place("eth0", "10.1.0.200", "fd01::200"),
    place("eth0", "203.0.113.5", "2001:db8::5"),
    place("eth0", "198.51.100.7", "2001:db8:1::7"),
    place("eth1", "10.2.0.2", "fd02::2"),
    place("eth1", "10.2.0.9", "fd02::9"),
    place("cali1", "10.3.1.2", "fd03:1::2"),
    place("cali1", "10.3.1.9", "fd03:1::9"),
    place("cali2", "10.3.2.2", "fd03:2::2"),
];

/// Prefixes of rules and sets. Some cover others, some everything.
pub const NETS: [[&str; 10]; 2] = [
    [
        "10.0.0.0/8",
        "10.1.0.0/24",
        "10.1.0.2/32",
        "10.1.0.2/31",
        "10.2.0.0/24",
        "10.3.0.0/16",
        "10.1.0.1/32",
        "203.0.113.0/24",
        "128.0.0.0/1",
        "0.0.0.0/0",
    ],
    [
        "fd00::/8",
        "fd01::/64",
        "fd01::2/128",
        "fd01::2/127",
        "fd02::/64",
        "fd03::/16",
        "fd01::1/128",
        "2001:db8::/64",
        "8000::/1",
        "::/0",
    ],
];

/// Ports of packets and rules, those of failsafes among them.
pub const PORTS: [u16; 14] = [
    22, 53, 67, 68, 80, 81, 123, 443, 546, 547, 1000, 2000, 5353, 60000,
];

/// Port entries of rules that are no single number.
pub const PORT_WORDS: [&str; 9] = [
    "80:81",
    "1:1000",
    "2000:65535",
    "67:68",
    "443:443",
    "http",
    "dns",
    "both",
    "nobody",
];

/// Those among them that are names.
pub const PORT_NAMES: [&str; 4] = ["http", "dns", "both", "nobody"];

/// Selectors of policies and rules.
pub const SELECTORS: [&str; 13] = [
    "all()",
    "role == 'a'",
    "role != 'a'",
    "role in {'a', 'b'}",
    "role not in {'b', 'c'}",
    "has(zone)",
    "!has(role)",
    "zone == 'x' && role != 'a'",
    "role == 'a' || zone == 'y'",
    "inherited == 'p'",
    "role contains 'a'",
    "projectcalico.org/namespace == 'prod'",
    "nothing == 'here'",
];

/// Selectors of namespaces and service accounts.
pub const NAMESPACE_SELECTORS: [&str; 4] =
    ["all()", "stage == 'live'", "stage != 'live'", "has(stage)"];

/// Tier names; the last is never defined.
pub const TIERS: [&str; 5] = ["default", "default", "early", "late", "absent"];

/// IP protocol numbers of packets.
pub const PROTOCOLS: [u8; 10] = [6, 6, 6, 6, 17, 17, 17, 1, 132, 99];

/// Destination NAT that the protected host does for others and for itself.
pub struct Nat {
    /// Port at [`VIRTUAL`] that is written.
    pub port: u16,
    /// Where it leads, in both families.
    pub to: [&'static str; 2],
    /// And the port there.
    pub to_port: u16,
    /// The interface behind which that is, `None` for the host itself.
    pub iface: Option<&'static str>,
}

/// The address, reached through eth0, that only exists in NAT rules.
pub const VIRTUAL: [&str; 2] = ["192.0.2.1", "2001:db8:2::1"];

/// All of it, for TCP and UDP.
pub const NATS: [Nat; 3] = [
    Nat {
        port: 8080,
        to: ["10.2.0.2", "fd02::2"],
        to_port: 80,
        iface: Some("eth1"),
    },
    Nat {
        port: 8081,
        to: ["10.2.0.1", "fd02::1"],
        to_port: 443,
        iface: None,
    },
    Nat {
        port: 8082,
        to: ["10.1.0.2", "fd01::2"],
        to_port: 2000,
        iface: Some("eth0"),
    },
];
