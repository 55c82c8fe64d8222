//! Resolves a name the way glibc does, and keeps a transcript of every question.
//!
//! hickory does the wire, one question at a time; which names are asked, of which server, how
//! often and in which order is decided here, because it is what a user wants to see.

mod conf;
mod lookup;
mod search;
mod wire;

pub use self::conf::{ConfError, ConfSource, ResolvConf};
pub use self::lookup::{Failure, FailureKind, Families, Lookup, Resolver};
pub use self::wire::{Answer, Family, Question, Transport};
