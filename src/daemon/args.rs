//! The command line of moatd.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Where the settings are when nobody says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/moat/moat.toml";

/// Enforces Calico network policy on this host.
#[derive(Clone, Debug, Parser)]
#[command(name = "moatd", version, about, long_about = None)]
pub struct Args {
    /// Settings file
    #[arg(long, value_name = "FILE", env = "MOAT_CONFIG")]
    pub config: Option<PathBuf>,
    /// Name of this host in policy (default: felixHostname, else the host name in lower case)
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// What to do instead of serving in the foreground
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Instead of serving.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Enforce the last good policy once, before the network is up, and end
    Boot,
    /// Say whether this version could work with the settings and the state, and change nothing
    Check,
    /// Remove everything that moat ever put into the kernel, and nothing else
    Cleanup {
        /// Only print what would be removed
        #[arg(long)]
        dry_run: bool,
        /// Only if the setting onRemove is "clean"; for packages
        #[arg(long)]
        on_remove: bool,
    },
}
