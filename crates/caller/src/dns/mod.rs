//! Resolves a name the way glibc does, and keeps a transcript of every question.
//!
//! hickory does the wire, one question at a time; which names are asked, of which server, how
//! often and in which order is decided here, because it is what a user wants to see.

mod conf;
mod lookup;
mod query;
mod search;

pub use self::conf::{ConfError, ConfSource, ResolvConf};
pub use self::lookup::{Families, Lookup, LookupFailure, Resolver};
pub use self::query::{Family, Query, QueryOutcome, Transport};
