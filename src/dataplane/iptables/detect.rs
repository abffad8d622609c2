//! Which of the two backends: the setting, then what was used before, then what the host uses, then what the kernel has.

use std::fmt;
use std::path::Path;

use super::super::command::Tools;
use super::save::CHAIN_PREFIX;
use crate::api::Family;
use crate::config::IptablesBackend;

/// The two ways in which the iptables tools talk to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// nf_tables.
    Nft,
    /// x_tables.
    Legacy,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Nft => "nft",
            Backend::Legacy => "legacy",
        })
    }
}

impl Backend {
    /// The other one.
    pub fn other(self) -> Backend {
        match self {
            Backend::Nft => Backend::Legacy,
            Backend::Legacy => Backend::Nft,
        }
    }

    /// By its name.
    pub fn parse(text: &str) -> Option<Backend> {
        match text.trim() {
            "nft" => Some(Backend::Nft),
            "legacy" => Some(Backend::Legacy),
            _ => None,
        }
    }

    /// The program of a family: `what` is `save`, `restore` or empty.
    pub fn tool(self, family: Family, what: &str) -> String {
        let base = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let dash = if what.is_empty() { "" } else { "-" };
        format!("{base}-{self}{dash}{what}")
    }

    /// Whether looking is worth while. Asking the legacy tool loads its kernel modules, so it is asked only when they are there.
    pub fn may_hold_rules(self) -> bool {
        match self {
            Backend::Nft => true,
            Backend::Legacy => ["ip", "ip6"]
                .iter()
                .map(|family| format!("/proc/thread-self/net/{family}_tables_names"))
                .any(|p| std::fs::read_to_string(p).is_ok_and(|t| !t.trim().is_empty())),
        }
    }

    fn works(self) -> bool {
        let tool = self.tool(Family::V4, "save");
        let tools = Tools::default();
        tools.run(&tool, &["-t", "filter"], String::new()).is_ok()
    }

    /// Rules of others.
    fn foreign_rules(self) -> usize {
        if !self.may_hold_rules() {
            return 0;
        }
        let tool = self.tool(Family::V4, "save");
        let mut count = 0;
        let read = Tools::default().read(&tool, &[], String::new(), |line| {
            count += usize::from(line.starts_with("-A ") && !line.contains(CHAIN_PREFIX));
            true
        });
        read.map_or(0, |()| count)
    }
}

/// A backend and why it was chosen.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The backend.
    pub backend: Backend,
    /// In words.
    pub why: String,
}

/// Chooses, and remembers the choice in the state directory so that a later start does not flip.
///
/// # Errors
/// A sentence for the operator when neither backend works.
pub fn choose(setting: IptablesBackend, state_dir: &Path) -> Result<Choice, String> {
    let choice = decide(setting, &state_dir.join("backend"))?;
    let file = state_dir.join("backend");
    let remembered = std::fs::read_to_string(&file)
        .ok()
        .and_then(|t| Backend::parse(&t));
    if remembered != Some(choice.backend)
        && let Err(error) = std::fs::write(&file, format!("{}\n", choice.backend))
    {
        tracing::warn!(
            "cannot remember the iptables backend in {}: {error}",
            file.display()
        );
    }
    Ok(choice)
}

/// What [`choose`] would choose.
///
/// # Errors
/// As [`choose`].
pub fn would_choose(setting: IptablesBackend, state_dir: &Path) -> Result<Choice, String> {
    decide(setting, &state_dir.join("backend"))
}

fn decide(setting: IptablesBackend, file: &Path) -> Result<Choice, String> {
    let choice = |backend, why: &str| {
        Ok(Choice {
            backend,
            why: why.to_owned(),
        })
    };
    match setting {
        IptablesBackend::Nft => return choice(Backend::Nft, "set by iptablesBackend"),
        IptablesBackend::Legacy => return choice(Backend::Legacy, "set by iptablesBackend"),
        IptablesBackend::Auto => {}
    }
    if let Some(backend) = std::fs::read_to_string(file)
        .ok()
        .and_then(|t| Backend::parse(&t))
        && backend.works()
    {
        return choice(backend, "used before on this host");
    }
    let (nft, legacy) = (
        Backend::Nft.foreign_rules(),
        Backend::Legacy.foreign_rules(),
    );
    if nft != legacy {
        let backend = if nft > legacy {
            Backend::Nft
        } else {
            Backend::Legacy
        };
        return choice(
            backend,
            &format!("the host's own rules are there ({nft} in nft, {legacy} in legacy)"),
        );
    }
    for backend in [Backend::Nft, Backend::Legacy] {
        if backend.works() {
            return choice(backend, "the kernel and the tools have it");
        }
    }
    Err("neither iptables-nft-save nor iptables-legacy-save works: install iptables, or run as root".to_owned())
}
