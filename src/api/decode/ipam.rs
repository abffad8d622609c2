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
        fields.opt("vxlanMode", |at| {
            at.error::<()>("ipipMode and vxlanMode cannot both be in use")
        });
    }
    match cidr {
        Some(cidr) => pool_cidr(&fields, &cidr, ipip),
        None => drop(fields.get("blockSize")),
    }
    pool_uses(&fields, ipip || vxlan);
    fields.finish();
    Some(Spec::Other)
}

fn pool_cidr(fields: &Fields<'_>, cidr: &IpNet, ipip: bool) {
    let complain = |field, text: String| fields.opt(field, |at| at.error::<()>(text));
    let link_local = match Family::of_net(cidr) {
        Family::V4 => "169.254.0.0/16",
        Family::V6 => "fe80::/10",
    };
    if link_local
        .parse()
        .is_ok_and(|local: IpNet| local.contains(cidr) || cidr.contains(&local))
    {
        complain(
            "cidr",
            format!("overlaps the link-local addresses {link_local}"),
        );
    }
    let (from, to, default) = match Family::of_net(cidr) {
        Family::V4 => (20, 32, 26),
        Family::V6 => (116, 128, 122),
    };
    if ipip && Family::of_net(cidr) == Family::V6 {
        complain(
            "ipipMode",
            "IPIP is only possible with an IPv4 pool".to_owned(),
        );
    }
    let size = fields
        .opt("blockSize", |at| read::byte(at, from..=to))
        .unwrap_or(default);
    let disabled = fields
        .get("disabled")
        .is_some_and(|at| at.node.text() == Some("true"));
    if cidr.prefix_len() > size && !disabled {
        complain(
            "cidr",
            format!("is smaller than one block (blockSize {size})"),
        );
    }
}

fn pool_uses(fields: &Fields<'_>, encapsulated: bool) {
    let words = [
        ("Workload", Use::Workload),
        ("Tunnel", Use::Tunnel),
        ("LoadBalancer", Use::LoadBalancer),
    ];
    let uses = fields.list("allowedUses", words.len(), |at| read::choice(at, &words));
    let tunnel = uses.is_empty() || uses.contains(&Use::Tunnel);
    let namespaces = fields.opt("namespaceSelector", |at| {
        read::selector(at).map(|_| at.node.line)
    });
    if namespaces.is_some() && tunnel {
        let help = "write allowedUses: [Workload]".to_owned();
        fields.opt("namespaceSelector", |at| {
            at.error::<()>(Message::with(
                "cannot be combined with the use Tunnel, which is in use by default",
                help,
            ))
        });
    }
    if !uses.contains(&Use::LoadBalancer) {
        return;
    }
    let complain = |field, text: &str| fields.opt(field, |at| at.error::<()>(text));
    if uses.iter().any(|u| *u != Use::LoadBalancer) {
        complain(
            "allowedUses",
            "LoadBalancer cannot be combined with other uses",
        );
    }
    if encapsulated {
        complain(
            "allowedUses",
            "LoadBalancer needs ipipMode and vxlanMode to be Never",
        );
    }
    if fields
        .get("disableBGPExport")
        .is_some_and(|at| at.node.text() == Some("true"))
    {
        complain(
            "disableBGPExport",
            "cannot be true with the use LoadBalancer",
        );
    }
    let selector = fields.get("nodeSelector");
    let all = selector.and_then(|at| {
        at.node
            .text()
            .map(|text| text.trim().is_empty() || text.trim() == "all()")
    });
    if all == Some(false) {
        complain("nodeSelector", "must be all() with the use LoadBalancer");
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
