//! Resolves a name the way glibc does, and keeps a transcript of every query.
//!
//! hickory encodes and decodes the messages. Which names are queried, at which server, how often and in
//! which order is decided here, so that every query can be shown to the user. Where a comment says "as glibc",
//! it names the function of glibc 2.36 that does the same.

mod conf;
mod hosts;
mod idn;
mod lookup;
mod name;
mod query;
mod race;
mod response;
mod search;
mod session;
mod tcp;
mod udp;
mod walk;

pub use self::conf::{ConfError, ConfSource, ResolvConf};
pub use self::lookup::{Families, GaiError, Lookup, LookupFailure, Resolver, Source};
pub use self::name::{Host, HostError};
pub(crate) use self::name::{host_text, parse_host};
pub use self::query::{Family, Query, QueryOutcome, Transport};
pub(crate) use self::race::{Race, Tally};
