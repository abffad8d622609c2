//! Walking paths as the kernel does, to know which names lead to a policy directory or file.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use super::is_policy_file;

/// More links than this on a path are a loop, as for the kernel.
const MAX_LINKS: usize = 40;

/// The names of a directory's policy files that are symbolic links; none when it cannot be listed, which the scan reports.
pub fn linked_files(dir: &Path) -> Vec<OsString> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let is_link = |e: &std::fs::DirEntry| {
        is_policy_file(&e.file_name().to_string_lossy())
            && e.file_type().is_ok_and(|t| t.is_symlink())
    };
    entries.filter(is_link).map(|e| e.file_name()).collect()
}

/// Walks an absolute path as the kernel would: the (directory, name) pairs it looks up, and where it ends.
/// Missing parts are taken for ordinary directories.
pub fn resolve(path: &Path) -> (Vec<(PathBuf, OsString)>, PathBuf) {
    let mut rest: VecDeque<OsString> = path.iter().map(OsStr::to_owned).collect();
    let mut at = PathBuf::from("/");
    let mut steps = Vec::new();
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => at = PathBuf::from("/"),
            Some(Component::ParentDir) => drop(at.pop()),
            Some(Component::Normal(_)) => {
                let next = at.join(&part);
                steps.push((at.clone(), part));
                match std::fs::read_link(&next) {
                    Ok(target) if links < MAX_LINKS => {
                        links += 1;
                        target
                            .iter()
                            .rev()
                            .for_each(|part| rest.push_front(part.to_owned()));
                    }
                    _ => at = next,
                }
            }
            _ => {}
        }
    }
    (steps, at)
}
