//! The form in which the store is saved: every object as it was given, to be validated again when it is read back.

use serde::{Deserialize, Serialize};

use crate::api::{self, Document, Issue, Origin, Resource, RuleLines};

/// The content held of all files.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SavedStore {
    /// One entry for each file of which content was in force, sorted by path.
    pub files: Vec<SavedFile>,
}

/// The last good content of one file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedFile {
    /// Name of the source that delivered it.
    pub source: String,
    /// Its path there.
    pub path: String,
    /// Its objects in order.
    pub objects: Vec<SavedObject>,
}

/// One object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedObject {
    /// The document as it was given.
    pub raw: Document,
    /// Where it was.
    pub origin: Origin,
    /// The lines of its rules.
    pub rule_lines: RuleLines,
}

pub(super) fn save(source: &str, path: &str, held: &[Resource]) -> SavedFile {
    let object = |resource: &Resource| SavedObject {
        raw: resource.raw.clone(),
        origin: resource.origin.clone(),
        rule_lines: resource.rule_lines(),
    };
    SavedFile {
        source: source.to_owned(),
        path: path.to_owned(),
        objects: held.iter().map(object).collect(),
    }
}

/// The resources of a saved file that are still valid, and what is wrong with the others.
pub(super) fn restore(file: SavedFile) -> (Vec<Resource>, Vec<Issue>) {
    let mut resources = Vec::new();
    let mut issues = Vec::new();
    for object in file.objects {
        match api::parse_document(&object.raw, &object.origin, &object.rule_lines) {
            Ok(resource) => resources.push(resource),
            Err(mut errors) => issues.append(&mut errors),
        }
    }
    (resources, issues)
}
