//! Clients of the control socket; only root can be one.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use super::super::policy;
use super::super::world::World;
use super::Promise::Never;
use super::{Fault, fault};

pub const FAULTS: &[Fault] = &[
    fault(
        "socket: garbage",
        Never,
        garbage,
        "clients send garbage, too much, and nothing that ends",
    ),
    fault(
        "socket: slow clients",
        Never,
        slow,
        "clients send a byte now and then, close one side, or never read",
    ),
    fault(
        "socket: many clients",
        Never,
        many,
        "500 clients connect at once and stay",
    ),
];

fn connect(w: &World) -> Result<UnixStream, String> {
    let path = w.moat.path("run/moatd.sock");
    let mode = std::fs::metadata(&path)
        .map_err(|e| e.to_string())?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(format!("the control socket has mode {mode:o}"));
    }
    let stream = UnixStream::connect(path).map_err(|e| format!("control socket: {e}"))?;
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .map_err(|e| e.to_string())?;
    Ok(stream)
}

/// Policy still changes, and `status` is still told.
fn still_works(w: &mut World, turn: u64) -> Result<(), String> {
    w.change("bulk.yaml", &policy::bulk(turn as usize + 150))?;
    w.tries += 1;
    w.write_all()
}

fn garbage(w: &mut World) -> Result<(), String> {
    for turn in 0..w.times(1, 10) {
        let random: Vec<u8> = (0..2000).map(|_| w.random(256) as u8).collect();
        let requests = [
            b"garbage\n".to_vec(),
            b"\0\xff\n".to_vec(),
            b"[".repeat(100_000),
            vec![b'x'; (16 << 20) + 1],
            random,
        ];
        for mut request in requests {
            request.push(b'\n');
            let mut client = connect(w)?;
            // The end of a long request may find nobody.
            let _ = client.write_all(&request);
            let mut answer = [0; 64];
            let length = client
                .read(&mut answer)
                .map_err(|e| format!("no answer to garbage: {e}"))?;
            let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
            if answer.starts_with("{\"ok\"") {
                return Err(format!("garbage is answered by {answer}"));
            }
        }
        still_works(w, turn)?;
    }
    Ok(())
}

fn slow(w: &mut World) -> Result<(), String> {
    for turn in 0..w.times(1, 10) {
        let mut clients = Vec::new();
        for number in 0..40 {
            let mut client = connect(w)?;
            let sent = match number % 4 {
                0 => client.write_all(b"{"),
                1 => client.shutdown(Shutdown::Write),
                2 => client.write_all(b"{\"command\":\"status\"}\n"),
                _ => client.shutdown(Shutdown::Read),
            };
            // moatd may have closed it already, which is its right.
            let _ = sent;
            clients.push(client);
        }
        for _ in 0..5 {
            for client in &mut clients {
                let _ = client.write_all(b"\"");
            }
            thread::sleep(Duration::from_millis(20));
        }
        still_works(w, turn)?;
    }
    Ok(())
}

/// More than are served at a time: the others wait until the first ones have had their time.
fn many(w: &mut World) -> Result<(), String> {
    for turn in 0..w.times(1, 5) {
        let mut clients = Vec::new();
        for _ in 0..500 {
            let client = connect(w)?;
            client.set_nonblocking(true).map_err(|e| e.to_string())?;
            clients.push(client);
        }
        w.moat
            .policy("bulk.yaml", &policy::bulk(turn as usize + 170))?;
        thread::sleep(Duration::from_millis(300));
        drop(clients);
        still_works(w, turn)?;
    }
    Ok(())
}
