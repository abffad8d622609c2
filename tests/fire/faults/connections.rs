//! Connections that were there before a change, each on hosts of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::super::backend::Backend;
use super::super::flows::{HOST, Place, STRANGER, address};
use super::super::moat::{Moat, PATIENCE, POLL};
use super::super::net::Net;
use super::super::policy;
use super::super::world::World;
use super::Promise::Never;
use super::{Fault, fault};

pub const FAULTS: &[Fault] = &[
    fault(
        "first enforcement",
        Never,
        first_enforcement,
        "moatd starts for the first time while an allowed outbound connection lasts on which only the server speaks",
    ),
    fault(
        "denied connections",
        Never,
        denied,
        "a change denies one of two established connections: that one stops, the other does not; none with existingConnections = \"keep\"",
    ),
];

/// Numbers of the namespaces of these hosts, above those of the worlds.
static NUMBER: AtomicUsize = AtomicUsize::new(100);

const ENDPOINT: &str = "
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: eth0, labels: {role: web}}
spec: {node: h, interfaceName: eth0}
";
const SERVER_PORT: u16 = 2500;
const STAYS: u16 = 1080;
const GOES: u16 = 1081;
/// So seldom that the client has acknowledged everything, and is silent, when the next words come.
const SPEAKS: Duration = Duration::from_millis(70);
/// An answer on a connection that works takes microseconds.
const ANSWER: Duration = Duration::from_secs(1);

fn hosts(w: &World, settings: &str) -> Result<(Net, Moat), String> {
    let net = Net::new(NUMBER.fetch_add(1, Ordering::Relaxed))?;
    let moat = Moat::new(net.host(), w.moat.programs())?;
    moat.settings(w.backend, settings)?;
    Ok((net, moat))
}

fn first_enforcement(w: &mut World) -> Result<(), String> {
    for _ in 0..w.times(1, 5) {
        for family in [0, 1] {
            first_start(w.backend, hosts(w, "")?, family)?;
            w.tries += 1;
        }
    }
    Ok(())
}

/// A packet that is dropped shows as a repetition, however short the stall.
fn repetitions(net: &Net) -> Result<u64, String> {
    let text = net.at(Place::Outside).run("cat", &["/proc/net/snmp"])?;
    let mut lines = text.lines().filter(|l| l.starts_with("Tcp:"));
    let (names, values) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    );
    let found = names
        .split(' ')
        .zip(values.split(' '))
        .find(|(name, _)| *name == "RetransSegs");
    found
        .and_then(|(_, value)| value.parse().ok())
        .ok_or_else(|| "no RetransSegs in /proc/net/snmp".into())
}

fn first_start(
    backend: Backend,
    (net, mut moat): (Net, Moat),
    family: usize,
) -> Result<(), String> {
    let tracked = net.host().run("conntrack", &["-C"])?;
    let at = SocketAddr::new(address(STRANGER[family]), SERVER_PORT);
    let listener = net
        .at(Place::Outside)
        .enter(|| TcpListener::bind(at))
        .map_err(|e| e.to_string())?;
    let mut client = net
        .host()
        .enter(|| TcpStream::connect(at))
        .map_err(|e| e.to_string())?;
    let (mut server, _) = listener.accept().map_err(|e| e.to_string())?;
    let now_tracked = net.host().run("conntrack", &["-C"])?;
    if tracked.trim() != "0" || now_tracked.trim() != "0" {
        return Err("connection tracking is active before moat: the test shows nothing".into());
    }
    client
        .set_read_timeout(Some(PATIENCE))
        .map_err(|e| e.to_string())?;
    let (silence, silenced) = mpsc::channel::<()>();
    let speaker = thread::spawn(move || {
        while silenced.recv_timeout(SPEAKS) == Err(RecvTimeoutError::Timeout) {
            if server.write_all(b"tick").is_err() {
                return;
            }
        }
    });
    let egress =
        format!("{{action: Allow, protocol: TCP, destination: {{ports: [{SERVER_PORT}]}}}}");
    moat.policy(
        "main.yaml",
        &(ENDPOINT.to_owned() + &policy::policy("out", 10, &[], &[&egress])),
    )?;
    let before = repetitions(&net)?;
    let started = moat.start();
    let heard = started.and_then(|()| hear(&mut client, 20));
    let again = repetitions(&net)?;
    drop(silence);
    let _ = speaker.join();
    heard.map_err(|e| format!("{} IPv{}: {e}", backend.name(), [4, 6][family]))?;
    match again == before {
        true => Ok(()),
        false => Err(format!(
            "IPv{}: the connection stalled: {} packets were sent again",
            [4, 6][family],
            again - before
        )),
    }
}

/// Reads so many bytes beyond what waits already.
fn hear(client: &mut TcpStream, bytes: usize) -> Result<(), String> {
    let mut waiting = vec![0; 1 << 20];
    client
        .read(&mut waiting)
        .map_err(|e| format!("the server is not heard: {e}"))?;
    client
        .read_exact(&mut vec![0; bytes])
        .map_err(|e| format!("the server is not heard any more: {e}"))
}

fn denied(w: &mut World) -> Result<(), String> {
    for _ in 0..w.times(1, 5) {
        for family in [0, 1] {
            change(hosts(w, "")?, family, false)?;
            w.tries += 1;
        }
        change(hosts(w, "existingConnections = \"keep\"")?, 0, true)?;
        w.tries += 1;
    }
    Ok(())
}

fn ports(ports: &[u16]) -> String {
    let rule = format!("{{action: Allow, protocol: TCP, destination: {{ports: {ports:?}}}}}");
    ENDPOINT.to_owned() + &policy::policy("in", 10, &[&rule], &[])
}

/// A connection from outside to a port of the host that echoes.
fn echoing(net: &Net, family: usize, port: u16) -> Result<TcpStream, String> {
    let at = SocketAddr::new(address(HOST[family]), port);
    let listener = net
        .host()
        .enter(|| TcpListener::bind(at))
        .map_err(|e| e.to_string())?;
    thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else {
            return;
        };
        let mut buffer = [0; 16];
        while let Ok(length) = stream.read(&mut buffer) {
            if length == 0 || stream.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
    });
    let stream = net
        .at(Place::Outside)
        .enter(|| TcpStream::connect(at))
        .map_err(|e| format!("port {port}: {e}"))?;
    stream
        .set_read_timeout(Some(ANSWER))
        .map_err(|e| e.to_string())?;
    Ok(stream)
}

fn answers(stream: &mut TcpStream) -> bool {
    stream.write_all(b"x").is_ok() && stream.read(&mut [0; 16]).is_ok_and(|n| n > 0)
}

fn change((net, mut moat): (Net, Moat), family: usize, keep: bool) -> Result<(), String> {
    moat.policy("main.yaml", &ports(&[STAYS, GOES]))?;
    moat.start()?;
    let mut stays = echoing(&net, family, STAYS)?;
    let mut goes = echoing(&net, family, GOES)?;
    if !answers(&mut stays) || !answers(&mut goes) {
        return Err("an allowed connection does not work".into());
    }
    let before = moat.generation()?;
    moat.policy("main.yaml", &ports(&[STAYS]))?;
    let begin = Instant::now();
    while moat.generation()? == before && begin.elapsed() < PATIENCE {
        thread::sleep(POLL);
    }
    thread::sleep(ANSWER);
    // A flow that is cut is cut soon after the change, not within it.
    let mut went = !answers(&mut goes);
    while !went && !keep && begin.elapsed() < PATIENCE {
        thread::sleep(POLL);
        went = !answers(&mut goes);
    }
    let stayed = answers(&mut stays);
    match (stayed, went, keep) {
        (false, _, _) => Err("a connection that policy still allows was cut".into()),
        (_, false, false) => Err("a connection that policy denies now goes on".into()),
        (_, true, true) => {
            Err("a connection was cut although existingConnections is \"keep\"".into())
        }
        _ => Ok(()),
    }
}
