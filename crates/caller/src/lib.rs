//! Calls targets at an interval, as a pod in a cluster does: it resolves the name through cluster DNS,
//! connects, sends a request and reports the result; if the call failed, also the likely cause.
//!
//! Data flows in one direction: a [`probe`] calls a [`target`] and produces a [`report`] of each call;
//! everything that is shown, counted or decided is derived from reports.
//!
//! | module | what it does | and imports of the others |
//! |---|---|---|
//! | [`failure`] | stages, kinds and the evidence of a failure, as data | |
//! | `socket_error` | what errors of sockets are evidence of | `failure` |
//! | [`dns`] | looks names up | `failure`, `socket_error` |
//! | [`expectation`] | the expected result of a call | `failure` |
//! | [`target`], [`expected_status`] | what to call, and which statuses count as a success | `dns`, for hosts |
//! | [`targets`] | files of targets and what is expected of them | `target`, `expectation` |
//! | [`mesh`]: `sample` | which addresses a caller of a mesh calls | |
//! | [`report`] | the result of one call, as data | `target`, `expectation`, `dns`, `failure`, `sample` |
//! | `certificate` | the fields of a certificate | `report`, `failure` |
//! | [`trust`] | which certificates TLS trusts and shows | `certificate` |
//! | [`probe`] | makes a round of calls, stage by stage, and tests the network path | those above, `mesh` |
//! | `listening` | the listening sockets of this pod | |
//! | [`stats`] | totals and history of a run | `report` and what it is made of |
//! | [`mesh`]: `node`, `row` | the state of a caller of a mesh, and its row: the results of its calls | `report` and what it is made of, `stats`, `probe` |
//! | [`mesh`]: `collect`, `matrix`, `fault`, `conclude`, `report` | collects the rows of all callers, and finds what is wrong | `dns`, `target`, `failure`, `verdict` |
//! | [`verdict`] | describes failures and faults of a mesh in words | `report` and what it is made of, `stats`, `mesh` |
//! | [`views`] | text, JSON, table, TAP, JUnit, summary, transcript, diagnosis, mesh | `report`, `stats`, `mesh`, `verdict` |
//! | `metrics`, `page` | Prometheus metrics, and the live page | `report` and what it is made of, `stats`, `mesh`, `views`, `verdict` |
//! | [`commands`] | the loop and the subcommands | all of those |
//! | `curl` | the program when it is called as `curl` | `probe`, `report`, `verdict`, `cli` |
//! | `cli` | flags and environment variables | `commands` and their configurations |
//! | `process1` | the targets and options of process 1 of this pod | |
//! | [`program`] | the life of the process | `cli`, `commands`, `curl`, `stats` |

mod certificate;
mod cli;
mod clock;
pub mod commands;
mod curl;
pub mod dns;
pub mod expectation;
pub mod expected_status;
pub mod failure;
mod listening;
pub mod mesh;
mod metrics;
mod millis;
mod page;
pub mod probe;
mod process1;
pub mod program;
pub mod report;
mod socket_error;
pub mod stats;
pub mod target;
pub mod targets;
pub mod trust;
pub mod verdict;
pub mod views;
