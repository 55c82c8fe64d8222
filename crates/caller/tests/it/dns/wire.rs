//! DNS messages, encoded and decoded by hand, so that the tests do not depend on the code that they test.

pub(crate) const A: u16 = 1;
pub(crate) const CNAME: u16 = 5;
pub(crate) const AAAA: u16 = 28;

/// A query, as a server receives it.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) id: [u8; 2],
    pub(crate) name: String,
    pub(crate) qtype: u16,
    pub(crate) question: Vec<u8>,
}

impl Asked {
    /// Decodes a query that a server has received.
    pub(crate) fn read(query: &[u8]) -> Self {
        let (mut at, mut name) = (12, String::new());
        while query[at] != 0 {
            let len = usize::from(query[at]);
            name.extend(query[at + 1..=at + len].iter().copied().map(char::from));
            name.push('.');
            at += len + 1;
        }
        Self {
            id: [query[0], query[1]],
            name,
            qtype: u16::from_be_bytes([query[at + 1], query[at + 2]]),
            question: query[12..at + 5].to_vec(),
        }
    }

    /// An address record of the type that the query asks for; `last` is the last byte of the address.
    pub(crate) fn address(&self, owner: &[u8], last: u8) -> Vec<u8> {
        match self.qtype {
            A => record(owner, A, &[10, 0, 0, last]),
            _ => record(
                owner,
                AAAA,
                &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last],
            ),
        }
    }

    /// Encodes a response with these flags and records.
    pub(crate) fn answer(&self, flags: u16, records: &[Vec<u8>]) -> Vec<u8> {
        let count = u16::try_from(records.len()).expect("few records");
        let mut message = self.id.to_vec();
        for number in [flags, 1, count, 0, 0] {
            message.extend_from_slice(&number.to_be_bytes());
        }
        message.extend_from_slice(&self.question);
        message.extend(records.iter().flatten());
        message
    }
}

/// Encodes a record of class IN with a TTL of 30 seconds.
pub(crate) fn record(owner: &[u8], rtype: u16, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len()).expect("short data");
    let mut record = owner.to_vec();
    record.extend_from_slice(&rtype.to_be_bytes());
    record.extend_from_slice(&1_u16.to_be_bytes());
    record.extend_from_slice(&30_u32.to_be_bytes());
    record.extend_from_slice(&len.to_be_bytes());
    record.extend_from_slice(data);
    record
}
