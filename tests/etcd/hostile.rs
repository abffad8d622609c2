//! Values as large as etcd takes them, and such as nobody should write: each costs bounded memory, and takes nothing away.

use crate::host::wait_until;
use crate::scale::memory;
use crate::{Site, policy};

/// What a daemon may need for any of them beside what it needs anyway.
const MOST_MB: u64 = 160;

fn set(nets: usize) -> String {
    let net = |i: usize| {
        format!(
            "\"10.{}.{}.{}/32\"",
            64 + i / 65_536,
            i / 256 % 256,
            i % 256
        )
    };
    let nets: Vec<String> = (0..nets).map(net).collect();
    format!(
        r#"{{"kind":"GlobalNetworkSet","apiVersion":"projectcalico.org/v3","metadata":{{"name":"long","labels":{{"app":"long"}}}},"spec":{{"nets":[{}]}}}}"#,
        nets.join(",")
    )
}

#[test]
fn a_value_of_the_usual_limit_is_enforced() {
    let site = Site::filled();
    let daemon = site.host.start();
    site.wait_port(4001, &daemon);
    let value = set(85_000);
    assert!(
        value.len() > 1_400_000 && value.len() < 3 << 19,
        "{}",
        value.len()
    );
    site.etcd
        .put_long("globalnetworksets/long", value.as_bytes());
    let asks =
        policy("asks", 4002).replace(r#""nets":["10.0.0.0/8"]"#, r#""selector":"app == 'long'""#);
    site.etcd.put("globalnetworkpolicies/asks", &asks);
    site.wait_port(4002, &daemon);
    let members = || {
        site.host
            .sets()
            .iter()
            .filter(|line| line.starts_with("add "))
            .count()
    };
    wait_until(|| members() >= 85_000, || daemon.log());
    assert!(memory(&daemon).0 < MOST_MB, "{:?}", memory(&daemon));
}

#[test]
fn hostile_values_cost_bounded_memory_and_take_nothing_away() {
    let site = Site::filled();
    let mut daemon = site.host.start();
    site.wait_port(4001, &daemon);
    let nested = |open: &str, close: &str, depth: usize| open.repeat(depth) + &close.repeat(depth);
    let many = format!(
        "{{{}}}",
        (0..100_000)
            .map(|n| format!("\"f{n}\":[{{}}]"))
            .collect::<Vec<_>>()
            .join(",")
    );
    let long_name = policy(&"n".repeat(1_000_000), 4002);
    let rules = policy("web", 4002).replace(
        r#""ingress":["#,
        &format!(r#""ingress":[{}"#, r#"{"action":"Deny"},"#.repeat(70_000)),
    );
    let selector = policy("web", 4002).replace(
        r#""selector":""#,
        &format!(r#""selector":"{}"#, "(".repeat(500_000)),
    );
    let values = [
        nested("[", "]", 700_000),
        nested("{\"a\":", "}", 200_000),
        many,
        long_name,
        rules,
        selector,
        format!("1{}", "0".repeat(1_400_000)),
        "\u{0}".repeat(1_400_000),
        // More than is read at all.
        " ".repeat(17 << 20),
    ];
    for (number, value) in values.iter().enumerate() {
        site.etcd
            .put_long("globalnetworkpolicies/web", value.as_bytes());
        // What was written after it is in force: it was looked at.
        let mark = 4100 + number as u16;
        site.etcd
            .put("globalnetworkpolicies/mark", &policy("mark", mark));
        site.wait_port(mark, &daemon);
        site.wait_problem("globalnetworkpolicies/web");
        assert!(site.has(4001), "{number}");
        assert!(
            memory(&daemon).0 < MOST_MB,
            "{number}: {:?}",
            memory(&daemon)
        );
    }
    // Also where it is listed: the other resources count.
    daemon.stop();
    daemon = site.host.start();
    site.wait_problem("is too large to be read");
    site.etcd
        .put("globalnetworkpolicies/more", &policy("more", 4004));
    site.wait_port(4004, &daemon);
    assert!(site.has(4001));
    assert!(memory(&daemon).0 < MOST_MB, "{:?}", memory(&daemon));
    site.etcd
        .put("globalnetworkpolicies/web", &policy("web", 4005));
    site.wait_port(4005, &daemon);
    assert_eq!(site.problems(), "[]");
}
