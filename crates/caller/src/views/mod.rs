//! What people see of a lookup.

pub mod resolve;
