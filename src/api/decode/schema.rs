//! Shapes as data, for the kinds whose fields moat checks but does not use yet.

use super::at::{At, Fields};
use super::{names, read};

/// Most items of a list, where the API sets no smaller bound.
pub const MAX_ITEMS: usize = 1_000_000;

/// What a value must look like.
#[derive(Clone, Copy, Debug)]
pub enum Ty {
    /// Anything: fields that others own.
    Any,
    /// Text.
    Text,
    /// Text or a whole number.
    TextOrInt,
    /// Text or a truth value.
    TextOrBool,
    /// A whole number or null.
    IntOrNull,
    /// An AS number.
    AsNumber,
    /// A resource name.
    Name,
    /// A selector.
    Selector,
    /// `true` or `false`.
    Bool,
    /// A whole number from, to.
    Int(i64, i64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A duration such as `90s`.
    Duration,
    /// An address of either family.
    Ip,
    /// An IPv4 address.
    Ip4,
    /// An IPv6 address.
    Ip6,
    /// A prefix or address, host bits allowed.
    Net,
    /// A prefix or address without host bits.
    StrictNet,
    /// A hardware address.
    Mac,
    /// A list.
    List(&'static Ty),
    /// A mapping from any name.
    Map(&'static Ty),
    /// A mapping of known fields.
    Fields(&'static [(&'static str, Ty)]),
    /// A field that must be there.
    Required(&'static Ty),
}

/// Checks a value; everything wrong with it goes to the sink.
pub fn check(at: &At<'_>, ty: &Ty) -> Option<()> {
    match ty {
        Ty::List(item) => {
            for (n, node) in at.items()?.iter().enumerate() {
                check(&at.item(n, node), item);
            }
            Some(())
        }
        Ty::Map(value) => {
            for (key, node) in at.entries()? {
                check(&at.entry(&key.name, node), value);
            }
            Some(())
        }
        Ty::Fields(list) => {
            let fields = Fields::of(at)?;
            check_fields(&fields, list);
            fields.finish();
            Some(())
        }
        Ty::Required(inner) => check(at, inner),
        leaf => check_leaf(at, leaf),
    }
}

fn check_leaf(at: &At<'_>, ty: &Ty) -> Option<()> {
    match ty {
        Ty::TextOrInt if at.node.is_number() => whole(at),
        Ty::TextOrBool if matches!(at.node.text(), Some("true" | "false")) => Some(()),
        Ty::Text | Ty::TextOrInt | Ty::TextOrBool => read::borrowed(at).map(drop),
        Ty::IntOrNull if at.node.is_null() => Some(()),
        Ty::IntOrNull => whole(at),
        Ty::Int(from, to) => read::integer(at, *from..=*to).map(drop),
        Ty::AsNumber => super::cluster::as_number(at),
        Ty::Name => read::valid(at, names::subdomain).map(drop),
        Ty::Selector => read::selector(at).map(drop),
        Ty::Bool => read::boolean(at).map(drop),
        Ty::Word(words) => {
            let words: Vec<(&str, ())> = words.iter().map(|word| (*word, ())).collect();
            read::choice(at, &words)
        }
        Ty::Duration => read::duration(at).map(drop),
        Ty::Ip | Ty::Ip4 | Ty::Ip6 => address(at, ty),
        Ty::Net => read::net(at).map(drop),
        Ty::StrictNet => read::strict_net(at).map(drop),
        Ty::Mac => read::valid(at, names::mac).map(drop),
        _ => Some(()),
    }
}

fn whole(at: &At<'_>) -> Option<()> {
    read::integer(at, i64::MIN..=i64::MAX).map(drop)
}

/// Checks the listed fields of a mapping; the caller may read more of them before it finishes.
pub fn check_fields(fields: &Fields<'_>, list: &[(&'static str, Ty)]) {
    for (name, ty) in list {
        match ty {
            Ty::Required(inner) => fields.required(name, |at| check(at, inner)),
            ty => fields.opt(name, |at| check(at, ty)),
        };
    }
}

fn address(at: &At<'_>, ty: &Ty) -> Option<()> {
    let ip = read::ip(at)?;
    match ty {
        Ty::Ip4 if !ip.is_ipv4() => at.error("must be an IPv4 address"),
        Ty::Ip6 if !ip.is_ipv6() => at.error("must be an IPv6 address"),
        _ => Some(()),
    }
}
