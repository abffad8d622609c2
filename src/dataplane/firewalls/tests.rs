use std::process::Command;

use super::legacy::Reader;
use super::*;

/// Findings of what a save program of the legacy tools prints, as `chain: effect, through, owner`.
fn of_legacy(text: &str) -> Vec<String> {
    let mut reader = Reader {
        family: "ip",
        table: String::new(),
        chains: Vec::new(),
    };
    text.lines().for_each(|line| reader.line(line.trim()));
    brief(&findings(&reader.chains))
}

fn brief(findings: &[Finding]) -> Vec<String> {
    let line = |f: &Finding| {
        let through = f.through.as_deref().unwrap_or("-");
        format!(
            "{} at {}: {:?} {through} {}",
            f.chain, f.priority, f.effect, f.owner
        )
    };
    findings.iter().map(line).collect()
}

#[test]
fn what_stands_before_moat_counts_and_what_stands_behind_does_not() {
    let chains = "*filter\n:INPUT DROP [0:0]\n:f2b-sshd - [0:0]\n:moat-INPUT - [0:0]\n-A f2b-sshd -s 192.0.2.1/32 -j REJECT --reject-with icmp-port-unreachable\n";
    let behind = format!(
        "{chains}-A INPUT -j moat-INPUT\n-A INPUT -p tcp -j f2b-sshd\n-A INPUT -j ACCEPT\nCOMMIT"
    );
    assert!(of_legacy(&behind).is_empty(), "{:?}", of_legacy(&behind));
    let before = format!(
        "{chains}-A INPUT -p tcp -m multiport --dports 22 -j f2b-sshd\n-A INPUT -i lo -j ACCEPT\n-A INPUT -j moat-INPUT\nCOMMIT"
    );
    assert_eq!(
        of_legacy(&before),
        [
            "legacy ip filter INPUT at 0: Deny f2b-sshd fail2ban",
            "legacy ip filter INPUT at 0: AcceptFirst - unknown"
        ]
    );
}

#[test]
fn what_is_forwarded_meets_the_rules_behind_moat_too() {
    assert_eq!(
        of_legacy(
            "*filter\n:FORWARD DROP [0:0]\n:LIBVIRT_FWI - [0:0]\n:moat-FORWARD - [0:0]\n-A FORWARD -j moat-FORWARD\n-A FORWARD -j LIBVIRT_FWI\n\
             -A FORWARD -m mark --mark 0x10000/0x10000 -j ACCEPT\n-A LIBVIRT_FWI -o virbr0 -j REJECT\nCOMMIT"
        ),
        ["legacy ip filter FORWARD at 0: Deny LIBVIRT_FWI libvirt"]
    );
}

#[test]
fn chains_that_lead_to_each_other_are_followed_to_an_end() {
    let loops = "*mangle\n:PREROUTING ACCEPT [0:0]\n:a - [0:0]\n:KUBE-X - [0:0]\n-A PREROUTING -j a\n-A a -j KUBE-X\n-A KUBE-X -j a\n";
    assert!(of_legacy(&format!("{loops}COMMIT")).is_empty());
    assert_eq!(
        of_legacy(&format!(
            "{loops}-A KUBE-X -g a\n-A KUBE-X -m mark --mark 0x8000 -j DROP\nCOMMIT"
        )),
        ["legacy ip mangle PREROUTING at -150: Deny KUBE-X kube-proxy"]
    );
}

#[test]
fn a_chain_without_rules_of_ours_that_denies_at_its_end_is_found() {
    assert_eq!(
        of_legacy(
            "*security\n:FORWARD DROP [0:0]\n:INPUT ACCEPT [0:0]\n-A INPUT -j ACCEPT\nCOMMIT"
        ),
        ["legacy ip security FORWARD at 50: Deny - unknown"]
    );
}

#[test]
fn a_rule_that_sends_a_port_of_this_host_elsewhere_publishes_it() {
    let of = |line| {
        published::of_rule(line).map(|p| {
            let at = p.address.unwrap_or_default();
            format!("{} {at} {} {} {}", p.protocol, p.port, p.to, p.owner)
        })
    };
    let docker =
        "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80";
    assert_eq!(of(docker).unwrap(), "tcp  8080 172.17.0.2:80 Docker");
    let own = "-A PREROUTING -d 192.0.2.1/32 -p udp -m multiport --dports 53,1024:1030 -j DNAT --to-destination 10.0.0.2";
    assert_eq!(
        of(own).unwrap(),
        "udp 192.0.2.1 53,1024:1030 10.0.0.2 unknown"
    );
    for other in [
        "-A OUTPUT -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80",
        "-A KUBE-SEP-X -p tcp -m tcp -j DNAT --to-destination 10.244.1.5:80",
        "-A PREROUTING -p tcp -m tcp ! --dport 80 -j DNAT --to-destination 10.0.0.2",
        "-A DOCKER -i docker0 -j RETURN",
        ":DOCKER - [0:0]",
    ] {
        assert_eq!(of(other), None, "{other}");
    }
}

fn run(program: &str, args: &[&str], input: &str) {
    use std::io::Write;
    let mut child = Command::new(program)
        .args(args)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    assert!(
        child.wait().unwrap().success(),
        "{program} {args:?} refused {input}"
    );
}

/// The real kernel, with tables as the programs make them.
#[test]
fn the_kernel_tells_what_nft_and_the_legacy_tool_have_written() {
    if let Err(e) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
        panic!("this test needs root: {e}");
    }
    assert_eq!(examine().unwrap(), []);
    run(
        "nft",
        &["-f", "-"],
        "table inet firewalld {
            chain filter_IN_public { tcp dport 22 accept; }
            chain filter_INPUT { type filter hook input priority filter + 10; policy accept;
                ct state established accept; goto filter_IN_public; reject; }
            chain filter_OUTPUT { type filter hook output priority filter + 10; policy accept; oifname \"lo\" accept; }
         }
         table ip own {
            map ports { type inet_service : verdict; elements = { 22 : accept } }
            chain in { type filter hook input priority -5; policy accept; tcp dport vmap @ports; }
            chain nothing { type filter hook forward priority 0; policy accept; counter; }
            chain closed { type filter hook forward priority 7; policy drop; }
         }
         table arp other { chain in { type filter hook input priority 0; policy drop; }; }",
    );
    run(
        "iptables-nft-restore",
        &["--noflush"],
        "*filter\n:moat-INPUT - -\n:DOCKER - -\n-A INPUT -s 192.0.2.1 -j DROP\n-A INPUT -j moat-INPUT\n-A INPUT -j DROP\n-A FORWARD -j DOCKER\n\
         -A DOCKER -p tcp -j REJECT\nCOMMIT\n",
    );
    run(
        "ip6tables-legacy-restore",
        &["--noflush"],
        "*raw\n:ufw-x - -\n-A PREROUTING -j ufw-x\n-A ufw-x -j DROP\nCOMMIT\n",
    );
    assert_eq!(
        brief(&examine().unwrap()),
        [
            "legacy ip6 raw PREROUTING at -300: Deny ufw-x ufw",
            "nft ip own in at -5: Deny - unknown",
            "nft ip filter INPUT at 0: Deny - unknown",
            "nft inet firewalld filter_INPUT at 10: Deny - firewalld",
            "nft ip filter FORWARD at 0: Deny DOCKER Docker",
            "nft ip own closed at 7: Deny - unknown",
        ]
    );
    for tool in ["iptables-nft-restore", "ip6tables-legacy-restore"] {
        let to = if tool.starts_with("ip6") {
            "[fd00::2]:80"
        } else {
            "10.0.0.2:80"
        };
        let rule = format!(
            "*nat\n:DOCKER - -\n-A DOCKER -p tcp --dport 8080 -j DNAT --to-destination {to}\nCOMMIT\n"
        );
        run(tool, &["--noflush"], &rule);
    }
    let to: Vec<_> = published().unwrap().into_iter().map(|p| p.to).collect();
    assert_eq!(to, ["10.0.0.2:80", "[fd00::2]:80"]);
}
