//! Every node to every node: a caller on each node calls a sample of the others, found by a headless name alone, and
//! keeps a row of what became of it. Whoever asks collects the rows of all of them, and draws one conclusion.
//!
//! - [`sample`] chooses whom to call: K others that stay the same, and one more in turn.
//! - [`node`] keeps a node's own view, and [`row`] is that view as JSON, which `/mesh.json` serves.
//! - [`collect`] fetches the rows of all callers behind the name, and [`matrix`] puts them together.
//! - [`conclude`] finds [`fault`]s, [`crate::verdict::mesh`] words them, and [`report`] has both.
//!
//! A DNS message holds some 4,000 addresses. A larger mesh has several headless names, one a zone for example, which
//! are given as several targets.

pub mod collect;
pub mod conclude;
pub mod fault;
pub mod matrix;
pub mod node;
pub mod report;
pub mod row;
pub mod sample;
