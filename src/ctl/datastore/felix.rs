//! `moatctl import`: settings of Felix.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use crate::config::Param;
use crate::ctl::{EX_NOINPUT, EX_OK, Failure, Outcome, output};

/// Command line of `import`.
#[derive(Debug, Args)]
pub struct Import {
    /// Felix's settings file
    #[arg(value_name = "felix.cfg")]
    file: PathBuf,
}

impl Import {
    /// Prints Felix's settings in the form of moat.toml.
    pub fn run(&self) -> Outcome {
        let shown = self.file.display();
        let text = std::fs::read_to_string(&self.file);
        let text =
            text.map_err(|e| Failure::new(EX_NOINPUT, format!("cannot read {shown}: {e}")))?;
        output::print_text(&convert(&text))?;
        Ok(EX_OK)
    }
}

/// Lines of moat.toml; what has no place there becomes a comment.
fn convert(text: &str) -> String {
    // Felix's names of what a FelixConfiguration calls otherwise.
    const RENAMED: [(&str, &str); 2] = [
        ("ETCDCAFILE", "etcdCaFile"),
        ("LOGSEVERITYSCREEN", "logSeverityScreen"),
    ];
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim) {
        let is_blank = line.is_empty() || line.starts_with(['#', ';', '[']);
        let Some((name, value)) = line.split_once(['=', ':']).filter(|_| !is_blank) else {
            continue;
        };
        let (name, value) = (name.trim(), value.trim());
        let upper = name.to_ascii_uppercase();
        let renamed = RENAMED
            .iter()
            .find(|(felix, _)| *felix == upper)
            .map(|r| r.1);
        // Times are numbers of seconds there.
        let short = name.to_ascii_lowercase();
        let short = short.strip_suffix("secs").unwrap_or(&short);
        let same = |p: &&Param| p.name.eq_ignore_ascii_case(short);
        let known = renamed
            .and_then(Param::find)
            .or(crate::config::PARAMS.iter().find(same));
        lines.push(match known {
            Some(param) => format!("{} = {}", param.name, Value::from(value)),
            None => format!("# moat has no setting for: {name} = {value}"),
        });
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::convert;

    #[test]
    fn felix_settings() {
        let text = "# c\n[global]\nEtcdEndpoints = https://e1:2379\netcdcafile=/ca.pem\nFelixHostname: h1\nReportingIntervalSecs = 60\nBpfEnabled = true\n";
        let expected = "etcdEndpoints = \"https://e1:2379\"\netcdCaFile = \"/ca.pem\"\nfelixHostname = \"h1\"\nreportingInterval = \"60\"\n# moat has no setting for: BpfEnabled = true";
        assert_eq!(convert(text), expected);
    }
}
