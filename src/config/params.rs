//! The one table of parameters, from which the reader, the example file and the manual come.

use std::fmt::Write as _;

use super::error::did_you_mean;
use super::failsafe::{CALICO_INBOUND, CALICO_OUTBOUND};
use super::value::Kind;

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its name: that of the FelixConfiguration field where Calico has the setting.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// The default as it is written in a settings file; empty where there is none or the host decides.
    pub default: &'static str,
    /// Whether a FelixConfiguration resource may set it; else it belongs to the host alone.
    pub felix: bool,
    /// One sentence of explanation.
    pub doc: &'static str,
}

const fn host(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Param {
    Param {
        name,
        kind,
        default,
        felix: false,
        doc,
    }
}

const fn felix(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Param {
    Param {
        name,
        kind,
        default,
        felix: true,
        doc,
    }
}

const ALLOW: Kind = Kind::Choice(&["Accept", "Return"]);

/// Every setting, in the order in which people are shown them.
pub const PARAMS: &[Param] = &[
    host(
        "policyDirs",
        Kind::Dirs,
        "[\"/etc/moat/policy.d\"]",
        "Directories whose .yaml, .yml and .json files hold the policy resources.",
    ),
    host(
        "stateDir",
        Kind::Dir,
        "\"/var/lib/moat\"",
        "Where the snapshot of the last good policy is kept.",
    ),
    host(
        "runDir",
        Kind::Dir,
        "\"/run/moat\"",
        "Where the control socket moatd.sock is made.",
    ),
    host(
        "felixHostname",
        Kind::Hostname,
        "",
        "The name by which HostEndpoints refer to this host in spec.node.",
    ),
    host(
        "datastoreType",
        Kind::Choice(&["none", "etcdv3"]),
        "\"none\"",
        "Whether policy also comes from an etcd cluster; local files win over it.",
    ),
    host(
        "etcdEndpoints",
        Kind::Urls,
        "[]",
        "URLs of the members of the etcd cluster, or of proxies to it.",
    ),
    host(
        "etcdDiscoverySrv",
        Kind::Hostname,
        "",
        "A domain whose SRV records name the members of the etcd cluster, instead of etcdEndpoints.",
    ),
    host(
        "etcdCaFile",
        Kind::Dir,
        "",
        "PEM file of the certificate authorities of etcd; without it those that the system trusts.",
    ),
    host(
        "etcdCertFile",
        Kind::Dir,
        "",
        "PEM file of the certificate by which etcd knows this host.",
    ),
    host(
        "etcdKeyFile",
        Kind::Dir,
        "",
        "PEM file of the key of that certificate.",
    ),
    host(
        "etcdUsername",
        Kind::Text,
        "",
        "Name of a user of etcd, where a certificate is not what it asks for.",
    ),
    host(
        "etcdPasswordFile",
        Kind::Dir,
        "",
        "File with the password of that user.",
    ),
    felix(
        "reportingInterval",
        Kind::Duration,
        "\"30s\"",
        "How often this host tells the datastore that it is alive; 0 means never.",
    ),
    felix(
        "reportingTTL",
        Kind::Duration,
        "\"90s\"",
        "How long a host that tells nothing any more counts as alive.",
    ),
    felix(
        "endpointReportingEnabled",
        Kind::Bool,
        "false",
        "Whether this host tells the datastore the state of its endpoints.",
    ),
    host(
        "registerHostEndpoint",
        Kind::Bool,
        "false",
        "Whether this host writes its own HostEndpoint to the datastore and keeps its addresses right.",
    ),
    host(
        "hostEndpointLabels",
        Kind::Labels,
        "[]",
        "Labels of that HostEndpoint.",
    ),
    felix(
        "iptablesBackend",
        Kind::Choice(&["auto", "nft", "legacy"]),
        "\"auto\"",
        "Which iptables to use; auto is what the host already uses, else what its kernel has.",
    ),
    felix(
        "interfacePrefix",
        Kind::Prefixes,
        "[\"cali\"]",
        "Interfaces whose name starts with one of these belong to workloads on this host.",
    ),
    felix(
        "interfaceExclude",
        Kind::Interfaces,
        "[\"kube-ipvs0\"]",
        "Interfaces that no HostEndpoint governs.",
    ),
    felix(
        "chainInsertMode",
        Kind::Choice(&["insert", "append"]),
        "\"insert\"",
        "Whether moat's jumps stand before or after the other rules of a kernel chain.",
    ),
    felix(
        "defaultEndpointToHostAction",
        Kind::Choice(&["Drop", "Return", "Accept"]),
        "\"Drop\"",
        "What becomes of workload traffic to this host that the workload's policy allows.",
    ),
    felix(
        "iptablesFilterAllowAction",
        ALLOW,
        "\"Accept\"",
        "Whether allowed packets are accepted at once or go on to the host's own filter rules.",
    ),
    felix(
        "iptablesMangleAllowAction",
        ALLOW,
        "\"Accept\"",
        "The same for preDNAT policy and the host's own mangle rules.",
    ),
    felix(
        "iptablesFilterDenyAction",
        Kind::Choice(&["Drop", "Reject"]),
        "\"Drop\"",
        "Whether denied packets vanish or their sender is told.",
    ),
    felix(
        "iptablesMarkMask",
        Kind::Mask,
        "0xffff0000",
        "The bits of the packet mark that moat may use; no other program may use them.",
    ),
    felix(
        "failsafeInboundHostPorts",
        Kind::Failsafes(CALICO_INBOUND),
        "[\"tcp:22\", \"udp:68\", \"udp:546\"]",
        "Ports of this host that stay open whatever policy says.",
    ),
    felix(
        "failsafeOutboundHostPorts",
        Kind::Failsafes(CALICO_OUTBOUND),
        "[\"udp:53\", \"tcp:53\", \"udp:67\", \"udp:547\", \"udp:123\"]",
        "Ports elsewhere that stay reachable whatever policy says.",
    ),
    felix(
        "disableConntrackInvalidCheck",
        Kind::Bool,
        "false",
        "Whether packets that connection tracking calls invalid are judged by policy, not dropped.",
    ),
    felix(
        "logPrefix",
        Kind::LogPrefix,
        "\"calico-packet\"",
        "Prefix of the kernel's lines for Log rules; %t is the tier, %n the policy, %k its kind.",
    ),
    felix(
        "ipv6Support",
        Kind::Bool,
        "true",
        "Whether IPv6 is protected too.",
    ),
    felix(
        "iptablesRefreshInterval",
        Kind::Duration,
        "\"180s\"",
        "How often the rules in the kernel are compared with the wanted ones; 0 means never.",
    ),
    felix(
        "logSeverityScreen",
        Kind::Choice(&["Trace", "Debug", "Info", "Warning", "Error", "Fatal"]),
        "\"Info\"",
        "The least severity of log lines.",
    ),
    host(
        "existingConnections",
        Kind::Choice(&["reevaluate", "keep"]),
        "\"reevaluate\"",
        "Whether connections that a changed policy denies are cut or kept until they end by themselves.",
    ),
    host(
        "bootFailurePolicy",
        Kind::Choice(&["closed", "open"]),
        "\"closed\"",
        "What a host that had policy is before moatd can enforce it: closed but for failsafes, or open.",
    ),
    host(
        "onRemove",
        Kind::Choice(&["keep", "clean"]),
        "\"clean\"",
        "Whether the rules stay in the kernel when the package is removed; a purge always takes them.",
    ),
    felix(
        "prometheusMetricsEnabled",
        Kind::Bool,
        "false",
        "Whether metrics are served over HTTP, as /metrics.",
    ),
    felix(
        "prometheusMetricsHost",
        Kind::Address,
        "\"127.0.0.1\"",
        "The address on which metrics are served.",
    ),
    felix(
        "prometheusMetricsPort",
        Kind::Port,
        "9091",
        "The TCP port on which metrics are served.",
    ),
    felix(
        "healthEnabled",
        Kind::Bool,
        "false",
        "Whether /liveness and /readiness are served over HTTP.",
    ),
    felix(
        "healthHost",
        Kind::Address,
        "\"127.0.0.1\"",
        "The address on which /liveness and /readiness are served.",
    ),
    felix(
        "healthPort",
        Kind::Port,
        "9099",
        "The TCP port on which /liveness and /readiness are served.",
    ),
    felix(
        "maxIpsetSize",
        Kind::Count,
        "1048576",
        "The most members an IP set may have.",
    ),
    host(
        "mergeRulesFrom",
        Kind::Count,
        "4",
        "From this many on, rules of a port that differ in one selector only become one kernel rule.",
    ),
];

impl Param {
    /// The setting of exactly this name.
    pub fn find(name: &str) -> Option<&'static Param> {
        PARAMS.iter().find(|param| param.name == name)
    }

    /// The default, for people.
    pub fn default_text(&self) -> &'static str {
        match (self.default, self.name) {
            ("", "felixHostname") => "the lower-case name of the host",
            ("", _) => "none",
            (default, _) => default,
        }
    }
}

/// Help for an unknown setting: the one that was most likely meant.
pub(super) fn suggestion(name: &str) -> String {
    did_you_mean(name, PARAMS.iter().map(|param| param.name))
        .unwrap_or_else(|| "`moatctl config show` lists all settings".into())
}

/// The parameter table as Markdown, for the manual page moat.toml(5).
pub fn reference_markdown() -> String {
    let mut out = String::new();
    for param in PARAMS {
        let scope = if param.felix {
            "A FelixConfiguration resource can set it."
        } else {
            "Set on the host only."
        };
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "### {}\n\n{}\n\nValue: {}. Default: `{}`. {scope}\n\n",
            param.name,
            param.doc,
            param.kind.accepts().replace('|', "or"),
            param.default_text(),
        );
    }
    out
}

/// The settings file as it is installed: every setting commented out, with its default.
pub fn example_file() -> String {
    let mut out = String::from(
        "# Settings of moatd, see moat.toml(5). What is commented out is the default.\n\
         # Files in /etc/moat/moat.d/*.toml are read after this one and win over it.\n",
    );
    for param in PARAMS {
        let _ = write!(
            out,
            "\n# {}\n# Value: {}.\n",
            param.doc,
            param.kind.accepts()
        );
        let _ = match param.default {
            "" => writeln!(
                out,
                "# Default: {}.\n#{} = \"\"",
                param.default_text(),
                param.name
            ),
            default => writeln!(out, "#{} = {default}", param.name),
        };
    }
    out
}
