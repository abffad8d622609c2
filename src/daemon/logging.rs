//! Logging: to the journal when stderr is the journal, else to stderr.
//!
//! Events about something in particular carry it in the fields `policy`, `endpoint` and `source`, which the journal
//! stores as `POLICY=`, `ENDPOINT=` and `SOURCE=`.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::Severity;

/// Environment variable that overrides the level: a level, or directives such as `info,moat::calc=trace`.
pub const VARIABLE: &str = "MOAT_LOG";

const IDENTIFIER: &str = "moatd";

/// The filter in use, to be changed while the daemon runs.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The variable cannot be understood.
    #[error("the environment variable {VARIABLE} is not a log filter: {0}")]
    Variable(ParseError),
    /// Somebody else installed a subscriber before.
    #[error("logging is already set up")]
    Twice,
    /// [`set_level`] before [`init`].
    #[error("logging is not set up")]
    NotYet,
}

/// Starts logging, at level info until [`set_level`]. Call it first and once.
///
/// # Errors
/// The variable is wrong (nothing is logged then: say so on stderr and end), or logging is set up already.
pub fn init() -> Result<(), LogError> {
    let (filter, handle) = reload::Layer::new(filter(LevelFilter::INFO)?);
    tracing_subscriber::registry()
        .with(filter)
        .with(output())
        .try_init()
        .map_err(|_| LogError::Twice)?;
    FILTER.set(handle).map_err(|_| LogError::Twice)
}

/// Changes the level to what the settings say. [`VARIABLE`], where it is set, stays in force.
///
/// # Errors
/// The variable is wrong, or logging was not set up.
pub fn set_level(severity: Severity) -> Result<(), LogError> {
    let handle = FILTER.get().ok_or(LogError::NotYet)?;
    let level = level_of(severity);
    handle.reload(filter(level)?).map_err(|_| LogError::NotYet)
}

/// The level of a `logSeverityScreen`. Nothing here is fatal and goes on: errors are the last to be shown.
fn level_of(severity: Severity) -> LevelFilter {
    match severity {
        Severity::Trace => LevelFilter::TRACE,
        Severity::Debug => LevelFilter::DEBUG,
        Severity::Info => LevelFilter::INFO,
        Severity::Warning => LevelFilter::WARN,
        Severity::Error | Severity::Fatal => LevelFilter::ERROR,
    }
}

fn filter(level: LevelFilter) -> Result<EnvFilter, LogError> {
    let variable = std::env::var(VARIABLE).unwrap_or_default();
    filter_from(level, &variable).map_err(LogError::Variable)
}

/// The variable's directives if it has any, else the level. The netlink crates speak of every message they
/// do not know, so that they get no further than warnings unless they are asked for by name.
fn filter_from(level: LevelFilter, variable: &str) -> Result<EnvFilter, ParseError> {
    let wanted = if variable.trim().is_empty() {
        level.to_string()
    } else {
        variable.to_owned()
    };
    let (warnings, events) = (level.min(LevelFilter::WARN), level.min(LevelFilter::DEBUG));
    let caps = [
        ("netlink_proto", warnings),
        ("netlink_packet_route", warnings),
        ("rtnetlink", warnings),
        // To write a line wakes up what would log that it was woken up.
        ("tokio", events),
        ("mio", events),
        ("h2", events),
        ("hyper", events),
        ("hyper_util", events),
        ("tonic", events),
        ("tower", events),
    ]
    .map(|(name, cap)| format!("{name}={cap}"));
    EnvFilter::builder().parse(format!("{},{wanted}", caps.join(",")))
}

type Output = Box<dyn Layer<Filtered> + Send + Sync>;
type Filtered = tracing_subscriber::layer::Layered<reload::Layer<EnvFilter, Registry>, Registry>;

fn output() -> Output {
    match journal() {
        Some(journal) => journal.boxed(),
        None => fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(
                io::stderr().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
            )
            .with_target(false)
            .compact()
            .boxed(),
    }
}

/// The journal's own protocol, if stderr leads to the journal anyway (else its lines would be doubled or lost)
/// and its socket is there.
fn journal() -> Option<tracing_journald::Layer> {
    let stream = std::env::var("JOURNAL_STREAM").ok()?;
    let stat = rustix::fs::fstat(io::stderr()).ok()?;
    if !is_stream(&stream, stat.st_dev, stat.st_ino) {
        return None;
    }
    let layer = tracing_journald::layer().ok()?;
    Some(
        layer
            .with_field_prefix(None)
            .with_syslog_identifier(IDENTIFIER.to_owned())
            .with_priority_mappings(priorities()),
    )
}

/// `DEVICE:INODE`, as systemd writes it into the variable.
fn is_stream(variable: &str, device: u64, inode: u64) -> bool {
    variable
        .split_once(':')
        .is_some_and(|(d, i)| d.parse() == Ok(device) && i.parse() == Ok(inode))
}

/// The crate's own mapping makes an info a notice and a debug an info.
fn priorities() -> PriorityMappings {
    PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_recognised() {
        assert!(is_stream("8:12345", 8, 12345));
        for wrong in ["8:12346", "9:12345", "8", "", ":", "8:12345:1", "x:12345"] {
            assert!(!is_stream(wrong, 8, 12345), "{wrong}");
        }
    }

    /// The directives of a filter, sorted.
    fn directives(level: LevelFilter, variable: &str) -> Vec<String> {
        let text = filter_from(level, variable).unwrap().to_string();
        let mut directives: Vec<String> = text.split(',').map(str::to_owned).collect();
        directives.sort();
        directives
    }

    #[test]
    fn the_variable_overrides_the_level() {
        let capped = [
            "netlink_packet_route=warn",
            "netlink_proto=warn",
            "rtnetlink=warn",
        ];
        let has = |all: &[String], one: &str| all.iter().any(|held| held == one);
        let debug = directives(LevelFilter::DEBUG, " ");
        assert!(capped.iter().all(|cap| has(&debug, cap)), "{debug:?}");
        assert!(has(&directives(LevelFilter::DEBUG, ""), "debug"));
        assert!(has(&directives(LevelFilter::INFO, "trace"), "trace"));
        let trace = directives(LevelFilter::TRACE, "");
        assert!(
            has(&trace, "trace") && has(&trace, "tokio=debug"),
            "{trace:?}"
        );
        let named = directives(LevelFilter::INFO, "warn,moat::calc=trace,rtnetlink=debug");
        assert!(
            named.contains(&"rtnetlink=debug".to_owned())
                && !named.contains(&"rtnetlink=warn".to_owned())
        );
        assert!(directives(LevelFilter::ERROR, "").contains(&"rtnetlink=error".to_owned()));
        assert!(filter_from(LevelFilter::INFO, "moat=loudest").is_err());
    }

    /// One test for what is global to the process.
    #[test]
    fn set_up_once_and_changed_later() {
        assert!(matches!(set_level(Severity::Info), Err(LogError::NotYet)));
        init().unwrap();
        set_level(Severity::Fatal).unwrap();
        assert!(tracing::enabled!(tracing::Level::ERROR));
        assert!(!tracing::enabled!(tracing::Level::WARN));
        set_level(Severity::Debug).unwrap();
        assert!(tracing::enabled!(tracing::Level::DEBUG));
        assert!(!tracing::enabled!(target: "rtnetlink", tracing::Level::INFO));
        assert!(matches!(init(), Err(LogError::Twice)));
        set_level(Severity::Error).unwrap();
    }
}
