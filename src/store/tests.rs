use serde_json::json;

use super::*;
use crate::api;
use crate::source::FileContent;

/// A document per `name=cidr`; the name `Bad_Name` makes an invalid object.
fn text(sets: &[&str]) -> String {
    let document = |set: &&str| {
        let (name, net) = set.split_once('=').unwrap_or((set, "10.0.0.0/8"));
        json!({
            "apiVersion": "projectcalico.org/v3",
            "kind": "GlobalNetworkSet",
            "metadata": {"name": name},
            "spec": {"nets": [net]},
        })
        .to_string()
    };
    sets.iter()
        .map(document)
        .collect::<Vec<_>>()
        .join("\n---\n")
}

fn file(path: &str, text: &str) -> FileUpdate {
    let content = FileContent::Parsed(api::parse_bytes(path, text.as_bytes()));
    FileUpdate {
        path: path.to_owned(),
        content,
    }
}

fn sets(path: &str, names: &[&str]) -> FileUpdate {
    file(path, &text(names))
}

fn gone(path: &str) -> FileUpdate {
    FileUpdate {
        path: path.to_owned(),
        content: FileContent::Removed,
    }
}

fn unreadable(path: &str) -> FileUpdate {
    let issue = Issue {
        severity: Severity::Error,
        file: path.to_owned(),
        line: 0,
        column: 0,
        object: None,
        path: String::new(),
        value: None,
        message: "cannot be read".to_owned(),
        help: None,
    };
    FileUpdate {
        path: path.to_owned(),
        content: FileContent::Unreadable(issue),
    }
}

/// `+name` and `-name` of what an update changed.
fn told(changes: &Changes) -> String {
    let upserted = changes.upserted.iter().map(|r| format!("+{}", r.id.name));
    let deleted = changes.deleted.iter().map(|id| format!("-{}", id.name));
    upserted.chain(deleted).collect::<Vec<_>>().join(" ")
}

/// `name=net@file` of everything in force.
fn view(store: &Store) -> String {
    let one = |r: &Resource| {
        let raw = r.raw.value();
        let net = raw["spec"]["nets"][0].as_str().unwrap_or_default();
        format!("{}={net}@{}", r.id.name, r.origin.file)
    };
    store.resources().map(one).collect::<Vec<_>>().join(" ")
}

struct Bed(Store);

impl Bed {
    fn new() -> Bed {
        Bed(Store::new())
    }

    fn apply(&mut self, updates: Vec<FileUpdate>) -> String {
        told(&self.0.apply("dir", updates))
    }

    fn problems(&self) -> usize {
        self.0.problems().len()
    }
}

#[test]
fn tells_only_real_differences() {
    let mut bed = Bed::new();
    assert_eq!(
        bed.apply(vec![sets("a", &["x", "y"]), sets("b", &["z"])]),
        "+x +y +z"
    );
    assert_eq!(bed.0.revision(), 1);
    assert_eq!(bed.apply(vec![sets("a", &["x", "y"])]), "");
    assert_eq!(
        bed.apply(vec![sets("a", &["x", "y", "w"])]),
        "+w",
        "the others are as before"
    );
    assert_eq!(
        bed.apply(vec![gone("a"), sets("c", &["x", "y"])]),
        "+x +y -w",
        "at another place, but never away"
    );
    assert_eq!(bed.apply(vec![sets("c", &["x=10.1.0.0/16"])]), "+x -y");
    assert_eq!(bed.apply(vec![gone("c"), gone("never-there")]), "-x");
    assert_eq!(view(&bed.0), "z=10.0.0.0/8@b");
    assert_eq!(bed.problems(), 0);
    assert_eq!(bed.0.revision(), 5);
}

#[test]
fn a_file_with_an_error_keeps_all_it_held() {
    let mut bed = Bed::new();
    bed.apply(vec![sets("a", &["x", "y"])]);
    for broken in [
        sets("a", &["x=10.9.0.0/16", "Bad_Name", "new"]),
        file("a", "{ not closed"),
        unreadable("a"),
    ] {
        assert_eq!(bed.apply(vec![broken]), "");
        assert_eq!(view(&bed.0), "x=10.0.0.0/8@a y=10.0.0.0/8@a");
        assert!(bed.problems() > 0);
        assert_eq!(bed.0.outdated().collect::<Vec<_>>(), ["a"]);
    }
    assert_eq!(bed.apply(vec![sets("a", &["x=10.9.0.0/16"])]), "+x -y");
    assert_eq!(bed.problems(), 0);
    assert_eq!(bed.0.outdated().count(), 0);
}

#[test]
fn a_first_load_with_errors_uses_what_is_valid() {
    let mut bed = Bed::new();
    assert_eq!(bed.apply(vec![file("a", "{ not closed")]), "");
    assert_eq!(bed.apply(vec![sets("a", &["x", "Bad_Name"])]), "+x");
    assert!(bed.problems() > 0);
    assert_eq!(
        bed.apply(vec![sets("a", &["Bad_Name"])]),
        "",
        "from then on it is held"
    );
    assert_eq!(bed.apply(vec![sets("a", &["y"])]), "+y -x");
    assert_eq!(bed.problems(), 0);
}

#[test]
fn an_empty_file_is_good_content() {
    let mut bed = Bed::new();
    bed.apply(vec![sets("a", &["x"])]);
    assert_eq!(bed.apply(vec![file("a", "")]), "-x");
    assert_eq!(bed.apply(vec![sets("a", &["x", "Bad_Name"])]), "");
}

#[test]
fn the_first_path_owns_an_object_and_the_next_takes_over() {
    let mut bed = Bed::new();
    assert_eq!(bed.apply(vec![sets("b", &["x=10.2.0.0/16"])]), "+x");
    assert_eq!(bed.apply(vec![sets("c", &["x=10.3.0.0/16"])]), "");
    let said: Vec<String> = bed
        .0
        .problems()
        .iter()
        .map(|i| format!("{} {}", i.file, i.message))
        .collect();
    assert_eq!(said, ["c is also in b:1, which is the one in force"]);
    assert_eq!(bed.apply(vec![sets("a", &["x=10.1.0.0/16"])]), "+x");
    assert_eq!(view(&bed.0), "x=10.1.0.0/16@a");
    assert_eq!(bed.problems(), 2);
    assert_eq!(bed.apply(vec![gone("b")]), "");
    assert_eq!(bed.apply(vec![gone("a")]), "+x");
    assert_eq!(view(&bed.0), "x=10.3.0.0/16@c");
    assert_eq!(bed.problems(), 0);
}

#[test]
fn sources_do_not_mix() {
    let mut store = Store::new();
    store.apply("dir", vec![sets("a", &["x"])]);
    assert_eq!(told(&store.apply("etcd", vec![gone("a")])), "");
    assert_eq!(told(&store.apply("etcd", vec![sets("a", &["y"])])), "+y");
    assert_eq!(told(&store.apply("dir", vec![gone("a")])), "-x");
}

#[test]
fn a_problem_of_a_directory_comes_and_goes() {
    let mut bed = Bed::new();
    bed.apply(vec![unreadable("/d"), sets("a", &["x"])]);
    assert_eq!(bed.problems(), 1);
    assert_eq!(
        bed.0.outdated().count(),
        0,
        "nothing is held under that name"
    );
    assert_eq!(bed.apply(vec![gone("/d")]), "");
    assert_eq!(bed.problems(), 0);
}

fn reborn(store: &Store) -> Store {
    let json = serde_json::to_string(&store.saved()).unwrap();
    let mut reborn = Store::new();
    reborn.seed(serde_json::from_str(&json).unwrap());
    reborn
}

#[test]
fn a_seed_stays_until_the_source_speaks() {
    let mut bed = Bed::new();
    bed.apply(vec![
        sets("a", &["x"]),
        sets("b", &["y"]),
        sets("c", &["z", "Bad_Name"]),
    ]);
    bed.apply(vec![file("b", "{ not closed")]);
    let mut store = reborn(&bed.0);
    assert_eq!(view(&store), view(&bed.0));
    assert_eq!(store.paths("dir").collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(store.unconfirmed().count(), 3);
    let scan = vec![sets("a", &["x"]), file("b", "{ not closed"), gone("c")];
    assert_eq!(told(&store.apply("dir", scan)), "-z");
    assert_eq!(
        store.unconfirmed().collect::<Vec<_>>(),
        ["b"],
        "its content is the snapshot's still"
    );
    assert_eq!(view(&store), "x=10.0.0.0/8@a y=10.0.0.0/8@b");
}

#[test]
fn a_seed_is_validated_again_and_never_overrides_a_source() {
    let mut bed = Bed::new();
    bed.apply(vec![sets("a", &["x", "y"]), sets("b", &["z"])]);
    let mut saved = bed.0.saved();
    saved.files[0].objects[1].raw = api::Document::from(&json!({"kind": "Nonsense"}));
    let mut store = Store::new();
    store.apply("dir", vec![sets("b", &["z=10.7.0.0/16"])]);
    assert_eq!(told(&store.seed(saved)), "+x");
    assert_eq!(view(&store), "x=10.0.0.0/8@a z=10.7.0.0/16@b");
    assert!(!store.problems().is_empty());
    store.apply("dir", vec![sets("a", &["x", "y"])]);
    assert!(store.problems().is_empty());
}

mod random {
    use proptest::prelude::*;

    use super::*;

    const PATHS: [&str; 3] = ["a", "b", "c"];
    const NAMES: [&str; 3] = ["x", "y", "z"];

    fn good_file() -> impl Strategy<Value = FileSpec> {
        let set = (0..3usize, 0..2u8).prop_map(|(n, net)| format!("{}=10.{net}.0.0/16", NAMES[n]));
        prop::collection::btree_map(0..3usize, set, 0..3)
            .prop_map(|m| FileSpec(m.into_values().collect()))
    }

    #[derive(Clone, Debug)]
    struct FileSpec(Vec<String>);

    fn update(path: usize, spec: &Option<FileSpec>) -> FileUpdate {
        match spec {
            None => gone(PATHS[path]),
            Some(spec) => {
                let mut names: Vec<&str> = spec.0.iter().map(String::as_str).collect();
                names.sort_unstable_by_key(|n| n.split('=').next());
                names.dedup_by_key(|n| n.split('=').next());
                sets(PATHS[path], &names)
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn any_history_ends_as_one_load(history in prop::collection::vec((0..3usize, prop::option::of(good_file())), 1..12)) {
            let mut store = Store::new();
            let seen = |r: &Resource| format!("{} {}", r.origin, r.raw);
            let mut mirror: BTreeMap<ResourceId, String> = BTreeMap::new();
            let mut last: BTreeMap<usize, Option<FileSpec>> = BTreeMap::new();
            for (path, spec) in history {
                let before = store.revision();
                let changes = store.apply("dir", vec![update(path, &spec)]);
                prop_assert_eq!(changes.is_empty(), store.revision() == before);
                for resource in changes.upserted {
                    let old = mirror.insert(resource.id.clone(), seen(&resource));
                    prop_assert_ne!(old, Some(seen(&resource)));
                }
                for id in changes.deleted {
                    prop_assert!(mirror.remove(&id).is_some());
                }
                last.insert(path, spec);
            }
            let mut fresh = Store::new();
            fresh.apply("dir", last.iter().map(|(path, spec)| update(*path, spec)).collect());
            prop_assert_eq!(view(&store), view(&fresh));
            prop_assert_eq!(store.problems(), fresh.problems());
            let mirrored: Vec<_> = fresh.resources().map(|r| (r.id.clone(), seen(r))).collect();
            prop_assert_eq!(mirror.into_iter().collect::<Vec<_>>(), mirrored);
            prop_assert_eq!(view(&reborn(&store)), view(&store));
        }
    }
}
