//! The policies of an endpoint, tier by tier, and its profiles: as chains of their own, or as a port tree where they are many.

use std::sync::Arc;

use super::builder::Builder;
use super::endpoint::Place;
use super::memo::{Variant, Written};
use super::names;
use super::ruleset::{KRule, Match, Name, Target};
use super::tree::{Maker, Tree};
use super::union::Merger;
use crate::calc::{Category, Direction, HostPolicy, RuleLists, TierBlock};

/// Rules that all trees of a family may hold together, for each policy rule of the host: chains of policies are shared by all
/// endpoints, trees by those with the very same policies only.
const ROOM: usize = 4;

/// How many rules the trees of a family may hold.
pub(super) fn tree_room(policy: &HostPolicy) -> usize {
    let rules = |lists: &Arc<RuleLists>| lists.ingress.len() + lists.egress.len();
    ROOM * policy.policies.values().map(rules).sum::<usize>()
}

/// What rules may leave behind.
#[derive(Clone, Copy)]
struct Marking {
    accept: bool,
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
            }
            let of_host = self.lists;
            let lists: Vec<&Arc<RuleLists>> = ids.iter().filter_map(|id| of_host.get(id)).collect();
            let tree = self.tree(chain, &tier.tier, &lists, place, rules);
            pass_was_set = tree.unwrap_or_else(|| self.own_chains(&lists, place, rules));
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

    fn written(
        &mut self,
        lists: &Arc<RuleLists>,
        direction: Direction,
        accept: bool,
    ) -> Arc<Written> {
        let variant = Variant {
            direction,
            family: self.family,
            reject: self.rejects(),
            accept,
        };
        self.memo.written(lists, variant, self.options)
    }

    /// Jumps to the tree for these policies, if they are worth one and there is room for it. Says whether the pass mark may be
    /// set then.
    fn tree(
        &mut self,
        chain: &str,
        tier: &str,
        lists: &[&Arc<RuleLists>],
        place: &Place,
        rules: &mut Vec<KRule>,
    ) -> Option<bool> {
        let count: usize = lists.iter().map(|l| l.rules(place.direction).len()).sum();
        if count <= self.options.tree_from {
            return None;
        }
        // Nobody asks for the mark of what ends here, and a rule that accepts is cheaper than one that marks.
        let accept = place.ends();
        let policies: Vec<Arc<Written>> = lists
            .iter()
            .map(|l| self.written(l, place.direction, accept))
            .collect();
        let size: usize = policies.iter().map(|w| w.rules.len()).sum();
        if size == 0 {
            return Some(false);
        }
        let serials: Vec<u64> = policies.iter().map(|w| w.serial).collect();
        let key = (self.table, serials);
        let root = match self.trees.shared.get(&key) {
            Some(root) => root.clone(),
            None => {
                self.trees.room = self.trees.room.checked_sub(size)?;
                let root: Name = names::tree(chain, tier, place.direction).into();
                self.grow(&root, &policies);
                self.trees.shared.insert(key, root.clone());
                root
            }
        };
        let note = format!("port tree of tier {tier}");
        rules.push(KRule::new(vec![], Target::Jump(root), note));
        let marking = Marking {
            accept: policies.iter().any(|w| w.marks),
            pass: policies.iter().any(|w| w.passes),
        };
        Some(self.after_rules(marking, place, rules))
    }

    /// Makes the tree with this root.
    fn grow(&mut self, root: &Name, policies: &[Arc<Written>]) {
        let at = (self.family, self.table);
        let place = (at.0, at.1, root.clone());
        let old = self.trees.old.remove(&place);
        let mut maker = Maker {
            leaf: self.options.leaf,
            merger: Merger {
                from: self.options.merge_from,
                family: self.family,
                sets: &mut self.memo.sets,
            },
            edits: self.trees.edits.entry(at).or_default(),
        };
        let tree = Tree::update(old, root, policies, &mut maker);
        self.trees.new.insert(place, tree);
    }

    /// Jumps to the chains of policies, one after the other. Says whether the pass mark may be set then.
    fn own_chains(
        &mut self,
        lists: &[&Arc<RuleLists>],
        place: &Place,
        rules: &mut Vec<KRule>,
    ) -> bool {
        let mut pass_was_set = false;
        for lists in lists {
            pass_was_set |= self.own_chain(lists, place, pass_was_set, rules);
        }
        pass_was_set
    }

    /// Jumps to the chain of a policy or profile, unless it is empty in this family. Says whether the pass mark may be set then.
    fn own_chain(
        &mut self,
        lists: &Arc<RuleLists>,
        place: &Place,
        guard: bool,
        rules: &mut Vec<KRule>,
    ) -> bool {
        let written = self.written(lists, place.direction, false);
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
        let marking = Marking {
            accept: written.marks,
            pass: written.passes,
        };
        self.after_rules(marking, place, rules)
    }

    /// What follows a jump to rules. Says whether the pass mark may be set then.
    fn after_rules(&mut self, marking: Marking, place: &Place, rules: &mut Vec<KRule>) -> bool {
        if marking.accept || marking.pass {
            self.mark_chains();
        }
        if marking.accept {
            let accepted = || vec![Match::Mark(self.marks.accept, self.marks.accept, false)];
            if place.category == Category::Untracked {
                rules.push(KRule::new(accepted(), Target::NoTrack, ""));
            }
            rules.push(KRule::new(accepted(), place.accepted.clone(), ""));
        }
        marking.pass
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
            self.own_chain(lists, place, false, rules);
        }
        rules.push(KRule::new(
            vec![],
            self.deny(),
            "no policy and no profile allowed the packet",
        ));
    }
}
