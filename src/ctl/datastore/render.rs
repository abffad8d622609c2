//! Tables in calicoctl's forms.

use serde_json::Value;

use crate::api::Kind;
use crate::ctl::{EX_NO, Failure};

/// How a cell is made of what is there.
#[derive(Clone, Copy)]
enum Form {
    /// As it is, a list with commas.
    Text,
    /// As it is, or this.
    Or(&'static str),
    /// A number as programs of Go show it.
    Number,
    /// The number of items.
    Count,
    /// As text, but not too long.
    Short,
    /// The host or hosts of a BGP peer.
    PeerNode,
    /// The AS number of a host, or that of all hosts in brackets.
    Asn,
    /// The name of what a workload endpoint is of.
    Workload,
}

/// Which tables have a column.
#[derive(Clone, Copy, PartialEq)]
enum In {
    Every,
    Wide,
    /// Only those that ask for it.
    Asked,
}

/// Title, where its value is, how it is shown, and in which tables.
type Column = (&'static str, &'static str, Form, In);

const NAME: Column = ("NAME", "/metadata/name", Form::Text, In::Every);
const NAMESPACE: Column = ("NAMESPACE", "/metadata/namespace", Form::Text, In::Asked);
/// Longest text of a cell that is cut.
const SHORT: usize = 80;

fn kind_columns(kind: Kind) -> &'static [Column] {
    use Form::{Asn, Count, Number, Or, PeerNode, Short, Text, Workload};
    use In::{Asked, Every, Wide};
    match kind {
        Kind::HostEndpoint => &[
            NAME,
            ("NODE", "/spec/node", Text, Every),
            ("INTERFACE", "/spec/interfaceName", Text, Wide),
            ("IPS", "/spec/expectedIPs", Text, Wide),
            ("PROFILES", "/spec/profiles", Text, Wide),
        ],
        Kind::GlobalNetworkPolicy
        | Kind::NetworkPolicy
        | Kind::StagedGlobalNetworkPolicy
        | Kind::StagedNetworkPolicy => &[
            NAME,
            ("TIER", "/spec/tier", Or("default"), Every),
            ("ORDER", "/spec/order", Number, Wide),
            ("SELECTOR", "/spec/selector", Text, Wide),
        ],
        Kind::StagedKubernetesNetworkPolicy => {
            &[NAME, ("PODSELECTOR", "/spec/podSelector", Text, Wide)]
        }
        Kind::Tier => &[NAME, ("ORDER", "/spec/order", Number, Every)],
        Kind::NetworkSet | Kind::GlobalNetworkSet => &[NAME, ("NETS", "/spec/nets", Short, Wide)],
        Kind::Profile => &[NAME, ("LABELS", "/spec/labelsToApply", Text, Wide)],
        Kind::WorkloadEndpoint => &[
            ("NAME", "/metadata/name", Text, Wide),
            ("WORKLOAD", "/spec", Workload, Every),
            ("NODE", "/spec/node", Text, Every),
            ("NETWORKS", "/spec/ipNetworks", Text, Every),
            ("INTERFACE", "/spec/interfaceName", Text, Every),
            ("PROFILES", "/spec/profiles", Text, Wide),
            ("NATS", "/spec/ipNATs", Text, Wide),
            ("ORCHESTRATOR", "/spec/orchestrator", Text, Asked),
        ],
        Kind::Node => &[
            NAME,
            ("ASN", "/spec/bgp", Asn, Wide),
            ("IPV4", "/spec/bgp/ipv4Address", Text, Wide),
            ("IPV6", "/spec/bgp/ipv6Address", Text, Wide),
        ],
        Kind::IPPool => &[
            NAME,
            ("CIDR", "/spec/cidr", Text, Every),
            ("NAT", "/spec/natOutgoing", Or("false"), Wide),
            ("IPIPMODE", "/spec/ipipMode", Or("Never"), Wide),
            ("VXLANMODE", "/spec/vxlanMode", Or("Never"), Wide),
            ("DISABLED", "/spec/disabled", Or("false"), Wide),
            (
                "DISABLEBGPEXPORT",
                "/spec/disableBGPExport",
                Or("false"),
                Wide,
            ),
            ("SELECTOR", "/spec/nodeSelector", Text, Every),
        ],
        Kind::IPReservation => &[NAME, ("CIDRS", "/spec/reservedCIDRs", Short, Wide)],
        Kind::BGPConfiguration => &[
            NAME,
            ("LOGSEVERITY", "/spec/logSeverityScreen", Text, Every),
            ("MESHENABLED", "/spec/nodeToNodeMeshEnabled", Or("-"), Every),
            ("ASNUMBER", "/spec/asNumber", Or("-"), Every),
        ],
        Kind::BGPPeer => &[
            NAME,
            ("PEERIP", "/spec/peerIP", Text, Every),
            ("NODE", "/spec", PeerNode, Every),
            ("ASN", "/spec/asNumber", Or("0"), Every),
        ],
        Kind::BGPFilter => &[
            NAME,
            ("NUMEXPORTV4", "/spec/exportV4", Count, Every),
            ("NUMIMPORTV4", "/spec/importV4", Count, Every),
            ("NUMEXPORTV6", "/spec/exportV6", Count, Every),
            ("NUMIMPORTV6", "/spec/importV6", Count, Every),
        ],
        Kind::ClusterInformation => &[
            NAME,
            ("CLUSTERGUID", "/spec/clusterGUID", Text, Every),
            ("CLUSTERTYPE", "/spec/clusterType", Text, Every),
            ("CALICOVERSION", "/spec/calicoVersion", Text, Every),
            ("DATASTOREREADY", "/spec/datastoreReady", Or("<nil>"), Every),
        ],
        Kind::IPAMConfiguration => &[
            NAME,
            ("STRICTAFFINITY", "/spec/strictAffinity", Or("false"), Every),
            (
                "AUTOALLOCATEBLOCKS",
                "/spec/autoAllocateBlocks",
                Or("false"),
                Every,
            ),
            ("MAXBLOCKSPERHOST", "/spec/maxBlocksPerHost", Or("0"), Wide),
        ],
        _ => &[NAME],
    }
}

/// What a table is to show.
pub struct Look<'a> {
    /// More columns.
    pub wide: bool,
    /// The namespace in front.
    pub namespace: bool,
    /// These columns alone.
    pub columns: Option<&'a str>,
    /// The AS number of all hosts that have none of their own.
    pub asn: &'a str,
}

impl Look<'_> {
    fn of(&self, kind: Kind) -> Result<Vec<Column>, Failure> {
        let known = kind_columns(kind);
        let namespace = kind.is_namespaced().then_some(NAMESPACE);
        let Some(asked) = self.columns else {
            let is_shown = |c: &Column| c.3 == In::Every || (self.wide && c.3 == In::Wide);
            let first = namespace.filter(|_| self.namespace);
            let rest = known.iter().filter(|c| is_shown(c)).copied();
            return Ok(first.into_iter().chain(rest).collect());
        };
        let known: Vec<Column> = namespace.into_iter().chain(known.iter().copied()).collect();
        let find = |title: &str| {
            let same = |c: &&Column| c.0.eq_ignore_ascii_case(title.trim());
            known.iter().find(same).copied().ok_or_else(|| {
                let titles: Vec<&str> = known.iter().map(|c| c.0).collect();
                let titles = titles.join(", ");
                let text = format!("Unknown heading {title}, valid values are: {titles}");
                Failure::new(EX_NO, text)
            })
        };
        asked.split(',').map(find).collect()
    }

    /// A table of these resources of one kind.
    pub fn table(&self, kind: Kind, found: &[&Value]) -> Result<String, Failure> {
        let columns = self.of(kind)?;
        let header: Vec<&str> = columns.iter().map(|column| column.0).collect();
        let row = |document: &&Value| columns.iter().map(|c| self.cell(document, c)).collect();
        let rows: Vec<Vec<String>> = found.iter().map(row).collect();
        Ok(grid(&header, &rows))
    }

    fn cell(&self, document: &Value, column: &Column) -> String {
        let value = document.pointer(column.1).unwrap_or(&Value::Null);
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let first = |names: [&str; 2]| {
            let filled = names.map(text).into_iter().find(|text| !text.is_empty());
            filled.unwrap_or_default()
        };
        match column.2 {
            Form::Text => plain(value),
            Form::Or(other) if value.is_null() => other.to_owned(),
            Form::Or(_) => plain(value),
            Form::Number => value.as_f64().map_or("<nil>".to_owned(), number),
            Form::Count => value.as_array().map_or(0, Vec::len).to_string(),
            Form::Short => shortened(plain(value)),
            Form::PeerNode => match first(["node", "nodeSelector"]).as_str() {
                "" => "(global)".to_owned(),
                node => node.to_owned(),
            },
            Form::Asn if value.is_null() => String::new(),
            Form::Asn if value["asNumber"].is_null() => format!("({})", self.asn),
            Form::Asn => plain(&value["asNumber"]),
            Form::Workload => first(["workload", "pod"]),
        }
    }
}

/// With six digits before the point at most, else with an exponent: `100`, `1e+06`.
fn number(value: f64) -> String {
    let text = format!("{value:e}");
    let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
    match power.parse::<i32>().unwrap_or_default() {
        -4..6 => value.to_string(),
        power => {
            let sign = if power < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", power.abs())
        }
    }
}

/// Columns three blanks wider than their content, the last one too: as the programs of Go that use its `tabwriter` print them.
pub fn grid(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |n: usize| {
        let cells = rows.iter().filter_map(|row| row.get(n));
        let longest = cells.map(|cell| cell.chars().count()).max();
        (longest.unwrap_or(0).max(header[n].len()) + 3).max(5)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(c, w)| format!("{c:<w$}", w = *w));
        padded.collect::<String>() + "\n"
    };
    let mut out = line(&mut header.iter().copied());
    for row in rows {
        out += &line(&mut row.iter().map(String::as_str));
    }
    out
}

fn shortened(text: String) -> String {
    if text.len() <= SHORT {
        return text;
    }
    let mut end = SHORT - 3;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &text[..end])
}

/// `KIND/NAME`, one in a line.
pub fn names(found: &[&Value]) -> String {
    let name = |document: &&Value| {
        let kind = document["kind"].as_str().unwrap_or_default();
        format!("{kind}/{}", plain(&document["metadata"]["name"]))
    };
    found.iter().map(name).collect::<Vec<_>>().join("\n")
}

/// The template for each resource: `{{.metadata.name}}` is a field, `\n` a line end.
pub fn template(found: &[&Value], template: &str) -> String {
    let one = |document: &&Value| {
        let mut out = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("{{") {
            let (field, behind) = after.split_once("}}").unwrap_or((after, ""));
            out.push_str(before);
            let pointer = field.trim().replace('.', "/");
            out.push_str(&document.pointer(&pointer).map(plain).unwrap_or_default());
            rest = behind;
        }
        out + rest
    };
    let text: String = found.iter().map(one).collect();
    text.replace("\\n", "\n").replace("\\t", "\t")
}

/// Text without quotes, a list with commas, a mapping as `name=value`.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        Value::Object(map) => {
            let mut pairs: Vec<String> = map
                .iter()
                .map(|(k, v)| format!("{k}={}", plain(v)))
                .collect();
            pairs.sort();
            pairs.join(",")
        }
        other => other.to_string(),
    }
}

/// A table with lines around it: titles in the middle, numbers to the right.
pub fn boxed(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |n: usize| {
        let cells = rows.iter().map(|row| row[n].len());
        cells.max().unwrap_or(0).max(header[n].len())
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let dashes: Vec<String> = widths.iter().map(|w| "-".repeat(w + 2)).collect();
    let line = format!("+{}+", dashes.join("+"));
    let titles: Vec<String> = header
        .iter()
        .zip(&widths)
        .map(|(t, w)| format!(" {t:^w$} ", w = *w))
        .collect();
    let cell = |(cell, w): (&String, &usize)| match cell.parse::<u64>() {
        Ok(_) => format!(" {cell:>w$} ", w = *w),
        Err(_) => format!(" {cell:<w$} ", w = *w),
    };
    let row = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(cell).collect();
        format!("|{}|", cells.join("|"))
    };
    let mut lines = vec![
        line.clone(),
        format!("|{}|", titles.join("|")),
        line.clone(),
    ];
    lines.extend(rows.iter().map(row));
    lines.push(line);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers() {
        for (value, text) in [
            (100.0, "100"),
            (999_999.0, "999999"),
            (1e6, "1e+06"),
            (123_456_789.0, "1.23456789e+08"),
            (10.5, "10.5"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2e6, "-2e+06"),
            (0.0, "0"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    const NARROW: Look<'_> = Look {
        wide: false,
        namespace: false,
        columns: None,
        asn: "64512",
    };

    #[test]
    fn forms() {
        let web = json!({"kind": "HostEndpoint", "metadata": {"name": "web"},
            "spec": {"node": "h1", "expectedIPs": ["10.0.0.1", "fd00::1"]}});
        let found = [&web];
        let narrow = NARROW.table(Kind::HostEndpoint, &found).unwrap();
        assert_eq!(narrow, "NAME   NODE   \nweb    h1     \n");
        let wide = Look {
            wide: true,
            ..NARROW
        };
        let wide = wide.table(Kind::HostEndpoint, &found).unwrap();
        assert!(wide.contains("10.0.0.1,fd00::1"), "{wide}");
        let asked = Look {
            columns: Some("node,NAME"),
            ..NARROW
        };
        let table = asked.table(Kind::HostEndpoint, &found).unwrap();
        assert_eq!(table, "NODE   NAME   \nh1     web    \n");
        let unknown = Look {
            columns: Some("NAMES"),
            ..NARROW
        };
        assert!(unknown.table(Kind::HostEndpoint, &found).is_err());
        assert_eq!(names(&found), "HostEndpoint/web");
        let text = template(&found, "{{.metadata.name}} on {{ .spec.node }}\\n");
        assert_eq!(text, "web on h1\n");
        assert_eq!(shortened("x".repeat(81)).len(), SHORT);
    }
}
