//! Child processes: fixed programs, arguments as a list, a clean environment, input by pipe.

use std::io::Write;
use std::process::{Command, Stdio};

/// Where the firewall tools are looked for; the caller's PATH is not trusted.
const TOOL_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of a tool's error output is kept.
const MAX_STDERR: usize = 2000;

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
}

/// Runs a tool with this input and returns what it printed.
///
/// # Errors
/// When it cannot be started or ends with an error.
pub fn run(program: &str, args: &[&str], input: &str) -> Result<String, CommandError> {
    let spawn_error = |source| CommandError::Spawn {
        program: program.to_owned(),
        source,
    };
    let mut command = Command::new(program);
    // NOTIFY_SOCKET and friends are for us, not for children; messages must be parseable in every locale.
    command
        .env_clear()
        .env("PATH", TOOL_PATH)
        .env("LC_ALL", "C");
    if let Some(lock) = std::env::var_os("XTABLES_LOCKFILE") {
        command.env("XTABLES_LOCKFILE", lock);
    }
    command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(spawn_error)?;
    let mut stdin = child.stdin.take();
    // A tool may fill its output pipe before it has read everything: feed it from a thread of its own.
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            if let Some(mut pipe) = stdin.take() {
                // A tool that stops reading says why on stderr.
                let _ = pipe.write_all(input.as_bytes());
            }
        });
        child.wait_with_output()
    });
    let output = output.map_err(spawn_error)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr: String = String::from_utf8_lossy(&output.stderr)
        .trim()
        .chars()
        .take(MAX_STDERR)
        .collect();
    let line = named_line(&stderr)
        .and_then(|n| input.lines().nth(n.checked_sub(1)?))
        .map(str::to_owned);
    Err(CommandError::Failed {
        program: format!("{program} {}", args.join(" ")),
        status: output.status.to_string(),
        stderr,
        line,
    })
}

/// The number after "line" in an error message of `iptables-restore` or `ipset restore`.
fn named_line(stderr: &str) -> Option<usize> {
    let rest = stderr.split("line").nth(1)?;
    let digits: String = rest
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}
