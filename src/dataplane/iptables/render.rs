//! One rule of the ruleset in the words of `iptables-restore`.

use super::save::CHAIN_PREFIX;
use crate::api::Family;
use crate::compile::{End, KNOWN, KRule, Match, Target, short_hash};

/// Starts the comment of every rule of ours.
pub const TAG: &str = "moat:";
/// The longest comment the kernel stores, without the terminating zero.
const MAX_COMMENT: usize = 255;
/// Characters of a rule's identity.
const ID_LEN: usize = 10;

/// Identity of a rule: a hash of everything it says, kept in its comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleId([u8; ID_LEN]);

impl RuleId {
    fn new(text: &str) -> Option<RuleId> {
        Some(RuleId(text.as_bytes().try_into().ok()?))
    }
}

/// A rule ready for a restore file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Its identity.
    pub id: Option<RuleId>,
    /// The rule without its chain.
    pub text: String,
}

/// Renders a rule of a chain of ours.
pub fn render(rule: &KRule, family: Family) -> Rendered {
    if rule.note.is_empty() {
        let text = matches(rule, family) + &target(&rule.target);
        if let Some(id) = bare_identity(&text) {
            let id = Some(id);
            return Rendered { id, text };
        }
    }
    render_hook(rule, family)
}

/// Renders a rule of ours in a chain of others: it always has a comment, by which it is known.
pub fn render_hook(rule: &KRule, family: Family) -> Rendered {
    let mut says = matches(rule, family);
    let matches = says.len();
    says += &target(&rule.target);
    says += &rule.note;
    let id = short_hash(&says, ID_LEN);
    let mut comment = format!("{TAG}{id}");
    if !rule.note.is_empty() {
        comment.push(' ');
        comment.extend(rule.note.chars().map(|c| if is_plain(c) { c } else { '_' }));
    }
    comment.truncate(MAX_COMMENT);
    let (matches, target) = (
        &says[..matches],
        &says[matches..says.len() - rule.note.len()],
    );
    let text = format!("{matches}-m comment --comment \"{comment}\" {target}");
    let id = RuleId::new(&id);
    Rendered { id, text }
}

/// Characters that pass through a quoted restore line and back unchanged.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || " .,:;=_-/+*()[]{}<>@#%^&|!~".contains(c)
}

/// The identity in the comment of a rule that a save tool printed.
pub fn identity(line: &str) -> Option<RuleId> {
    let comment = line.split("--comment ").nth(1)?;
    let comment = comment.strip_prefix('"').unwrap_or(comment);
    let rest = comment.strip_prefix(TAG)?;
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric());
    RuleId::new(&rest[..end.unwrap_or(rest.len())])
}

/// The identity of a rule in a chain of ours. Where rules lead on, or let known flows pass, without a word of policy, they have
/// no comment and are known by what they say: every comment costs every packet of the host as much as a comparison of ports.
pub fn identity_inside(line: &str) -> Option<RuleId> {
    identity(line).or_else(|| bare_identity(line))
}

/// The identity of a rule without comment, if it is simple enough that all versions of the tools print what was written.
fn bare_identity(line: &str) -> Option<RuleId> {
    let mut says = String::new();
    let mut ours = false;
    let mut words = line.split_ascii_whitespace();
    while let Some(option) = words.next() {
        let value = words.next()?;
        let value = match (option, value) {
            ("-j" | "-g", chain) if chain.starts_with(CHAIN_PREFIX) => {
                ours = true;
                chain
            }
            ("-j", "ACCEPT" | "RETURN") => value,
            ("--ctstate", KNOWN) => {
                ours = true;
                value
            }
            ("-p", name) => number(name)?,
            ("-m", "multiport" | "conntrack") | ("-i" | "-o" | "--dports", _) => value,
            _ => return None,
        };
        says.extend([option, " ", value, " "]);
    }
    RuleId::new(&short_hash(&says, ID_LEN)).filter(|_| ours)
}

/// Protocols by number, as we write them, or by name, as the tools print them.
fn number(protocol: &str) -> Option<&str> {
    match protocol {
        "icmp" => Some("1"),
        "tcp" => Some("6"),
        "udp" => Some("17"),
        "ipv6-icmp" | "icmpv6" => Some("58"),
        "sctp" => Some("132"),
        "1" | "6" | "17" | "58" | "132" => Some(protocol),
        _ => None,
    }
}

fn not(negated: bool) -> &'static str {
    if negated { "! " } else { "" }
}

fn matches(rule: &KRule, family: Family) -> String {
    let mut text = String::with_capacity(256);
    for m in rule.matches.iter() {
        text += &matching(m, family);
    }
    text
}

fn matching(m: &Match, family: Family) -> String {
    match m {
        Match::InIface(name) => format!("-i {name} "),
        Match::OutIface(name) => format!("-o {name} "),
        Match::Protocol(p, n) => format!("{}-p {} ", not(*n), p.0),
        Match::Net(End::Src, net, n) => format!("{}-s {net} ", not(*n)),
        Match::Net(End::Dst, net, n) => format!("{}-d {net} ", not(*n)),
        Match::Ports(end, ranges, n) => {
            let list = ranges
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(",");
            let option = match end {
                End::Src => "--sports",
                End::Dst => "--dports",
            };
            format!("-m multiport {}{option} {list} ", not(*n))
        }
        Match::Set(end, name, n) => format!("-m set {}--match-set {name} {} ", not(*n), word(*end)),
        Match::PortSet(end, name, n) => {
            format!(
                "-m set {}--match-set {name} {},{} ",
                not(*n),
                word(*end),
                word(*end)
            )
        }
        Match::Icmp(kind, code, n) => {
            let (module, option) = match family {
                Family::V4 => ("icmp", "--icmp-type"),
                Family::V6 => ("icmp6", "--icmpv6-type"),
            };
            let code = code.map_or(String::new(), |c| format!("/{c}"));
            format!("-m {module} {}{option} {kind}{code} ", not(*n))
        }
        Match::Mark(value, mask, n) => format!("-m mark {}--mark {value:#x}/{mask:#x} ", not(*n)),
        Match::State(states) => format!("-m conntrack --ctstate {states} "),
        Match::HopLimit(limit) => match family {
            Family::V4 => format!("-m ttl --ttl-eq {limit} "),
            Family::V6 => format!("-m hl --hl-eq {limit} "),
        },
    }
}

fn word(end: End) -> &'static str {
    match end {
        End::Src => "src",
        End::Dst => "dst",
    }
}

fn target(target: &Target) -> String {
    match target {
        Target::Accept => "-j ACCEPT".to_owned(),
        Target::Drop => "-j DROP".to_owned(),
        Target::Reject => "-j REJECT".to_owned(),
        Target::Return => "-j RETURN".to_owned(),
        Target::Jump(chain) => format!("-j {chain}"),
        Target::Goto(chain) => format!("-g {chain}"),
        Target::SetMark(value, mask) => format!("-j MARK --set-xmark {value:#x}/{mask:#x}"),
        Target::NoTrack => "-j CT --notrack".to_owned(),
        // Level 5 is notice, as in Calico.
        Target::Log(prefix) => format!("-j LOG --log-prefix \"{prefix}\" --log-level 5"),
    }
}
