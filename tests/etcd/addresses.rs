//! What moatctl tells of addresses and hosts, as text and for programs.

use serde_json::{Value, json};

use crate::ctl::Site;

#[test]
fn addresses_and_hosts() {
    let site = Site::new();
    let pool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p}\nspec: {cidr: 192.168.0.0/16}";
    site.run_on(pool, &["apply", "-f", "-"])
        .says(0, "Successfully");
    let block = r#"{"cidr":"192.168.1.0/26","affinity":"host:node1","strictAffinity":false,"allocations":[0,null,null],"unallocated":[1,2],"attributes":[{"handle_id":"vxlan-tunnel-addr-node1","secondary":{"node":"node1","type":"vxlanTunnelAddress"}}],"deleted":false}"#;
    let key = "/calico/ipam/v2/assignment/ipv4/block/192.168.1.0-26";
    site.etcd.ctl(&["put", key, block]);
    site.run(&["ipam", "show", "--show-blocks"])
        .says(0, "| Block    | 192.168.1.0/26 |");
    site.run(&["ipam", "show", "--ip", "192.168.1.0"])
        .says(0, "type: vxlanTunnelAddress");
    site.run(&["ipam", "show", "--ip", "192.168.1.1"])
        .says(0, "192.168.1.1 is not assigned");
    let json = |words: &[&str]| {
        let done = site.run(&[words, &["-o", "json"]].concat());
        serde_json::from_str::<Value>(&done.out).unwrap()
    };
    let attributes = json!({"node": "node1", "type": "vxlanTunnelAddress"});
    for (words, told) in [
        (
            &["ipam", "show", "--ip", "192.168.1.0"][..],
            json!({"ip": "192.168.1.0", "inUse": true, "attributes": attributes}),
        ),
        (
            &["ipam", "show", "--show-borrowed"],
            json!({"borrowed": [], "unknown": 0}),
        ),
        (
            &["ipam", "show", "--show-configuration"],
            json!({"StrictAffinity": false, "AutoAllocateBlocks": true, "MaxBlocksPerHost": 0}),
        ),
        (
            &["ipam", "show"],
            json!([{"grouping": "IP Pool", "cidr": "192.168.0.0/16", "total": 65536.0, "used": 1, "free": 65535.0}]),
        ),
        (
            &["ipam", "release", "--ip", "192.168.1.0"],
            json!({"message": "Successfully released IP address 192.168.1.0"}),
        ),
    ] {
        assert_eq!(json(words), told, "{words:?}");
    }
    let hosts = "/calico/felix/v2/no-region/host/";
    let report = r#"{"time":"2026-01-02T03:04:05Z","uptime":12.5,"first_update":false}"#;
    for key in [
        "h1/status",
        "h1/last_reported_status",
        "h2/last_reported_status",
    ] {
        site.etcd.ctl(&["put", &format!("{hosts}{key}"), report]);
    }
    let told = site.run(&["node", "status"]);
    told.says(1, "h1    alive");
    told.says(1, "h2    silent");
    let told = json(&["node", "status"]);
    let first = json!({"name": "h1", "state": "alive", "lastReport": "2026-01-02T03:04:05Z", "uptimeSeconds": 12.5});
    assert_eq!(told["hosts"][0], first);
    assert!(told["bgp"].is_array(), "{told}");
}
