//! The datastore beside the policy directories: local files win over it, and what it last said stays in force while it is away.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::contact::Contact;
use super::engine::Touched;
use super::report::{Degraded, Override, SourceReport};
use super::run::Daemon;
use super::start::Parts;
use crate::api::Resource;
use crate::config::{DatastoreType, Settings};
use crate::etcd::keys::status;
use crate::etcd::{Access, Material};
use crate::publish::{Alive, EndpointState, Publisher, Registration, Wish, own_endpoint};
use crate::source::etcd::{ETCD, EtcdSource, News};
use crate::store::Store;

/// News that are taken before what follows from them is calculated.
const BATCH: usize = 64;
/// Where Calico's programs find the password; it is no setting, because settings are shown.
const PASSWORD_ENV: [&str; 2] = ["CALICO_ETCD_PASSWORD", "ETCD_PASSWORD"];

/// The datastore, if one is configured.
#[derive(Debug, Default)]
pub struct Datastore {
    source: Option<EtcdSource>,
    /// When it last told something, from an earlier run on.
    contact: Option<Contact>,
    publisher: Option<Publisher>,
}

/// How etcd is reached according to the settings.
pub fn access(settings: &Settings) -> Access {
    let file = |path: &Option<_>| path.clone().map(Material::File);
    let given = PASSWORD_ENV
        .iter()
        .find_map(|name| std::env::var(name).ok());
    let inline = given.filter(|text| !text.is_empty()).map(Material::Inline);
    Access {
        endpoints: settings.etcd_endpoints.clone(),
        discovery: settings.etcd_discovery_srv.clone(),
        ca: file(&settings.etcd_ca_file),
        certificate: file(&settings.etcd_cert_file),
        key: file(&settings.etcd_key_file),
        username: settings.etcd_username.clone(),
        password: file(&settings.etcd_password_file)
            .or(inline.filter(|_| settings.etcd_username.is_some())),
    }
}

impl Datastore {
    /// Follows what the settings say, which may be nothing. Says whether anything is followed.
    pub fn configure(&mut self, settings: &Settings, state_dir: &Path) -> bool {
        let wanted = match settings.datastore_type {
            DatastoreType::None => None,
            DatastoreType::EtcdV3 => Some(access(settings)),
        };
        if self.source.as_ref().map(EtcdSource::access) != wanted.as_ref() {
            self.publisher = wanted.clone().map(Publisher::start);
            self.source = wanted.map(EtcdSource::start);
        }
        if self.source.is_some() && self.contact.is_none() {
            self.contact = Some(Contact::read(state_dir));
        }
        self.source.is_some()
    }

    /// Notes on disk when the datastore last told something; at once if this is the last chance.
    pub fn keep_contact(&mut self, is_last: bool) {
        let synced = self.source.as_ref().filter(|source| source.is_synced());
        if let Some((source, contact)) = synced.zip(self.contact.as_mut()) {
            contact.keep(source.contact(), is_last);
        }
    }

    /// When the datastore last told something, in this run or an earlier one.
    fn last_contact(&self) -> Option<String> {
        let now = self.source.as_ref().and_then(EtcdSource::contact);
        let time = now.or(self.contact.as_ref().and_then(Contact::time))?;
        Some(humantime::format_rfc3339_millis(time).to_string())
    }

    /// Waits for news; for ever, when nothing is followed. Nothing is lost when the wait is cancelled.
    pub async fn next(&mut self) -> News {
        match &mut self.source {
            Some(source) => source.next().await,
            None => std::future::pending().await,
        }
    }

    /// Whether a list is under way, so that nothing is to be calculated now.
    pub fn is_listing(&self) -> bool {
        self.source.as_ref().is_some_and(EtcdSource::is_listing)
    }

    /// Whether nothing was ever heard from the datastore, neither now nor in the time of the snapshot.
    pub fn is_awaited(&self, store: &Store) -> bool {
        let source = self.source.as_ref();
        source.is_some_and(|source| !source.is_synced()) && store.stamps(ETCD).next().is_none()
    }

    /// Why what is in force may be older than the datastore.
    pub fn degraded(&self, store: &Store) -> Option<Degraded> {
        let source = self.source.as_ref()?;
        let problem = source.problem()?;
        let instead = match self.is_awaited(store) {
            true => "nothing was ever read from it, so the rules in the kernel stay as they are until it was".to_owned(),
            false if source.revision() == 0 => {
                let as_of = self.last_contact().map(|time| format!(", as etcd had it at {time}"));
                format!("the policy of the snapshot is in force{}", as_of.unwrap_or_default())
            }
            false => format!("the policy of its revision {} is in force", source.revision()),
        };
        Some(Degraded {
            reason: format!("{problem}: {instead}"),
            object: "datastore".to_owned(),
            place: place(source),
        })
    }

    /// What is or will soon be wrong, and what is not used.
    pub fn warnings(&self) -> Vec<String> {
        let warnings = self.source.iter().flat_map(EtcdSource::warnings);
        let problems = self.publisher.iter().flat_map(Publisher::problems);
        warnings.cloned().chain(problems).collect()
    }

    /// Where the datastore is, as far as that is given by address.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let source = self.source.as_ref();
        source.map_or_else(Vec::new, |source| source.access().addresses())
    }

    /// As a source of resources.
    pub fn report(&self) -> Option<SourceReport> {
        let source = self.source.as_ref()?;
        Some(SourceReport {
            name: format!("etcd:{}", place(source)),
            in_sync: source.problem().is_none(),
            last_contact: self.last_contact(),
            revision: source.revision().unsigned_abs(),
            ignored: source.ignored(),
        })
    }
}

/// Where the state of a workload endpoint is kept.
fn workload_key(host: &str, resource: &Resource) -> String {
    let document = resource.raw.value();
    let text = |field: &str| document["spec"][field].as_str().unwrap_or_default();
    let name = match text("pod") {
        "" => text("workload"),
        pod => pod,
    };
    let workload = format!("{}/{name}", resource.id.namespace);
    status::workload(host, text("orchestrator"), &workload, text("endpoint"))
}

/// The endpoint in use, else all.
fn place(source: &EtcdSource) -> String {
    let access = source.access();
    match (source.endpoint(), &access.discovery) {
        (Some(endpoint), _) => endpoint.to_owned(),
        (None, Some(domain)) => format!("SRV {domain}"),
        (None, None) => access.endpoints.join(","),
    }
}

/// What local files have in place of the datastore.
pub fn overrides(store: &Store) -> Vec<Override> {
    let of = |(id, winner, loser): (
        crate::api::ResourceId,
        crate::api::Origin,
        crate::api::Origin,
    )| Override {
        object: id.to_string(),
        file: winner.to_string(),
        key: loser
            .file
            .trim_start_matches(crate::source::etcd::SCHEME)
            .to_owned(),
    };
    store.overrides().into_iter().map(of).collect()
}

impl Parts {
    /// Follows the datastore of the settings. What another one held goes only when none is configured any more.
    pub fn configure_datastore(&mut self) {
        if !self
            .datastore
            .configure(&self.loaded.settings, &self.state_dir)
        {
            self.engine.forget(ETCD);
        }
    }

    fn take_news(&mut self, news: News) -> Touched {
        let Some(source) = &mut self.datastore.source else {
            return Touched::default();
        };
        let updates = source.take(news, self.engine.store());
        self.engine.take(ETCD, updates)
    }
}

impl Daemon<'_> {
    /// Tells the datastore about this host what it shall know.
    pub(super) fn publish(&self) {
        let datastore = &self.parts.datastore;
        let Some((publisher, source)) = datastore.publisher.as_ref().zip(datastore.source.as_ref())
        else {
            return;
        };
        let settings = &self.parts.loaded.settings;
        let alive = Alive {
            interval: match settings.reporting_interval {
                Duration::ZERO => Duration::ZERO,
                // Felix knows whole seconds.
                interval => interval.max(Duration::from_secs(1)),
            },
            ttl: settings.reporting_ttl,
        };
        // A datastore that is locked is being moved: what is written then would be lost.
        let registers = settings.register_host_endpoint && source.problem().is_none();
        let registration = || {
            let labels = &settings.host_endpoint_labels;
            Registration::new(
                labels,
                self.parts.engine.links(),
                &settings.interface_prefix,
            )
        };
        publisher.tell(Wish {
            host: settings.felix_hostname.clone(),
            alive: (self.ready && !alive.interval.is_zero()).then_some(alive),
            endpoints: (self.ready && settings.endpoint_reporting_enabled)
                .then(|| self.endpoint_states()),
            registration: registers.then(registration),
            is_registered: {
                let own = own_endpoint(&settings.felix_hostname);
                registers && self.parts.engine.store().origin(&own).is_some()
            },
        });
    }

    /// The states of this host's endpoints, by their keys.
    fn endpoint_states(&self) -> BTreeMap<String, EndpointState> {
        let host = &self.parts.loaded.settings.felix_hostname;
        let links = self.parts.engine.links();
        let is_up = |name: &String| links.get(name).is_some_and(|link| link.up);
        let state = |is_up: bool| match is_up {
            _ if self.kernel.apply_error.is_some() => EndpointState::Error,
            true => EndpointState::Up,
            false => EndpointState::Down,
        };
        let policy = self.parts.engine.policy();
        let endpoints = policy.endpoints.values().map(|endpoint| {
            let attach = &endpoint.attach;
            let is_up = attach.others || attach.interfaces.iter().any(is_up);
            (status::endpoint(host, &endpoint.name), state(is_up))
        });
        let workloads = policy.workloads.iter().filter_map(|(iface, workload)| {
            let resource = self.parts.engine.store().get(&workload.id).ok()??;
            Some((workload_key(host, &resource), state(is_up(iface))))
        });
        endpoints.chain(workloads).collect()
    }

    /// Takes in news, and those that are there already.
    pub(super) fn datastore_news(&mut self, news: News) {
        let mut touched = Touched::default();
        let mut next = Some(news);
        for _ in 0..BATCH {
            let Some(news) = next else { break };
            let now = self.parts.take_news(news);
            touched.resources |= now.resources;
            touched.felix |= now.felix;
            let source = self.parts.datastore.source.as_mut();
            next = source.and_then(EtcdSource::try_next);
        }
        if let Some(news) = next {
            let now = self.parts.take_news(news);
            touched.resources |= now.resources;
            touched.felix |= now.felix;
        }
        if touched.felix && self.reload_settings() == Some(true) {
            touched.resources |= self.scan(&crate::source::News::Anywhere);
        }
        self.recalculate(touched.resources);
    }
}
