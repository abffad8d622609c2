//! What nf_tables holds, of anybody: its base chains, and what packets can meet from there on.

use std::collections::BTreeMap;
use std::io;

use super::super::ipset::wire::{attributes, find, number, text};
use super::{dump, wire::Query};
use crate::dataplane::firewalls::{Chain, Hook, Step};

/// Attributes of a chain: table, name, hook and policy; of a hook: number and priority; of a rule: table, chain, expressions.
mod attribute {
    pub const TABLE: u16 = 1;
    pub const CHAIN_NAME: u16 = 3;
    pub const CHAIN_HOOK: u16 = 4;
    pub const CHAIN_POLICY: u16 = 5;
    pub const HOOK_NUMBER: u16 = 1;
    pub const HOOK_PRIORITY: u16 = 2;
    pub const RULE_CHAIN: u16 = 2;
    pub const RULE_EXPRESSIONS: u16 = 4;
    pub const NAME: u16 = 1;
    pub const DATA: u16 = 2;
    pub const IMMEDIATE_DATA: u16 = 2;
    pub const VERDICT: u16 = 2;
    pub const VERDICT_CODE: u16 = 1;
    pub const VERDICT_CHAIN: u16 = 2;
    pub const LOOKUP_REGISTER: u16 = 3;
}

/// All chains, with what their rules can do, in order. A kernel without nf_tables has none.
///
/// # Errors
/// The kernel refuses to tell.
pub fn chains() -> io::Result<Vec<Chain>> {
    let mut chains = BTreeMap::new();
    dump(Query::Chains, |family, message| {
        if let Some(chain) = chain(family, message) {
            let key = (family, chain.table.clone(), chain.name.clone());
            chains.insert(key, chain);
        }
    })?;
    if !chains.is_empty() {
        dump(Query::Rules, |family, message| {
            let name = |kind| find(message, kind).map(text);
            let names = name(attribute::TABLE).zip(name(attribute::RULE_CHAIN));
            let chain = names.and_then(|(table, chain)| chains.get_mut(&(family, table, chain)));
            if let (Some(chain), Some(expressions)) =
                (chain, find(message, attribute::RULE_EXPRESSIONS))
            {
                chain.push(step(expressions));
            }
        })?;
    }
    Ok(chains.into_values().collect())
}

fn chain(family: u8, message: &[u8]) -> Option<Chain> {
    let family = match family {
        1 => "inet",
        2 => "ip",
        10 => "ip6",
        // Those of ARP, bridges and devices see other packets.
        _ => return None,
    };
    let hook = find(message, attribute::CHAIN_HOOK).and_then(|hook| {
        Some((
            Hook::from_number(find(hook, attribute::HOOK_NUMBER).and_then(number)?)?,
            find(hook, attribute::HOOK_PRIORITY)
                .and_then(number)?
                .cast_signed(),
        ))
    });
    Some(Chain {
        tool: "nft",
        family,
        table: find(message, attribute::TABLE).map(text)?,
        name: find(message, attribute::CHAIN_NAME).map(text)?,
        hook,
        denies_at_end: find(message, attribute::CHAIN_POLICY).and_then(number) == Some(0),
        steps: Vec::new(),
    })
}

/// What a rule can do with a packet that fulfils its conditions.
fn step(expressions: &[u8]) -> Step {
    let mut step = Step::None;
    for (_, expression) in attributes(expressions) {
        let name = find(expression, attribute::NAME).map(text);
        let data = find(expression, attribute::DATA).unwrap_or(&[]);
        match name.as_deref() {
            Some("immediate") => {
                let verdict = find(data, attribute::IMMEDIATE_DATA)
                    .and_then(|data| find(data, attribute::VERDICT));
                step = verdict.map_or(step, verdict_step);
            }
            Some("reject") => step = Step::Deny,
            Some("target") => {
                if let Some(target) = find(data, attribute::NAME).map(text) {
                    step = Step::of_target(&target).unwrap_or(step);
                }
            }
            // A map from values to verdicts: anything.
            Some("lookup")
                if find(data, attribute::LOOKUP_REGISTER).and_then(number) == Some(0) =>
            {
                step = Step::Map;
            }
            _ => {}
        }
    }
    step
}

fn verdict_step(verdict: &[u8]) -> Step {
    let code = find(verdict, attribute::VERDICT_CODE).and_then(number);
    let chain = || find(verdict, attribute::VERDICT_CHAIN).map(text);
    match code.map(u32::cast_signed) {
        Some(0) => Step::Deny,
        Some(1) => Step::Accept,
        Some(-3 | -4) => chain().map_or(Step::None, Step::Jump),
        _ => Step::None,
    }
}
