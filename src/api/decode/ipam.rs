//! Address management: IPPool (facts 1.13) and the objects of facts 1.16.

use ipnet::IpNet;

use super::at::{At, Fields, Message};
use super::read;
use super::schema::{self, Ty};
use crate::api::net::Family;
use crate::api::types::Spec;

const MODES: [(&str, bool); 3] = [("Never", false), ("Always", true), ("CrossSubnet", true)];
const POOL: [(&str, Ty); 5] = [
    ("natOutgoing", Ty::Bool),
    ("disabled", Ty::Bool),
    ("disableBGPExport", Ty::Bool),
    ("nodeSelector", Ty::Selector),
    ("assignmentMode", Ty::Word(&["Automatic", "Manual"])),
];

/// What a pool's addresses are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Workload,
    Tunnel,
    LoadBalancer,
}

/// Specification of an IPPool.
pub fn pool(at: &At<'_>) -> Option<Spec> {
    let fields = Fields::of(at)?;
    let cidr = fields.required("cidr", read::strict_net);
    let ipip = fields
        .opt("ipipMode", |at| read::choice(at, &MODES))
        .unwrap_or_default();
    let vxlan = fields
        .opt("vxlanMode", |at| read::choice(at, &MODES))
        .unwrap_or_default();
    schema::check_fields(&fields, &POOL);
    if ipip && vxlan {
        fields.complain("vxlanMode", "ipipMode and vxlanMode cannot both be in use");
    }
    match cidr {
        Some(cidr) => pool_cidr(&fields, &cidr, ipip),
        None => drop(fields.get("blockSize")),
    }
    pool_uses(&fields, ipip || vxlan);
    fields.finish_open();
    Some(Spec::Other)
}

fn pool_cidr(fields: &Fields<'_>, cidr: &IpNet, ipip: bool) {
    let family = Family::of_net(cidr);
    let (link_local, from, to, default) = match family {
        Family::V4 => ("169.254.0.0/16", 20, 32, 26),
        Family::V6 => ("fe80::/10", 116, 128, 122),
    };
    let overlaps = |local: IpNet| local.contains(cidr) || cidr.contains(&local);
    if link_local.parse().is_ok_and(overlaps) {
        let rule = format!("overlaps the link-local addresses {link_local}");
        fields.complain("cidr", rule);
    }
    if ipip && family == Family::V6 {
        fields.complain("ipipMode", "IPIP is only possible with an IPv4 pool");
    }
    let size = fields.opt("blockSize", |at| read::byte(at, from..=to));
    let size = size.unwrap_or(default);
    if cidr.prefix_len() > size && !is_true(fields, "disabled") {
        let rule = format!("is smaller than one block (blockSize {size})");
        fields.complain("cidr", rule);
    }
}

fn is_true(fields: &Fields<'_>, name: &'static str) -> bool {
    fields
        .get(name)
        .is_some_and(|at| at.node.text() == Some("true"))
}

fn pool_uses(fields: &Fields<'_>, encapsulated: bool) {
    let words = [
        ("Workload", Use::Workload),
        ("Tunnel", Use::Tunnel),
        ("LoadBalancer", Use::LoadBalancer),
    ];
    let uses = fields.list("allowedUses", words.len(), |at| read::choice(at, &words));
    let namespaces = fields.opt("namespaceSelector", read::selector);
    if namespaces.is_some() && (uses.is_empty() || uses.contains(&Use::Tunnel)) {
        let rule = "cannot be combined with the use Tunnel, which is in use by default";
        let help = "write allowedUses: [Workload]".to_owned();
        fields.complain("namespaceSelector", Message::with(rule, help));
    }
    if !uses.contains(&Use::LoadBalancer) {
        return;
    }
    if uses.iter().any(|u| *u != Use::LoadBalancer) {
        let rule = "LoadBalancer cannot be combined with other uses";
        fields.complain("allowedUses", rule);
    }
    if encapsulated {
        let rule = "LoadBalancer needs ipipMode and vxlanMode to be Never";
        fields.complain("allowedUses", rule);
    }
    if is_true(fields, "disableBGPExport") {
        let rule = "cannot be true with the use LoadBalancer";
        fields.complain("disableBGPExport", rule);
    }
    let nodes = fields.opt("nodeSelector", read::selector);
    if nodes.is_some_and(|selector| !selector.is_all()) {
        fields.complain("nodeSelector", "must be all() with the use LoadBalancer");
    }
}

fn check(at: &At<'_>, fields: &'static [(&'static str, Ty)]) -> Option<Spec> {
    schema::check(at, &Ty::Fields(fields))?;
    Some(Spec::Other)
}

/// Specification of a BlockAffinity.
pub fn affinity(at: &At<'_>) -> Option<Spec> {
    check(
        at,
        &[
            (
                "state",
                Ty::Word(&["confirmed", "pending", "pendingDeletion"]),
            ),
            ("node", Ty::Text),
            ("type", Ty::Text),
            ("cidr", Ty::StrictNet),
            ("deleted", Ty::TextOrBool),
        ],
    )
}

/// Specification of an IPAMBlock.
pub fn block(at: &At<'_>) -> Option<Spec> {
    check(
        at,
        &[
            ("cidr", Ty::Required(&Ty::StrictNet)),
            ("affinity", Ty::Text),
            ("affinityClaimTime", Ty::Text),
            ("allocations", Ty::List(&Ty::IntOrNull)),
            ("unallocated", Ty::List(&Ty::Int(0, i64::MAX))),
            (
                "attributes",
                Ty::List(&Ty::Fields(&[
                    ("handle_id", Ty::Text),
                    ("secondary", Ty::Map(&Ty::Text)),
                    ("alternateOwnerAttrs", Ty::Map(&Ty::Text)),
                    ("releasedAt", Ty::Text),
                ])),
            ),
            ("sequenceNumber", Ty::Int(0, i64::MAX)),
            (
                "sequenceNumberForAllocation",
                Ty::Map(&Ty::Int(0, i64::MAX)),
            ),
            ("deleted", Ty::Bool),
            ("strictAffinity", Ty::Bool),
        ],
    )
}

/// Specification of an IPAMHandle.
pub fn handle(at: &At<'_>) -> Option<Spec> {
    check(
        at,
        &[
            ("handleID", Ty::Text),
            ("block", Ty::Map(&Ty::Int(0, i64::MAX))),
            ("deleted", Ty::Bool),
        ],
    )
}

/// Specification of IPAMConfiguration.
pub fn configuration(at: &At<'_>) -> Option<Spec> {
    check(
        at,
        &[
            ("strictAffinity", Ty::Bool),
            ("maxBlocksPerHost", Ty::Int(0, i32::MAX as i64)),
            ("autoAllocateBlocks", Ty::Bool),
            (
                "kubeVirtVMAddressPersistence",
                Ty::Word(&["Enabled", "Disabled"]),
            ),
            ("ipCooldownSeconds", Ty::Int(0, 1200)),
        ],
    )
}

/// Specification of an IPReservation.
pub fn reservation(at: &At<'_>) -> Option<Spec> {
    check(at, &[("reservedCIDRs", Ty::List(&Ty::Net))])
}
