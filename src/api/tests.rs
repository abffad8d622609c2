//! What documents turn into. What is refused, and with which words, is in `tests/validation`.

use super::*;

fn only(text: &str) -> Resource {
    let parsed = parse_bytes("f.yaml", text.as_bytes());
    assert!(!parsed.has_errors(), "{:?}", parsed.issues);
    assert_eq!(parsed.resources.len(), 1);
    parsed.resources.into_iter().next().unwrap()
}

fn of_kind(kind: &str, rest: &str) -> Resource {
    only(&format!(
        "apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: a}}\n{rest}"
    ))
}

fn policy(rest: &str) -> Policy {
    match of_kind("GlobalNetworkPolicy", rest).spec {
        Spec::Policy(policy) => Policy::clone(&policy),
        other => panic!("{other:?}"),
    }
}

#[test]
fn policy_defaults() {
    let p = policy("");
    assert_eq!((p.tier.as_str(), p.order), ("default", None));
    assert_eq!(p.selector, crate::selector::Selector::all());
    assert_eq!((p.applies_ingress, p.applies_egress), (true, false));
    assert!(!p.apply_on_forward && !p.do_not_track && !p.pre_dnat);
    let directions = |rest| {
        let p = policy(rest);
        (p.applies_ingress, p.applies_egress)
    };
    assert_eq!(
        directions("spec: {egress: [{action: Deny}]}"),
        (false, true)
    );
    assert_eq!(
        directions("spec: {ingress: [{action: Deny}], egress: [{action: Deny}]}"),
        (true, true)
    );
    assert_eq!(
        directions("spec: {types: [Egress], ingress: [{action: Deny}]}"),
        (false, true)
    );
    assert_eq!(directions("spec: {types: [Egress, Ingress]}"), (true, true));
    assert_eq!(directions("spec: {types: []}"), (true, false));
}

#[test]
fn rules_keep_their_lines_and_values() {
    let text = "spec:\n  order: 10\n  ingress:\n  - action: Allow\n    protocol: 6\n    source:\n      nets: [10.0.0.1]\n    \
                destination:\n      ports: [22, \"80\", 100:200, web]\n  - action: Log\n";
    let p = policy(text);
    assert_eq!(p.order, Some(10.0));
    assert_eq!(
        p.ingress.iter().map(|rule| rule.line).collect::<Vec<_>>(),
        [7, 13]
    );
    let rule = &p.ingress[0];
    assert_eq!(
        (rule.action, rule.protocol),
        (Action::Allow, Some(Protocol::TCP))
    );
    assert_eq!(rule.source.nets, ["10.0.0.1/32".parse().unwrap()]);
    let range = |first, last| Port::Range(PortRange { first, last });
    let ports = [
        range(22, 22),
        range(80, 80),
        range(100, 200),
        Port::Named("web".into()),
    ];
    assert_eq!(rule.destination.ports, ports);
}

#[test]
fn icmp_without_type_means_any() {
    let p =
        policy("spec: {ingress: [{action: Allow, protocol: ICMP, icmp: {}, notICMP: {type: 8}}]}");
    assert_eq!(
        p.ingress[0].icmp,
        Some(Icmp {
            kind: None,
            code: None
        })
    );
    assert_eq!(
        p.ingress[0].not_icmp,
        Some(Icmp {
            kind: Some(8),
            code: None
        })
    );
}

#[test]
fn service_gets_the_namespace_of_its_policy() {
    let text = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: a, namespace: b}\n\
                spec: {egress: [{action: Allow, destination: {services: {name: dns}}}]}";
    let Spec::Policy(p) = only(text).spec else {
        panic!()
    };
    let service = p.egress[0].destination.services.clone().unwrap();
    assert_eq!(
        (service.name.as_str(), service.namespace.as_str()),
        ("dns", "b")
    );
}

#[test]
fn host_endpoint() {
    let r = of_kind(
        "HostEndpoint",
        "spec: {node: n, expectedIPs: [10.0.0.5, 10.0.0.1, 10.0.0.5], profiles: [b, a]}",
    );
    let Spec::HostEndpoint(h) = r.spec else {
        panic!()
    };
    assert_eq!(h.interface_name, "");
    assert_eq!(
        h.expected_ips,
        [
            "10.0.0.1".parse::<std::net::IpAddr>().unwrap(),
            "10.0.0.5".parse().unwrap()
        ]
    );
    assert_eq!(h.profiles, ["b", "a"]);
}

#[test]
fn labels_that_impersonate_are_stripped() {
    let text = "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: a, labels: {role: web, \
                projectcalico.org/namespace: x, projectcalico.org/serviceaccount: x, pcns.a: x, pcsa.b: x}}\n\
                spec: {node: n, interfaceName: eth0}";
    let r = only(text);
    assert_eq!(r.meta.labels.keys().collect::<Vec<_>>(), ["role"]);
    assert_eq!(
        r.raw.value()["metadata"]["labels"]
            .as_object()
            .unwrap()
            .len(),
        5
    );
}

#[test]
fn sets_are_masked_and_sorted() {
    let r = of_kind(
        "GlobalNetworkSet",
        "spec: {nets: [10.9.9.9/8, \"2001:db8::1/32\", 10.0.0.0/8, 1.2.3.4]}",
    );
    let Spec::NetworkSet(set) = r.spec else {
        panic!()
    };
    let nets: Vec<String> = set.nets.iter().map(ToString::to_string).collect();
    assert_eq!(nets, ["1.2.3.4/32", "10.0.0.0/8", "2001:db8::/32"]);
}

#[test]
fn tiers() {
    let tier = |rest| match of_kind("Tier", rest).spec {
        Spec::Tier(tier) => tier,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        tier(""),
        Tier {
            order: 1_000_000.0,
            default_pass: false
        }
    );
    assert_eq!(
        tier("spec: {order: -2.5, defaultAction: Pass}"),
        Tier {
            order: -2.5,
            default_pass: true
        }
    );
}

#[test]
fn staged_policies_are_calculated_only_when_set() {
    let staged = |rest| match of_kind("StagedGlobalNetworkPolicy", rest).spec {
        Spec::Staged(action, policy) => (action, policy.is_some()),
        other => panic!("{other:?}"),
    };
    assert_eq!(staged(""), (StagedAction::Set, true));
    assert_eq!(
        staged("spec: {stagedAction: Learn}"),
        (StagedAction::Learn, false)
    );
    assert_eq!(
        staged("spec: {stagedAction: Delete}"),
        (StagedAction::Delete, false)
    );
}

#[test]
fn felix_fields_are_kept_as_written() {
    let r = of_kind(
        "FelixConfiguration",
        "spec: {nodeSelector: has(x), iptablesRefreshInterval: 90s, ipv6Support: false}",
    );
    let Spec::FelixConfiguration(felix) = r.spec else {
        panic!()
    };
    let expected = [
        ("ipv6Support", serde_json::json!(false)),
        ("iptablesRefreshInterval", serde_json::json!("90s")),
    ];
    assert_eq!(
        felix.fields,
        expected
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    );
    assert!(felix.node_selector.is_some());
}

#[test]
fn origin_is_the_line_of_the_document_or_item() {
    let text = "# head\n---\napiVersion: projectcalico.org/v3\nkind: TierList\nitems:\n- metadata: {name: a}\n\n- metadata: {name: b}\n";
    let lines: Vec<String> = parse_bytes("d/f", text.as_bytes())
        .resources
        .iter()
        .map(|r| r.origin.to_string())
        .collect();
    assert_eq!(lines, ["d/f:6", "d/f:8"]);
}

#[test]
fn same_content_sees_values_and_places() {
    let a = of_kind("Tier", "spec: {order: 1}");
    let b = of_kind("Tier", "spec: {order: 2}");
    assert!(a.same_content(&a.clone()));
    assert!(!a.same_content(&b));
    let moved = Resource {
        origin: Origin {
            file: "g".into(),
            line: 1,
        },
        ..a.clone()
    };
    assert!(!a.same_content(&moved));
}

#[test]
fn same_content_does_not_mind_the_order_of_fields() {
    let a = of_kind("GlobalNetworkSet", "spec: {nets: [1.1.1.1, 2.2.2.2]}");
    let reordered = only(
        "spec: {nets: [1.1.1.1, 2.2.2.2]}\nmetadata: {name: a}\nkind: GlobalNetworkSet\napiVersion: projectcalico.org/v3\n",
    );
    let other = of_kind("GlobalNetworkSet", "spec: {nets: [2.2.2.2, 1.1.1.1]}");
    let as_in_a = |r: Resource| Resource {
        origin: a.origin.clone(),
        ..r
    };
    assert_ne!(a.raw, reordered.raw);
    assert!(a.same_content(&as_in_a(reordered)));
    assert!(!a.same_content(&as_in_a(other)));
}

#[test]
fn documents_are_compact_json() {
    let text = "{apiVersion: projectcalico.org/v3, kind: IPAMHandle, metadata: {name: a},\n\
                spec: {handleID: \"q\\\"\\n\\u0001ü\", block: {a: 0x1F}}}";
    let document = only(text).raw;
    assert!(
        document
            .text()
            .ends_with(r#""spec":{"handleID":"q\"\n\u0001ü","block":{"a":31}}}"#)
    );
    assert_eq!(Document::from(&document.value()), document);
    let embedded = serde_json::to_string(&document).unwrap();
    assert_eq!(embedded, document.text());
    assert_eq!(
        serde_json::from_str::<Document>(&embedded).unwrap(),
        document
    );
}

/// Names and lines of all resources that were given out, how many count, and the first issue.
fn each(text: &str) -> (String, usize, String) {
    let mut given = Vec::new();
    let outcome = parse_each("f", text.as_bytes(), &mut |r| {
        given.push(format!("{}:{}", r.id.name, r.origin.line));
    });
    let issue = outcome.issues.first().map(ToString::to_string);
    (given.join(" "), outcome.valid, issue.unwrap_or_default())
}

#[test]
fn items_of_lists_are_given_out_one_by_one() {
    let item = |name: &str| {
        format!("- apiVersion: projectcalico.org/v3\n  kind: Tier\n  metadata: {{name: {name}}}\n")
    };
    let items = format!("items:\n{}{}", item("a"), item("b"));
    let broken = format!("{items}- {{x: 1, x: 2}}\n");
    let head = "apiVersion: v1\nkind: List\n";
    assert_eq!(
        each(&format!("{head}{items}")),
        ("a:4 b:7".into(), 2, "".into())
    );
    assert_eq!(
        each(&format!("{items}{head}")),
        ("a:2 b:5".into(), 2, "".into())
    );
    assert_eq!(each(&items[7..]), ("a:1 b:4".into(), 2, "".into()));
    // As calicoctl and kubectl print lists.
    let foot = "kind: List\nmetadata:\n  resourceVersion: \"7\"\n";
    assert_eq!(
        each(&format!("apiVersion: v1\n{items}{foot}---\n{}", item("c"))),
        ("a:3 b:6 c:13".into(), 3, "".into())
    );
    let twice = "key `x` is given twice in the same mapping (keep one of the two)";
    assert_eq!(
        each(&format!("{head}{broken}")),
        ("a:4 b:7".into(), 0, format!("f:10:10: error: {twice}"))
    );
    assert_eq!(
        each(&format!("{}---\n{head}{broken}", item("c"))),
        ("c:1 a:8 b:11".into(), 1, format!("f:14:10: error: {twice}"))
    );
    // What looks like the kind from above the items goes on below.
    let (_, valid, issue) = each(&format!("{items}kind: List\n  of things\n"));
    let rule = "cannot be read before the kind of the list (put `kind` above `items`)";
    assert_eq!((valid, issue), (0, format!("f:2:3: error: {rule}")));
}

#[test]
fn items_of_json_are_given_out_one_by_one() {
    let item = |name: &str| {
        format!(
            "{{\"apiVersion\": \"projectcalico.org/v3\", \"kind\": \"Tier\", \"metadata\": {{\"name\": \"{name}\"}}}}"
        )
    };
    let items = format!("\"items\": [\n{},\n{}", item("a"), item("b"));
    let head = "\"apiVersion\": \"v1\", \"kind\": \"List\"";
    let good = ("a:2 b:3".into(), 2, "".into());
    assert_eq!(each(&format!("{{{head}, {items}]}}")), good);
    assert_eq!(each(&format!("{{{items}], {head}}}")), good);
    assert_eq!(
        each(&format!("{{{items}, {{\"x\": 1, \"x\": 2}}], {head}}}")).1,
        0
    );
    assert_eq!(each(&format!("{{{head}, {items}]")).1, 0);
    assert_eq!(
        each(&format!("{{{items}], \"kind\": \"List\", \"foo\": 1}}")).2,
        "f:1:1: error: apiVersion: is required"
    );
    assert_eq!(
        each(&format!("{{{items}], {head}, \"foo\": 1}}")).2,
        "f:3:121: error: foo: unknown field `foo`"
    );
}

#[test]
fn stored_json_that_is_wrong_is_refused() {
    let origin = Origin {
        file: "key".into(),
        line: 0,
    };
    let raw = serde_json::json!({"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": "A"}});
    let issues = parse_document(&Document::from(&raw), &origin, &RuleLines::default()).unwrap_err();
    assert!(
        issues[0]
            .to_string()
            .starts_with("key: error: Tier/A: metadata.name: `A`: must be"),
        "{}",
        issues[0]
    );
}

#[test]
fn a_newer_calico_may_have_stored_more_settings() {
    let text = r#"{"apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration", "metadata": {"name": "default"},
        "spec": {"logPrefix": "x", "logPrefixes": 1}}"#;
    let says = "FelixConfiguration/default: spec.logPrefixes: unknown field `logPrefixes`";
    let written = parse_bytes("key", text.as_bytes());
    assert!(written.resources.is_empty());
    assert!(
        written.issues[0]
            .to_string()
            .contains(&format!("error: {says} (did you mean"))
    );
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    let stored = parse_value(&"key".into(), &Document::from(&value));
    assert_eq!(stored.resources.len(), 1);
    assert!(
        stored.issues[0]
            .to_string()
            .contains(&format!("warning: {says}: it has no effect here"))
    );
    let policy = text.replace("FelixConfiguration", "Tier");
    let value: serde_json::Value = serde_json::from_str(&policy).unwrap();
    assert!(parse_value(&"key".into(), &Document::from(&value)).has_errors());
}

#[test]
fn scalars_of_the_core_schema() {
    let (documents, error) = yaml::documents(
        b"[~, null, true, False, 0x1F, 0o17, -12, +3, 1.5, 1e3, .5, -.inf, yes, 0b1, 1_000, 12:30, '1', !!str 1, 1., '']",
    );
    assert_eq!(error, None);
    let expected = serde_json::json!([
        null, null, true, false, 31, 15, -12, 3, 1.5, 1000.0, 0.5, "-.inf", "yes", "0b1", "1_000",
        "12:30", "1", "1", 1.0, ""
    ]);
    assert_eq!(serde_json::to_value(&documents[0]).unwrap(), expected);
}

#[test]
fn issues_in_json() {
    let issues = parse_bytes(
        "f",
        b"apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: A}\n",
    )
    .issues;
    let json = serde_json::to_value(&issues[0]).unwrap();
    assert_eq!(json["severity"], "error");
    assert_eq!(json["object"], "Tier/A");
    assert_eq!((&json["line"], &json["column"]), (&3.into(), &18.into()));
}
