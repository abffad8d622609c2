use proptest::prelude::*;

use super::*;

const PATHS: [&str; 3] = ["a", "b", "c"];
const NAMES: [&str; 3] = ["x", "y", "z"];

/// What a file has: a set for each name, or an error as well.
type Spec = Option<(BTreeMap<usize, u8>, bool)>;

fn spec() -> impl Strategy<Value = Spec> {
    let sets = prop::collection::btree_map(0..3usize, 0..2u8, 0..3);
    prop::option::weighted(0.8, (sets, prop::bool::weighted(0.2)))
}

fn update(path: usize, spec: &Spec) -> FileUpdate {
    let Some((with, is_bad)) = spec else {
        return gone(PATHS[path]);
    };
    let with = with
        .iter()
        .map(|(n, net)| format!("{}=10.{net}.0.0/16", NAMES[*n]));
    let mut with: Vec<String> = with.collect();
    with.extend(is_bad.then(|| "Bad_Name".to_owned()));
    let with: Vec<&str> = with.iter().map(String::as_str).collect();
    sets(PATHS[path], &with)
}

/// What one who listens to the changes knows.
#[derive(Default)]
struct Mirror(BTreeMap<ResourceId, String>);

impl Mirror {
    fn seen(resource: &Resource) -> String {
        format!("{} {}", resource.origin, resource.raw.text())
    }

    fn apply(&mut self, store: &mut Store, update: FileUpdate) -> Result<(), TestCaseError> {
        let before = store.revision();
        let mut moved = Vec::new();
        let mut count = 0;
        store.apply("dir", vec![update], &mut |change| {
            count += 1;
            match change {
                Change::Upserted(r) => drop(self.0.insert(r.id.clone(), Self::seen(r))),
                Change::Moved(id) => moved.push(id.clone()),
                Change::Deleted(id) => assert!(self.0.remove(id).is_some()),
            }
        });
        prop_assert_eq!(count == 0, store.revision() == before);
        for id in moved {
            let resource = store.get(&id).unwrap().unwrap();
            prop_assert!(self.0.insert(id, Self::seen(&resource)).is_some());
        }
        Ok(())
    }
}

fn all(store: &Store) -> BTreeMap<ResourceId, String> {
    let resources = store.resources().map(|r| r.unwrap());
    resources
        .map(|r| (r.id.clone(), Mirror::seen(&r)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn any_history_of_good_files_ends_as_one_load(
        history in prop::collection::vec((0..3usize, spec()), 1..12)
    ) {
        let mut store = Store::new();
        let mut mirror = Mirror::default();
        let mut last: BTreeMap<usize, Spec> = BTreeMap::new();
        for (path, spec) in history {
            let spec = spec.map(|(sets, _)| (sets, false));
            mirror.apply(&mut store, update(path, &spec))?;
            last.insert(path, spec);
        }
        let mut fresh = Store::new();
        let updates = last.iter().map(|(path, spec)| update(*path, spec)).collect();
        fresh.apply("dir", updates, &mut |_| ());
        prop_assert_eq!(all(&store), all(&fresh));
        prop_assert_eq!(&mirror.0, &all(&store));
        prop_assert_eq!(store.problems(), fresh.problems());
    }

    /// Any history of updates, saves and restarts; then the journal is cut anywhere: what comes back is what was saved
    /// last before the cut.
    #[test]
    fn any_cut_of_any_journal_is_the_last_save_before_it(
        history in prop::collection::vec((0..3usize, spec(), 0..4u8), 1..15),
        cut in 0.0..1.0f64,
    ) {
        let mut home = Home::new();
        let mut mirror = Mirror::default();
        let mut saves = vec![(0, BTreeMap::new())];
        let path = home.dir.path().join("snapshot");
        for (n, (file, spec, what)) in history.into_iter().enumerate() {
            mirror.apply(&mut home.store, update(file, &spec))?;
            if what > 0 {
                home.save(n as u64 + 1);
                saves.push((std::fs::metadata(&path).unwrap().len(), all(&home.store)));
            }
            if what == 3 {
                home = home.restarted();
                prop_assert_eq!(&mirror.0, &all(&home.store));
            }
        }
        if !path.exists() {
            return Ok(());
        }
        let size = std::fs::metadata(&path).unwrap().len();
        let cut = (size as f64 * cut) as u64;
        std::fs::File::options().write(true).open(&path).unwrap().set_len(cut).unwrap();
        let (mut store, saved, _) = Store::open(home.dir.path());
        if let Some(saved) = saved {
            store.seed(saved, &mut |_| ());
        }
        let expected = saves.iter().rev().find(|(end, _)| *end <= cut);
        prop_assert_eq!(&all(&store), &expected.unwrap().1);
    }
}
