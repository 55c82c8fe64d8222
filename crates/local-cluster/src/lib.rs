//! The parts of a Kubernetes cluster that the two programs depend on, on the loopback addresses of one machine:
//! [`dns`] is cluster DNS, [`service`] a ClusterIP, [`cluster`] the demo with its pods, and [`mesh`] a mesh with a
//! pod on each of many nodes.
//!
//! `cargo run -p local-cluster` runs them, and tests use them. The crate is not part of any image.

pub mod cluster;
pub mod dns;
pub mod mesh;
pub mod service;
