//! The syntax of names: resources, labels, ports, interfaces (facts 1.1 and 1.2).

use super::at::Message;

/// Longest resource name.
const MAX_NAME: usize = 253;
/// Longest DNS label, label value, and name part of a label key.
const MAX_LABEL: usize = 63;
/// Longest interface name the kernel takes.
const MAX_INTERFACE: usize = 15;
/// Longest port name.
const MAX_PORT_NAME: usize = 128;

fn too_long(text: &str, max: usize) -> Result<(), Message> {
    let length = text.chars().count();
    if length > max {
        Err(format!("is {length} characters long, at most {max} are allowed").into())
    } else {
        Ok(())
    }
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
fn is_dns_label(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A DNS-1123 subdomain: lower-case labels joined by dots.
pub fn subdomain(text: &str) -> Result<(), Message> {
    too_long(text, MAX_NAME)?;
    if text.split('.').all(is_dns_label) {
        return Ok(());
    }
    let rule = "must be lower-case letters, digits, `-` and `.`, and each part must start and end with a letter or digit";
    let lower = text.to_ascii_lowercase();
    let help =
        (lower != text && lower.split('.').all(is_dns_label)).then(|| format!("write {lower}"));
    Err(Message::with(rule, help))
}

/// One DNS-1123 label.
pub fn dns_label(text: &str) -> Result<(), Message> {
    too_long(text, MAX_LABEL)?;
    if is_dns_label(text) {
        return Ok(());
    }
    Err("must be lower-case letters, digits and `-` without dots, starting and ending with a letter or digit".into())
}

/// The name of a GlobalNetworkPolicy: `name` or `tier.name`.
pub fn global_policy(text: &str) -> Result<(), Message> {
    subdomain(text)?;
    if text.split('.').count() > 2 {
        return Err("a policy name has at most one dot: `name` or `tier.name`".into());
    }
    Ok(())
}

/// The name of a NetworkPolicy: as of a GlobalNetworkPolicy, or a policy converted from Kubernetes or OpenStack.
pub fn namespaced_policy(text: &str) -> Result<(), Message> {
    let converted = ["knp.default.", "ossg.default."]
        .iter()
        .any(|prefix| text.starts_with(prefix));
    if converted {
        subdomain(text)
    } else {
        global_policy(text)
    }
}

/// `[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?`
fn is_qualified(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    edge(text.bytes().next())
        && edge(text.bytes().last())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A label key: `name` or `dns.prefix/name`.
pub fn label_key(text: &str) -> Result<(), Message> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if let Some(prefix) = prefix {
        subdomain(prefix)
            .map_err(|e| Message::from(format!("the part of the key before `/` {}", e.message)))?;
    }
    too_long(name, MAX_LABEL)
        .map_err(|e| Message::from(format!("the name of the key {}", e.message)))?;
    if is_qualified(name) {
        return Ok(());
    }
    Err("a key must be letters, digits, `-`, `_` and `.`, starting and ending with a letter or digit, with an optional `prefix/`".into())
}

/// A label value.
pub fn label_value(text: &str) -> Result<(), Message> {
    too_long(text, MAX_LABEL)?;
    if text.is_empty() || is_qualified(text) {
        return Ok(());
    }
    Err("a label value must be letters, digits, `-`, `_` and `.`, starting and ending with a letter or digit".into())
}

fn all_of(text: &str, extra: &[u8]) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
}

/// The name of an endpoint's port.
pub fn port(text: &str) -> Result<(), Message> {
    too_long(text, MAX_PORT_NAME)?;
    if all_of(text, b"_.-") {
        Ok(())
    } else {
        Err("a port name must be letters, digits, `_`, `.` and `-`".into())
    }
}

/// The name of a network interface.
pub fn interface(text: &str) -> Result<(), Message> {
    too_long(text, MAX_INTERFACE)?;
    if all_of(text, b"_.-") {
        Ok(())
    } else {
        Err("an interface name must be letters, digits, `_`, `.` and `-`".into())
    }
}

/// A hardware address: six bytes in hexadecimal, joined by colons or dashes.
pub fn mac(text: &str) -> Result<(), Message> {
    let hex = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let separator = if text.contains('-') { '-' } else { ':' };
    let good = text.split(separator).count() == 6 && text.split(separator).all(hex);
    if good {
        Ok(())
    } else {
        Err("is not a hardware address like 02:00:5e:10:00:01".into())
    }
}

/// A duration such as `90s` or `1h30m`: numbers with the units ns, us, ms, s, m, h.
pub fn duration(text: &str) -> Result<(), Message> {
    let rule = || Message::from("is not a duration like 90s, 1m30s or 250ms");
    let mut rest = text.strip_prefix('-').unwrap_or(text);
    if rest == "0" {
        return Ok(());
    }
    if rest.is_empty() {
        return Err(rule());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(rule)?;
        let number = &rest[..digits];
        let unit = ["ns", "us", "µs", "ms", "s", "m", "h"]
            .iter()
            .filter(|u| rest[digits..].starts_with(**u))
            .max_by_key(|u| u.len());
        match unit {
            Some(unit) if number.parse::<f64>().is_ok() => rest = &rest[digits + unit.len()..],
            _ => return Err(rule()),
        }
    }
    Ok(())
}
