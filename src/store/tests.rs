use std::collections::BTreeMap;

use serde_json::json;
use tempfile::TempDir;

use super::*;

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
    let content = FileContent::Text(text.as_bytes().to_owned(), None);
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

/// `+name`, `~name` and `-name` of what came, moved and went.
#[derive(Default)]
struct Told(BTreeMap<(usize, String), ()>);

impl Told {
    fn take(&mut self, change: Change<'_>) {
        let (kind, id) = match change {
            Change::Upserted(resource) => (0, &resource.id),
            Change::Moved(id) => (1, id),
            Change::Deleted(id) => (2, id),
        };
        self.0.insert((kind, id.name.clone()), ());
    }

    fn text(&self) -> String {
        let one = |(kind, name): &(usize, String)| format!("{}{name}", ["+", "~", "-"][*kind]);
        self.0.keys().map(one).collect::<Vec<_>>().join(" ")
    }
}

/// `name=net@file` of everything in force.
fn view(store: &Store) -> String {
    let one = |r: Result<Resource, Box<Issue>>| {
        let r = r.unwrap();
        let raw = r.raw.value();
        let net = raw["spec"]["nets"][0].as_str().unwrap_or_default();
        format!("{}={net}@{}", r.id.name, r.origin.file)
    };
    store.resources().map(one).collect::<Vec<_>>().join(" ")
}

fn apply(store: &mut Store, source: &str, updates: Vec<FileUpdate>) -> String {
    let mut told = Told::default();
    store.apply(source, updates, &mut |change| told.take(change));
    told.text()
}

struct Bed(Store);

impl Bed {
    fn new() -> Bed {
        Bed(Store::new())
    }

    fn apply(&mut self, updates: Vec<FileUpdate>) -> String {
        apply(&mut self.0, "dir", updates)
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
    let revision = bed.0.revision();
    assert_eq!(bed.apply(vec![sets("a", &["x", "y"])]), "");
    assert_eq!(bed.0.revision(), revision);
    assert_eq!(
        bed.apply(vec![sets("a", &["x", "y", "w"])]),
        "+w",
        "the others are as before"
    );
    assert_eq!(
        bed.apply(vec![gone("a"), sets("c", &["x", "y"])]),
        "~x ~y -w",
        "at another place, but never away"
    );
    assert_eq!(bed.apply(vec![sets("c", &["x=10.1.0.0/16"])]), "+x -y");
    assert_eq!(bed.apply(vec![gone("c"), gone("never-there")]), "-x");
    assert_eq!(view(&bed.0), "z=10.0.0.0/8@b");
    assert_eq!(bed.problems(), 0);
    assert!(bed.0.revision() > revision);
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
fn objects_of_a_list_that_breaks_off_do_not_count() {
    let list = |end: &str| {
        let items = [text(&["x"]), text(&["y"])].join(",");
        let list = format!("{{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[{items}{end}");
        file("a", &list)
    };
    let mut bed = Bed::new();
    bed.apply(vec![sets("b", &["y=10.2.0.0/16"]), list("")]);
    assert_eq!(view(&bed.0), "y=10.2.0.0/16@b");
    assert_eq!(bed.problems(), 1);
    bed.apply(vec![list("]}")]);
    assert_eq!(view(&bed.0), "x=10.0.0.0/8@a y=10.0.0.0/8@a");
    bed.apply(vec![list(",")]);
    assert_eq!(view(&bed.0), "x=10.0.0.0/8@a y=10.0.0.0/8@a");
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
    apply(&mut store, "dir", vec![sets("a", &["x"])]);
    assert_eq!(apply(&mut store, "etcd", vec![gone("a")]), "");
    assert_eq!(apply(&mut store, "etcd", vec![sets("a", &["y"])]), "+y");
    assert_eq!(apply(&mut store, "dir", vec![gone("a")]), "-x");
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

/// A state directory and the store that lives in it.
struct Home {
    dir: TempDir,
    store: Store,
}

impl Home {
    fn new() -> Home {
        let dir = tempfile::tempdir().unwrap();
        let (store, saved, messages) = Store::open(dir.path());
        assert!(saved.is_none() && messages.is_empty());
        Home { dir, store }
    }

    fn save(&mut self, generation: u64) {
        let job = self.store.save(meta(), generation, 7).unwrap();
        self.store.saved(job.run()).unwrap();
    }

    /// Saves, and starts again from the disk.
    fn reborn(mut self) -> Home {
        self.save(1);
        self.restarted()
    }

    fn restarted(self) -> Home {
        let dir = self.dir;
        let (mut store, saved, messages) = Store::open(dir.path());
        let unfinished = |m: &String| m.contains("of an unfinished save");
        assert!(messages.iter().all(unfinished), "{messages:?}");
        if let Some(saved) = saved {
            store.seed(saved, &mut |_| ());
        }
        Home { dir, store }
    }
}

fn meta() -> Meta {
    Meta {
        node: "web1".to_owned(),
        settings: "{}".to_owned(),
        backend: None,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

#[test]
fn a_seed_stays_until_the_source_speaks() {
    let mut home = Home::new();
    let first = vec![
        sets("a", &["x"]),
        sets("b", &["y"]),
        sets("c", &["z", "Bad_Name"]),
    ];
    apply(&mut home.store, "dir", first);
    apply(&mut home.store, "dir", vec![file("b", "{ not closed")]);
    let before = view(&home.store);
    let mut home = home.reborn();
    assert_eq!(view(&home.store), before);
    let paths: Vec<&str> = home.store.stamps("dir").map(|(path, _)| path).collect();
    assert_eq!(paths, ["a", "b", "c"]);
    assert_eq!(home.store.unconfirmed("dir").count(), 3);
    let scan = vec![sets("a", &["x"]), file("b", "{ not closed"), gone("c")];
    assert_eq!(apply(&mut home.store, "dir", scan), "-z");
    assert_eq!(
        home.store.unconfirmed("dir").collect::<Vec<_>>(),
        ["b"],
        "its content is the snapshot's still"
    );
    assert_eq!(view(&home.store), "x=10.0.0.0/8@a y=10.0.0.0/8@b");
}

#[test]
fn a_seed_never_overrides_a_source() {
    let mut home = Home::new();
    apply(
        &mut home.store,
        "dir",
        vec![sets("a", &["x", "y"]), sets("b", &["z"])],
    );
    home.save(1);
    let (mut store, saved, _) = Store::open(home.dir.path());
    apply(&mut store, "dir", vec![sets("b", &["z=10.7.0.0/16"])]);
    let mut told = Told::default();
    store.seed(saved.unwrap(), &mut |change| told.take(change));
    assert_eq!(told.text(), "+x +y");
    assert_eq!(
        view(&store),
        "x=10.0.0.0/8@a y=10.0.0.0/8@a z=10.7.0.0/16@b"
    );
}

#[test]
fn what_is_missing_because_it_was_never_valid_is_told() {
    let mut bed = Bed::new();
    let updates = vec![
        sets("a", &["x"]),
        sets("b", &["y", "Bad_Name"]),
        file("c", "{ not closed"),
        unreadable("d"),
    ];
    bed.apply(updates);
    let incomplete = |bed: &Bed| bed.0.incomplete().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(incomplete(&bed), ["b"]);
    bed.apply(vec![
        sets("b", &["y"]),
        sets("c", &[]),
        gone("d"),
        file("a", "{ not closed"),
    ]);
    assert!(
        incomplete(&bed).is_empty(),
        "a has an error and its last good content"
    );
}

#[test]
fn lines_that_shift_are_moves() {
    let mut home = Home::new();
    let text = text(&["x", "y"]);
    apply(&mut home.store, "dir", vec![file("a", &text)]);
    home.save(1);
    let shifted = file("a", &format!("# a comment\n{text}"));
    assert_eq!(apply(&mut home.store, "dir", vec![shifted]), "~x ~y");
    let home = home.reborn();
    let lines: Vec<u32> = home
        .store
        .resources()
        .map(|r| r.unwrap().origin.line)
        .collect();
    assert_eq!(lines, [2, 4]);
}

#[test]
fn an_unchanged_file_is_confirmed_without_being_read() {
    let mut home = Home::new();
    apply(&mut home.store, "dir", vec![sets("a", &["x"])]);
    let mut home = home.reborn();
    let unchanged = FileUpdate {
        path: "a".to_owned(),
        content: FileContent::Unchanged,
    };
    assert_eq!(apply(&mut home.store, "dir", vec![unchanged]), "");
    assert_eq!(home.store.unconfirmed("dir").count(), 0);
    assert_eq!(view(&home.store), "x=10.0.0.0/8@a");
}

mod disk;
mod mounts;
mod quick;
mod random;
mod values;
