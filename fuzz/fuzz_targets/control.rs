//! Any line on the control socket is a request or refused; the parts of a request that are somebody's text do no harm.
#![no_main]

use moat::api::{Kind, Resource, parse_bytes};
use moat::calc::{Host, HostPolicy, compute};
use moat::config::{Input, load};
use moat::daemon::control::Request;
use moat::verdict::explain;

struct World {
    resources: Vec<Resource>,
    policy: HostPolicy,
}

impl World {
    fn new() -> World {
        let text = include_bytes!("../../etc/moat/examples/gateway.yaml");
        let resources = parse_bytes("gateway.yaml", text).resources;
        let nowhere = std::path::Path::new("/nonexistent");
        let settings = load(&Input {
            config_file: nowhere,
            explicit: false,
            vendor_dir: nowhere,
            env: Vec::new(),
            node: None,
            felix: Vec::new(),
            hostname: "gateway".to_owned(),
        });
        let host = Host {
            node: "gateway".to_owned(),
            ..Host::default()
        };
        let policy = compute(&resources, &host, &settings.expect("defaults").settings);
        World { resources, policy }
    }
}

thread_local!(static WORLD: World = World::new());

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(request) = serde_json::from_slice::<Request>(bytes) else {
        return;
    };
    let again = serde_json::to_vec(&request).expect("a request is JSON");
    serde_json::from_slice::<Request>(&again).expect("and comes back");
    match request {
        Request::Get { kind, .. } => drop(kind.parse::<Kind>()),
        Request::Plan { files } => {
            for (name, text) in &files {
                parse_bytes(name, text.as_bytes());
            }
        }
        Request::Explain(query) => {
            let answer = WORLD.with(|w| explain(&query, &w.policy, &w.resources, None));
            assert!(answer.map_or_else(|e| !e.is_empty(), |a| !a.trace.is_empty()));
        }
        _ => {}
    }
});
