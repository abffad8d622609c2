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
        Ty::Any => Some(()),
        Ty::Text => read::text(at).map(|_| ()),
        Ty::TextOrInt => match at.node.is_number() {
            true => read::integer(at, i64::MIN..=i64::MAX).map(|_| ()),
            false => read::text(at).map(|_| ()),
        },
        Ty::TextOrBool if matches!(at.node.text(), Some("true" | "false")) => Some(()),
        Ty::TextOrBool => read::text(at).map(|_| ()),
        Ty::IntOrNull if at.node.is_null() => Some(()),
        Ty::IntOrNull => read::integer(at, 0..=i64::MAX).map(|_| ()),
        Ty::AsNumber => super::cluster::as_number(at),
        Ty::Name => read::name(at).map(|_| ()),
        Ty::Selector => read::selector(at).map(|_| ()),
        Ty::Bool => read::boolean(at).map(|_| ()),
        Ty::Int(from, to) => read::integer(at, *from..=*to).map(|_| ()),
        Ty::Word(words) => {
            let words: Vec<(&str, ())> = words.iter().map(|word| (*word, ())).collect();
            read::choice(at, &words)
        }
        Ty::Duration => read::duration(at).map(|_| ()),
        Ty::Ip | Ty::Ip4 | Ty::Ip6 => address(at, ty),
        Ty::Net => read::net(at).map(|_| ()),
        Ty::StrictNet => read::strict_net(at).map(|_| ()),
        Ty::Mac => read::checked(at, names::mac).map(|_| ()),
        Ty::List(item) => {
            at.items()?
                .iter()
                .enumerate()
                .for_each(|(n, node)| check(&at.item(n, node), item).unwrap_or_default());
            Some(())
        }
        Ty::Map(value) => {
            at.entries()?.iter().for_each(|(key, node)| {
                check(&at.entry(&key.name, node), value).unwrap_or_default()
            });
            Some(())
        }
        Ty::Fields(list) => {
            let fields = Fields::of(at)?;
            check_fields(&fields, list);
            fields.finish();
            Some(())
        }
        Ty::Required(inner) => check(at, inner),
    }
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
