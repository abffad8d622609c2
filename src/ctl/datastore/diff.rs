//! `moatctl diff`: what apply would change.

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::Inputs;
use super::db::Db;
use crate::api::to_yaml;
use crate::ctl::{EX_CHANGES, EX_OK, Global, Outcome, output};
use crate::etcd::document;

/// More lines than this are not compared one by one.
const MAX_LINES: usize = 2000;

/// Command line.
#[derive(Debug, Args)]
pub struct Diff {
    #[command(flatten)]
    inputs: Inputs,
    /// Namespace of resources that name none
    #[arg(short, long)]
    namespace: Option<String>,
}

/// What would change of a resource.
#[derive(Debug, Serialize)]
struct Difference {
    resource: String,
    /// Lines of YAML, with `-` before those that would go and `+` before those that would come.
    changes: Vec<String>,
}

impl Diff {
    /// Compares files with the datastore; exit code 2 when apply would change something.
    pub fn run(&self, global: &Global) -> Outcome {
        let resources = self.inputs.read(global, self.namespace.as_deref())?;
        let mut db = Db::open(global)?;
        let mut differences = Vec::new();
        for resource in &resources {
            let stored = db.find(&resource.id)?;
            let key = match &stored {
                Some(stored) => stored.key.clone(),
                None => db.new_key(resource)?,
            };
            let before = stored.map(|stored| stored.document);
            let after = document::complete(resource, before.as_ref(), &key);
            let after = document::shown(after, 0);
            let text = |value: &Value| to_yaml(&document::exported(value.clone()));
            let old = before.as_ref().map(text).unwrap_or_default();
            let changes = compare(&old, &text(&after));
            if !changes.is_empty() {
                let resource = resource.id.to_string();
                differences.push(Difference { resource, changes });
            }
        }
        output::print(global.output, &differences, || text(&differences))?;
        Ok(match differences.is_empty() {
            true => EX_OK,
            false => EX_CHANGES,
        })
    }
}

fn text(differences: &[Difference]) -> String {
    if differences.is_empty() {
        return "nothing would change".to_owned();
    }
    let one = |d: &Difference| format!("{}:\n{}", d.resource, d.changes.join("\n"));
    differences.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// Lines that go and come, and those around them.
fn compare(old: &str, new: &str) -> Vec<String> {
    if old == new {
        return Vec::new();
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    if old.len().max(new.len()) > MAX_LINES {
        return vec![format!("  {} lines become {}", old.len(), new.len())];
    }
    // Longest common subsequence of what follows each pair of places.
    let mut common = vec![vec![0u16; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = match old[i] == new[j] {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(format!("  {}", old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(format!("- {}", old[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", new[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::compare;

    #[test]
    fn lines() {
        assert!(compare("a\nb\n", "a\nb\n").is_empty());
        assert_eq!(
            compare("a\nb\nc\n", "a\nx\nc\n"),
            ["  a", "- b", "+ x", "  c"]
        );
        assert_eq!(compare("", "a\n"), ["+ a"]);
    }
}
