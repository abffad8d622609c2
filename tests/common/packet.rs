//! Packets that no ordinary socket sends: ICMP, SCTP and bare protocols.

use super::case::Message;

/// Eight bytes by which a receiver knows its packet.
pub type Token = [u8; 8];

/// What stands behind the IP header of a raw packet. The kernel fills in the checksum of ICMPv6.
pub fn payload(
    proto: u8,
    icmp: Option<Message>,
    ports: (Option<u16>, Option<u16>),
    token: &Token,
) -> Vec<u8> {
    match (proto, icmp) {
        (_, Some(message)) => icmp_message(message, token, proto == 1),
        (132, None) => sctp_init(ports.0.unwrap_or(40_000), ports.1.unwrap_or(0), token),
        _ => token.to_vec(),
    }
}

fn icmp_message(message: Message, token: &Token, with_checksum: bool) -> Vec<u8> {
    let mut bytes = vec![message.kind, message.code, 0, 0, token[0], token[1], 0, 1];
    bytes.extend_from_slice(token);
    // Timestamp and mask requests are longer than an echo; conntrack looks at the header only.
    bytes.extend_from_slice(&[0; 8]);
    if with_checksum {
        let sum = internet_checksum(&bytes);
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

/// An SCTP packet with one INIT chunk; the token is its initiate tag and window.
fn sctp_init(sport: u16, dport: u16, token: &Token) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&sport.to_be_bytes());
    bytes.extend_from_slice(&dport.to_be_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[1, 0, 0, 20]);
    bytes.extend_from_slice(token);
    bytes.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 1]);
    let sum = crc32c(&bytes);
    bytes[8..12].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// RFC 1071.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The checksum of SCTP (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 * (crc & 1))
        })
    })
}
