//! The merged, validated view of all resources of all sources.
//!
//! Bad input never takes away what is in force: a file with an error keeps all it held when it was last good, and a
//! file that cannot be read is not one that is gone. An object in two files belongs to the one whose path sorts first.

mod saved;
pub mod snapshot;

pub use saved::{SavedFile, SavedObject, SavedStore};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::{Issue, Resource, ResourceId, Severity};
use crate::source::{FileContent, FileUpdate};

/// What became different in the view. Empty when nothing did.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// New resources, and resources with new content or at a new place (which messages about them name), sorted by id.
    pub upserted: Vec<Resource>,
    /// Resources that are no more, sorted.
    pub deleted: Vec<ResourceId>,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.upserted.is_empty() && self.deleted.is_empty()
    }
}

/// A file of a source. Ordered by path first: that decides which of two files owns an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileKey {
    path: Arc<str>,
    source: Arc<str>,
}

/// What is known of one file.
#[derive(Debug, Default)]
struct FileState {
    /// The resources it contributes; none if nothing usable was ever read from it.
    held: Option<Vec<Resource>>,
    /// What is wrong with it as it is now, or was when the snapshot was taken up.
    issues: Vec<Issue>,
    /// Whether `held` is older than the file as it is now.
    outdated: bool,
    /// Whether `held` comes from a snapshot that no source has confirmed yet.
    unconfirmed: bool,
}

/// Where a resource stands: the file and its position there. The first of several places owns the resource.
type Place = (FileKey, usize);

/// The view. Pure: whoever owns it feeds it updates and reads the differences.
#[derive(Debug, Default)]
pub struct Store {
    files: BTreeMap<FileKey, FileState>,
    claims: BTreeMap<ResourceId, BTreeMap<Place, Resource>>,
    /// Ids with more than one claim.
    contested: BTreeSet<ResourceId>,
    revision: u64,
}

impl Store {
    /// An empty view, at revision 0.
    pub fn new() -> Store {
        Store::default()
    }

    /// Takes in what a source found.
    pub fn apply(&mut self, source: &str, updates: Vec<FileUpdate>) -> Changes {
        let source: Arc<str> = source.into();
        let mut touched = Touched::new();
        for update in updates {
            let key = FileKey {
                path: update.path.into(),
                source: source.clone(),
            };
            match update.content {
                FileContent::Removed => {
                    self.hold(&key, None, &mut touched);
                    self.files.remove(&key);
                }
                FileContent::Unreadable(issue) => self.keep(&key, vec![issue]),
                FileContent::Parsed(parsed) if !parsed.has_errors() => {
                    self.replace(&key, parsed.resources, parsed.issues, &mut touched);
                }
                FileContent::Parsed(parsed) => {
                    let nothing_held = self.files.get(&key).is_none_or(|f| f.held.is_none());
                    if nothing_held && !parsed.resources.is_empty() {
                        self.replace(&key, parsed.resources, parsed.issues, &mut touched);
                    } else {
                        self.keep(&key, parsed.issues);
                    }
                }
            }
        }
        self.settle(touched)
    }

    /// Takes up what a snapshot saved, as the last good content of files that no source has delivered yet.
    /// Objects that the present rules no longer accept are left out and reported.
    pub fn seed(&mut self, saved: SavedStore) -> Changes {
        let mut touched = Touched::new();
        for file in saved.files {
            let key = FileKey {
                path: file.path.as_str().into(),
                source: file.source.as_str().into(),
            };
            if self.files.contains_key(&key) {
                continue;
            }
            let (resources, issues) = saved::restore(file);
            self.replace(&key, resources, issues, &mut touched);
            if let Some(state) = self.files.get_mut(&key) {
                state.unconfirmed = true;
            }
        }
        self.settle(touched)
    }

    /// What a snapshot needs to bring back this view: the content held of every file.
    pub fn saved(&self) -> SavedStore {
        let files = self.files.iter().filter_map(|(key, state)| {
            let held = state.held.as_ref()?;
            Some(saved::save(&key.source, &key.path, held))
        });
        SavedStore {
            files: files.collect(),
        }
    }

    /// The resources in force, sorted by id.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.claims
            .values()
            .filter_map(|places| places.values().next())
    }

    /// One resource in force.
    pub fn get(&self, id: &ResourceId) -> Option<&Resource> {
        self.claims.get(id)?.values().next()
    }

    /// Counts the changes of the resources in force: it differs whenever they do.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What is wrong now, sorted by place.
    pub fn problems(&self) -> Vec<Issue> {
        let mut issues: Vec<Issue> = self
            .files
            .values()
            .flat_map(|f| f.issues.iter().cloned())
            .collect();
        issues.extend(self.contested.iter().flat_map(|id| self.conflicts(id)));
        issues.sort_by(|a, b| {
            let left = (&a.file, a.line, a.column, &a.object, &a.message);
            left.cmp(&(&b.file, b.line, b.column, &b.object, &b.message))
        });
        issues
    }

    /// Paths of the files whose content in force is older than the file: the file has errors or cannot be read.
    pub fn outdated(&self) -> impl Iterator<Item = &str> {
        self.files
            .iter()
            .filter(|(_, state)| state.outdated)
            .map(|(key, _)| &*key.path)
    }

    /// Paths of the files that are in force from a snapshot, because their source has not delivered them.
    pub fn unconfirmed(&self) -> impl Iterator<Item = &str> {
        self.files
            .iter()
            .filter(|(_, state)| state.unconfirmed)
            .map(|(key, _)| &*key.path)
    }

    /// Paths of all files of a source of which content is in force; what [`crate::source::DirSource::expect`] wants after a seed.
    pub fn paths(&self, source: &str) -> impl Iterator<Item = &str> {
        let of_source = move |(key, state): &(&FileKey, &FileState)| {
            &*key.source == source && state.held.is_some()
        };
        self.files
            .iter()
            .filter(of_source)
            .map(|(key, _)| &*key.path)
    }

    /// New content for a file.
    fn replace(
        &mut self,
        key: &FileKey,
        resources: Vec<Resource>,
        issues: Vec<Issue>,
        touched: &mut Touched,
    ) {
        self.hold(key, Some(resources), touched);
        let state = self.files.entry(key.clone()).or_default();
        state.issues = issues;
        state.outdated = false;
        state.unconfirmed = false;
    }

    /// Keeps what a file held, whatever that is, and notes what is wrong with it.
    fn keep(&mut self, key: &FileKey, issues: Vec<Issue>) {
        let state = self.files.entry(key.clone()).or_default();
        state.issues = issues;
        state.outdated = state.held.is_some();
    }

    /// Swaps the resources a file contributes, in `files` and `claims`; remembers every id that may have changed.
    fn hold(&mut self, key: &FileKey, resources: Option<Vec<Resource>>, touched: &mut Touched) {
        let state = self.files.entry(key.clone()).or_default();
        let before = std::mem::replace(&mut state.held, resources.clone()).unwrap_or_default();
        for resource in before.iter().chain(resources.iter().flatten()) {
            if !touched.contains_key(&resource.id) {
                let owner = self
                    .claims
                    .get(&resource.id)
                    .and_then(|c| c.values().next());
                touched.insert(resource.id.clone(), owner.cloned());
            }
        }
        for (n, resource) in before.into_iter().enumerate() {
            if let Some(places) = self.claims.get_mut(&resource.id) {
                places.remove(&(key.clone(), n));
            }
        }
        for (n, resource) in resources.into_iter().flatten().enumerate() {
            self.claims
                .entry(resource.id.clone())
                .or_default()
                .insert((key.clone(), n), resource);
        }
    }

    /// Compares the owners of all touched ids with what they were.
    fn settle(&mut self, touched: Touched) -> Changes {
        let mut changes = Changes::default();
        for (id, before) in touched {
            let places = self.claims.get(&id).map_or(0, BTreeMap::len);
            if places == 0 {
                self.claims.remove(&id);
            }
            if places > 1 {
                self.contested.insert(id.clone())
            } else {
                self.contested.remove(&id)
            };
            match (before, self.get(&id)) {
                (Some(before), Some(now)) if is_same(&before, now) => {}
                (_, Some(now)) => changes.upserted.push(now.clone()),
                (Some(_), None) => changes.deleted.push(id),
                (None, None) => {}
            }
        }
        if !changes.is_empty() {
            self.revision += 1;
        }
        changes
    }

    /// One error for each place of an object beyond the first.
    fn conflicts(&self, id: &ResourceId) -> Vec<Issue> {
        let Some(places) = self.claims.get(id) else {
            return Vec::new();
        };
        let mut origins = places.values().map(|resource| &resource.origin);
        let Some(owner) = origins.next() else {
            return Vec::new();
        };
        let issue = |loser: &crate::api::Origin| Issue {
            severity: Severity::Error,
            file: loser.file.to_string(),
            line: loser.line,
            column: 0,
            object: Some(id.clone()),
            path: String::new(),
            value: None,
            message: format!("is also in {owner}, which is the one in force"),
            help: Some("remove one of the two".to_owned()),
        };
        origins.map(issue).collect()
    }
}

/// Whether nothing differs that anybody can see: content, file and lines.
fn is_same(a: &Resource, b: &Resource) -> bool {
    a.same_content(b) && a.origin == b.origin && a.rule_lines() == b.rule_lines()
}

/// Ids that may have changed, with the resource that was in force before.
type Touched = BTreeMap<ResourceId, Option<Resource>>;

#[cfg(test)]
mod tests;
