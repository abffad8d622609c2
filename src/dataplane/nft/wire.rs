//! The few words of the kernel's nf_tables protocol (`linux/netfilter/nf_tables.h`) that moat needs.

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BATCH: (u16, u16) = (0x10, 0x11);
/// `NFPROTO_INET`: IPv4 and IPv6.
pub const INET: u8 = 1;
/// `NLM_F_REQUEST`, `NLM_F_ACK` and `NLM_F_CREATE | NLM_F_APPEND`.
const FLAGS: (u16, u16, u16) = (1, 4, 0x400 | 0x800);
/// `NLM_F_DUMP`.
const DUMP: u16 = 0x300;
/// `NLM_F_NONREC`: nothing with it.
const ALONE: u16 = 0x100;
/// `NFT_MSG_GETTABLE`.
const GET_TABLE: u16 = 1;
const NESTED: u16 = 1 << 15;
/// The register in which values are compared (`NFT_REG_1`).
const REGISTER: u32 = 1;

/// Commands (`enum nf_tables_msg_types`).
#[derive(Clone, Copy)]
#[repr(u16)]
pub enum Command {
    NewTable = 0,
    DeleteTable = 2,
    NewChain = 3,
    /// Fails when there are rules in it.
    DeleteEmptyChain = 5,
    NewRule = 6,
}

/// What an attribute holds.
pub enum Value<'a> {
    /// A text, sent with a final zero.
    Text(&'a str),
    /// A number, in network order.
    Number(u32),
    /// Bytes as they are.
    Bytes(&'a [u8]),
    /// Attributes.
    Nest(&'a [(u16, Value<'a>)]),
    /// Attributes that are written already.
    Written(&'a [u8]),
}

/// Appends attributes.
pub fn put(out: &mut Vec<u8>, attributes: &[(u16, Value<'_>)]) {
    for (kind, value) in attributes {
        let at = out.len();
        let nested = matches!(value, Value::Nest(_) | Value::Written(_));
        out.extend([0; 2]);
        out.extend((kind | if nested { NESTED } else { 0 }).to_ne_bytes());
        match value {
            Value::Text(text) => {
                out.extend(text.as_bytes());
                out.push(0);
            }
            Value::Number(number) => out.extend(number.to_be_bytes()),
            Value::Bytes(bytes) | Value::Written(bytes) => out.extend(*bytes),
            Value::Nest(inner) => put(out, inner),
        }
        let length = u16::try_from(out.len() - at).unwrap_or(u16::MAX);
        out[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        out.resize(out.len().next_multiple_of(4), 0);
    }
}

/// Messages that take effect together or not at all.
pub struct Batch {
    family: u8,
    bytes: Vec<u8>,
    messages: u32,
}

impl Batch {
    /// For tables of this family (`NFPROTO_*`).
    pub fn new(family: u8) -> Batch {
        let mut batch = Batch {
            family,
            bytes: Vec::new(),
            messages: 0,
        };
        batch.message(BATCH.0, FLAGS.0, 0, SUBSYSTEM, &[]);
        batch
    }

    /// A question for a table, which changes nothing and so is no transaction.
    pub fn question(attributes: &[(u16, Value<'_>)]) -> Batch {
        let mut batch = Batch {
            family: INET,
            bytes: Vec::new(),
            messages: 0,
        };
        batch.message(
            SUBSYSTEM << 8 | GET_TABLE,
            FLAGS.0 | FLAGS.1,
            INET,
            0,
            attributes,
        );
        batch
    }

    /// Adds a command, which will be answered.
    pub fn add(&mut self, command: Command, attributes: &[(u16, Value<'_>)]) {
        let how = match command {
            Command::DeleteTable => 0,
            Command::DeleteEmptyChain => ALONE,
            _ => FLAGS.2,
        };
        let kind = SUBSYSTEM << 8 | command as u16;
        self.message(kind, FLAGS.0 | FLAGS.1 | how, self.family, 0, attributes);
    }

    /// All messages, and how many answers there will be.
    pub fn end(mut self) -> (Vec<u8>, u32) {
        if self.messages == 1 {
            return (self.bytes, 1);
        }
        let answers = self.messages - 1;
        self.message(BATCH.1, FLAGS.0, 0, SUBSYSTEM, &[]);
        (self.bytes, answers)
    }

    fn message(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        attributes: &[(u16, Value<'_>)],
    ) {
        let at = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.messages.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        put(&mut self.bytes, attributes);
        let length = u32::try_from(self.bytes.len() - at).unwrap_or(u32::MAX);
        self.bytes[at..at + 4].copy_from_slice(&length.to_ne_bytes());
        self.messages += 1;
    }
}

/// What can be listed.
#[derive(Clone, Copy)]
#[repr(u16)]
pub enum Query {
    /// `NFT_MSG_GETCHAIN`.
    Chains = 4,
    /// `NFT_MSG_GETRULE`.
    Rules = 7,
}

impl Query {
    /// The request for all of them.
    pub fn bytes(self) -> Vec<u8> {
        let mut batch = Batch {
            family: 0,
            bytes: Vec::new(),
            messages: 0,
        };
        let kind = SUBSYSTEM << 8 | self as u16;
        batch.message(kind, FLAGS.0 | DUMP, 0, 0, &[]);
        batch.bytes
    }
}

/// How a value is compared (`enum nft_cmp_ops`).
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Compare {
    Equal = 0,
    NotEqual = 1,
    AtMost = 3,
    AtLeast = 5,
}

/// A rule that accepts what fulfils all its conditions.
#[derive(Default)]
pub struct Rule {
    expressions: Vec<u8>,
}

impl Rule {
    /// A property of the packet (`enum nft_meta_keys`).
    pub fn meta(mut self, key: u32, wanted: &[u8]) -> Rule {
        self.push(
            "meta",
            &[(1, Value::Number(REGISTER)), (2, Value::Number(key))],
        );
        self.compare(Compare::Equal, wanted)
    }

    /// Bytes of a header: base 1 is that of the network, 2 that of the transport.
    pub fn header(mut self, base: u32, offset: u32, how: Compare, wanted: &[u8]) -> Rule {
        self.load(base, offset, wanted.len());
        self.compare(how, wanted)
    }

    /// Bytes of the network header under a mask.
    pub fn masked(mut self, offset: u32, mask: &[u8], wanted: &[u8]) -> Rule {
        self.load(1, offset, wanted.len());
        self.mask(mask);
        self.compare(Compare::Equal, wanted)
    }

    /// The state of the connection is one of these bits.
    pub fn state(mut self, bits: u32) -> Rule {
        self.push("ct", &[(1, Value::Number(REGISTER)), (2, Value::Number(0))]);
        self.mask(&bits.to_ne_bytes());
        self.compare(Compare::NotEqual, &[0; 4])
    }

    /// The expressions, with the verdict at their end.
    pub fn accept(mut self) -> Vec<u8> {
        let verdict = [(1, Value::Number(1))];
        let data = [(2, Value::Nest(&verdict))];
        self.push(
            "immediate",
            &[(1, Value::Number(0)), (2, Value::Nest(&data))],
        );
        self.expressions
    }

    fn load(&mut self, base: u32, offset: u32, length: usize) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let numbers = [(1, REGISTER), (2, base), (3, offset), (4, length)];
        self.push(
            "payload",
            &numbers.map(|(kind, n)| (kind, Value::Number(n))),
        );
    }

    fn mask(&mut self, mask: &[u8]) {
        let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
        let zero = vec![0; mask.len()];
        let (mask, zero) = ([(1, Value::Bytes(mask))], [(1, Value::Bytes(&zero))]);
        self.push(
            "bitwise",
            &[
                (1, Value::Number(REGISTER)),
                (2, Value::Number(REGISTER)),
                (3, Value::Number(length)),
                (4, Value::Nest(&mask)),
                (5, Value::Nest(&zero)),
            ],
        );
    }

    fn compare(mut self, how: Compare, wanted: &[u8]) -> Rule {
        let wanted = [(1, Value::Bytes(wanted))];
        self.push(
            "cmp",
            &[
                (1, Value::Number(REGISTER)),
                (2, Value::Number(how as u32)),
                (3, Value::Nest(&wanted)),
            ],
        );
        self
    }

    fn push(&mut self, name: &str, attributes: &[(u16, Value<'_>)]) {
        let expression = [(1, Value::Text(name)), (2, Value::Nest(attributes))];
        put(&mut self.expressions, &[(1, Value::Nest(&expression))]);
    }
}
