//! Profiles: labels that endpoints inherit, and rules for those of this host.

use std::sync::Arc;

use super::Calculator;
use super::rules::{self, Named};
use crate::api::{Kind, Origin, Profile, ResourceId};

/// A profile that local endpoints list, whether it exists or not.
#[derive(Debug)]
pub struct ActiveProfile {
    /// How many list it.
    users: usize,
    rules: Named,
}

impl Calculator {
    /// A profile was created, changed or deleted.
    pub(super) fn set_profile(&mut self, name: &str, new: Option<(Arc<Profile>, Origin)>) {
        let labels = new.as_ref().map(|(profile, _)| profile.clone());
        match new {
            Some(new) => self.profiles.insert(name.to_owned(), new),
            None => self.profiles.remove(name),
        };
        let heirs = self.holders.set_profile(name, labels);
        for number in &heirs {
            if let Some(holder) = self.holders.remake(*number) {
                self.exchange_holder(*number, holder);
            }
        }
        if !heirs.is_empty() {
            self.reselect_users_of(name);
        }
        if self.active_profiles.contains_key(name) {
            let rules = self.profile_rules(name);
            self.replace_profile(name, rules);
        }
    }

    /// A local endpoint lists a profile.
    pub(super) fn use_profile(&mut self, name: &str) {
        if let Some(active) = self.active_profiles.get_mut(name) {
            active.users += 1;
            return;
        }
        let rules = self.profile_rules(name);
        for set in &rules.sets {
            self.sets.acquire(*set, &mut self.holders, &mut self.live);
        }
        self.live.set_profile(name, Some(rules.lists.clone()));
        let active = ActiveProfile { users: 1, rules };
        self.active_profiles.insert(name.to_owned(), active);
    }

    /// A local endpoint no longer lists a profile.
    pub(super) fn leave_profile(&mut self, name: &str) {
        let Some(active) = self.active_profiles.get_mut(name) else {
            return;
        };
        active.users -= 1;
        if active.users == 0
            && let Some(active) = self.active_profiles.remove(name)
        {
            self.live.set_profile(name, None);
            self.end_rules(&active.rules);
        }
    }

    fn replace_profile(&mut self, name: &str, new: Named) {
        let Some(active) = self.active_profiles.get_mut(name) else {
            return;
        };
        for set in &new.sets {
            self.sets.acquire(*set, &mut self.holders, &mut self.live);
        }
        let is_changed = new.lists != active.rules.lists;
        let lists = new.lists.clone();
        let old = std::mem::replace(&mut active.rules, new);
        if is_changed {
            self.live.set_profile(name, Some(lists));
        }
        self.end_rules(&old);
    }

    fn end_rules(&mut self, rules: &Named) {
        for set in &rules.sets {
            self.sets.release(*set, &mut self.holders, &mut self.live);
            self.sets.unname(*set);
        }
    }

    fn profile_rules(&mut self, name: &str) -> Named {
        let id = Arc::new(ResourceId {
            kind: Kind::Profile,
            namespace: String::new(),
            name: name.to_owned(),
        });
        match self.profiles.get(name) {
            Some((profile, origin)) => rules::profile_rules(&id, origin, profile, &mut self.sets),
            None => rules::absent_profile(&id),
        }
    }
}
