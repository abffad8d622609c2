//! The two iptables backends.

use super::netns::Namespace;

/// Which iptables a run uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// iptables over nf_tables.
    Nft,
    /// iptables over x_tables.
    Legacy,
}

impl Backend {
    /// As in `iptablesBackend`.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Nft => "nft",
            Backend::Legacy => "legacy",
        }
    }

    /// Runs a line of `host_rules` on the protected host.
    ///
    /// # Errors
    /// The line is no iptables command, or it fails.
    pub fn host_rule(self, host: &Namespace, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let programs: &[&str] = match words.first() {
            Some(&"iptables") => &["iptables"],
            Some(&"ip6tables") => &["ip6tables"],
            Some(&"ip46tables") => &["iptables", "ip6tables"],
            _ => return Err(format!("`{line}` is no iptables command")),
        };
        for program in programs {
            let arguments: Vec<&str> = ["-w"]
                .into_iter()
                .chain(words[1..].iter().copied())
                .collect();
            host.run(&format!("{program}-{}", self.name()), &arguments)?;
        }
        Ok(())
    }

    /// Everything the backend has in the kernel, for the reader of a failure.
    pub fn dump(self, host: &Namespace) -> String {
        let mut text = String::new();
        for program in ["iptables", "ip6tables"] {
            let saved = host.run(&format!("{program}-{}-save", self.name()), &["-c"]);
            text += &saved.unwrap_or_else(|e| e);
        }
        text + &host.run("ipset", &["list"]).unwrap_or_else(|e| e)
    }
}
