//! The one selector that a policy, or a side of a rule, comes down to (facts 2.6), built structurally.

use crate::api::{Entity, Kind, Policy, ResourceId};
use crate::selector::Selector;

/// Label that every namespaced endpoint and network set carries.
pub const NAMESPACE: &str = "projectcalico.org/namespace";
/// Label with a pod's service account.
pub const SERVICE_ACCOUNT: &str = "projectcalico.org/serviceaccount";
/// Prefix of labels inherited from the namespace.
const NS_PREFIX: &str = "pcns.";
/// Prefix of labels inherited from the service account.
const SA_PREFIX: &str = "pcsa.";

/// The endpoints a policy applies to.
///
/// Calico rewrites `all()` in the whole joined text, also where the user wrote it in the main selector; here only the namespace
/// and service account parts are rewritten.
pub fn policy_selector(id: &ResourceId, policy: &Policy) -> Selector {
    let mut selector = policy.selector.clone();
    if is_namespaced(id.kind) {
        selector = selector.and(&Selector::eq(NAMESPACE, &id.namespace));
    }
    if let Some(ns) = &policy.namespace_selector {
        selector = selector.and(&namespaces(ns));
    }
    if let Some(sa) = &policy.service_account_selector {
        let sa = sa
            .prefix_labels(SA_PREFIX)
            .replace_all(&Selector::has(SERVICE_ACCOUNT));
        selector = selector.and(&sa);
    }
    selector
}

fn namespaces(selector: &Selector) -> Selector {
    let named = Selector::has(NAMESPACE);
    selector
        .prefix_labels(NS_PREFIX)
        .replace_all(&named)
        .replace_global(&named.not())
}

fn is_namespaced(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::NetworkPolicy | Kind::StagedNetworkPolicy | Kind::StagedKubernetesNetworkPolicy
    )
}

/// What a side of a rule selects: the set it must be in, and the set it must not be in.
pub struct SideSelectors {
    /// Positive selector with namespace, service accounts and, where both exist, the negative one merged in.
    pub positive: Option<Selector>,
    /// Negative selector that stands alone.
    pub negative: Option<Selector>,
}

/// The selectors of one side of a rule in a policy with this id.
pub fn side_selectors(id: &ResourceId, entity: &Entity) -> SideSelectors {
    let accounts = service_accounts(entity);
    let selected = join(accounts, entity.selector.clone());
    let explicit_ns = entity.namespace_selector.as_ref().map(namespaces);
    let mentions_labels =
        selected.is_some() || entity.not_selector.is_some() || explicit_ns.is_some();
    let namespace = match explicit_ns {
        None if is_namespaced(id.kind) && mentions_labels => {
            Some(Selector::eq(NAMESPACE, &id.namespace))
        }
        other => other,
    };
    match (join(namespace, selected), &entity.not_selector) {
        (Some(positive), Some(not)) => SideSelectors {
            positive: Some(positive.and(&not.not())),
            negative: None,
        },
        (positive, not) => SideSelectors {
            positive,
            negative: not.clone(),
        },
    }
}

fn service_accounts(entity: &Entity) -> Option<Selector> {
    let accounts = entity.service_accounts.as_ref()?;
    let by_label = accounts.selector.as_ref().map(|s| {
        s.prefix_labels(SA_PREFIX)
            .replace_all(&Selector::has(SERVICE_ACCOUNT))
    });
    let by_name = (!accounts.names.is_empty())
        .then(|| Selector::in_set(SERVICE_ACCOUNT, accounts.names.iter().cloned()));
    join(by_label, by_name)
}

fn join(a: Option<Selector>, b: Option<Selector>) -> Option<Selector> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.and(&b)),
        (a, b) => a.or(b),
    }
}
