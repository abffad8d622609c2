//! `moatd boot`: the last good policy, brought into the kernel once, before any interface is up; and `moatd check`.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::args::Args;
use super::engine::{Engine, QuickStart};
use super::lock::{self, LockError};
use super::start::{Parts, start};
use super::{EX_CONFIG, EX_OK, EX_UNAVAILABLE, Failure, settings};
use crate::api::{Resource, parse_bytes};
use crate::calc::HostPolicy;
use crate::config::{BootFailurePolicy, Loaded};
use crate::dataplane::iptables;
use crate::dataplane::nft::fallback;
use crate::store::Store;

/// In the state directory: this host was protected when moatd was last there.
const MARK: &str = "protected";

/// How long it may take. The network waits for it, and systemd for half a minute more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Enforces once what the files and the snapshot say, or what `bootFailurePolicy` wants where that fails. The exit code.
pub async fn boot(args: &Args) -> u8 {
    if is_served(args) {
        tracing::info!("moatd serves already: nothing to do");
        return EX_OK;
    }
    let _in_time = watch(args);
    let (failure, parts) = match start(args).await {
        Ok(mut parts) => match enforce(&mut parts).await {
            Ok(()) => return EX_OK,
            Err(failure) => (failure, Some(parts)),
        },
        Err(failure) => (failure, None),
    };
    tracing::error!("{}", failure.message);
    fail(args, parts.as_ref());
    failure.code
}

/// Ends the program as a failed boot when this takes too long, as with tools that hang; not when the answer is dropped before.
fn watch(args: &Args) -> Sender<()> {
    let (in_time, over) = channel();
    let args = args.clone();
    std::thread::spawn(move || {
        if over.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let seconds = PATIENCE.as_secs();
            tracing::error!("the rules could not be written within {seconds} s");
            fail(&args, None);
            std::process::exit(EX_UNAVAILABLE.into());
        }
    });
    in_time
}

/// Whether a moatd holds the state: its rules are newer than any that a boot would know.
fn is_served(args: &Args) -> bool {
    let dir = settings::load_all(args, Vec::new()).map_or_else(
        |_| settings::guess_state_dir(args),
        |loaded| loaded.settings.state_dir,
    );
    matches!(lock::acquire(&dir), Err(LockError::Held { .. }))
}

async fn enforce(parts: &mut Parts) -> Result<(), Failure> {
    if parts.is_blind() {
        tracing::error!(
            "this host had policy and none can be read now: only failsafes, neighbour discovery and established connections pass \
             until moatd can read it"
        );
        parts.engine = minimal(parts);
        parts.engine.calculate();
    }
    let (wanted, _) = parts.engine.hand_over(true);
    let endpoints = parts.engine.policy().endpoints.len();
    let applied = parts.applier.apply(wanted).await.map_err(|error| {
        let message = format!("cannot write the rules: {error}");
        Failure::new(EX_UNAVAILABLE, message)
    })?;
    for (object, reason) in &applied.refused {
        tracing::error!("{object} is not in force: {reason}");
    }
    reopen();
    tracing::info!("policy in force before the network is up: {endpoints} host endpoints");
    Ok(())
}

/// An engine that knows nothing but a closed host endpoint on all interfaces.
fn minimal(parts: &Parts) -> Engine {
    let settings = parts.loaded.settings.clone();
    let quick = QuickStart {
        resources: closed_host(&settings.felix_hostname),
        sets: Default::default(),
    };
    let links = parts.monitor.links().clone();
    Engine::quick(
        settings,
        links,
        iptables::ipv6_available(),
        quick,
        Box::new(|_| {}),
    )
}

/// Denies everything but failsafes, for this host and through it.
fn closed_host(node: &str) -> Vec<Resource> {
    let resources = format!(
        r#"[{{"apiVersion":"projectcalico.org/v3","kind":"HostEndpoint","metadata":{{"name":"moat-boot","labels":{{"moat-boot":""}}}},
           "spec":{{"node":"{node}","interfaceName":"*"}}}},
           {{"apiVersion":"projectcalico.org/v3","kind":"GlobalNetworkPolicy","metadata":{{"name":"moat-boot"}},
           "spec":{{"selector":"has(moat-boot)","types":["Ingress","Egress"],"applyOnForward":true}}}}]"#
    );
    parse_bytes("moatd boot", resources.as_bytes()).resources
}

/// Closes the host that had policy, or leaves it open, as the settings say.
fn fail(args: &Args, parts: Option<&Parts>) {
    let loaded = match parts {
        Some(parts) => Some(parts.loaded.clone()),
        None => settings::load_all(args, Vec::new()).ok(),
    };
    let had_policy = match parts {
        Some(parts) => parts.is_blind() || !parts.engine.ruleset().tables.is_empty(),
        None => is_marked(&state_dir(args, loaded.as_ref())),
    };
    if !had_policy {
        tracing::warn!("this host had no policy so far: it stays open");
        return;
    }
    let wrong_settings = loaded.is_none();
    let settings = loaded.map_or_else(default_settings, |loaded| Some(loaded.settings));
    let Some(settings) = settings else {
        tracing::error!("there are no settings to close the host with: it stays open");
        return;
    };
    if settings.boot_failure_policy == BootFailurePolicy::Open && !wrong_settings {
        tracing::error!("bootFailurePolicy is \"open\": the host stays OPEN until moatd works");
        return;
    }
    match fallback::close(&settings) {
        Ok(()) => tracing::error!(
            "bootFailurePolicy is \"closed\": only failsafes pass until moatd works; to open by hand: moatd cleanup"
        ),
        Err(error) => tracing::error!(
            "the host could not be closed either, nf_tables says: {error}; it stays OPEN until moatd works"
        ),
    }
}

fn state_dir(args: &Args, loaded: Option<&Loaded>) -> std::path::PathBuf {
    loaded.map_or_else(
        || settings::guess_state_dir(args),
        |loaded| loaded.settings.state_dir.clone(),
    )
}

/// Settings without any file or variable.
fn default_settings() -> Option<crate::config::Settings> {
    let none = Path::new("/nonexistent");
    let loaded = crate::config::load(&crate::config::Input {
        config_file: none,
        explicit: false,
        vendor_dir: none,
        env: Vec::new(),
        node: None,
        felix: Vec::new(),
        hostname: "localhost".to_owned(),
    });
    loaded.ok().map(|loaded| loaded.settings)
}

/// Takes away what a failed boot closed, now that policy is in force.
pub fn reopen() {
    match fallback::open() {
        Ok(true) => tracing::info!("policy is in force, what closed the host at boot is gone"),
        Ok(false) => {}
        Err(error) => tracing::error!(
            "table {} of the boot cannot be removed and denies what policy allows: {error}; try: nft delete table inet {}",
            fallback::TABLE,
            fallback::TABLE
        ),
    }
}

/// Whether the state directory says that the host was protected.
pub fn is_marked(state_dir: &Path) -> bool {
    state_dir.join(MARK).exists()
}

/// Remembers whether the host is protected, for a boot at which nothing else can be read.
pub fn mark(state_dir: &Path, policy: &HostPolicy) {
    let is_protected = !policy.endpoints.is_empty() || !policy.workloads.is_empty();
    if is_protected == is_marked(state_dir) {
        return;
    }
    let path = state_dir.join(MARK);
    let written = match is_protected {
        true => std::fs::write(&path, ""),
        false => std::fs::remove_file(&path),
    };
    if let Err(error) = written {
        tracing::warn!(
            "cannot remember in {} whether this host is protected: {error}",
            path.display()
        );
    }
}

/// Whether this version could take over: the settings are good and what the state directory holds can be read. Touches nothing.
pub fn check(args: &Args) -> u8 {
    let loaded = match settings::load_all(args, Vec::new()) {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprintln!("moatd check: {}", settings::errors_text(&errors));
            return EX_CONFIG;
        }
    };
    let settings = &loaded.settings;
    if settings.state_dir.exists() {
        let (_, saved, messages) = Store::open(&settings.state_dir);
        if saved.is_none() && !messages.is_empty() {
            eprintln!("moatd check: {}", messages.join("; "));
            return EX_UNAVAILABLE;
        }
    }
    if let Err(message) = iptables::would_choose(settings.iptables_backend, &settings.state_dir) {
        eprintln!("moatd check: {message}");
        return EX_UNAVAILABLE;
    }
    println!(
        "moatd check: version {} can work with these settings and this state",
        env!("CARGO_PKG_VERSION")
    );
    EX_OK
}
