//! Tables and templates in calicoctl's forms.

use serde_json::Value;

use crate::api::Kind;
use crate::ctl::output::table;

/// A column: its title, where its value is, and whether only the wide table has it.
type Column = (&'static str, &'static str, bool);

fn kind_columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::HostEndpoint => &[
            ("NODE", "/spec/node", false),
            ("INTERFACE", "/spec/interfaceName", true),
            ("IPS", "/spec/expectedIPs", true),
            ("PROFILES", "/spec/profiles", true),
        ],
        Kind::GlobalNetworkPolicy
        | Kind::NetworkPolicy
        | Kind::StagedGlobalNetworkPolicy
        | Kind::StagedNetworkPolicy => &[
            ("TIER", "/spec/tier", false),
            ("ORDER", "/spec/order", true),
            ("SELECTOR", "/spec/selector", true),
        ],
        Kind::Tier => &[("ORDER", "/spec/order", false)],
        Kind::NetworkSet | Kind::GlobalNetworkSet => &[("NETS", "/spec/nets", true)],
        Kind::WorkloadEndpoint => &[
            ("WORKLOAD", "/spec/pod", false),
            ("NODE", "/spec/node", false),
            ("NETWORKS", "/spec/ipNetworks", false),
            ("INTERFACE", "/spec/interfaceName", false),
            ("PROFILES", "/spec/profiles", true),
        ],
        Kind::Node => &[
            ("ASN", "/spec/bgp/asNumber", true),
            ("IPV4", "/spec/bgp/ipv4Address", true),
            ("IPV6", "/spec/bgp/ipv6Address", true),
        ],
        Kind::IPPool => &[
            ("CIDR", "/spec/cidr", false),
            ("SELECTOR", "/spec/nodeSelector", false),
            ("NAT", "/spec/natOutgoing", true),
            ("IPIPMODE", "/spec/ipipMode", true),
            ("VXLANMODE", "/spec/vxlanMode", true),
            ("DISABLED", "/spec/disabled", true),
            ("DISABLEBGPEXPORT", "/spec/disableBGPExport", true),
        ],
        _ => &[],
    }
}

/// One table for each kind, as calicoctl's `ps` and `wide`.
pub fn tables(kind: Option<Kind>, found: &[Value], wide: bool) -> String {
    let of = |document: &Value| document["kind"].as_str().and_then(Kind::from_document);
    let mut kinds: Vec<Kind> = found.iter().filter_map(of).collect();
    kinds.sort();
    kinds.dedup();
    if let (Some(kind), true) = (kind, kinds.is_empty()) {
        kinds.push(kind);
    }
    let one = |kind: &Kind| {
        let columns = kind_columns(*kind).iter();
        let columns: Vec<_> = columns.filter(|column| wide || !column.2).collect();
        let mut header = Vec::new();
        if kind.is_namespaced() {
            header.push("NAMESPACE");
        }
        // calicoctl knows workloads by what they are of.
        let has_name = *kind != Kind::WorkloadEndpoint || wide;
        header.extend(has_name.then_some("NAME"));
        header.extend(columns.iter().map(|column| column.0));
        let row = |document: &Value| {
            let mut row = Vec::new();
            if kind.is_namespaced() {
                row.push(cell(document, "/metadata/namespace"));
            }
            if has_name {
                row.push(cell(document, "/metadata/name"));
            }
            row.extend(columns.iter().map(|column| cell(document, column.1)));
            row
        };
        let rows: Vec<_> = found
            .iter()
            .filter(|d| of(d) == Some(*kind))
            .map(row)
            .collect();
        table(&header, &rows)
    };
    kinds.iter().map(one).collect::<Vec<_>>().join("\n\n")
}

/// `KIND/NAME`, one in a line.
pub fn names(found: &[Value]) -> String {
    let name = |document: &Value| {
        let kind = document["kind"].as_str().unwrap_or_default();
        format!("{kind}/{}", cell(document, "/metadata/name"))
    };
    found.iter().map(name).collect::<Vec<_>>().join("\n")
}

/// The columns that were asked for by title.
pub fn columns(found: &[Value], columns: &str) -> String {
    let titles: Vec<String> = columns
        .split(',')
        .map(|c| c.trim().to_ascii_uppercase())
        .collect();
    let header: Vec<&str> = titles.iter().map(String::as_str).collect();
    let row = |document: &Value| {
        let kind = document["kind"].as_str().and_then(Kind::from_document);
        let value = |title: &String| match title.as_str() {
            "NAME" => cell(document, "/metadata/name"),
            "NAMESPACE" => cell(document, "/metadata/namespace"),
            title => {
                let known = kind.map_or(&[][..], kind_columns).iter();
                let column = known.clone().find(|column| column.0 == title);
                column.map_or_else(|| "-".to_owned(), |column| cell(document, column.1))
            }
        };
        titles.iter().map(value).collect::<Vec<String>>()
    };
    table(&header, &found.iter().map(row).collect::<Vec<_>>())
}

/// The template for each resource: `{{.metadata.name}}` is a field, `\n` a line end.
pub fn template(found: &[Value], template: &str) -> String {
    let one = |document: &Value| {
        let mut out = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("{{") {
            let (field, behind) = after.split_once("}}").unwrap_or((after, ""));
            out.push_str(before);
            let pointer = field.trim().replace('.', "/");
            out.push_str(&cell(document, &pointer));
            rest = behind;
        }
        out + rest
    };
    let text: String = found.iter().map(one).collect();
    text.replace("\\n", "\n").replace("\\t", "\t")
}

fn cell(document: &Value, at: &str) -> String {
    match document.pointer(at) {
        None if at == "/spec/tier" => "default".to_owned(),
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            items.iter().map(text).collect::<Vec<_>>().join(",")
        }
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn forms() {
        let web = json!({"kind": "HostEndpoint", "metadata": {"name": "web"},
            "spec": {"node": "h1", "expectedIPs": ["10.0.0.1", "fd00::1"]}});
        let found = [web];
        assert_eq!(tables(None, &found, false), "NAME  NODE\nweb   h1");
        let wide = tables(None, &found, true);
        assert!(
            wide.contains("web   h1               10.0.0.1,fd00::1"),
            "{wide}"
        );
        assert_eq!(names(&found), "HostEndpoint/web");
        assert_eq!(columns(&found, "node,NAME"), "NODE  NAME\nh1    web");
        let text = template(&found, "{{.metadata.name}} on {{ .spec.node }}\\n");
        assert_eq!(text, "web on h1\n");
    }
}
