//! Store to host policy, incrementally.
//!
//! An update costs work in proportion to what it touches: label indexes lead from a changed label to the selectors and from a
//! changed selector to the endpoints; only policies that select an endpoint of this host have their rules in the host policy,
//! and only sets that those rules use have members. Of endpoints of other hosts, of which there may be a hundred thousand,
//! only labels and addresses are kept, as numbers where they repeat.

mod attach;
mod changes;
mod effective;
mod endpoints;
mod facts;
mod holders;
mod index;
mod ipset;
mod labels;
mod lint;
mod live;
mod model;
mod policies;
mod pool;
mod posting;
mod profiles;
mod rules;
mod sets;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use changes::{HostChanges, SetChange};
pub use effective::{NAMESPACE, policy_selector};
pub use ipset::{IpSet, Member, SetId};
pub use lint::{lint_host, lint_resources, nodes};
pub use model::*;
pub use rules::DEFAULT_ALLOW;

use crate::api::{Issue, Kind, Origin, Profile, Resource, ResourceId, Spec, Tier};
use crate::config::{Interfaces, Settings};
use crate::dataplane::links::Links;
use endpoints::Local;
use holders::{Holder, Holders};
use live::Live;
use policies::Policies;
use posting::HolderId;
use profiles::ActiveProfile;
use sets::Sets;

/// What the calculator must know of the host besides resources.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Node name; resources whose `spec.node` equals it belong to this host.
    pub node: String,
    /// Interfaces and addresses.
    pub links: Links,
}

/// The incremental calculator. Feed it changes, then ask for the host policy and what changed in it.
#[derive(Debug)]
pub struct Calculator {
    links: Links,
    exclude: Interfaces,
    holders: Holders,
    sets: Sets,
    tiers: BTreeMap<String, Tier>,
    policies: Policies,
    profiles: BTreeMap<String, (Arc<Profile>, Origin)>,
    /// Those that local endpoints list.
    active_profiles: BTreeMap<String, ActiveProfile>,
    /// Endpoints of this host.
    locals: BTreeMap<ResourceId, Local>,
    /// Local endpoints that must be calculated again, or are gone.
    unfinished: BTreeSet<ResourceId>,
    /// What each local host endpoint governs.
    attachments: BTreeMap<String, Attachment>,
    /// Whether that must be found again.
    attach_again: bool,
    /// Kept up to date, but for endpoints that are unfinished.
    live: Live,
    /// Until something changes.
    warnings: Option<Arc<[Issue]>>,
}

/// One load: the host policy of these resources. What any order of updates to a [`Calculator`] must end in.
pub fn compute(resources: &[Resource], host: &Host, settings: &Settings) -> HostPolicy {
    let mut calculator = Calculator::new(host.clone(), settings);
    for resource in resources {
        calculator.upsert(resource);
    }
    calculator.host_policy()
}

impl Calculator {
    /// A calculator without resources.
    pub fn new(host: Host, settings: &Settings) -> Calculator {
        Calculator {
            links: host.links,
            exclude: Interfaces::new(&settings.interface_exclude),
            holders: Holders::default(),
            sets: Sets::default(),
            tiers: BTreeMap::new(),
            policies: Policies::default(),
            profiles: BTreeMap::new(),
            active_profiles: BTreeMap::new(),
            locals: BTreeMap::new(),
            unfinished: BTreeSet::new(),
            attachments: BTreeMap::new(),
            attach_again: false,
            live: Live::new(host.node, attach::options(settings)),
            warnings: None,
        }
    }

    /// New interfaces or addresses.
    pub fn set_links(&mut self, links: Links) {
        self.attach_again |= self.links != links;
        self.links = links;
    }

    /// New settings. The node name cannot change: make a new calculator.
    pub fn set_settings(&mut self, settings: &Settings) {
        self.live.set_options(attach::options(settings));
        self.exclude = Interfaces::new(&settings.interface_exclude);
        self.attach_again = true;
    }

    /// A resource was created or changed.
    pub fn upsert(&mut self, resource: &Resource) {
        self.warnings = None;
        let id = &resource.id;
        match &resource.spec {
            Spec::HostEndpoint(_) | Spec::WorkloadEndpoint(_) | Spec::NetworkSet(_) => {
                self.upsert_holder(resource);
            }
            Spec::Profile(profile) => {
                let new = (profile.clone(), resource.origin.clone());
                self.set_profile(&id.name, Some(new));
            }
            Spec::Policy(policy) | Spec::Staged(_, Some(policy)) => {
                self.upsert_policy(resource, policy);
            }
            Spec::Staged(_, None) => self.delete_policy(id),
            Spec::Tier(tier) => self.set_tier(&id.name, Some(*tier)),
            Spec::FelixConfiguration(_) | Spec::Other => {}
        }
    }

    /// A resource was deleted. Unknown ones are fine.
    pub fn delete(&mut self, id: &ResourceId) {
        self.warnings = None;
        match id.kind {
            Kind::HostEndpoint
            | Kind::WorkloadEndpoint
            | Kind::NetworkSet
            | Kind::GlobalNetworkSet => self.delete_holder(id),
            Kind::Profile => self.set_profile(&id.name, None),
            Kind::Tier => self.set_tier(&id.name, None),
            // Of other kinds nothing is kept, so nothing is found.
            _ => self.delete_policy(id),
        }
    }

    /// The host policy of everything said so far.
    pub fn policy(&mut self) -> &HostPolicy {
        self.finish_endpoints();
        self.live.policy()
    }

    /// The host policy as it was when it was last brought up to date, by [`Calculator::policy`] or [`Calculator::flush`].
    pub fn current(&self) -> &HostPolicy {
        self.live.policy()
    }

    /// What changed in the host policy since this was last asked; at first, everything.
    pub fn flush(&mut self) -> HostChanges {
        self.finish_endpoints();
        self.live.take_changes()
    }

    /// A copy of the host policy, which shares what is large.
    ///
    /// As long as it is kept, the next change of each IP set copies that set.
    pub fn host_policy(&mut self) -> HostPolicy {
        self.policy().clone()
    }

    /// The labels of an endpoint or network set after inheritance, for reports.
    pub fn labels(&self, id: &ResourceId) -> Option<BTreeMap<String, String>> {
        let holder = self.holders.get(self.holders.find(id)?)?;
        let view = self.holders.labels(holder);
        let label = |label| (view.table.name(label), view.table.value(label));
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Some(view.iter().map(label).map(owned).collect())
    }

    /// Takes these as the members of their IP sets until [`Calculator::settle`], although the endpoints and network sets that
    /// they come from are not known yet.
    pub fn assume_sets(&mut self, members: BTreeMap<SetId, IpSet>) {
        self.sets.assume(members, &mut self.live);
    }

    /// Whether members of IP sets are still assumed ones.
    pub fn sets_assumed(&self) -> bool {
        self.sets.is_assumed()
    }

    /// All endpoints and network sets are known: from now on IP sets are what these say.
    pub fn settle(&mut self) {
        self.sets.settle(&mut self.live);
    }

    /// The IP sets in use with their members, to be assumed at the next start.
    pub fn export_sets(&self) -> impl Iterator<Item = (&SetId, &IpSet)> {
        let sets = self.live.policy().sets.iter();
        sets.map(|(id, members)| (id, &**members))
    }

    /// What is worth a warning about the policies and about the endpoints of this host.
    pub fn lint(&mut self) -> Arc<[Issue]> {
        if let Some(known) = &self.warnings {
            return known.clone();
        }
        self.finish_endpoints();
        let issues: Arc<[Issue]> = lint::lint_all(self).into();
        self.warnings = Some(issues.clone());
        issues
    }

    fn upsert_holder(&mut self, resource: &Resource) {
        let new = self.holders.make(resource);
        let number = match self.holders.find(&resource.id) {
            Some(number) => {
                self.exchange_holder(number, new);
                number
            }
            None => {
                let (sets, live) = (&mut self.sets, &mut self.live);
                sets.move_holder(None, Some(&new), &self.holders, live);
                self.holders.add(&resource.id, new)
            }
        };
        self.refresh_local(resource, number);
    }

    fn delete_holder(&mut self, id: &ResourceId) {
        self.remove_local(id);
        let number = self.holders.find(id);
        let Some(old) = number.and_then(|number| self.holders.get(number)) else {
            return;
        };
        let (sets, live) = (&mut self.sets, &mut self.live);
        sets.move_holder(Some(old), None, &self.holders, live);
        self.holders.remove(id);
    }

    /// Puts a holder in the place of another, and follows it in every set.
    fn exchange_holder(&mut self, number: HolderId, new: Holder) {
        let old = self.holders.get(number);
        if old == Some(&new) {
            self.holders.drop_holder(new);
            return;
        }
        let (sets, live) = (&mut self.sets, &mut self.live);
        sets.move_holder(old, Some(&new), &self.holders, live);
        self.holders.replace(number, new);
    }
}
