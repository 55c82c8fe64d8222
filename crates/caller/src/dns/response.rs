//! Parses the response of a name server, in one pass over its records, in their order.
//!
//! Only the header, the question and the answer section are decoded. A message can hold thousands of
//! records, and each name in it may take many steps to decode, so parsing yields to other tasks at
//! intervals, and stops at the deadline.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_resolver::proto::op::{Header, MessageType, OpCode, Query as Question, ResponseCode};
use hickory_resolver::proto::rr::{DNSClass, Name, RecordType};
use hickory_resolver::proto::serialize::binary::{BinDecodable, BinDecoder, DecodeError};
use tokio::time::Instant;

use super::query::{Family, QueryOutcome, Transport};

/// Number of records to parse before yielding to other tasks.
const RECORDS_AT_ONCE: usize = 32;

/// Most CNAME targets to keep for display.
const MAX_CNAMES: usize = 8;

/// A query that was sent and whose response has not come yet.
#[derive(Debug)]
pub(super) struct PendingQuery<'a> {
    pub(super) id: u16,
    pub(super) name: &'a Name,
    pub(super) family: Family,
}

/// The parsed response to a query.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) outcome: QueryOutcome,
    pub(super) cnames: Vec<Name>,
    /// Whether the code is NOERROR and there are records of any type: then no other name of the search list is queried.
    pub(super) has_records: bool,
    /// The response code; `None` if the message is malformed.
    pub(super) code: Option<ResponseCode>,
}

impl Response {
    pub(super) fn malformed(why: &str) -> Self {
        Self {
            outcome: QueryOutcome::Malformed(why.to_owned()),
            cnames: Vec::new(),
            has_records: false,
            code: None,
        }
    }
}

/// How a received message relates to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// It is the response to the query.
    Response,
    /// It has the query's id but another question: a coincidence, or an attempt at spoofing.
    AnotherQuestion,
    /// It has the query's id, but cannot be its response, for this reason.
    Malformed(&'static str),
    /// It has the query's id, and says FORMERR without repeating the question.
    BareFormErr,
    /// It has another id, or is too short to have one.
    Stray,
}

impl PendingQuery<'_> {
    /// Whether `message` is the response to this query, as glibc's `__libc_res_queriesmatch` decides it:
    /// same id, same question. A refusal (see [`is_refusal`]) may consist of only a header.
    pub(super) fn matches(&self, message: &[u8]) -> Match {
        if message.get(..2) != Some(&self.id.to_be_bytes()[..]) {
            return Match::Stray;
        }
        let mut decoder = BinDecoder::new(message);
        let Ok(header) = Header::read(&mut decoder) else {
            return Match::Malformed("it is too short");
        };
        if header.message_type != MessageType::Response || header.op_code != OpCode::Query {
            return Match::Malformed("it is not a response to a query");
        }
        match header.counts.queries {
            0 if is_refusal(header.response_code) => Match::Response,
            0 if header.response_code == ResponseCode::FormErr => Match::BareFormErr,
            1 => match Question::read(&mut decoder) {
                Ok(question) if self.is_question(&question) => Match::Response,
                Ok(_) => Match::AnotherQuestion,
                Err(_) => Match::Malformed("its question cannot be decoded"),
            },
            _ => Match::Malformed("it has no question"),
        }
    }

    fn is_question(&self, question: &Question) -> bool {
        question.name() == self.name
            && question.query_type() == self.family.record_type()
            && question.query_class() == DNSClass::IN
    }

    /// Parses a message that matches, until `deadline` at the latest.
    ///
    /// As in glibc, no addresses are accepted for a name that is not a valid host name
    /// (`__res_binary_hnok`); a search domain can make a valid name invalid.
    pub(super) async fn read(
        &self,
        message: &[u8],
        transport: Transport,
        deadline: Instant,
    ) -> Response {
        let mut decoder = BinDecoder::new(message);
        let header = match Header::read(&mut decoder) {
            Ok(header) => header,
            Err(error) => return Response::malformed(&error.to_string()),
        };
        let count = header.counts.answers;
        let is_success = header.response_code == ResponseCode::NoError;
        let mut answer = Response {
            outcome: QueryOutcome::NoData,
            cnames: Vec::new(),
            has_records: is_success && count > 0,
            code: Some(header.response_code),
        };
        if transport == Transport::Udp {
            // As glibc's `send_dg`: an empty response from a server that neither is authoritative nor resolves.
            let is_referral = is_success
                && count == 0
                && header.counts.additionals == 0
                && !header.authoritative
                && !header.recursion_available;
            if is_referral {
                answer.outcome = QueryOutcome::Referral;
                return answer;
            }
            if header.truncation && !is_refusal(header.response_code) {
                answer.outcome = QueryOutcome::Truncated;
                return answer;
            }
        }
        let read = match Question::read(&mut decoder) {
            Ok(_) => {
                self.read_records(&mut decoder, count, &mut answer, deadline)
                    .await
            }
            Err(_) => Ok(None),
        };
        answer.outcome = match (header.response_code, read) {
            (ResponseCode::NoError, Ok(_)) if answer.has_records && !is_host(self.name) => {
                QueryOutcome::Malformed("no host can have that name".into())
            }
            (ResponseCode::NoError, Ok(outcome)) => outcome.unwrap_or(QueryOutcome::NoData),
            (ResponseCode::NoError, Err(error)) => QueryOutcome::Malformed(error.to_string()),
            (ResponseCode::NXDomain, _) => QueryOutcome::NxDomain,
            (ResponseCode::ServFail, _) => QueryOutcome::ServFail,
            (ResponseCode::Refused, _) => QueryOutcome::Refused,
            (code, _) => QueryOutcome::OtherCode(code.into()),
        };
        answer
    }

    /// Follows the CNAMEs to addresses, as glibc's `gaih_getanswer_slice`: after a CNAME only records of
    /// its target count, so a chain whose records are out of order yields no address.
    async fn read_records(
        &self,
        decoder: &mut BinDecoder<'_>,
        count: u16,
        answer: &mut Response,
        deadline: Instant,
    ) -> Result<Option<QueryOutcome>, DecodeError> {
        let mut wanted = self.name.clone();
        let mut ttl = u32::MAX;
        let mut addresses: Vec<IpAddr> = Vec::new();
        let mut is_loop = false;
        for n in 0..usize::from(count) {
            if n % RECORDS_AT_ONCE == RECORDS_AT_ONCE - 1 {
                tokio::task::yield_now().await;
                if Instant::now() >= deadline {
                    return Ok(Some(QueryOutcome::Timeout));
                }
            }
            let record = Record::read(decoder)?;
            if record.class != DNSClass::IN {
                continue;
            }
            if record.rtype == RecordType::CNAME {
                ttl = ttl.min(record.ttl);
                wanted = Name::read(&mut decoder.clone(record.data_at))?;
                is_loop |= wanted == *self.name || wanted == record.owner;
                if answer.cnames.len() == MAX_CNAMES {
                    answer.cnames.pop();
                }
                answer.cnames.push(wanted.clone());
            } else if record.rtype == self.family.record_type() && record.owner == wanted {
                let Some(address) = address(record.data) else {
                    continue;
                };
                ttl = ttl.min(record.ttl);
                addresses.push(address);
            }
        }
        Ok(match addresses.is_empty() {
            false => Some(QueryOutcome::Addresses { addresses, ttl }),
            true if is_loop => Some(QueryOutcome::CnameLoop),
            true => None,
        })
    }
}

/// Whether a server that sends this code declines the query; glibc's `send_dg` then asks the next server.
pub(super) fn is_refusal(code: ResponseCode) -> bool {
    matches!(
        code,
        ResponseCode::ServFail | ResponseCode::NotImp | ResponseCode::Refused
    )
}

fn is_host(name: &Name) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    name.iter()
        .all(|label| !label.starts_with(b"-") && label.iter().all(is_plain))
}

/// A resource record (RFC 1035, section 3.2.1) whose data is not decoded yet.
struct Record<'a> {
    owner: Name,
    rtype: RecordType,
    class: DNSClass,
    ttl: u32,
    data: &'a [u8],
    data_at: u16,
}

impl<'a> Record<'a> {
    fn read(decoder: &mut BinDecoder<'a>) -> Result<Self, DecodeError> {
        let owner = Name::read(decoder)?;
        // These types have a variant for every number, so the conversions cannot fail.
        let rtype = decoder.read_u16()?.unverified().into();
        let class = decoder.read_u16()?.unverified().into();
        let ttl = decoder.read_u32()?.unverified();
        let len = decoder.read_u16()?.unverified();
        // This conversion cannot fail: a message over TCP has a 16-bit length, and a datagram is shorter.
        let data_at = u16::try_from(decoder.index()).unwrap_or(u16::MAX);
        let data = decoder.read_slice(len.into())?.unverified();
        Ok(Self {
            owner,
            rtype,
            class,
            ttl,
            data,
            data_at,
        })
    }
}

fn address(data: &[u8]) -> Option<IpAddr> {
    match data.len() {
        4 => <[u8; 4]>::try_from(data)
            .ok()
            .map(|v4| Ipv4Addr::from(v4).into()),
        16 => <[u8; 16]>::try_from(data)
            .ok()
            .map(|v6| Ipv6Addr::from(v6).into()),
        _ => None,
    }
}
