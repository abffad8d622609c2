//! Failsafes: ports that stay open whatever policy says (facts 3.8).

use std::collections::BTreeSet;
use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{Bad, did_you_mean};
use crate::api::Protocol;
use crate::api::net::parse_net;

/// One failsafe. Displayed as Calico writes it: `tcp:22`, `udp:10.0.0.0/8:53`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Failsafe {
    /// TCP, UDP or SCTP; in JSON its name in lower case.
    #[serde(with = "protocol_name")]
    pub protocol: Protocol,
    /// The port at this host (inbound) or at the other end (outbound).
    pub port: u16,
    /// Only packets from there (inbound) or to there (outbound), and only of its family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net: Option<IpNet>,
}

impl fmt::Display for Failsafe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol.to_string().to_lowercase();
        match &self.net {
            None => write!(f, "{protocol}:{}", self.port),
            Some(IpNet::V4(net)) => write!(f, "{protocol}:{net}:{}", self.port),
            Some(IpNet::V6(net)) => write!(f, "{protocol}:[{net}]:{}", self.port),
        }
    }
}

/// What the word `calico` means for inbound traffic: Felix's own list.
pub(super) const CALICO_INBOUND: &str =
    "tcp:22,udp:68,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667";
/// What the word `calico` means for outbound traffic: Felix's own list.
pub(super) const CALICO_OUTBOUND: &str =
    "udp:53,udp:67,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667";

/// More than this is a mistake: each is a rule in front of all others.
const MAX: usize = 1000;

/// Reads every form of a failsafe list: a word, Calico's comma list, or a list of texts, port
/// numbers and `{protocol, port, net}` tables. `calico` is what that word means here.
pub(super) fn parse(value: &Value, calico: &str) -> Result<Vec<Failsafe>, Bad> {
    let failsafes: Vec<Failsafe> = match value {
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "none" => Vec::new(),
            "calico" => parse_items(calico.split(',').map(parse_text))?,
            _ => parse_items(text.split(',').map(parse_text))?,
        },
        Value::Array(items) => parse_items(items.iter().map(parse_item))?,
        _ => {
            return Err(Bad::new(
                "expected a list of failsafes, \"calico\" or \"none\"",
            ));
        }
    };
    if failsafes.len() > MAX {
        return Err(Bad::new(format!(
            "{} failsafes, at most {MAX} are allowed",
            failsafes.len()
        )));
    }
    Ok(failsafes)
}

/// Numbers the errors; a failsafe given twice counts once.
fn parse_items(items: impl Iterator<Item = Result<Failsafe, Bad>>) -> Result<Vec<Failsafe>, Bad> {
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, item) in items.enumerate() {
        let failsafe = item.map_err(|bad| bad.item(index))?;
        if seen.insert(failsafe.clone()) {
            all.push(failsafe);
        }
    }
    Ok(all)
}

fn parse_item(item: &Value) -> Result<Failsafe, Bad> {
    match item {
        Value::String(text) => parse_text(text),
        Value::Number(port) => parse_text(&port.to_string()),
        Value::Object(fields) => parse_table(fields),
        other => Err(Bad::new(format!("`{other}` is no failsafe")).help(FORMS)),
    }
}

const FORMS: &str = "write PORT, PROTOCOL:PORT or PROTOCOL:NET:PORT, IPv6 nets in brackets";

/// `22`, `tcp:22`, `tcp:10.0.0.0/8:22`, `tcp:[2001:db8::/64]:22`.
fn parse_text(text: &str) -> Result<Failsafe, Bad> {
    let text = text.trim();
    let bad = |why: Bad| match why.help {
        Some(_) => why,
        None => Bad::new(format!("bad failsafe `{text}`: {}", why.message)).help(FORMS),
    };
    let (protocol, rest) = text.split_once(':').unwrap_or(("tcp", text));
    let (net, port) = match rest.rsplit_once(':') {
        Some((net, port)) => (Some(net), port),
        None => (None, rest),
    };
    let net = net.map(
        |net| match net.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
            Some(inner) => parse_failsafe_net(inner),
            None if net.contains(':') => Err(Bad::new("IPv6 nets stand in brackets")),
            None => parse_failsafe_net(net),
        },
    );
    Ok(Failsafe {
        protocol: parse_protocol(protocol).map_err(bad)?,
        port: parse_port(port).map_err(bad)?,
        net: net.transpose().map_err(bad)?,
    })
}

fn parse_table(fields: &Map<String, Value>) -> Result<Failsafe, Bad> {
    const KNOWN: [&str; 3] = ["protocol", "port", "net"];
    if let Some(key) = fields.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        let bad = Bad::new(format!("a failsafe has no field `{key}`"));
        return Err(match did_you_mean(key, KNOWN.into_iter()) {
            Some(help) => bad.help(help),
            None => bad.help("it has protocol, port and net"),
        });
    }
    let text = |key: &str| match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok((!text.is_empty()).then(|| text.clone())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(other) => Err(Bad::new(format!("bad {key} `{other}` of a failsafe"))),
    };
    let port = text("port")?.ok_or_else(|| Bad::new("a failsafe needs a port"))?;
    Ok(Failsafe {
        protocol: parse_protocol(&text("protocol")?.unwrap_or_else(|| "tcp".into()))?,
        port: parse_port(&port)?,
        net: text("net")?
            .map(|net| parse_failsafe_net(&net))
            .transpose()?,
    })
}

fn parse_protocol(text: &str) -> Result<Protocol, Bad> {
    Protocol::parse_loose(text)
        .filter(|protocol| protocol.has_ports())
        .ok_or_else(|| Bad::new(format!("`{text}` is not tcp, udp or sctp")))
}

fn parse_port(text: &str) -> Result<u16, Bad> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|port| digits && *port > 0)
        .ok_or_else(|| Bad::new(format!("`{text}` is not a port from 1 to {}", u16::MAX)))
}

/// Host bits are masked, as Felix does here: a list that works there works here.
fn parse_failsafe_net(text: &str) -> Result<IpNet, Bad> {
    parse_net(text).map(|net| net.trunc()).map_err(Bad::new)
}

/// In JSON a protocol is its name in lower case.
mod protocol_name {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::Protocol;

    pub(super) fn serialize<S: Serializer>(p: &Protocol, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&p.to_string().to_lowercase())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Protocol, D::Error> {
        let text = String::deserialize(from)?;
        super::parse_protocol(&text).map_err(|bad| D::Error::custom(bad.message))
    }
}
