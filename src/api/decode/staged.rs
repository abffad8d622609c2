//! Staged policies (facts 1.5): checked like the others, never enforced.

use std::sync::Arc;

use super::at::{At, Fields, Message};
use super::rule::Owner;
use super::schema::{self, Ty};
use super::{policy, read};
use crate::api::types::{Spec, StagedAction};
use crate::api::yaml::{Node, Value};

const ACTIONS: [(&str, StagedAction); 4] = [
    ("Set", StagedAction::Set),
    ("Delete", StagedAction::Delete),
    ("Learn", StagedAction::Learn),
    ("Ignore", StagedAction::Ignore),
];

/// Specification of a StagedGlobalNetworkPolicy or StagedNetworkPolicy.
pub fn decode(at: &At<'_>, owner: &Owner<'_>) -> Option<Spec> {
    let fields = Fields::of(at)?;
    let action = action(&fields);
    let policy = policy::common(&fields, owner);
    fields.finish();
    let enforced = (action == StagedAction::Set).then(|| Arc::new(policy));
    Some(Spec::Staged(action, enforced))
}

fn action(fields: &Fields<'_>) -> StagedAction {
    let action = fields
        .opt("stagedAction", |at| read::choice(at, &ACTIONS))
        .unwrap_or(StagedAction::Set);
    if action == StagedAction::Delete {
        for (key, node) in fields.at.entries().unwrap_or_default() {
            if !matches!(&*key.name, "stagedAction" | "tier") && !is_empty(node) {
                let text = Message::with(
                    "must be empty when stagedAction is Delete",
                    "remove the field".to_owned(),
                );
                fields.at.entry(&key.name, node).complain(text);
            }
        }
    }
    action
}

fn is_empty(node: &Node) -> bool {
    match &node.value {
        Value::Seq(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
        Value::Scalar(scalar) => node.is_null() || scalar.text.is_empty() || scalar.text == "false",
    }
}

const LABEL_SELECTOR: Ty = Ty::Fields(&[
    ("matchLabels", Ty::Map(&Ty::Text)),
    (
        "matchExpressions",
        Ty::List(&Ty::Fields(&[
            ("key", Ty::Required(&Ty::Text)),
            (
                "operator",
                Ty::Required(&Ty::Word(&["In", "NotIn", "Exists", "DoesNotExist"])),
            ),
            ("values", Ty::List(&Ty::Text)),
        ])),
    ),
]);

const PEERS: Ty = Ty::List(&Ty::Fields(&[
    ("podSelector", LABEL_SELECTOR),
    ("namespaceSelector", LABEL_SELECTOR),
    (
        "ipBlock",
        Ty::Fields(&[
            ("cidr", Ty::Required(&Ty::Net)),
            ("except", Ty::List(&Ty::Net)),
        ]),
    ),
]));

const PORTS: Ty = Ty::List(&Ty::Fields(&[
    ("protocol", Ty::Word(&["TCP", "UDP", "SCTP"])),
    ("port", Ty::TextOrInt),
    ("endPort", Ty::Int(1, 65535)),
]));

const KUBERNETES: [(&str, Ty); 4] = [
    ("podSelector", LABEL_SELECTOR),
    (
        "ingress",
        Ty::List(&Ty::Fields(&[("from", PEERS), ("ports", PORTS)])),
    ),
    (
        "egress",
        Ty::List(&Ty::Fields(&[("to", PEERS), ("ports", PORTS)])),
    ),
    ("policyTypes", Ty::List(&Ty::Word(&["Ingress", "Egress"]))),
];

/// Specification of a StagedKubernetesNetworkPolicy.
pub fn kubernetes(at: &At<'_>) -> Option<Spec> {
    let fields = Fields::of(at)?;
    let action = action(&fields);
    schema::check_fields(&fields, &KUBERNETES);
    fields.finish();
    Some(Spec::Staged(action, None))
}
