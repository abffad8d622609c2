//! Interfaces and addresses.

use std::thread;
use std::time::Duration;

use super::super::world::World;
use super::Promise::Never;
use super::{Fault, fault};

pub const FAULTS: &[Fault] = &[
    fault(
        "interface deleted",
        Never,
        deleted,
        "eth0 is deleted and made anew: policy holds from its first packet on",
    ),
    fault("interface down", Never, down, "eth0 goes down and up"),
    fault(
        "addresses",
        Never,
        addresses,
        "addresses come to both interfaces and leave them",
    ),
    fault(
        "other interfaces",
        Never,
        others,
        "interfaces that no endpoint names come and go, by the dozen",
    ),
];

/// The kernel takes a moment for routes.
const LINK_UP: Duration = Duration::from_millis(100);

fn deleted(w: &mut World) -> Result<(), String> {
    for _ in 0..w.times(2, 20) {
        w.prober.excuse(true);
        w.net.host().ip(&["link del eth0".into()])?;
        w.sleep_random(300);
        w.net.add_outer_link()?;
        thread::sleep(LINK_UP);
        w.prober.excuse(false);
        w.sleep_random(300);
        w.tries += 1;
    }
    Ok(())
}

fn down(w: &mut World) -> Result<(), String> {
    for _ in 0..w.times(2, 20) {
        w.prober.excuse(true);
        w.net.host().ip(&["link set eth0 down".into()])?;
        w.sleep_random(200);
        // The kernel has removed IPv6 addresses and routes with it.
        w.net.host().ip(&[
            "link set eth0 up".into(),
            "address replace fd01::1/64 dev eth0 nodad".into(),
        ])?;
        w.net.know_outer_neighbours()?;
        thread::sleep(LINK_UP);
        w.prober.excuse(false);
        w.sleep_random(200);
        w.tries += 1;
    }
    Ok(())
}

fn addresses(w: &mut World) -> Result<(), String> {
    for turn in 0..w.times(10, 200) {
        let line = |what: &str, family: usize| {
            let link = ["eth0", "eth1"][turn as usize % 2];
            let address = [
                format!("10.77.0.{}/32", turn % 200),
                format!("fd77::{}/128 nodad", turn % 200),
            ];
            let (address, option) = address[family]
                .split_once(' ')
                .unwrap_or((&address[family], ""));
            format!("address {what} {address} dev {link} {option}")
        };
        w.net.host().ip(&[line("add", 0), line("add", 1)])?;
        w.sleep_random(60);
        w.net.host().ip(&[line("del", 0), line("del", 1)])?;
        w.tries += 1;
    }
    Ok(())
}

fn others(w: &mut World) -> Result<(), String> {
    let count = w.times(12, 60);
    for _ in 0..w.times(2, 10) {
        let lines = |line: fn(u64) -> String| (0..count).map(line).collect::<Vec<_>>();
        w.net
            .host()
            .ip(&lines(|i| format!("link add other{i} type veth")))?;
        w.net.host().ip(&lines(|i| {
            format!("address add 10.78.{i}.1/24 dev other{i}")
        }))?;
        w.net
            .host()
            .ip(&lines(|i| format!("link set other{i} up")))?;
        w.net.host().ip(&lines(|i| format!("link del other{i}")))?;
        w.tries += count;
    }
    Ok(())
}
