use std::fs;
use std::os::unix::fs::symlink;

use tokio::time::timeout;

use super::*;

/// Whether a change is told within the time that any change takes, with slack for a busy machine.
async fn told(watcher: &mut Watcher) -> bool {
    news(watcher).await.is_some()
}

async fn news(watcher: &mut Watcher) -> Option<News> {
    timeout(Duration::from_secs(3), watcher.changed())
        .await
        .ok()
}

/// All that is told until there is quiet.
async fn all_news(watcher: &mut Watcher) -> Vec<News> {
    let mut all = Vec::new();
    while let Ok(news) = timeout(Duration::from_millis(400), watcher.changed()).await {
        all.push(news);
    }
    all
}

fn files(dir: &Path, names: &[&str]) -> News {
    let file = |name: &&str| (dir.to_owned(), (*name).to_owned());
    News::Files(names.iter().map(file).collect())
}

async fn quiet(watcher: &mut Watcher) -> bool {
    timeout(Duration::from_millis(400), watcher.changed())
        .await
        .is_err()
}

#[tokio::test]
async fn tells_of_files_written_moved_and_deleted_once() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("policy.d");
    fs::create_dir(&dir).unwrap();
    let mut watcher = Watcher::new(vec![dir.clone()]);
    assert_eq!(watcher.problem(), None);
    assert!(quiet(&mut watcher).await);
    for i in 0..50 {
        fs::write(dir.join(format!("{i}.yaml")), "x").unwrap();
    }
    let told = all_news(&mut watcher).await;
    assert!(
        told.len() < 25,
        "a burst is fewer changes than files: {}",
        told.len()
    );
    let mut names = BTreeSet::new();
    for news in told {
        let News::Files(files) = news else {
            panic!("{news:?}")
        };
        names.extend(files);
    }
    assert_eq!(names.len(), 50);
    fs::rename(dir.join("1.yaml"), root.path().join("1.yaml")).unwrap();
    assert_eq!(news(&mut watcher).await, Some(files(&dir, &["1.yaml"])));
    fs::remove_file(dir.join("2.yaml")).unwrap();
    assert_eq!(news(&mut watcher).await, Some(files(&dir, &["2.yaml"])));
    fs::read(dir.join("3.yaml")).unwrap();
    fs::write(dir.join("README"), "x").unwrap();
    fs::write(root.path().join("other"), "x").unwrap();
    assert!(
        quiet(&mut watcher).await,
        "reading, and strangers in and beside the directory, are no change"
    );
}

#[tokio::test]
async fn a_file_that_is_open_is_told_when_it_is_closed() {
    use std::io::Write;
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().to_owned();
    let mut watcher = Watcher::new(vec![dir.clone()]);
    let mut open = fs::File::create(dir.join("open.yaml")).unwrap();
    open.write_all(b"half").unwrap();
    fs::write(dir.join("whole.yaml"), "x").unwrap();
    assert_eq!(news(&mut watcher).await, Some(files(&dir, &["whole.yaml"])));
    assert!(quiet(&mut watcher).await, "however long it takes");
    fs::rename(&dir, dir.with_extension("away")).unwrap();
    fs::rename(dir.with_extension("away"), &dir).unwrap();
    assert_eq!(news(&mut watcher).await, Some(News::Anywhere));
    assert_eq!(
        watcher.open(),
        [(dir.clone(), "open.yaml".to_owned())].into()
    );
    open.write_all(b"whole").unwrap();
    drop(open);
    assert_eq!(news(&mut watcher).await, Some(files(&dir, &["open.yaml"])));
    assert!(quiet(&mut watcher).await);
}

#[tokio::test]
async fn lost_events_mean_a_full_look() {
    let root = tempfile::tempdir().unwrap();
    let mut watcher = Watcher::new(vec![root.path().to_owned()]);
    watcher.pend(None, EventMask::Q_OVERFLOW);
    fs::write(root.path().join("a.yaml"), "x").unwrap();
    assert_eq!(news(&mut watcher).await, Some(News::Anywhere));
}

#[tokio::test]
async fn follows_a_directory_that_comes_goes_and_comes() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("etc/moat/policy.d");
    let mut watcher = Watcher::new(vec![dir.clone()]);
    fs::create_dir_all(&dir).unwrap();
    assert!(told(&mut watcher).await, "created");
    fs::write(dir.join("a.yaml"), "x").unwrap();
    assert!(told(&mut watcher).await, "file in it");
    fs::remove_dir_all(root.path().join("etc")).unwrap();
    assert!(told(&mut watcher).await, "removed");
    fs::create_dir_all(&dir).unwrap();
    assert!(told(&mut watcher).await, "created again");
    fs::write(dir.join("a.yaml"), "x").unwrap();
    assert!(told(&mut watcher).await, "file in the new one");
    assert_eq!(watcher.problem(), None);
}

#[tokio::test]
async fn follows_links_and_renames() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    for version in ["1", "2", "3"] {
        fs::create_dir_all(at("releases").join(version)).unwrap();
    }
    symlink("releases/1", at("current")).unwrap();
    symlink(at("current"), at("policy.d")).unwrap();
    let mut watcher = Watcher::new(vec![at("policy.d")]);
    fs::write(at("releases/1/a.yaml"), "x").unwrap();
    assert!(told(&mut watcher).await);
    symlink("releases/2", at("next")).unwrap();
    fs::rename(at("next"), at("current")).unwrap();
    assert!(told(&mut watcher).await, "link switched");
    fs::write(at("releases/1/a.yaml"), "y").unwrap();
    assert!(quiet(&mut watcher).await, "the old target no longer counts");
    fs::write(at("releases/2/a.yaml"), "x").unwrap();
    assert!(told(&mut watcher).await, "file in the new target");
    fs::rename(at("releases/2"), at("old")).unwrap();
    fs::rename(at("releases/3"), at("releases/2")).unwrap();
    assert!(told(&mut watcher).await, "directory swapped");
    fs::write(at("releases/2/b.yaml"), "x").unwrap();
    assert!(told(&mut watcher).await, "file in the swapped one");
}

#[tokio::test]
async fn endless_writing_does_not_delay_for_ever() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("a.yaml");
    let mut watcher = Watcher::new(vec![root.path().to_owned()]);
    let writer = tokio::spawn(async move {
        loop {
            fs::write(&file, "x").unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(told(&mut watcher).await);
    writer.abort();
}

#[tokio::test]
async fn a_cancelled_wait_loses_nothing() {
    let root = tempfile::tempdir().unwrap();
    let mut watcher = Watcher::new(vec![root.path().to_owned()]);
    let _open = fs::File::create(root.path().join("a.yaml")).unwrap();
    assert!(
        timeout(Duration::from_millis(10), watcher.changed())
            .await
            .is_err()
    );
    assert!(told(&mut watcher).await);
}

#[tokio::test]
async fn polls_when_notification_fails_and_recovers() {
    let root = tempfile::tempdir().unwrap();
    let mut watcher = Watcher::new(vec![root.path().to_owned()]);
    watcher.note(Err(ErrorKind::Other.into()));
    assert!(watcher.problem().unwrap().contains("once a second"));
    assert!(told(&mut watcher).await);
    assert_eq!(watcher.problem(), None);
    fs::write(root.path().join("a.yaml"), "x").unwrap();
    assert!(told(&mut watcher).await);
}

#[test]
fn link_loops_end() {
    let root = tempfile::tempdir().unwrap();
    symlink("b", root.path().join("a")).unwrap();
    symlink("a", root.path().join("b")).unwrap();
    assert!(resolve(&root.path().join("a/c")).0.len() < 100);
}

#[test]
fn path_walk() {
    let root = tempfile::tempdir().unwrap();
    let real = root.path().canonicalize().unwrap();
    fs::create_dir_all(real.join("x/y")).unwrap();
    symlink("../x/y", real.join("x/l")).unwrap();
    let (steps, end) = resolve(&real.join("x/l/none"));
    assert_eq!(end, real.join("x/y/none"));
    let last: Vec<_> = steps
        .iter()
        .rev()
        .take(4)
        .map(|(dir, name)| dir.join(name))
        .collect();
    assert_eq!(
        last,
        [
            real.join("x/y/none"),
            real.join("x/y"),
            real.join("x"),
            real.join("x/l")
        ]
    );
}

#[tokio::test]
async fn follows_links_to_files_elsewhere() {
    let root = tempfile::tempdir().unwrap();
    let (dir, other) = (
        root.path().join("policy.d"),
        root.path().join("checkout/tree"),
    );
    fs::create_dir_all(&dir).unwrap();
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("a.yaml"), "x").unwrap();
    let mut watcher = Watcher::new(vec![dir.clone()]);
    symlink("../checkout/tree/a.yaml", dir.join("a.yaml")).unwrap();
    assert!(told(&mut watcher).await, "linked");
    fs::write(other.join("b.yaml"), "x").unwrap();
    assert!(quiet(&mut watcher).await, "not linked");
    fs::write(other.join("a.yaml"), "y").unwrap();
    assert!(told(&mut watcher).await, "written in place");
    fs::write(other.join("new"), "z").unwrap();
    assert!(quiet(&mut watcher).await);
    fs::rename(other.join("new"), other.join("a.yaml")).unwrap();
    assert!(told(&mut watcher).await, "replaced");
}
