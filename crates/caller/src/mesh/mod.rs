//! Calls from every node to every node. A caller on each node calls a sample of the other callers, whose addresses it
//! gets from a headless name, and keeps the results as its row. On request, the rows of all callers are collected, and
//! one sentence says what is wrong, if anything.
//!
//! - [`sample`] chooses the peers to call: K that stay the same, and one more in turn.
//! - [`node`] keeps the results of a caller's own calls, and [`row`] is their JSON form, which `/mesh.json` serves.
//! - [`collect`] fetches the rows of all callers behind the name, and [`matrix`] puts them together.
//! - [`conclude`] finds [`fault`]s, [`crate::verdict::mesh`] describes them in words, and [`report`] has both.
//!
//! A DNS message holds about 4,000 addresses. A larger mesh has several headless names, for example one for each zone,
//! which are given as several targets.

pub mod collect;
pub mod conclude;
pub mod fault;
pub mod matrix;
pub mod node;
pub mod report;
pub mod row;
pub mod sample;
