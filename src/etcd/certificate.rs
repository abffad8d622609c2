//! From when to when certificates are valid.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Before a certificate ends, this long ahead it is said.
const AHEAD: Duration = Duration::from_secs(14 * 86_400);

/// The time between which a certificate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Not before this.
    pub from: SystemTime,
    /// Not after this.
    pub until: SystemTime,
}

impl Validity {
    /// What is or will soon be wrong, in words.
    pub fn warning(&self, now: SystemTime) -> Option<String> {
        let time = |at| humantime::format_rfc3339_seconds(at);
        if now < self.from {
            let from = time(self.from);
            return Some(format!(
                "is valid only from {from}: the clock of this host may be wrong"
            ));
        }
        let until = time(self.until);
        match self.until.duration_since(now) {
            Err(_) => Some(format!("has expired at {until}: renew it")),
            Ok(left) if left < AHEAD => {
                let days = left.as_secs() / 86_400;
                Some(format!("expires in {days} days, at {until}: renew it"))
            }
            Ok(_) => None,
        }
    }
}

/// The validity of every certificate in PEM; what is no certificate is left out, since the library for TLS complains about it.
pub fn validities(pem: &str) -> Vec<Validity> {
    let blocks = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    let der = |block: &str| {
        let text: String = block.split("-----END").next()?.split_whitespace().collect();
        STANDARD.decode(text).ok()
    };
    blocks
        .filter_map(der)
        .filter_map(|der| validity(&der))
        .collect()
}

/// Tags of DER.
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// The validity of a certificate (RFC 5280, 4.1).
fn validity(der: &[u8]) -> Option<Validity> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut tbs, _) = element(certificate, SEQUENCE)?;
    if let Some((_, rest)) = element(tbs, VERSION) {
        tbs = rest;
    }
    let (_, rest) = element(tbs, INTEGER)?;
    let (_, rest) = element(rest, SEQUENCE)?;
    let (_, rest) = element(rest, SEQUENCE)?;
    let (validity, _) = element(rest, SEQUENCE)?;
    let (from, rest) = time(validity)?;
    let (until, _) = time(rest)?;
    Some(Validity { from, until })
}

/// The content of an element, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (head, rest) = der.split_at_checked(2)?;
    if head[0] != tag {
        return None;
    }
    let (length, rest) = match head[1] {
        short if short < 0x80 => (usize::from(short), rest),
        long => {
            let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            if bytes.len() > 3 {
                return None;
            }
            (bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b)), rest)
        }
    };
    rest.split_at_checked(length)
}

fn time(der: &[u8]) -> Option<(SystemTime, &[u8])> {
    let (text, century, rest) = match element(der, UTC_TIME) {
        Some((text, rest)) => (text, None, rest),
        None => {
            let (text, rest) = element(der, GENERALIZED_TIME)?;
            let (century, text) = text.split_at_checked(2)?;
            (text, Some(number(century)?), rest)
        }
    };
    let mut parts = text.chunks(2).map(number);
    let mut next = || parts.next().flatten();
    let year = next()?;
    let century = century.unwrap_or(if year < 50 { 20 } else { 19 });
    let (month, day, hour, minute, second) = (next()?, next()?, next()?, next()?, next()?);
    let text =
        format!("{century:02}{year:02}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z");
    Some((humantime::parse_rfc3339(&text).ok()?, rest))
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SystemTime {
        humantime::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn words() {
        let validity = Validity {
            from: at("2026-01-01T00:00:00Z"),
            until: at("2026-12-31T00:00:00Z"),
        };
        let warning = |now| validity.warning(at(now));
        assert_eq!(warning("2026-06-01T00:00:00Z"), None);
        assert!(warning("2025-12-31T23:00:00Z").unwrap().contains("clock"));
        assert!(
            warning("2026-12-21T00:00:00Z")
                .unwrap()
                .contains("in 10 days")
        );
        assert!(
            warning("2027-01-01T00:00:00Z")
                .unwrap()
                .contains("has expired")
        );
    }

    #[test]
    fn times_of_both_forms() {
        let utc = [&[UTC_TIME, 13][..], b"260102030405Z"].concat();
        assert_eq!(time(&utc).unwrap().0, at("2026-01-02T03:04:05Z"));
        let long = [&[GENERALIZED_TIME, 15][..], b"20520102030405Z"].concat();
        assert_eq!(time(&long).unwrap().0, at("2052-01-02T03:04:05Z"));
    }

    #[test]
    fn what_is_no_certificate_has_no_validity() {
        let short = "-----BEGIN CERTIFICATE-----\nMAoDBQ==\n-----END CERTIFICATE-----";
        for text in ["", "-----BEGIN CERTIFICATE-----\n%%", short] {
            assert_eq!(validities(text), []);
        }
    }
}
