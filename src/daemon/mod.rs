//! moatd: one task that owns the loop *events, calculate, plan, apply, report*.

mod answer;
mod apply;
mod args;
mod boot;
mod connections;
#[cfg(feature = "etcd")]
mod contact;
pub mod control;
#[cfg(feature = "etcd")]
mod datastore;
#[cfg(not(feature = "etcd"))]
#[path = "no_datastore.rs"]
mod datastore;
mod engine;
mod health;
mod http;
mod kernel;
mod lock;
mod logging;
mod metrics;
mod notify;
mod published;
mod reading;
mod report;
mod run;
mod saving;
mod settings;
mod start;

#[cfg(feature = "etcd")]
pub use datastore::access;
pub use published::PublishedReport;
pub use report::{
    ApplyReport, ConfigReport, Degraded, EndpointReport, Event, Happening, Override, PlanReport,
    SnapshotReport, SourceReport, State, Status,
};

use std::process::ExitCode;

use clap::Parser;

use crate::config::OnRemove;
use crate::dataplane::iptables;
use args::{Args, Command};

/// Successful end.
const EX_OK: u8 = 0;
/// `sysexits`: wrong command line.
const EX_USAGE: u8 = 64;
/// `sysexits`: something that should work does not.
const EX_UNAVAILABLE: u8 = 69;
/// `sysexits`: a system call failed.
const EX_OSERR: u8 = 71;
/// `sysexits`: another instance runs, or the state cannot be used.
const EX_CANTCREAT: u8 = 73;
/// `sysexits`: the settings are wrong.
const EX_CONFIG: u8 = 78;

/// The program `moatd`.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no errors; a printing error has nowhere to go.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EX_USAGE } else { EX_OK });
        }
    };
    if let Err(error) = logging::init() {
        eprintln!("moatd: {error}");
    }
    let code = match args.command {
        Some(Command::Cleanup { on_remove, .. }) if on_remove && is_to_stay(&args) => EX_OK,
        Some(Command::Cleanup { dry_run, .. }) => cleanup(dry_run),
        Some(Command::Boot) => with_runtime(async |args| Ok(boot::boot(args).await), &args),
        Some(Command::Check) => boot::check(&args),
        None => with_runtime(async |args| run::run(args).await.map(|()| EX_OK), &args),
    };
    ExitCode::from(code)
}

fn with_runtime(work: impl AsyncFnOnce(&Args) -> Result<u8, Failure>, args: &Args) -> u8 {
    // Whatever is created belongs to root alone: socket, state, snapshot.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot start: {error}");
            return EX_OSERR;
        }
    };
    match runtime.block_on(work(args)) {
        Ok(code) => code,
        Err(failure) => {
            tracing::error!("{}", failure.message);
            failure.code
        }
    }
}

/// Whether the rules stay when the package goes. Wrong settings take no protection away.
fn is_to_stay(args: &Args) -> bool {
    let stay = match settings::load_all(args, Vec::new()) {
        Ok(loaded) => loaded.settings.on_remove == OnRemove::Keep,
        Err(errors) => {
            eprintln!("moatd cleanup: {}", settings::errors_text(&errors));
            true
        }
    };
    if stay {
        println!("moatd cleanup: the rules stay in the kernel; `moatd cleanup` removes them");
    }
    stay
}

fn cleanup(dry_run: bool) -> u8 {
    match iptables::cleanup_all(dry_run) {
        Ok(lines) if lines.is_empty() => {
            println!("moatd cleanup: nothing of moat is in the kernel")
        }
        Ok(lines) => {
            for line in &lines {
                println!("{line}");
            }
            let done = if dry_run { "would be undone" } else { "undone" };
            println!("moatd cleanup: {} changes {done}", lines.len());
        }
        Err(error) => {
            eprintln!("moatd cleanup: {error}");
            return EX_UNAVAILABLE;
        }
    }
    EX_OK
}

/// An error and what caused it, for one line.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Why the daemon ends, and the exit code that says so.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn new(code: u8, message: impl Into<String>) -> Failure {
        Failure {
            code,
            message: message.into(),
        }
    }
}
