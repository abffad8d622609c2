//! GlobalNetworkPolicy, NetworkPolicy, Tier and Profile (facts 1.3, 1.4, 1.8, 1.9).

use std::sync::Arc;

use super::at::{At, Fields, Message};
use super::envelope::DEFAULT_TIER;
use super::rule::{self, Owner};
use super::{entity, lint, names, read};
use crate::api::types::{Policy, Profile, Rule, Spec, Tier};
use crate::selector::Selector;

/// Order of a tier that gives none.
const DEFAULT_ORDER: f64 = 1_000_000.0;

/// The tiers that every Calico has: name, order, whether undecided traffic passes on.
const PREDEFINED: [(&str, f64, bool); 3] = [
    (DEFAULT_TIER, DEFAULT_ORDER, false),
    ("kube-admin", 1_000.0, true),
    ("kube-baseline", 10_000_000.0, true),
];

/// Specification of either kind of policy.
pub fn decode(at: &At<'_>, owner: &Owner<'_>) -> Option<Spec> {
    let fields = Fields::of(at)?;
    let policy = common(&fields, owner);
    fields.finish();
    Some(Spec::Policy(Arc::new(policy)))
}

/// The fields of a policy, without complaining about further ones.
pub fn common(fields: &Fields<'_>, owner: &Owner<'_>) -> Policy {
    let errors = fields.at.sink.errors();
    let tier = fields.opt("tier", tier_name);
    let order = fields.opt("order", read::number);
    let selector = fields
        .opt("selector", entity::plain_selector)
        .unwrap_or_else(Selector::all);
    let service_account_selector = fields.opt("serviceAccountSelector", entity::plain_selector);
    let (ingress, egress) = rule::lists(fields, owner);
    let (applies_ingress, applies_egress) = types(fields, &ingress, &egress);
    fields.list("performanceHints", 1, |at| {
        read::choice(at, &[("AssumeNeededOnEveryNode", ())])
    });
    let mut policy = Policy {
        tier: tier.unwrap_or_else(|| DEFAULT_TIER.to_owned()),
        order,
        selector,
        namespace_selector: None,
        service_account_selector,
        applies_ingress,
        applies_egress,
        ingress,
        egress,
        apply_on_forward: false,
        do_not_track: false,
        pre_dnat: false,
    };
    if *owner == Owner::Global {
        global(fields, &mut policy);
    }
    if fields.at.sink.errors() == errors {
        lint::policy(fields, &policy);
    }
    policy
}

/// Whether the policy is about ingress and about egress: as `types` says, or else as its rules show.
fn types(fields: &Fields<'_>, ingress: &[Rule], egress: &[Rule]) -> (bool, bool) {
    let words = [("Ingress", true), ("Egress", false)];
    let types = fields.list("types", words.len(), |at| read::choice(at, &words));
    match types[..] {
        [] => (!ingress.is_empty() || egress.is_empty(), !egress.is_empty()),
        [one, two] if one == two => {
            fields.complain("types", "a type is given twice");
            (one, !one)
        }
        _ => (types.contains(&true), types.contains(&false)),
    }
}

fn tier_name(at: &At<'_>) -> Option<String> {
    let name = read::text(at)?;
    if name.is_empty() {
        Some(DEFAULT_TIER.to_owned())
    } else {
        read::checked(at, names::dns_label)
    }
}

/// What only a GlobalNetworkPolicy has.
fn global(fields: &Fields<'_>, policy: &mut Policy) {
    let flag = |name| fields.opt(name, read::boolean).unwrap_or_default();
    policy.namespace_selector = fields.opt("namespaceSelector", entity::plain_selector);
    policy.apply_on_forward = flag("applyOnForward");
    policy.do_not_track = flag("doNotTrack");
    policy.pre_dnat = flag("preDNAT");
    if policy.do_not_track && policy.pre_dnat {
        let rule = "preDNAT and doNotTrack cannot both be true, for a given PolicySpec";
        fields.complain("preDNAT", rule);
    }
    if policy.pre_dnat {
        ingress_only(fields);
    }
    if (policy.do_not_track || policy.pre_dnat) && !policy.apply_on_forward {
        let field = match policy.pre_dnat {
            true => "preDNAT",
            false => "doNotTrack",
        };
        let rule = "applyOnForward must be true if either preDNAT or doNotTrack is true, for a given PolicySpec";
        let help = "add applyOnForward: true".to_owned();
        fields.complain(field, Message::with(rule, help));
    }
}

fn ingress_only(fields: &Fields<'_>) {
    if fields.get("egress").is_some_and(|at| !at.is_empty_list()) {
        fields.complain("egress", "a preDNAT policy cannot have egress rules");
    }
    let Some(types) = fields.get("types") else {
        return;
    };
    for (n, node) in types.node.items().iter().enumerate() {
        if node.text() == Some("Egress") {
            let at = types.item(n, node);
            at.complain("a preDNAT policy can only apply to ingress");
        }
    }
}

/// Specification of a Tier.
pub fn tier(at: &At<'_>, name: &str) -> Option<Spec> {
    let fields = Fields::of(at)?;
    let order = fields.opt("order", read::number).unwrap_or(DEFAULT_ORDER);
    let pass = fields.opt("defaultAction", |at| {
        read::choice(at, &[("Deny", false), ("Pass", true)])
    });
    let default_pass = pass.unwrap_or_default();
    if let Some((_, fixed_order, fixed_pass)) = PREDEFINED.iter().find(|tier| tier.0 == name) {
        let complain = |field, text: String| match fields.get(field) {
            Some(at) => at.complain(text),
            None => fields.missing_because(field, &text),
        };
        if order != *fixed_order {
            complain(
                "order",
                format!("the tier {name} must have order {fixed_order}"),
            );
        }
        if default_pass != *fixed_pass {
            let action = if *fixed_pass { "Pass" } else { "Deny" };
            complain(
                "defaultAction",
                format!("the tier {name} must have defaultAction {action}"),
            );
        }
    }
    fields.finish();
    Some(Spec::Tier(Tier {
        order,
        default_pass,
    }))
}

/// Specification of a Profile.
pub fn profile(at: &At<'_>) -> Option<Spec> {
    let fields = Fields::of(at)?;
    let errors = at.sink.errors();
    let (ingress, egress) = rule::lists(&fields, &Owner::Global);
    let labels = fields
        .opt("labelsToApply", inherited_labels)
        .unwrap_or_default();
    if at.sink.errors() == errors {
        lint::rules(&fields, "ingress", &ingress);
        lint::rules(&fields, "egress", &egress);
    }
    fields.finish();
    Some(Spec::Profile(Arc::new(Profile {
        ingress,
        egress,
        labels,
    })))
}

/// Labels, of which those of namespaces and service accounts have a prefix that the length limit does not count.
fn inherited_labels(at: &At<'_>) -> Option<std::collections::BTreeMap<String, String>> {
    for (key, node) in at.entries()? {
        let at = at.entry(&key.name, node);
        let own = ["pcns.", "pcsa."]
            .iter()
            .find_map(|p| key.name.strip_prefix(p))
            .unwrap_or(&key.name);
        if let Err(message) = names::label_key(own) {
            at.complain_key(key, message);
        }
        if let Err(message) = node.text().map_or(Ok(()), names::label_value) {
            at.complain(message);
        }
    }
    read::text_map(at)
}
