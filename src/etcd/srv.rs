//! Endpoints from SRV records: `_etcd-client-ssl._tcp.DOMAIN`, else `_etcd-client._tcp.DOMAIN`, as etcd's own client does.
//!
//! One question to each name server of `/etc/resolv.conf`, over TCP so that no answer is cut off.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::EtcdError;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const PATIENCE: Duration = Duration::from_secs(5);
/// The type of SRV records.
const SRV: u16 = 33;
/// The class of the Internet.
const IN: u16 = 1;
/// Most endpoints that are taken.
const MAX_ENDPOINTS: usize = 64;
/// A name that refers to names that refer to names goes no deeper.
const MAX_JUMPS: usize = 16;

/// The URLs of the endpoints of a domain, those of the best priority first.
///
/// # Errors
/// No name server answers, or there are no records.
pub async fn discover(domain: &str) -> Result<Vec<String>, EtcdError> {
    let conf = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    let servers = servers(&conf);
    let mut problem = "there are no such records".to_owned();
    for (service, scheme) in [("_etcd-client-ssl", "https"), ("_etcd-client", "http")] {
        let name = format!("{service}._tcp.{domain}");
        for server in &servers {
            let asked = timeout(PATIENCE, ask(*server, &name)).await;
            match asked.unwrap_or_else(|_| Err("no answer".to_owned())) {
                Ok(mut records) if !records.is_empty() => {
                    records.sort();
                    let url = |(_, host, port)| format!("{scheme}://{host}:{port}");
                    return Ok(records.into_iter().map(url).collect());
                }
                Ok(_) => break,
                Err(error) => problem = format!("name server {server}: {error}"),
            }
        }
    }
    Err(EtcdError::Local(format!(
        "SRV records of {domain} for etcd: {problem}"
    )))
}

fn servers(conf: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let text = line.trim().strip_prefix("nameserver")?.trim();
        Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, 53))
    };
    conf.lines().filter_map(address).collect()
}

/// Priority, host and port.
type Record = (u16, String, u16);

async fn ask(server: SocketAddr, name: &str) -> Result<Vec<Record>, String> {
    let text = |e: std::io::Error| e.to_string();
    let question = question(name).ok_or("the name is not a name of DNS")?;
    let mut stream = TcpStream::connect(server).await.map_err(text)?;
    stream.write_all(&question).await.map_err(text)?;
    let length = stream.read_u16().await.map_err(text)?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await.map_err(text)?;
    records(&answer).ok_or_else(|| "an answer that cannot be read".to_owned())
}

/// A question with its length in front.
fn question(name: &str) -> Option<Vec<u8>> {
    // Number, recursion desired, one question.
    let mut message = vec![0x6d, 0x6f, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|n| (1..64).contains(n))?;
        message.push(length);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend_from_slice(&SRV.to_be_bytes());
    message.extend_from_slice(&IN.to_be_bytes());
    let length = u16::try_from(message.len()).ok()?;
    Some([&length.to_be_bytes()[..], &message].concat())
}

/// The SRV records of an answer; none at all where the name does not exist.
fn records(message: &[u8]) -> Option<Vec<Record>> {
    let mut at = 12;
    for _ in 0..word(message, 4)? {
        at = name(message, at)?.1 + 4;
    }
    let mut records = Vec::new();
    for _ in 0..word(message, 6)? {
        at = name(message, at)?.1;
        let (kind, length) = (word(message, at)?, word(message, at + 8)?);
        let data = at + 10;
        at = data + usize::from(length);
        if kind == SRV && records.len() < MAX_ENDPOINTS {
            let (host, _) = name(message, data + 6)?;
            records.push((word(message, data)?, host, word(message, data + 4)?));
        }
    }
    Some(records)
}

fn word(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// A name, and where it ends.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut end = None;
    let mut jumps = 0;
    loop {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => return Some((labels.join("."), end.unwrap_or(at + 1))),
            1..64 => {
                let label = message.get(at + 1..at + 1 + length)?;
                let is_host = |b: &u8| b.is_ascii_alphanumeric() || b"-_".contains(b);
                if !label.iter().all(is_host) {
                    return None;
                }
                labels.push(String::from_utf8_lossy(label).into_owned());
                at += 1 + length;
            }
            _ => {
                end.get_or_insert(at + 2);
                at = usize::from(word(message, at)? & 0x3fff);
                jumps += 1;
                if jumps > MAX_JUMPS {
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer() {
        let question = question("_etcd-client._tcp.example.com").unwrap();
        let mut answer = question[2..].to_vec();
        answer[7] = 2;
        for (priority, host) in [(20u16, b"e2"), (10, b"e1")] {
            // The name of the question; SRV, IN, time to live.
            answer.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, 11]);
            answer.extend(priority.to_be_bytes());
            answer.extend([0, 0, 0x09, 0x4b, 2]);
            answer.extend(host);
            // "example.com" in the question.
            answer.extend([0xc0, 12 + 13 + 5]);
        }
        let found = records(&answer).unwrap();
        let expected = [(20, "e2.example.com", 2379), (10, "e1.example.com", 2379)];
        assert_eq!(found, expected.map(|(p, h, port)| (p, h.to_owned(), port)));
        for cut in 0..answer.len() {
            let _ = records(&answer[..cut]);
        }
    }

    #[test]
    fn hostile_answers() {
        // A name that refers to itself.
        let mut answer = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12];
        assert_eq!(records(&answer), None);
        answer[12..].copy_from_slice(&[63, b'a']);
        assert_eq!(records(&answer), None);
    }

    #[test]
    fn name_servers() {
        let found =
            servers("# no\nnameserver 10.0.0.1\nsearch x\nnameserver fd00::1\nnameserver x\n");
        let expected = ["10.0.0.1:53", "[fd00::1]:53"].map(|a| a.parse().unwrap());
        assert_eq!(found, expected);
    }
}
