//! Every example of facts 2, and properties on random selectors.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Restriction, Selector};

fn sel(text: &str) -> Selector {
    Selector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}\n{}", e.caret(text)))
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect()
}

#[test]
fn canonical_text() {
    for (text, canonical) in [
        ("", "all()"),
        (" \t", "all()"),
        ("all( )", "all()"),
        ("global()", "global()"),
        ("has( foo )", "has(foo)"),
        ("has == 'x'", "has == \"x\""),
        ("in in {'b','a','b',}", "in in {\"a\", \"b\"}"),
        ("a notin{}", "a not in {}"),
        ("a not \t in {'x'}", "a not in {\"x\"}"),
        ("a startswith 'x'", "a starts with \"x\""),
        ("a ends  with'x'", "a ends with \"x\""),
        ("a contains\"b\"", "a contains \"b\""),
        ("a=='say \"hi\"'", "a == 'say \"hi\"'"),
        ("a==\"it's\"", "a == \"it's\""),
        ("a == ''", "a == \"\""),
        ("!! !has(a)", "!has(a)"),
        ("!(!has(a))", "has(a)"),
        ("! ! has(a)", "has(a)"),
        ("has(a)&&has(b)||has(c)", "((has(a) && has(b)) || has(c))"),
        (
            "(has(a) && has(b)) && has(c)",
            "((has(a) && has(b)) && has(c))",
        ),
        (
            "has(a) && (has(b) || !has(c))",
            "(has(a) && (has(b) || !has(c)))",
        ),
        ("((a == 'b'))", "a == \"b\""),
        ("has(foo/bar.baz-q_1)", "has(foo/bar.baz-q_1)"),
        ("1./-_ == 'x'", "1./-_ == \"x\""),
    ] {
        assert_eq!(sel(text).canonical(), canonical, "{text}");
    }
}

#[test]
fn unique_ids() {
    for (text, uid) in [
        ("all()", "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"),
        (
            "!(has(b) || !has(a))",
            "s:Iss0uCleLYv1GSv_pNm7hAO58kE9jAx1NKyG3Q",
        ),
        (
            "!(a == \"b\" && !c != \"d\")",
            "s:lh3haoY1ikTRkd4UZu0nWSaIBknYLPJLX16d-w",
        ),
    ] {
        assert_eq!(sel(text).uid(), uid, "{text}");
    }
}

#[test]
fn rejects() {
    for (text, offset, message) in [
        ("b == b", 5, "expected string"),
        ("b contains b", 11, "expected string"),
        ("b starts with b", 14, "expected string"),
        ("'b1' == b", 0, "expected a label"),
        ("a", 1, "unexpected end of string looking for op"),
        ("a ", 2, "unexpected end of string looking for op"),
        ("a b", 2, "expected operator after label \"a\""),
        ("a inb {'x'}", 2, "expected operator after label \"a\""),
        ("a starts {'x'}", 2, "expected operator after label \"a\""),
        ("has (foo)", 4, "expected operator after label \"has\""),
        ("!", 1, "unexpected end of string"),
        ("a = 'x'", 2, "expected =="),
        ("a == \"b\" &", 9, "expected &&"),
        ("a |", 2, "expected ||"),
        ("foo != ||", 7, "expected string"),
        ("foo in \"\"", 7, "expected set literal"),
        ("foo in {\"\", ||", 12, "expected }"),
        ("foo in {,}", 8, "expected }"),
        ("foo == \"x'", 7, "unterminated string"),
        ("(has(a)", 7, "expected )"),
        ("has(a))", 6, "unexpected content at end of selector"),
        ("all() all()", 6, "unexpected content at end of selector"),
        (")", 0, "expected a label"),
        ("()", 1, "expected a label"),
        ("has()", 4, "expected label"),
        ("all(x)", 4, "expected )"),
        ("%", 0, "unexpected character '%'"),
        ("a == \"b\" && %", 12, "unexpected character '%'"),
        ("has(foo) &&", 11, "unexpected end of string"),
        ("|| has(a)", 0, "expected a label"),
        ("has(a)\n&& has(b)", 6, "unexpected character '\\n'"),
        ("größe == 'x'", 2, "expected operator after label \"gr\""),
    ] {
        let error = Selector::parse(text).expect_err(text);
        assert!(error.message.starts_with(message), "{text}: {error}");
        assert_eq!(error.offset, offset, "{text}: {error}");
    }
}

#[test]
fn bounded() {
    let nested = |n: usize| format!("{}has(a){}", "(".repeat(n), ")".repeat(n));
    assert!(Selector::parse(&nested(64)).is_ok());
    assert!(
        Selector::parse(&nested(65))
            .unwrap_err()
            .message
            .contains("nested too deeply")
    );
    assert!(Selector::parse(&nested(1_000_000)).is_err());
    assert_eq!(
        sel(&format!("{}has(a)", "!".repeat(100_001))).canonical(),
        "!has(a)"
    );
    assert!(Selector::parse(&format!("has({})", "x".repeat(512))).is_ok());
    let error = Selector::parse(&format!("has({})", "x".repeat(513))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "label name of 513 characters, at most 512 are allowed"
    );
}

#[test]
fn carets() {
    let draw = |text: &str| Selector::parse(text).unwrap_err().caret(text);
    assert_eq!(draw("b == b"), "b == b\n     ^");
    assert_eq!(draw("a"), "a\n ^");
    assert_eq!(draw("a == 'é' && %"), "a == 'é' && %\n            ^");
    let long = format!("{} %{}", "has(a) &&".repeat(20), "x".repeat(100));
    let drawn = draw(&long);
    let (text, caret) = drawn.split_once('\n').unwrap();
    assert_eq!(text.as_bytes()[caret.len() - 1], b'%');
    assert!(text.starts_with("...") && text.ends_with("...") && text.len() < 130);
}

#[test]
fn evaluation() {
    let x = labels(&[("a", "xyz")]);
    for (text, present, absent) in [
        ("a == 'xyz'", true, false),
        ("a == 'xy'", false, false),
        ("a != 'xyz'", false, true),
        ("a != 'q'", true, true),
        ("a in {'q', 'xyz'}", true, false),
        ("a in {'q'}", false, false),
        ("a in {}", false, false),
        ("a not in {'q', 'xyz'}", false, true),
        ("a not in {'q'}", true, true),
        ("a not in {}", true, true),
        ("a contains 'y'", true, false),
        ("a contains 'Y'", false, false),
        ("a contains ''", true, false),
        ("a starts with 'xy'", true, false),
        ("a starts with 'y'", false, false),
        ("a ends with 'yz'", true, false),
        ("a ends with 'y'", false, false),
        ("has(a)", true, false),
        ("!has(a)", false, true),
        ("all()", true, true),
        ("!all()", false, false),
        ("global()", true, true),
        ("has(a) && a == 'q'", false, false),
        ("has(a) || has(b)", true, false),
        ("has(b) || !has(a) && all()", false, true),
    ] {
        assert_eq!(sel(text).matches(&x), present, "{text} when present");
        assert_eq!(
            sel(text).matches(&labels(&[])),
            absent,
            "{text} when absent"
        );
    }
}

#[test]
fn restrictions() {
    let one_of = |values: &[&str]| {
        Restriction::OneOf(
            values
                .iter()
                .map(|v| v.to_string())
                .collect::<BTreeSet<_>>(),
        )
    };
    let cases: [(&str, Vec<(&str, Restriction)>); 15] = [
        ("all()", vec![]),
        ("a == 'x'", vec![("a", one_of(&["x"]))]),
        ("a != 'x'", vec![]),
        ("!(a != 'x')", vec![("a", one_of(&["x"]))]),
        ("a in {'x','y'}", vec![("a", one_of(&["x", "y"]))]),
        ("a not in {'x'}", vec![]),
        ("a contains 'x'", vec![("a", Restriction::Present)]),
        ("!a starts with 'x'", vec![]),
        (
            "has(a) && !has(b)",
            vec![("a", Restriction::Present), ("b", Restriction::Absent)],
        ),
        (
            "has(a) && a in {'x','y'} && a != 'q'",
            vec![("a", one_of(&["x", "y"]))],
        ),
        (
            "a == 'x' || a == 'y' && has(b)",
            vec![("a", one_of(&["x", "y"]))],
        ),
        ("a == 'x' || has(a)", vec![("a", Restriction::Present)]),
        ("a == 'x' || !has(a)", vec![]),
        ("!(has(a) || a == 'x')", vec![("a", Restriction::Absent)]),
        ("a in {} || has(b)", vec![("b", Restriction::Present)]),
    ];
    for (text, expected) in cases {
        let expected = expected
            .into_iter()
            .map(|(k, v)| (k.to_string(), v))
            .collect();
        assert_eq!(sel(text).restrictions(), expected, "{text}");
    }
}

#[test]
fn contradictions() {
    for text in [
        "a in {}",
        "!all()",
        "has(a) && !has(a)",
        "a == 'x' && a == 'y'",
        "a in {} || b == 'x' && !has(b)",
        "!(has(a) || all())",
    ] {
        assert!(sel(text).never_matches(), "{text}");
    }
    for text in [
        "all()",
        "a not in {}",
        "a in {} || has(a)",
        "a == 'x' && b == 'y'",
    ] {
        assert!(!sel(text).never_matches(), "{text}");
    }
}

#[test]
fn rewriting() {
    let namespace = "projectcalico.org/namespace";
    let ns = sel("!all() || global() && color in {'red'}").prefix_labels("pcns.");
    assert_eq!(
        ns.canonical(),
        "(!all() || (global() && pcns.color in {\"red\"}))"
    );
    assert!(ns.has_global() && !ns.is_global() && sel("global()").is_global());
    let has = Selector::has(namespace);
    assert_eq!(sel("all()").replace_all(&has), has);
    assert!(sel("").is_all() && !has.is_all());
    assert_eq!(sel("!global()").replace_global(&has.not()), has);
    assert_eq!(
        Selector::eq(namespace, "prod")
            .and(&sel("has(a) && has(b)"))
            .canonical(),
        "(projectcalico.org/namespace == \"prod\" && (has(a) && has(b)))"
    );
    assert_eq!(has.not().not(), has);
    let names = ["b", "a", "b"].map(String::from);
    assert_eq!(
        Selector::in_set("n", names).canonical(),
        "n in {\"a\", \"b\"}"
    );
    assert_eq!(Selector::eq("n", "'\"").canonical(), "n in {}");
}

#[test]
fn serde_round_trip() {
    let deep = sel(&format!(
        "{}has(a) || has({}){}",
        "(has(a) && ".repeat(64),
        "x".repeat(512),
        ")".repeat(64)
    ));
    let wrapped = deep.prefix_labels("pcns.").and(&deep).not();
    let text = serde_json::to_string(&wrapped).unwrap();
    assert_eq!(serde_json::from_str::<Selector>(&text).unwrap(), wrapped);
    assert!(serde_json::from_str::<Selector>("\"a\"").is_err());
}

/// Selectors over three labels and three values, with odd spelling.
fn any_selector() -> impl Strategy<Value = String> {
    let label = "[abc]";
    let value = prop_oneof!["'[xy]?'", "\"[xy]?\"", Just("'\"'".to_string())];
    let set = prop::collection::vec(value.clone(), 0..4).prop_map(|v| v.join(" ,"));
    let op = prop::sample::select(vec![
        "==",
        " !=",
        " contains",
        " startswith ",
        " ends  with",
    ]);
    let leaf = prop_oneof![
        Just("all( )".to_string()),
        Just("global()".to_string()),
        label.prop_map(|l| format!("has( {l})")),
        (label, op, value).prop_map(|(l, o, v)| format!("{l}{o}{v}")),
        (label, any::<bool>(), set)
            .prop_map(|(l, p, s)| format!("{l} {}in{{{s}}}", if p { "" } else { "not " })),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let many = prop::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            inner.clone().prop_map(|s| format!("! {s}")),
            inner.prop_map(|s| format!("( {s} )")),
            many.clone().prop_map(|s| s.join("&&")),
            many.prop_map(|s| s.join(" || ")),
        ]
    })
}

fn any_labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map("[abc]", "[xy]{0,2}", 0..3)
}

proptest! {
    #[test]
    fn canonical_text_parses_to_itself(text in any_selector()) {
        let selector = sel(&text);
        prop_assert_eq!(&sel(selector.canonical()).0.node, &selector.0.node);
        for other in [selector.not(), selector.and(&selector), selector.replace_all(&selector.not())] {
            prop_assert_eq!(&sel(other.canonical()).0.node, &other.0.node);
        }
    }

    #[test]
    fn restrictions_are_sound(text in any_selector(), labels in any_labels()) {
        let selector = sel(&text);
        prop_assert_eq!(selector.not().matches(&labels), !selector.matches(&labels));
        let holds = selector.restrictions().into_iter().all(|(label, restriction)| {
            let value = labels.get(&label);
            match restriction {
                Restriction::Present => value.is_some(),
                Restriction::Absent => value.is_none(),
                Restriction::OneOf(values) => value.is_some_and(|v| values.contains(v)),
            }
        });
        if selector.matches(&labels) {
            prop_assert!(!selector.never_matches() && holds, "{:?}", labels);
        } else if selector.is_plain() {
            prop_assert!(selector.never_matches() || !holds, "{:?}", labels);
        }
    }

    #[test]
    fn random_text_never_panics(text in "\\PC*", near in "[ab(){}!=&|,'\" \thasinol]*") {
        for text in [text, near] {
            if let Err(error) = Selector::parse(&text) {
                prop_assert!(error.offset <= text.len());
                let drawn = error.caret(&text);
                prop_assert_eq!(drawn.lines().count(), 2);
            }
        }
    }
}
