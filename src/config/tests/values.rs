//! Every spelling that is accepted, and every kind of bad value.

use std::time::Duration;

use serde_json::json;

use super::super::*;
use super::{Host, failsafes};

#[test]
fn felix_spellings() {
    let mut host = Host::new();
    host.felix(
        "default",
        json!({
            "iptablesBackend": "NFT", "chainInsertMode": "Append", "iptablesMarkMask": 0xff00_0000_u32,
            "iptablesFilterDenyAction": "REJECT", "defaultEndpointToHostAction": "RETURN",
            "interfacePrefix": "cali,tap", "interfaceExclude": "eth9,/^tun/", "logPrefix": "none",
            "iptablesRefreshInterval": "1m30.5s", "logSeverityScreen": "debug", "ipv6Support": false,
            "failsafeInboundHostPorts": [{"protocol": "TCP", "port": 22, "net": "10.1.2.3/8"}],
            "failsafeOutboundHostPorts": [], "healthEnabled": true, "healthHost": "localhost",
            "prometheusMetricsHost": "::", "prometheusMetricsPort": 9191,
        }),
    );
    let s = host.good().settings;
    assert_eq!(s.iptables_backend, IptablesBackend::Nft);
    assert_eq!(s.chain_insert_mode, ChainInsertMode::Append);
    assert_eq!(s.iptables_mark_mask, 0xff00_0000);
    assert_eq!(s.iptables_filter_deny_action, DenyAction::Reject);
    assert_eq!(s.default_endpoint_to_host_action, HostAction::Return);
    assert_eq!(s.interface_prefix, ["cali", "tap"]);
    assert!(
        s.interface_exclude == ["eth9", "/^tun/"] && s.log_prefix.is_empty() && !s.ipv6_support
    );
    assert_eq!(s.iptables_refresh_interval, Duration::from_millis(90_500));
    assert_eq!(s.log_severity_screen, Severity::Debug);
    assert_eq!(
        failsafes(&s.failsafe_inbound_host_ports),
        "tcp:10.0.0.0/8:22"
    );
    assert!(s.failsafe_outbound_host_ports.is_empty());
    assert!(s.health_enabled && s.health_host.is_loopback() && !s.prometheus_metrics_enabled);
    assert!(s.prometheus_metrics_host.is_unspecified() && s.prometheus_metrics_port == 9191);
}

#[test]
fn bad_values() {
    for (line, message) in [
        ("policyDirs = []", "at least one path"),
        ("policyDirs = ['/a', '/a']", "`/a` is listed twice"),
        ("policyDirs = 1", "expected a list, found `1`"),
        ("policyDirs = ['/a/../b']", "may not hold `..`"),
        ("stateDir = true", "expected a path in quotes, found `true`"),
        ("runDir = 'run'", "not an absolute path"),
        ("felixHostname = 'a b'", "\"a b\" is not a host name"),
        ("iptablesBackend = 'nftables'", "none of auto, nft, legacy"),
        (
            "interfacePrefix = ['cali+']",
            "\"cali+\" is not an interface name",
        ),
        (
            "interfacePrefix = 'cali,,tap'",
            "\"\" is not an interface name",
        ),
        (
            "interfaceExclude = ['/kube(.*/']",
            "`/kube(.*/` is not a regular expression: unclosed group",
        ),
        ("chainInsertMode = 'first'", "none of insert, append"),
        (
            "defaultEndpointToHostAction = 'Allow'",
            "none of Drop, Return, Accept",
        ),
        (
            "iptablesFilterAllowAction = 'Drop'",
            "none of Accept, Return",
        ),
        (
            "iptablesMangleAllowAction = 'Drop'",
            "none of Accept, Return",
        ),
        (
            "iptablesFilterDenyAction = 'Return'",
            "none of Drop, Reject",
        ),
        ("iptablesMarkMask = 0x7", "the mask has 3 bits, at least 4"),
        ("iptablesMarkMask = 0x1ffffffff", "not a 32 bit mask"),
        ("iptablesMarkMask = -1", "not a 32 bit mask"),
        (
            "failsafeInboundHostPorts = true",
            "expected a list of failsafes",
        ),
        ("failsafeOutboundHostPorts = 'all'", "`all` is not a port"),
        (
            "disableConntrackInvalidCheck = 'maybe'",
            "neither true nor false",
        ),
        (
            "logPrefix = 'abcdefghijklmnopqrstuvwxyz01'",
            "28 characters",
        ),
        ("logPrefix = 'ä'", "'ä' is not allowed"),
        ("ipv6Support = 2", "`2` is neither true nor false"),
        ("iptablesRefreshInterval = '5 minutes'", "not a time"),
        ("iptablesRefreshInterval = -5", "not a time"),
        ("iptablesRefreshInterval = '9000h'", "over a year"),
        ("iptablesRefreshInterval = nan", "not a time"),
        ("logSeverityScreen = 'Loud'", "none of Trace, Debug"),
        ("existingConnections = 'cut'", "none of reevaluate, keep"),
        ("bootFailurePolicy = 'ask'", "none of closed, open"),
        ("onRemove = 'purge'", "none of keep, clean"),
        ("healthPort = 0", "not a port from 1"),
        ("prometheusMetricsPort = 65536", "not a port from 1"),
        ("healthHost = 'web1'", "`web1` is not an IP address"),
        ("maxIpsetSize = 0", "not a number from 1"),
        ("maxIpsetSize = 1.5", "not a number from 1"),
        ("maxIpsetSize = 99999999999999999999", "not a number from 1"),
    ] {
        let errors = Host::with(line).errors();
        assert!(
            errors.len() == 1 && errors[0].contains(message),
            "{line}: {errors:?}"
        );
        assert!(errors[0].starts_with("moat.toml:1:"), "{line}: {errors:?}");
    }
}

#[test]
fn failsafe_forms() {
    let list = |text: &str| {
        let host = Host::with(&format!("failsafeInboundHostPorts = {text}"));
        failsafes(&host.good().settings.failsafe_inbound_host_ports)
    };
    assert_eq!(list("'none'"), "");
    assert_eq!(list("[]"), "");
    assert!(list("'calico'").ends_with("tcp:5473,tcp:6443,tcp:6666,tcp:6667"));
    assert_eq!(list("'22, udp:53 ,sctp:9'"), "tcp:22,udp:53,sctp:9");
    assert_eq!(list("'tcp:10.0.0.0/8:22'"), "tcp:10.0.0.0/8:22");
    assert_eq!(
        list("['tcp:[2001:db8::/64]:22', 80, '80']"),
        "tcp:[2001:db8::/64]:22,tcp:80"
    );
    assert_eq!(
        list("[{protocol='UDP', port=1}, {port='2', net='::1'}, {port=3, net=''}]"),
        "udp:1,tcp:[::1/128]:2,tcp:3"
    );
    for (text, message) in [
        (
            "['22', 'icmp:1']",
            "1:35: failsafeInboundHostPorts: bad failsafe `icmp:1`: `icmp` is not",
        ),
        ("'tcp:0'", "`0` is not a port"),
        ("'tcp:70000'", "`70000` is not a port"),
        ("'tcp:+22'", "`+22` is not a port"),
        ("'tcp:2001:db8::/64:22'", "IPv6 nets stand in brackets"),
        (
            "'tcp:10.0.0.0/33:22'",
            "prefix length of `10.0.0.0/33` is over 32",
        ),
        ("'22,'", "`` is not a port"),
        ("[{protocol='tcp'}]", "a failsafe needs a port"),
        (
            "[{port=1, proto='tcp'}]",
            "no field `proto` (it has protocol, port and net)",
        ),
        (
            "[{port=1, nets='::/0'}]",
            "no field `nets` (did you mean `net`?)",
        ),
        ("[{port=1, net='x'}]", "`x` is not an IP address or CIDR"),
        ("[{port=[1]}]", "bad port `[1]`"),
        ("[true]", "`true` is no failsafe"),
    ] {
        let errors = Host::with(&format!("failsafeInboundHostPorts = {text}")).errors();
        assert!(errors[0].contains(message), "{text}: {errors:?}");
    }
}
