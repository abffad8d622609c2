//! `moatctl import`: settings of Felix.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use crate::config::PARAMS;
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
    let mut given = settings(text);
    endpoints(&mut given);
    let lines = given.iter().map(|(name, value)| line(name, value));
    lines.collect::<Vec<_>>().join("\n")
}

/// Names and values; of those given more than once the last, as Felix takes them.
fn settings(text: &str) -> Vec<(String, String)> {
    let mut given: Vec<(String, String)> = Vec::new();
    for line in text.lines().map(str::trim) {
        let is_blank = line.is_empty() || line.starts_with(['#', ';', '[']);
        let Some((name, value)) = line.split_once(['=', ':']).filter(|_| !is_blank) else {
            continue;
        };
        let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
        // Nothing given is Felix's default, which is another one than an empty text.
        if value.is_empty() {
            continue;
        }
        given.retain(|(other, _)| !other.eq_ignore_ascii_case(&name));
        given.push((name, value));
    }
    given
}

/// What Felix has from two settings or by default: where etcd is, and that it is to be followed (facts 6.3).
fn endpoints(given: &mut Vec<(String, String)>) {
    let of = |given: &[(String, String)], name: &str| {
        let found = given.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone())
    };
    let address = of(given, "EtcdAddr");
    let scheme = of(given, "EtcdScheme").unwrap_or_else(|| "http".to_owned());
    given.retain(|(name, _)| !["etcdaddr", "etcdscheme"].contains(&&*name.to_lowercase()));
    if let (Some(address), None) = (address, of(given, "EtcdEndpoints")) {
        let url = format!("{scheme}://{address}");
        given.insert(0, ("etcdEndpoints".to_owned(), url));
    }
    let has_etcd = of(given, "EtcdEndpoints").is_some();
    if has_etcd && of(given, "DatastoreType").is_none() {
        given.insert(0, ("datastoreType".to_owned(), "etcdv3".to_owned()));
    }
}

fn line(name: &str, value: &str) -> String {
    // Times are numbers of seconds there.
    let short = name.to_ascii_lowercase();
    let short = short.strip_suffix("secs").unwrap_or(&short);
    let Some(param) = PARAMS.iter().find(|p| p.name.eq_ignore_ascii_case(short)) else {
        return format!("# moat has no setting for: {name} = {value}");
    };
    let quoted = Value::from(value);
    match param.check(&quoted) {
        Ok(()) => format!("{} = {quoted}", param.name),
        Err(why) => format!("# moat cannot take {name} = {value}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::convert;

    #[test]
    fn felix_settings() {
        for (text, expected) in [
            (
                "# c\n[global]\nEtcdEndpoints = https://e1:2379\netcdcafile=/ca.pem\nFelixHostname: h1\nReportingIntervalSecs = 60\nBpfEnabled = true\n",
                "datastoreType = \"etcdv3\"\netcdEndpoints = \"https://e1:2379\"\netcdCaFile = \"/ca.pem\"\nfelixHostname = \"h1\"\nreportingInterval = \"60\"\n# moat has no setting for: BpfEnabled = true",
            ),
            (
                "EtcdAddr = e1:2379\nEtcdScheme = https\nLogSeverityScreen =\n",
                "datastoreType = \"etcdv3\"\netcdEndpoints = \"https://e1:2379\"",
            ),
            (
                "EtcdAddr = e1:2379\nEtcdEndpoints = http://e2:2379\nDatastoreType = etcdv3",
                "etcdEndpoints = \"http://e2:2379\"\ndatastoreType = \"etcdv3\"",
            ),
            (
                "LogSeverityScreen = Info\nlogseverityscreen = Debug",
                "logSeverityScreen = \"Debug\"",
            ),
        ] {
            assert_eq!(convert(text), expected);
        }
    }

    #[test]
    fn what_moat_cannot_take_is_a_comment() {
        let text = convert("DatastoreType = kubernetes\nReportingIntervalSecs = soon");
        for (line, start) in text.lines().zip([
            "# moat cannot take DatastoreType = kubernetes: ",
            "# moat cannot take ReportingIntervalSecs = soon: ",
        ]) {
            assert!(line.starts_with(start), "{line}");
        }
        assert_eq!(text.lines().count(), 2);
    }
}
