//! The lock that keeps two daemons from working on one host.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;

/// How long a lock that is held is waited for. A daemon that was killed while it started a tool leaves a child that has the
/// lock too until it executes the tool, which closes it: milliseconds, on a busy machine more.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(5);

/// Held as long as it lives. The kernel frees it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why the lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "another moatd{} holds {}: stop it first, or give this one another stateDir",
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(),
        path.display()
    )]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The other process, if it said.
        pid: Option<u32>,
    },
    /// The state directory does not exist.
    #[error("the state directory {} does not exist: create it, with mode 0700", .0.display())]
    NoDirectory(PathBuf),
    /// The lock file could not be opened or written.
    #[error("cannot lock {}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Takes the lock `lock` in the state directory `dir`, and writes the pid of this process into it.
///
/// # Errors
/// Another process has it, or the file cannot be made.
pub fn acquire(dir: &Path) -> Result<Lock, LockError> {
    let path = dir.join("lock");
    let io_error = |source: io::Error| LockError::Io {
        path: path.clone(),
        source,
    };
    let mut file = match open_lock(dir, &path) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Err(LockError::NoDirectory(dir.to_owned())),
        Err(e) => return Err(io_error(e.into())),
    };
    match wait_for(&file) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            return Err(LockError::Held {
                pid: pid_in(&mut file),
                path,
            });
        }
        Err(e) => return Err(io_error(e.into())),
    }
    let noted = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(error) = noted {
        tracing::warn!("cannot write {}: {error}", path.display());
    }
    Ok(Lock { _file: file })
}

/// Waits for a second at most.
fn wait_for(file: &File) -> Result<(), Errno> {
    let end = Instant::now() + PATIENCE;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < end => thread::sleep(PAUSE),
            result => return result,
        }
    }
}

/// A disk that is full or read-only must not leave the host unprotected: then the lock is on what is there to open.
fn open_lock(dir: &Path, path: &Path) -> Result<File, Errno> {
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let for_writing = OFlags::RDWR | OFlags::CREATE | flags;
    let is_stuck = |e: &Errno| matches!(*e, Errno::ROFS | Errno::NOSPC | Errno::DQUOT);
    match open(path, for_writing, Mode::RUSR | Mode::WUSR) {
        Err(e) if is_stuck(&e) => open(path, OFlags::RDONLY | flags, Mode::empty())
            .or_else(|_| open(dir, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())),
        opened => opened,
    }
    .map(File::from)
}

fn pid_in(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::fs::write(&path, "4000000000 and more than fits\n").unwrap();
        let lock = acquire(dir.path()).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            format!("{}\n", std::process::id())
        );
        let refused = acquire(dir.path()).unwrap_err().to_string();
        let said = format!(
            "another moatd (pid {}) holds {}",
            std::process::id(),
            path.display()
        );
        assert!(refused.starts_with(&said), "{refused}");
        drop(lock);
        acquire(dir.path()).unwrap();
    }

    #[test]
    fn what_is_left_of_a_killed_daemon_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let lock = acquire(dir.path()).unwrap();
        let left = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            drop(lock);
        });
        acquire(dir.path()).unwrap();
        left.join().unwrap();
    }

    #[test]
    fn a_new_file_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let _lock = acquire(dir.path()).unwrap();
        let mode = std::fs::metadata(dir.path().join("lock"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o600);
    }

    #[test]
    fn says_what_is_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let missing = acquire(&dir.path().join("none")).unwrap_err();
        assert!(
            missing.to_string().contains("does not exist: create it"),
            "{missing}"
        );
        symlink("elsewhere", dir.path().join("lock")).unwrap();
        assert!(matches!(acquire(dir.path()), Err(LockError::Io { .. })));
    }
}
