//! The pure middle of the daemon: store, calculator, compiler. No clock, no kernel, no task.

mod reports;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{Kind, Resource, ResourceId, Spec};
use crate::calc::{self, Calculator, Host, HostChanges, HostPolicy, IpSet, SetId};
use crate::compile::{self, Compiler, Ruleset};
use crate::config::Settings;
use crate::dataplane::links::Links;
use crate::dataplane::{Handover, Wanted};
use crate::source::{DirSource, FileContent, FileUpdate, News};
use crate::store::journal::Saved;
use crate::store::{Change, Store};

/// Name of the directory source in the store.
pub const DIR: &str = "dir";
/// Documents between two calls of [`Progress`].
const PROGRESS_STEP: usize = 1000;

/// Called now and then with the number of documents taken in so far, while many are.
pub type Progress = Box<dyn FnMut(usize) + Send>;

/// What the cache of the last run tells.
pub struct QuickStart {
    /// The resources that matter to this host.
    pub resources: Vec<Resource>,
    /// Members of the IP sets in use.
    pub sets: BTreeMap<SetId, IpSet>,
}

/// Resources in, ruleset out.
pub struct Engine {
    settings: Settings,
    ipv6: bool,
    links: Links,
    store: Store,
    calculator: Calculator,
    compiler: Compiler,
    ruleset: Arc<Ruleset>,
    handover: Handover,
    /// What changed since the last handover.
    changes: HostChanges,
    /// Whether settings changed that the compiler must see.
    recompile: bool,
    progress: Progress,
}

impl Engine {
    /// An engine for the resources of this store, which are none yet.
    pub fn new(
        settings: Settings,
        links: Links,
        ipv6: bool,
        store: Store,
        progress: Progress,
    ) -> Engine {
        let calculator = calculator(&settings, &links, &store);
        let compiler = Compiler::new(compile::Options::new(&settings, ipv6));
        Engine {
            settings,
            ipv6,
            links,
            store,
            calculator,
            compiler,
            ruleset: Arc::default(),
            handover: Handover::default(),
            changes: HostChanges::default(),
            recompile: false,
            progress,
        }
    }

    /// An engine that knows no more than what matters to this host, from the cache of the last run; until it is told the rest by
    /// [`Engine::complete`].
    pub fn quick(
        settings: Settings,
        links: Links,
        ipv6: bool,
        quick: QuickStart,
        progress: Progress,
    ) -> Engine {
        let mut engine = Engine::new(settings, links, ipv6, Store::new(), progress);
        engine.calculator.assume_sets(quick.sets);
        for resource in &quick.resources {
            engine.calculator.upsert(resource);
        }
        engine
    }

    /// Takes up everything that the store and the directories hold, after a quick start.
    pub fn complete(&mut self, store: Store, saved: Option<Saved>, source: &mut DirSource) {
        self.store = store;
        if let Some(saved) = saved {
            self.seed(saved);
        }
        let held = self.store.stamps(DIR);
        source.expect(held.map(|(path, stamp)| (path.to_owned(), stamp)));
        self.read(source, &News::Anywhere);
        self.calculator.settle();
    }

    /// Ids of the resources without which this host's policy cannot be calculated when the members of IP sets are known: policies
    /// that select nothing here are not among them.
    pub fn essential(&self) -> Vec<ResourceId> {
        let everywhere = |kind| matches!(kind, Kind::Tier | Kind::FelixConfiguration);
        let global = |kind, name: &str| ResourceId {
            kind,
            namespace: String::new(),
            name: name.to_owned(),
        };
        let policy = self.policy();
        let mut ids: Vec<ResourceId> = self.store.ids(everywhere).collect();
        ids.extend(policy.policies.keys().map(|id| (**id).clone()));
        let hosts = policy.endpoints.keys();
        ids.extend(hosts.map(|name| global(Kind::HostEndpoint, name)));
        ids.extend(
            policy
                .workloads
                .values()
                .map(|workload| workload.id.clone()),
        );
        // A profile that an endpoint names need not exist.
        let profiles = policy
            .profiles
            .keys()
            .map(|name| global(Kind::Profile, name));
        ids.extend(profiles.filter(|id| self.store.origin(id).is_some()));
        ids
    }

    /// The host policy of the last [`Engine::calculate`].
    pub fn policy(&self) -> &HostPolicy {
        self.calculator.current()
    }

    /// What that was compiled to.
    pub fn ruleset(&self) -> &Arc<Ruleset> {
        &self.ruleset
    }

    /// The view of all resources.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Interfaces and addresses.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// The view of all resources, to be saved.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Takes up what a snapshot held.
    pub fn seed(&mut self, saved: Saved) {
        self.change(|store, sink| store.seed(saved, sink));
    }

    /// Takes in what changed in the directories; says whether any resource changed, and whether a FelixConfiguration did.
    pub fn read(&mut self, source: &mut DirSource, news: &News) -> Touched {
        self.change(|store, sink| {
            source.scan_for(news, &mut |update| store.take(DIR, update, sink));
        })
    }

    /// Takes in what a source found; says what that touched.
    pub fn take(&mut self, source: &str, updates: Vec<FileUpdate>) -> Touched {
        self.change(|store, sink| store.apply(source, updates, sink))
    }

    /// Takes out everything that is of a source.
    pub fn forget(&mut self, source: &str) {
        let held = self.store.stamps(source).map(|(path, _)| FileUpdate {
            path: path.to_owned(),
            content: FileContent::Removed,
        });
        let updates: Vec<FileUpdate> = held.collect();
        if !updates.is_empty() {
            self.take(source, updates);
        }
    }

    /// Feeds the calculator with what `work` changes in the store.
    fn change(&mut self, work: impl FnOnce(&mut Store, &mut crate::store::Sink<'_>)) -> Touched {
        let before = self.store.revision();
        let calculator = &mut self.calculator;
        let progress = &mut self.progress;
        let mut felix = false;
        let mut moved = Vec::new();
        let mut taken = 0;
        work(&mut self.store, &mut |change| {
            taken += 1;
            if taken % PROGRESS_STEP == 0 {
                progress(taken);
            }
            let id = match change {
                Change::Upserted(resource) => {
                    calculator.upsert(resource);
                    &resource.id
                }
                Change::Deleted(id) => {
                    calculator.delete(id);
                    id
                }
                Change::Moved(id) => {
                    moved.push(id.clone());
                    id
                }
            };
            felix |= id.kind == Kind::FelixConfiguration;
        });
        for id in moved {
            // A lost document is reported by the store.
            if let Ok(Some(resource)) = self.store.get(&id) {
                self.calculator.upsert(&resource);
            }
        }
        Touched {
            resources: self.store.revision() != before,
            felix,
        }
    }

    /// Other interfaces or addresses.
    pub fn set_links(&mut self, links: Links) {
        self.calculator.set_links(links.clone());
        self.links = links;
    }

    /// Other settings.
    pub fn set_settings(&mut self, settings: Settings) {
        if settings.felix_hostname == self.settings.felix_hostname {
            self.calculator.set_settings(&settings);
        } else {
            self.calculator = calculator(&settings, &self.links, &self.store);
        }
        self.settings = settings;
        self.recompile = true;
    }

    /// Calculates and compiles what changed; says whether there is anything to hand over.
    pub fn calculate(&mut self) -> bool {
        let changes = self.calculator.flush();
        if std::mem::take(&mut self.recompile) || changes.touches_rules() {
            let options = compile::Options::new(&self.settings, self.ipv6);
            let ruleset = self.compiler.compile(self.calculator.current(), &options);
            self.changes.options |= !Arc::ptr_eq(&ruleset, &self.ruleset);
            self.ruleset = ruleset;
        }
        self.changes.extend(changes);
        !self.changes.is_empty()
    }

    /// What was handed over did not arrive: the next handover counts as a change of everything.
    pub fn distrust(&mut self) {
        self.changes.options = true;
    }

    /// What the kernel shall hold, and what changed in the policy since the last time. Only the difference to the last time,
    /// unless the `whole` of it is asked for.
    pub fn hand_over(&mut self, whole: bool) -> (Wanted, HostChanges) {
        let changes = std::mem::take(&mut self.changes);
        let policy = self.calculator.current();
        let wanted = if whole {
            self.handover.whole(&self.ruleset, policy)
        } else {
            self.handover.changed(&self.ruleset, policy, &changes)
        };
        (wanted, changes)
    }

    /// The ruleset, and its policy, that these resources, added to the present ones or in place of them, would make.
    pub fn candidate(&self, resources: &[Resource]) -> (Ruleset, HostPolicy) {
        let mut merged: BTreeMap<ResourceId, Resource> = self
            .resources()
            .into_iter()
            .map(|r| (r.id.clone(), r))
            .collect();
        merged.extend(resources.iter().map(|r| (r.id.clone(), r.clone())));
        let resources: Vec<_> = merged.into_values().collect();
        let host = Host {
            node: self.settings.felix_hostname.clone(),
            links: self.links.clone(),
        };
        let policy = calc::compute(&resources, &host, &self.settings);
        let options = compile::Options::new(&self.settings, self.ipv6);
        (compile::compile(&policy, &options), policy)
    }

    /// All resources whose documents can be read; the store reports the others.
    pub fn resources(&self) -> Vec<Resource> {
        self.store.resources().filter_map(Result::ok).collect()
    }

    /// All resources of a kind whose documents can be read.
    pub fn of_kind(&self, kind: Kind) -> Vec<Resource> {
        self.store.of_kind(kind).filter_map(Result::ok).collect()
    }

    /// All FelixConfigurations, by name.
    pub fn felix(&self) -> Vec<(String, Arc<crate::api::FelixConfiguration>)> {
        let resources = self.store.of_kind(Kind::FelixConfiguration);
        resources
            .filter_map(|resource| {
                let resource = resource.ok()?;
                match resource.spec {
                    Spec::FelixConfiguration(felix) => Some((resource.id.name, felix)),
                    _ => None,
                }
            })
            .collect()
    }
}

/// What an update touched.
#[derive(Clone, Copy, Debug, Default)]
pub struct Touched {
    /// Any resource.
    pub resources: bool,
    /// A FelixConfiguration, so that settings must be loaded again.
    pub felix: bool,
}

fn calculator(settings: &Settings, links: &Links, store: &Store) -> Calculator {
    let host = Host {
        node: settings.felix_hostname.clone(),
        links: links.clone(),
    };
    let mut calculator = Calculator::new(host, settings);
    for resource in store.resources().filter_map(Result::ok) {
        calculator.upsert(&resource);
    }
    calculator
}
