//! Child processes: fixed programs, arguments as a list, a clean environment, input by pipe, and an end in any case.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

/// Where the firewall tools are looked for; the caller's PATH is not trusted.
pub(super) const TOOL_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a tool may take: minutes of work for the largest tables on a slow host, and the wait for a lock.
const PATIENCE: Duration = Duration::from_secs(120);
/// How much of a tool's error output is kept.
const MAX_STDERR: usize = 2000;
/// How much a tool may print: more than the rules of any host.
const MAX_OUTPUT: usize = 256 << 20;
/// The longest line that a tool may print.
const MAX_LINE: usize = 64 << 10;
/// What is read from a tool at once, and how many of these pieces may wait.
const PIECE: usize = 64 << 10;
const PIECES: usize = 4;

/// A tool that could not be run, or failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Not installed, or not executable.
    #[error("cannot run {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// It ended with an error.
    #[error(
        "{program} failed ({status}): {stderr}{}",
        line.as_ref().map_or(String::new(), |line| format!(", in the line: {line}"))
    )]
    Failed {
        /// The program with its arguments.
        program: String,
        /// How it ended.
        status: String,
        /// What it said, shortened.
        stderr: String,
        /// The input line it complained about, when it named one.
        line: Option<String>,
    },
    /// It did not end, and was ended.
    #[error("{program} did not end within {} s and was killed", .patience.as_secs_f32())]
    Hung {
        /// The program with its arguments.
        program: String,
        /// How long it had.
        patience: Duration,
    },
    /// It printed what such a tool does not print.
    #[error("{program} printed what is no answer: {line}")]
    Nonsense {
        /// The program with its arguments.
        program: String,
        /// The line, or what is wrong with all of it.
        line: String,
    },
}

impl CommandError {
    /// Whether the program is missing on this host.
    pub fn is_missing(&self) -> bool {
        matches!(self, CommandError::Spawn { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }

    /// Whether an iptables tool met a native nft rule that it has no words for. Depending on the rule it ends like this, or with
    /// success and a remark.
    pub fn is_unreadable_rule(&self) -> bool {
        matches!(self, CommandError::Failed { stderr, .. } if stderr.contains("Parsing nftables rule failed"))
    }

    /// Whether another program held the lock of the legacy tables all the time.
    pub fn is_locked(&self) -> bool {
        matches!(self, CommandError::Failed { stderr, .. } if stderr.contains("xtables lock"))
    }

    /// Whether the tool did its work and refused what it was given, as opposed to a tool that does not work.
    pub fn is_refusal(&self) -> bool {
        matches!(self, CommandError::Failed { .. }) && !self.is_locked()
    }

    /// What the tool said, in one line.
    pub fn words(&self) -> String {
        let text = match self {
            CommandError::Failed { stderr, .. } if !stderr.is_empty() => stderr.clone(),
            other => other.to_string(),
        };
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// The firewall programs of the host.
#[derive(Clone, Debug)]
pub struct Tools {
    path: OsString,
    patience: Duration,
}

impl Default for Tools {
    fn default() -> Tools {
        Tools::new(TOOL_PATH, PATIENCE)
    }
}

/// What a tool does, in the order in which it is noticed.
enum Event {
    Output(Vec<u8>),
    Said(String),
    Ended(std::io::Result<ExitStatus>),
}

impl Tools {
    /// Programs in these directories, which may take so long.
    pub fn new(path: impl Into<OsString>, patience: Duration) -> Tools {
        Tools {
            path: path.into(),
            patience,
        }
    }

    /// Runs a tool with this input; what it prints is of no interest.
    ///
    /// # Errors
    /// When it cannot be started, ends with an error or does not end.
    pub fn run(&self, program: &str, args: &[&str], input: String) -> Result<(), CommandError> {
        self.read(program, args, input, |_| true)
    }

    /// Runs a tool with this input and shows each line that it prints, until one is called nonsense.
    ///
    /// # Errors
    /// When it cannot be started, ends with an error, does not end or prints nonsense.
    pub fn read(
        &self,
        program: &str,
        args: &[&str],
        input: String,
        mut take: impl FnMut(&str) -> bool,
    ) -> Result<(), CommandError> {
        let end = Instant::now() + self.patience;
        let spawned = self.spawn(program, args);
        let child = spawned.map_err(|source| CommandError::Spawn {
            program: program.to_owned(),
            source,
        })?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let input = Arc::new(input);
        let events = listen(child, input.clone());
        let program = [&[program], args].concat().join(" ");
        let (status, stderr) = match follow(&events, end, &mut take) {
            Ok(done) => done,
            Err(problem) => {
                // With everything that it has started, or that would hold the pipes.
                let _ = group.map(|group| kill_process_group(group, Signal::KILL));
                let patience = self.patience;
                return Err(match problem {
                    Problem::Hung => CommandError::Hung { program, patience },
                    Problem::Nonsense(line) => CommandError::Nonsense { program, line },
                });
            }
        };
        match status {
            Some(Ok(status)) if status.success() => Ok(()),
            Some(Ok(status)) => Err(failed(program, status.to_string(), stderr, &input)),
            Some(Err(error)) => Err(failed(program, error.to_string(), stderr, &input)),
            None => Err(failed(program, "no status".to_owned(), stderr, &input)),
        }
    }

    fn spawn(&self, program: &str, args: &[&str]) -> std::io::Result<Child> {
        let mut command = Command::new(self.locate(program)?);
        // NOTIFY_SOCKET and friends are for us, not for children; messages must be parseable in every locale.
        command
            .env_clear()
            .env("PATH", &self.path)
            .env("LC_ALL", "C")
            .process_group(0);
        if let Some(lock) = std::env::var_os("XTABLES_LOCKFILE") {
            command.env("XTABLES_LOCKFILE", lock);
        }
        let child = command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        remember(child.id());
        Ok(child)
    }

    /// The file of a program. A name that is yet to be looked for would make the standard library fork, which copies the page
    /// tables of the whole daemon for each tool; for a file it uses `vfork`.
    fn locate(&self, program: &str) -> std::io::Result<PathBuf> {
        let mut problem = Errno::NOENT;
        for dir in std::env::split_paths(&self.path) {
            let file = dir.join(program);
            match access(&file, Access::EXEC_OK) {
                Ok(()) => return Ok(file),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(other) => problem = other,
            }
        }
        Err(problem.into())
    }
}

/// Why a tool is ended.
enum Problem {
    Hung,
    Nonsense(String),
}

type Ending = (Option<std::io::Result<ExitStatus>>, String);

/// Shows the lines of a tool until it has ended; how it ended, and what it said.
fn follow(
    events: &Receiver<Event>,
    end: Instant,
    take: &mut impl FnMut(&str) -> bool,
) -> Result<Ending, Problem> {
    let mut lines = Lines::default();
    let (mut status, mut said) = (None, String::new());
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match events.recv_timeout(left) {
            Ok(Event::Output(piece)) => lines.feed(&piece, take).map_err(Problem::Nonsense)?,
            Ok(Event::Said(text)) => said = text,
            Ok(Event::Ended(result)) => status = Some(result),
            Err(RecvTimeoutError::Timeout) => return Err(Problem::Hung),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // The last line of a tool that failed may be half of one.
    if matches!(&status, Some(Ok(status)) if status.success()) {
        lines.finish(take).map_err(Problem::Nonsense)?;
    }
    Ok((status, said))
}

/// Processes that this program started lately, the newest last.
static OWN: Mutex<VecDeque<u32>> = Mutex::new(VecDeque::new());
/// More than are ever under way or just over.
const MAX_OWN: usize = 64;

fn own() -> MutexGuard<'static, VecDeque<u32>> {
    // The list is whole at any moment, even if a thread ended while it held the lock.
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remember(pid: u32) {
    let mut own = own();
    if own.len() == MAX_OWN {
        own.pop_front();
    }
    own.push_back(pid);
}

/// Whether a process is a tool that this program started lately.
pub fn is_own(pid: u32) -> bool {
    own().contains(&pid)
}

/// Follows a child from threads of their own: none of them can be held up by another, nor the caller by any of them. They end
/// with the child and whoever has inherited its pipes.
fn listen(mut child: Child, input: Arc<String>) -> Receiver<Event> {
    let (sender, events) = sync_channel(PIECES);
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    if let Some(mut stdin) = stdin
        && !input.is_empty()
    {
        thread::spawn(move || {
            // A tool that stops reading says why on stderr.
            let _ = stdin.write_all(input.as_bytes());
        });
    }
    let to_caller = sender.clone();
    thread::spawn(move || {
        let text = stderr.map(said).unwrap_or_default();
        // The caller may have lost patience.
        let _ = to_caller.send(Event::Said(text));
    });
    thread::spawn(move || {
        if let Some(stdout) = stdout {
            forward(stdout, &sender);
        }
        let _ = sender.send(Event::Ended(child.wait()));
    });
    events
}

fn forward(mut output: impl Read, sender: &SyncSender<Event>) {
    let mut buffer = vec![0; PIECE];
    while let Ok(length @ 1..) = output.read(&mut buffer) {
        if sender
            .send(Event::Output(buffer[..length].to_vec()))
            .is_err()
        {
            return;
        }
    }
}

/// The beginning of an error output; the rest is read, so that the tool is not held up.
fn said(mut errors: impl Read) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = errors.read(&mut buffer) {
        let room = (4 * MAX_STDERR).saturating_sub(kept.len());
        kept.extend(&buffer[..length.min(room)]);
    }
    let text = String::from_utf8_lossy(&kept);
    text.trim().chars().take(MAX_STDERR).collect()
}

fn failed(program: String, status: String, stderr: String, input: &str) -> CommandError {
    let line = named_line(&stderr)
        .and_then(|n| input.lines().nth(n.checked_sub(1)?))
        .map(str::to_owned);
    CommandError::Failed {
        program,
        status,
        stderr,
        line,
    }
}

/// Cuts pieces of output into lines.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    total: usize,
}

impl Lines {
    /// Shows the lines that are complete; the one that is nonsense is the error.
    fn feed(&mut self, piece: &[u8], take: &mut impl FnMut(&str) -> bool) -> Result<(), String> {
        self.total += piece.len();
        if self.total > MAX_OUTPUT {
            return Err("there is no end of it".to_owned());
        }
        let mut parts = piece.split(|b| *b == b'\n');
        let mut part = parts.next().unwrap_or(&[]);
        for next in parts {
            // Most lines lie in one piece and are not copied.
            if self.rest.is_empty() {
                show(part, take)?;
            } else {
                self.rest.extend(part);
                show(&self.rest, take)?;
                self.rest.clear();
            }
            part = next;
        }
        self.rest.extend(part);
        match self.rest.len() > MAX_LINE {
            true => Err("a line without end".to_owned()),
            false => Ok(()),
        }
    }

    fn finish(&self, take: &mut impl FnMut(&str) -> bool) -> Result<(), String> {
        match self.rest.is_empty() {
            true => Ok(()),
            false => show(&self.rest, take),
        }
    }
}

fn show(line: &[u8], take: &mut impl FnMut(&str) -> bool) -> Result<(), String> {
    let text = String::from_utf8_lossy(line);
    match take(&text) {
        true => Ok(()),
        false => Err(text.chars().take(MAX_STDERR).collect()),
    }
}

/// The number after "line" in an error message of `iptables-restore`.
fn named_line(stderr: &str) -> Option<usize> {
    let rest = stderr.split("line").nth(1)?;
    let digits: String = rest
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests;
