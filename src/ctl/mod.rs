//! moatctl: one file per command. It never decides anything itself: it asks the daemon, or runs the very same library on files.

mod checksystem;
mod client;
mod config;
#[cfg(feature = "etcd")]
mod datastore;
mod doctor;
mod explain;
mod files;
mod get;
mod output;
mod plan;
mod progress;
mod status;
mod validate;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use output::Output;

/// Good.
const EX_OK: u8 = 0;
/// The answer is no: invalid, denied.
const EX_NO: u8 = 1;
/// Something would change.
const EX_CHANGES: u8 = 2;
/// `sysexits`: wrong command line.
const EX_USAGE: u8 = 64;
/// `sysexits`: an input does not exist or cannot be read.
const EX_NOINPUT: u8 = 66;
/// `sysexits`: the daemon does not answer.
const EX_UNAVAILABLE: u8 = 69;
/// `sysexits`: the settings are wrong.
const EX_CONFIG: u8 = 78;

/// Asks and checks moat, the agent that enforces Calico network policy on this host.
#[derive(Debug, Parser)]
#[command(name = "moatctl", version, about, long_about = None, after_help = EXIT_HELP)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXIT_HELP: &str = "Exit codes: 0 good; 1 the answer is no (invalid, denied); 2 something would change (plan); \
64 wrong usage; 66 input cannot be read; 69 moatd does not answer; 78 settings are wrong. \
Commands that write a datastore, and get from one: 1 for every failure, as calicoctl.";

#[derive(Clone, Debug, Args)]
struct Global {
    /// Control socket of moatd
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "MOAT_SOCKET",
        default_value = "/run/moat/moatd.sock"
    )]
    socket: PathBuf,
    /// Form of the answer
    #[arg(short, long, global = true, value_name = "FORM", value_parser = Output::parse, default_value = "text")]
    output: Output,
    /// Settings file, of moat or of calicoctl, for commands that work offline or on a datastore
    #[arg(short, long, global = true, value_name = "FILE", env = "MOAT_CONFIG")]
    config: Option<PathBuf>,
    /// Name of the host that questions are about, offline
    #[arg(long, global = true, value_name = "NAME")]
    node: Option<String>,
    /// Nothing: versions never stand in the way. Accepted for scripts written for calicoctl
    #[arg(long, global = true)]
    allow_version_mismatch: bool,
    /// Nothing: no Kubernetes is asked. Accepted for scripts written for calicoctl
    #[arg(long, global = true, value_name = "CONTEXT")]
    context: Option<String>,
    /// Nothing: there is no log. Accepted for scripts written for calicoctl
    #[arg(short, long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check policy files; exit 1 when something is invalid
    Validate(validate::Validate),
    /// Show what would change in the kernel; exit 2 when something would
    Plan(plan::Plan),
    /// Say what policy does with a packet, and which rule decides; exit 1 when it is denied
    Explain(explain::Explain),
    /// Show what moatd enforces and what is wrong
    Status(status::StatusArgs),
    /// Show resources in force
    Get(get::Get),
    /// Write new resources into the datastore
    #[cfg(feature = "etcd")]
    Create(datastore::Change),
    /// Write new or changed resources into the datastore
    #[cfg(feature = "etcd")]
    Apply(datastore::Change),
    /// Write changed resources into the datastore
    #[cfg(feature = "etcd")]
    Replace(datastore::Change),
    /// Change parts of a resource in the datastore
    #[cfg(feature = "etcd")]
    Patch(datastore::Patch),
    /// Remove resources from the datastore
    #[cfg(feature = "etcd")]
    Delete(datastore::Delete),
    /// Set or remove a label of a resource in the datastore
    #[cfg(feature = "etcd")]
    Label(datastore::Label),
    /// Show what apply would change; exit 2 when something would
    #[cfg(feature = "etcd")]
    Diff(datastore::Diff),
    /// Lock, move and unlock the datastore
    #[cfg(feature = "etcd")]
    #[command(subcommand)]
    Datastore(datastore::Datastore),
    /// Show and change what Calico's address management keeps
    #[cfg(feature = "etcd")]
    #[command(subcommand)]
    Ipam(datastore::Ipam),
    /// Show which hosts are alive
    #[cfg(feature = "etcd")]
    #[command(subcommand)]
    Node(datastore::Node),
    /// Print Felix's settings in the form of moat.toml
    #[cfg(feature = "etcd")]
    Import(datastore::Import),
    /// Show settings
    #[command(subcommand)]
    Config(config::Config),
    /// Check that this kernel and its tools have what moat needs; exit 1 when something is missing
    Checksystem,
    /// Check the system, and list what other packet filters can do to policy; exit 1 when there is anything to mend
    Doctor,
    /// Show the version
    Version,
    /// Print a completion script for a shell
    Completion {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

/// Why a command has no answer, and the exit code that says so.
#[derive(Debug)]
struct Failure {
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

type Outcome = Result<u8, Failure>;

/// The program `moatctl`.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; a printing error has nowhere to go.
            let _ = error.print();
            let wrong = if is_calicoctls() { EX_NO } else { EX_USAGE };
            return ExitCode::from(if error.use_stderr() { wrong } else { EX_OK });
        }
    };
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("moatctl: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// Whether the command line is of a verb that only calicoctl's users know, for whom every failure is 1.
fn is_calicoctls() -> bool {
    const VERBS: [&str; 9] = [
        "create",
        "apply",
        "replace",
        "patch",
        "delete",
        "label",
        "datastore",
        "ipam",
        "node",
    ];
    let commands = Cli::command();
    let mut words = std::env::args().skip(1);
    let verb = words.find(|word| commands.find_subcommand(word).is_some());
    verb.is_some_and(|verb| VERBS.contains(&verb.as_str()))
}

fn run(cli: Cli) -> Outcome {
    let done = answer(cli);
    done.map_err(|failure| match is_calicoctls() {
        true => Failure::new(EX_NO, failure.message),
        false => failure,
    })
}

fn answer(cli: Cli) -> Outcome {
    let global = &cli.global;
    match cli.command {
        Command::Validate(args) => validate::run(global, &args),
        Command::Plan(args) => plan::run(global, &args),
        Command::Explain(args) => explain::run(global, &args),
        Command::Status(args) => status::run(global, &args),
        Command::Get(args) => get::run(global, &args),
        #[cfg(feature = "etcd")]
        Command::Create(args) => args.run(global, datastore::Verb::Create),
        #[cfg(feature = "etcd")]
        Command::Apply(args) => args.run(global, datastore::Verb::Apply),
        #[cfg(feature = "etcd")]
        Command::Replace(args) => args.run(global, datastore::Verb::Replace),
        #[cfg(feature = "etcd")]
        Command::Patch(args) => args.run(global),
        #[cfg(feature = "etcd")]
        Command::Delete(args) => args.run(global),
        #[cfg(feature = "etcd")]
        Command::Label(args) => args.run(global),
        #[cfg(feature = "etcd")]
        Command::Diff(args) => args.run(global),
        #[cfg(feature = "etcd")]
        Command::Datastore(args) => args.run(global),
        #[cfg(feature = "etcd")]
        Command::Ipam(args) => args.run(global),
        #[cfg(feature = "etcd")]
        Command::Node(args) => args.run(global),
        #[cfg(feature = "etcd")]
        Command::Import(args) => args.run(),
        Command::Config(command) => config::run(global, &command),
        Command::Checksystem => checksystem::run(global),
        Command::Doctor => doctor::run(global),
        Command::Version => {
            let version = serde_json::json!({"version": env!("CARGO_PKG_VERSION")});
            output::print(global.output, &version, || {
                format!("moatctl {}", env!("CARGO_PKG_VERSION"))
            })?;
            Ok(EX_OK)
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "moatctl", &mut script);
            output::print_raw(&String::from_utf8_lossy(&script))?;
            Ok(EX_OK)
        }
    }
}
