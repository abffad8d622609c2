//! What members of a set do for the rules that use it, which says whether they come before or after a change of rules.

use std::collections::BTreeMap;

use super::super::ipset::Effect;
use crate::compile::{ALLOW_CHAIN, KRule, Match, Name, Ruleset, Target};

/// The effect of every set that these rulesets use. Where they disagree it is mixed.
pub fn of_sets(rulesets: &[&Ruleset]) -> BTreeMap<Name, Effect> {
    let mut effects = BTreeMap::new();
    let tables = rulesets.iter().flat_map(|r| r.tables.values());
    let chains = tables
        .flat_map(|t| t.values())
        .flat_map(|t| t.chains.values());
    for rule in chains.flat_map(|chain| chain.iter()) {
        for (name, negated) in rule.matches.iter().filter_map(set_match) {
            let effect = effect(rule, negated);
            let known = effects.entry(name.clone()).or_insert(effect);
            if *known != effect {
                *known = Effect::Mixed;
            }
        }
    }
    effects
}

fn set_match(condition: &Match) -> Option<(&Name, bool)> {
    match condition {
        Match::Set(_, name, negated) | Match::PortSet(_, name, negated) => Some((name, *negated)),
        _ => None,
    }
}

fn effect(rule: &KRule, negated: bool) -> Effect {
    let allows = match &rule.target {
        Target::Accept => Some(true),
        Target::Goto(chain) | Target::Jump(chain) if **chain == *ALLOW_CHAIN => Some(true),
        Target::Drop | Target::Reject => Some(false),
        // Where the packet goes on from there is another matter.
        _ => None,
    };
    match allows {
        Some(allows) if allows != negated => Effect::Opens,
        Some(_) => Effect::Closes,
        None => Effect::Mixed,
    }
}
