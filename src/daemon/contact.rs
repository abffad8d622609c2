//! When the datastore last told something, kept over restarts: without the datastore it is the age of the policy in force.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// In the state directory, as RFC 3339.
const NAME: &str = "datastore-contact";
const NEW: &str = "datastore-contact.new";
/// A disk is not to be woken up more often.
const PAUSE: Duration = Duration::from_secs(60);

/// The time on disk.
#[derive(Debug)]
pub struct Contact {
    dir: PathBuf,
    written: Option<SystemTime>,
    next: Instant,
}

impl Contact {
    /// What an earlier run left in the state directory.
    pub fn read(dir: &Path) -> Contact {
        let text = fs::read_to_string(dir.join(NAME)).ok();
        let written = text.and_then(|text| humantime::parse_rfc3339(text.trim()).ok());
        Contact {
            dir: dir.to_owned(),
            // A clock that was wrong then or is now tells nothing.
            written: written.filter(|time| *time <= SystemTime::now()),
            next: Instant::now(),
        }
    }

    /// The time on disk, if there is one.
    pub fn time(&self) -> Option<SystemTime> {
        self.written
    }

    /// Writes a time that is another one, at most once a minute; at once if this is the last chance.
    pub fn keep(&mut self, time: Option<SystemTime>, is_last: bool) {
        let Some(time) = time.filter(|time| Some(*time) != self.written) else {
            return;
        };
        if !is_last && Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + PAUSE;
        match self.write(time) {
            Ok(()) => self.written = Some(time),
            Err(error) => {
                let path = self.dir.join(NAME);
                tracing::warn!(
                    "{}: {error}: after a restart without the datastore its last contact seems older",
                    path.display()
                );
            }
        }
    }

    fn write(&self, time: SystemTime) -> io::Result<()> {
        let new = self.dir.join(NEW);
        fs::write(
            &new,
            format!("{}\n", humantime::format_rfc3339_millis(time)),
        )?;
        fs::rename(new, self.dir.join(NAME))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now() - Duration::from_secs(3600);
        let mut contact = Contact::read(dir.path());
        assert_eq!(contact.time(), None);
        contact.keep(Some(now), false);
        contact.keep(Some(SystemTime::now()), false);
        let kept = |contact: &Contact| contact.time().unwrap().duration_since(now);
        let again = Contact::read(dir.path());
        let is_near = |age: Duration| age < Duration::from_millis(2);
        assert!(
            kept(&again).is_ok_and(is_near) || kept(&again).is_err_and(|e| is_near(e.duration()))
        );
        let last = SystemTime::now();
        contact.keep(Some(last), true);
        assert!(kept(&Contact::read(dir.path())).unwrap() >= Duration::from_secs(3599));
        for text in ["", "yesterday", "9999-01-01T00:00:00Z"] {
            fs::write(dir.path().join(NAME), text).unwrap();
            assert_eq!(Contact::read(dir.path()).time(), None, "{text}");
        }
    }
}
