//! The policies of an endpoint, tier by tier, and its profiles: as chains of their own, or as a port tree where they are many.

use std::sync::Arc;

use super::builder::Builder;
use super::endpoint::Place;
use super::memo::{Variant, Written};
use super::names;
use super::ruleset::{KRule, Match, Name, Target};
use super::tree::Tree;
use crate::calc::{Category, Direction, HostPolicy, RuleLists, TierBlock};

/// Rules that all trees of a family may hold together, for each policy rule of the host: chains of policies are shared by all
/// endpoints, trees by those with the very same policies only.
const ROOM: usize = 4;

/// How many rules the trees of a family may hold.
pub(super) fn tree_room(policy: &HostPolicy) -> usize {
    let rules = |lists: &Arc<RuleLists>| lists.ingress.len() + lists.egress.len();
    ROOM * policy.policies.values().map(rules).sum::<usize>()
}

/// What rules can do besides deny.
#[derive(Clone, Copy)]
struct Can {
    allow: bool,
    pass: bool,
}

impl Builder<'_> {
    /// The tiers of the endpoint with this chain.
    pub(super) fn tiers(
        &mut self,
        chain: &str,
        tiers: &[TierBlock],
        place: &Place,
        rules: &mut Vec<KRule>,
    ) {
        let mut pass_was_set = false;
        for tier in tiers {
            let ids = tier.policies(place.direction);
            if ids.is_empty() {
                continue;
            }
            if pass_was_set {
                rules.push(KRule::new(
                    vec![],
                    Target::SetMark(0, self.marks.pass),
                    format!("start of tier {}", tier.tier),
                ));
                pass_was_set = false;
            }
            let host = self.policy;
            let lists = ids.iter().filter_map(|id| host.policies.get(id));
            let policies: Vec<Arc<Written>> =
                lists.map(|l| self.written(l, place.direction)).collect();
            if let Some(root) = self.tree(chain, &tier.tier, place.direction, &policies) {
                let note = format!("port tree of tier {}", tier.tier);
                rules.push(KRule::new(vec![], Target::Jump(root), note));
                let can = Can {
                    allow: policies.iter().any(|w| w.allows),
                    pass: policies.iter().any(|w| w.passes),
                };
                pass_was_set = self.after_rules(can, place, rules);
            } else {
                for policy in policies {
                    pass_was_set |= self.own_chain(&policy, place, pass_was_set, rules);
                }
            }
            if tier.default_deny {
                let matches = self.unless_passed(pass_was_set);
                rules.push(KRule::new(
                    matches,
                    self.deny(),
                    format!("end of tier {}: default action Deny", tier.tier),
                ));
            }
        }
    }

    fn written(&mut self, lists: &Arc<RuleLists>, direction: Direction) -> Arc<Written> {
        let variant = Variant {
            direction,
            family: self.family,
            reject: self.rejects(),
        };
        self.memo.written(lists, variant, self.options)
    }

    /// The root of the tree for these policies, if they are worth one.
    fn tree(
        &mut self,
        chain: &str,
        tier: &str,
        direction: Direction,
        policies: &[Arc<Written>],
    ) -> Option<Name> {
        let count: usize = policies.iter().map(|w| w.rules.len()).sum();
        if count <= self.options.tree_from {
            return None;
        }
        let serials = policies.iter().map(|w| w.serial).collect();
        let key = (self.table, serials);
        if let Some(root) = self.trees.shared.get(&key) {
            return Some(root.clone());
        }
        self.trees.room = self.trees.room.checked_sub(count)?;
        let root: Name = names::tree(chain, tier, direction).into();
        let at = (self.family, self.table);
        let place = (at.0, at.1, root.clone());
        let old = self.trees.old.remove(&place);
        let edits = self.trees.edits.entry(at).or_default();
        let tree = Tree::update(old, &root, tier, self.options.leaf, policies, edits);
        self.trees.new.insert(place, tree);
        self.trees.shared.insert(key, root.clone());
        Some(root)
    }

    /// Jumps to the chain of a policy or profile, unless it is empty in this family. Says whether the pass mark may be set then.
    fn own_chain(
        &mut self,
        written: &Written,
        place: &Place,
        guard: bool,
        rules: &mut Vec<KRule>,
    ) -> bool {
        if written.rules.is_empty() {
            return false;
        }
        let chains = &mut self.rules().chains;
        chains.insert(written.name.clone(), written.rules.clone());
        rules.push(KRule::new(
            self.unless_passed(guard),
            Target::Jump(written.name.clone()),
            written.note.clone(),
        ));
        let can = Can {
            allow: written.allows,
            pass: written.passes,
        };
        self.after_rules(can, place, rules)
    }

    /// What follows a jump to rules. Says whether the pass mark may be set then.
    fn after_rules(&mut self, can: Can, place: &Place, rules: &mut Vec<KRule>) -> bool {
        if can.allow || can.pass {
            self.mark_chains();
        }
        if can.allow {
            let accepted = || vec![Match::Mark(self.marks.accept, self.marks.accept, false)];
            if place.category == Category::Untracked {
                rules.push(KRule::new(accepted(), Target::NoTrack, ""));
            }
            rules.push(KRule::new(accepted(), place.accepted.clone(), ""));
        }
        can.pass
    }

    fn unless_passed(&self, guard: bool) -> Vec<Match> {
        if guard {
            vec![Match::Mark(0, self.marks.pass, false)]
        } else {
            Vec::new()
        }
    }

    /// The profiles of an endpoint, which have no part in tiers.
    pub(super) fn profiles(&mut self, profiles: &[String], place: &Place, rules: &mut Vec<KRule>) {
        let host = self.policy;
        for lists in profiles.iter().filter_map(|p| host.profiles.get(p)) {
            let written = self.written(lists, place.direction);
            self.own_chain(&written, place, false, rules);
        }
        rules.push(KRule::new(
            vec![],
            self.deny(),
            "no policy and no profile allowed the packet",
        ));
    }
}
