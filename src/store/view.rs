//! Questions about the view.

use super::table::Entry;
use super::{FileKey, Store};
use crate::api::{Issue, Kind, Origin, Resource, ResourceId};
use crate::source::Stamp;

impl Store {
    /// One resource in force, made from its document.
    ///
    /// # Errors
    /// Its document is lost.
    pub fn get(&self, id: &ResourceId) -> Result<Option<Resource>, Box<Issue>> {
        let at = self.table.find(id);
        at.map(|at| self.resource(self.table.entry(at))).transpose()
    }

    /// The resources in force, sorted by id; made one after the other from their documents.
    pub fn resources(&self) -> impl Iterator<Item = Result<Resource, Box<Issue>>> {
        self.sorted(|_| true)
    }

    /// The resources in force of one kind, sorted.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = Result<Resource, Box<Issue>>> {
        self.sorted(move |entry| entry.kind() == kind)
    }

    fn sorted(
        &self,
        wanted: impl Fn(&Entry) -> bool,
    ) -> impl Iterator<Item = Result<Resource, Box<Issue>>> {
        let wanted = self
            .table
            .heads()
            .filter(|at| wanted(self.table.entry(*at)));
        let mut heads: Vec<u32> = wanted.collect();
        heads.sort_unstable_by(|a, b| {
            let (a, b) = (self.table.entry(*a), self.table.entry(*b));
            a.rank().cmp(&b.rank())
        });
        heads
            .into_iter()
            .map(|at| self.resource(self.table.entry(at)))
    }

    /// The ids of the resources in force of some kinds, in no order.
    pub fn ids(&self, wanted: impl Fn(Kind) -> bool) -> impl Iterator<Item = ResourceId> {
        let entries = self.table.heads().map(|at| self.table.entry(at));
        entries.filter(move |e| wanted(e.kind())).map(Entry::id)
    }

    /// How many resources are in force.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no resource is in force.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts the changes of the resources in force: it differs whenever they do.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Where a resource in force is.
    pub fn origin(&self, id: &ResourceId) -> Option<Origin> {
        let entry = self.table.entry(self.table.find(id)?);
        Some(self.origin_of(entry))
    }

    fn origin_of(&self, entry: &Entry) -> Origin {
        Origin {
            file: self.files[entry.file as usize].key.path.clone(),
            line: entry.line,
        }
    }

    /// What is wrong now, sorted by place.
    pub fn problems(&self) -> Vec<Issue> {
        let mut issues: Vec<Issue> = self.issues.values().flatten().cloned().collect();
        let conflicts = self.table.losers().filter(|at| !self.is_override(*at));
        issues.extend(conflicts.map(|at| self.conflict(at)));
        issues.sort_by(|a, b| {
            let left = (&a.file, a.line, a.column, &a.object, &a.message);
            left.cmp(&(&b.file, b.line, b.column, &b.object, &b.message))
        });
        issues
    }

    /// Whether the entry gave way to one of another source, as it should.
    fn is_override(&self, loser: u32) -> bool {
        let source = |at: u32| &self.files[self.table.entry(at).file as usize].key.source;
        let id = self.table.entry(loser).id();
        self.table
            .find(&id)
            .is_some_and(|winner| source(winner) != source(loser))
    }

    /// What a local file and a datastore both have: the id, where the one in force is, and where the other is. Sorted.
    pub fn overrides(&self) -> Vec<(ResourceId, Origin, Origin)> {
        let losers = self.table.losers().filter(|at| self.is_override(*at));
        let of = |at| {
            let entry = self.table.entry(at);
            let winner = self.origin(&entry.id()).unwrap_or_default();
            (entry.id(), winner, self.origin_of(entry))
        };
        let mut found: Vec<_> = losers.map(of).collect();
        found.sort();
        found
    }

    /// Paths of a source from `from` up to but not `end`, sorted, of which content is in force, with its version.
    pub fn held_between(
        &self,
        source: &str,
        from: &str,
        end: &str,
    ) -> impl Iterator<Item = (&str, Option<Stamp>)> {
        // No source has an empty name, so these come before all that have these paths.
        let bound = |path: &str| FileKey {
            path: path.into(),
            source: "".into(),
        };
        // Keys that are no text change their order when they become text.
        let files = self.by_key.range(bound(from)..bound(end.max(from)));
        let of_source = move |(key, _): &(&FileKey, &u32)| &*key.source == source;
        files
            .filter(of_source)
            .map(|(key, at)| (&*key.path, self.files[*at as usize].stamp))
    }

    /// An error for a place of an object that is also elsewhere.
    fn conflict(&self, at: u32) -> Issue {
        let loser = self.table.entry(at);
        let id = loser.id();
        let owner = self.origin(&id).unwrap_or_default();
        let message = format!("is also in {owner}, which is the one in force");
        let origin = self.origin_of(loser);
        Issue {
            line: origin.line,
            object: Some(id),
            ..crate::source::refusal(&origin.file, message, "remove one of the two")
        }
    }

    /// Paths of the files whose content in force is older than the file: the file has errors or cannot be read.
    pub fn outdated(&self) -> impl Iterator<Item = &str> {
        self.outdated.iter().map(|key| &*key.path)
    }

    /// Paths of the files of a source that are in force from a snapshot, because their source has not delivered them.
    pub fn unconfirmed(&self, source: &str) -> impl Iterator<Item = &str> {
        let of_source = self
            .unconfirmed
            .iter()
            .filter(move |key| *key.source == *source);
        of_source.map(|key| &*key.path)
    }

    /// Paths of files with errors of which no whole content is known, not even of an earlier time, so that only their valid
    /// objects are in force: then less may be in force than was meant.
    pub fn incomplete(&self) -> impl Iterator<Item = &str> {
        self.partial.iter().map(|key| &*key.path)
    }

    /// Paths of all files of a source of which content is in force, each with the version of the file that need not be read
    /// again; what [`crate::source::DirSource::expect`] wants after a seed.
    pub fn stamps(&self, source: &str) -> impl Iterator<Item = (&str, Option<Stamp>)> {
        let of_source = move |(key, _): &(&FileKey, &u32)| &*key.source == source;
        let files = self.by_key.iter().filter(of_source);
        files.map(|(key, at)| (&*key.path, self.files[*at as usize].stamp))
    }
}
