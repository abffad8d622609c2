//! What BIRD, where Calico or somebody else runs it on this host, says of its BGP sessions.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::render::boxed;
use crate::ctl::output::plain;

/// The control sockets that are asked for a family, the first that is there: Calico's own, then that of distributions. BIRD 2 has one
/// for both families, and its name is that of the first.
const SOCKETS: [(&str, [&str; 2]); 2] = [
    ("IPv4", ["/run/calico/bird.ctl", "/run/bird/bird.ctl"]),
    ("IPv6", ["/run/calico/bird6.ctl", "/run/bird/bird6.ctl"]),
];
const TIMEOUT: Duration = Duration::from_secs(2);
/// More than thousands of sessions need.
const MAX_ANSWER: u64 = 4 << 20;
const TITLES: [&str; 5] = ["PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"];
/// What Calico's names of sessions begin with, and what that means.
const TYPES: [(&str, &str); 3] = [
    ("Mesh_", "node-to-node mesh"),
    ("Node_", "node specific"),
    ("Global_", "global"),
];

/// The sessions that one BIRD has.
#[derive(Debug, Serialize)]
pub struct Bird {
    /// `IPv4` or `IPv6`.
    pub family: &'static str,
    /// Its control socket.
    pub socket: &'static str,
    /// Its sessions.
    pub peers: Vec<Peer>,
    /// Why it could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A BGP session.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// Address of the peer, or the name of the session where that is not one of Calico's.
    pub peer: String,
    /// Why there is such a session: `node-to-node mesh`, `node specific`, `global` or `other`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `up`, `start` or `down`.
    pub state: String,
    /// The time of the last change.
    pub since: String,
    /// The state of the session as BGP has it, and the last error.
    pub info: String,
}

/// Asks each BIRD of this host.
pub fn ask() -> Vec<Bird> {
    let socket = |(family, paths): &(&'static str, [&'static str; 2])| {
        let socket = paths.iter().find(|path| Path::new(path).exists())?;
        Some((*family, *socket))
    };
    let ask = |(family, socket): (&'static str, &'static str)| {
        let asked = ask_one(Path::new(socket)).and_then(|answer| peers(family, &answer));
        let (peers, error) = match asked {
            Ok(peers) => (peers, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        Bird {
            family,
            socket,
            peers,
            error,
        }
    };
    SOCKETS.iter().filter_map(socket).map(ask).collect()
}

fn ask_one(socket: &Path) -> Result<String, String> {
    let asked = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.write_all(b"show protocols\n")?;
        let mut answer = String::new();
        let mut lines = BufReader::new(stream.take(MAX_ANSWER));
        // It keeps the connection: the line with this code is the last.
        while lines.read_line(&mut answer)? > 0 {
            let last = answer.trim_end().rsplit('\n').next();
            if last.is_some_and(|line| line.starts_with("0000")) {
                break;
            }
        }
        Ok(answer)
    };
    asked().map_err(|e| format!("cannot ask {}: {e}", socket.display()))
}

/// The sessions of an answer to `show protocols`: BIRD puts a code before the first line of each kind and a blank before the others.
fn peers(family: &str, answer: &str) -> Result<Vec<Peer>, String> {
    let mut peers = Vec::new();
    for line in answer.lines() {
        if line.starts_with("0000") {
            return Ok(peers);
        }
        let row = line.strip_prefix("1002-").or(line.strip_prefix(' '));
        match row {
            Some(row) => peers.extend(peer(family, row)),
            None if ["0001", "2002-"].iter().any(|code| line.starts_with(code)) => {}
            None => {
                return Err(format!(
                    "BIRD answers in a form that is not known: {}",
                    plain(line)
                ));
            }
        }
    }
    Err("BIRD did not answer to the end".to_owned())
}

fn peer(family: &str, line: &str) -> Option<Peer> {
    let mut columns = line.split_whitespace().map(plain);
    let (name, protocol) = (columns.next()?, columns.next()?);
    let (_table, state, since) = (columns.next()?, columns.next()?, columns.next()?);
    if protocol != "BGP" {
        return None;
    }
    let of_calico = TYPES
        .iter()
        .find_map(|(prefix, kind)| Some((name.strip_prefix(prefix)?, *kind)));
    let separator = if family == "IPv6" { ":" } else { "." };
    let (peer, kind) = match of_calico {
        Some((address, kind)) => (address.replace('_', separator), kind),
        None => (name, "other"),
    };
    Some(Peer {
        peer,
        kind,
        state,
        since,
        info: columns.collect::<Vec<_>>().join(" "),
    })
}

/// For people, as calicoctl shows it.
pub fn text(birds: &[Bird]) -> String {
    let one = |bird: &Bird| {
        let family = bird.family;
        let row = |peer: &Peer| {
            let kind = peer.kind.to_owned();
            let Peer {
                state, since, info, ..
            } = peer;
            vec![
                peer.peer.clone(),
                kind,
                state.clone(),
                since.clone(),
                info.clone(),
            ]
        };
        let rows: Vec<Vec<String>> = bird.peers.iter().map(row).collect();
        let content = match &bird.error {
            Some(error) => error.clone(),
            None if rows.is_empty() => format!("No {family} peers found."),
            None => boxed(&TITLES, &rows),
        };
        format!("\n{family} BGP status\n{content}\n")
    };
    birds.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// As BIRD 2.0.12 answers.
    const TWO: &str = "0001 BIRD 2.0.12 ready.
2002-Name       Proto      Table      State  Since         Info
1002-device1    Device     ---        up     06:56:00.117  \n Mesh_10_9_0_2 BGP        ---        up     06:56:03.999  Established   \n Node_10_9_0_77 BGP        ---        start  06:56:00.117  Connect       Socket: No route to host
 uplink     BGP        ---        start  06:56:00.117  Idle          \n0000 \n";
    /// As BIRD 1 of Calico answers.
    const ONE: &str = "0001 BIRD v0.3.3 ready.
2002-name     proto    table    state  since       info
1002-static1  Static   master   up     2026-01-02  \n Global_fd80_24e2__2 BGP      master   up     2026-01-02  Established   \n0000 \n";

    #[test]
    fn sessions_of_an_answer() {
        let found = peers("IPv4", TWO).unwrap();
        let told: Vec<String> = found
            .iter()
            .map(|p| [&p.peer, p.kind, &p.state, &p.since, &p.info].join("|"))
            .collect();
        assert_eq!(
            told,
            [
                "10.9.0.2|node-to-node mesh|up|06:56:03.999|Established",
                "10.9.0.77|node specific|start|06:56:00.117|Connect Socket: No route to host",
                "uplink|other|start|06:56:00.117|Idle",
            ]
        );
        let six = peers("IPv6", ONE).unwrap();
        assert_eq!((&*six[0].peer, six[0].kind), ("fd80:24e2::2", "global"));
    }

    #[test]
    fn answers_that_are_none() {
        for (answer, why) in [
            ("", "to the end"),
            ("0001 BIRD ready.\n1002-a BGP", "to the end"),
            ("9001 Parse error\n", "not known: 9001"),
            ("GET / HTTP/1.1\r\n\r\n", "not known: GET"),
            ("ä\u{1b}[2J\n0000 \n", "not known: ä?[2J"),
            ("aaaä\n", "not known"),
        ] {
            let error = peers("IPv4", answer).unwrap_err();
            assert!(error.contains(why), "{answer:?}: {error}");
        }
    }

    #[test]
    fn asks_a_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bird.ctl");
        assert!(
            ask_one(&path)
                .unwrap_err()
                .contains("bird.ctl: No such file")
        );
        let listener = UnixListener::bind(&path).unwrap();
        let bird = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = [0; 15];
            stream.read_exact(&mut question).unwrap();
            stream.write_all(TWO.as_bytes()).unwrap();
            // As BIRD, it stays until the other one goes.
            let gone = stream.read(&mut question).unwrap();
            (question, gone)
        });
        assert_eq!(ask_one(&path).unwrap(), TWO);
        assert_eq!(bird.join().unwrap(), (*b"show protocols\n", 0));
    }

    #[test]
    fn for_people() {
        let bird = |peers, error| Bird {
            family: "IPv4",
            socket: "/run/bird/bird.ctl",
            peers,
            error,
        };
        let found = peers("IPv4", TWO).unwrap();
        let shown = text(&[
            bird(found, None),
            bird(Vec::new(), None),
            bird(Vec::new(), Some("why".into())),
        ]);
        assert!(
            shown.contains("| 10.9.0.2     | node-to-node mesh | up    |"),
            "{shown}"
        );
        assert!(
            shown.ends_with("No IPv4 peers found.\n\nIPv4 BGP status\nwhy\n"),
            "{shown}"
        );
    }
}
