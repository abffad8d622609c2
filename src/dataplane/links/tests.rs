use std::process::Command;

use super::*;

fn link(index: u32, name: &str, flags: LinkFlags) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = flags;
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn addr(index: u32, attributes: &[AddressAttribute], prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = prefix_len;
    message.attributes = attributes.to_vec();
    message
}

/// `name+ip,ip` (up) or `name-` (down) of every link.
fn shown(links: &Links) -> String {
    let one = |link: &Link| {
        let addresses: Vec<String> = link.addresses.iter().map(IpAddr::to_string).collect();
        format!(
            "{}{}{}",
            link.name,
            if link.up { "+" } else { "-" },
            addresses.join(",")
        )
    };
    links.values().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn messages_make_the_table() {
    use RouteNetlinkMessage::{DelAddress, DelLink, NewAddress, NewLink};
    let ip = |text: &str| AddressAttribute::Address(text.parse().unwrap());
    let local = |text: &str| AddressAttribute::Local(text.parse().unwrap());
    let mut table = Table::default();
    let mut after = |message| {
        table.apply(message);
        shown(&table.links())
    };
    assert_eq!(
        after(NewLink(link(2, "eth0", LinkFlags::Up))),
        "eth0-",
        "up, but no carrier"
    );
    assert_eq!(
        after(NewLink(link(2, "eth0", LinkFlags::Up | LinkFlags::Running))),
        "eth0+"
    );
    assert_eq!(
        after(NewAddress(addr(2, &[ip("10.0.0.1")], 24))),
        "eth0+10.0.0.1"
    );
    assert_eq!(
        after(NewAddress(addr(2, &[ip("10.0.0.1")], 16))),
        "eth0+10.0.0.1"
    );
    assert_eq!(
        after(DelAddress(addr(2, &[ip("10.0.0.1")], 24))),
        "eth0+10.0.0.1"
    );
    assert_eq!(after(DelAddress(addr(2, &[ip("10.0.0.1")], 16))), "eth0+");
    let peer = [ip("192.0.2.9"), local("192.0.2.1")];
    assert_eq!(after(NewAddress(addr(2, &peer, 32))), "eth0+192.0.2.1");
    assert_eq!(
        after(NewAddress(addr(9, &[ip("::1")], 128))),
        "eth0+192.0.2.1",
        "unknown link"
    );
    assert_eq!(
        after(NewLink(link(2, "lan0", LinkFlags::empty()))),
        "lan0-192.0.2.1",
        "renamed"
    );
    let mut port = link(2, "lan0", LinkFlags::empty());
    port.header.interface_family = AddressFamily::Bridge;
    assert_eq!(
        after(DelLink(port)),
        "lan0-192.0.2.1",
        "a port that leaves its bridge"
    );
    assert_eq!(after(DelLink(link(2, "lan0", LinkFlags::empty()))), "");
}

/// Runs the future in a network namespace of its own, unless the machine refuses one.
fn in_netns<F: Future>(run: impl FnOnce() -> F) {
    if let Err(e) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
        eprintln!("skipped: no network namespace: {e}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run());
}

fn ip(command: &str) {
    let status = Command::new("ip")
        .args(command.split(' '))
        .status()
        .unwrap();
    assert!(status.success(), "ip {command}");
}

/// Waits until the links look as wanted.
async fn until(monitor: &mut LinkMonitor, wanted: &str) {
    let look = async {
        while shown(monitor.links()) != wanted {
            monitor.changed().await.unwrap();
        }
    };
    let seen = timeout(Duration::from_secs(10), look).await;
    assert!(
        seen.is_ok(),
        "wanted {wanted}, found {}",
        shown(monitor.links())
    );
}

#[test]
fn follows_a_real_kernel() {
    in_netns(|| async {
        ip("link add name v0 type veth peer name p0");
        let mut monitor = LinkMonitor::new().await.unwrap();
        assert_eq!(shown(monitor.links()), "lo- p0- v0-");
        let idle = timeout(Duration::from_millis(100), monitor.changed());
        assert!(idle.await.is_err());
        ip("link set lo up");
        until(&mut monitor, "lo+127.0.0.1,::1 p0- v0-").await;
        ip("link set v0 addrgenmode none");
        ip("link set p0 addrgenmode none");
        ip("link set v0 name v1");
        ip("link set v1 up");
        ip("addr add 10.1.0.1/24 dev v1");
        until(&mut monitor, "lo+127.0.0.1,::1 p0- v1-10.1.0.1").await;
        ip("link set p0 up");
        ip("addr add 2001:db8::1/64 dev v1 nodad");
        until(&mut monitor, "lo+127.0.0.1,::1 p0+ v1+10.1.0.1,2001:db8::1").await;
        ip("addr del 10.1.0.1/24 dev v1");
        until(&mut monitor, "lo+127.0.0.1,::1 p0+ v1+2001:db8::1").await;
        // The port leaves its bridge, which looks much like a deleted interface.
        ip("link add name br0 type bridge");
        ip("link set v1 master br0");
        ip("link set v1 nomaster");
        ip("link del br0");
        ip("addr add 10.2.0.1/24 dev v1");
        until(&mut monitor, "lo+127.0.0.1,::1 p0+ v1+10.2.0.1,2001:db8::1").await;
        ip("link del v1");
        until(&mut monitor, "lo+127.0.0.1,::1").await;
    });
}

#[test]
fn lost_events_are_made_up_for() {
    in_netns(|| async {
        let mut monitor = LinkMonitor::with_buffer(4096).await.unwrap();
        ip("link set lo up");
        // Nothing is received while this thread works: far more than the buffer holds is sent.
        for n in 1..200 {
            ip(&format!("addr add 10.0.0.{n}/32 dev lo"));
        }
        ip("addr del 10.0.0.1/32 dev lo");
        let look = async {
            // 198 and the two of the loopback interface.
            while monitor.links().get("lo").map_or(0, |lo| lo.addresses.len()) != 200 {
                monitor.changed().await.unwrap();
            }
        };
        timeout(Duration::from_secs(10), look).await.unwrap();
        ip("addr flush dev lo scope global");
        until(&mut monitor, "lo+127.0.0.1,::1").await;
    });
}
