//! A Kubernetes cluster as far as this pair can see one, on the loopback address of one machine:
//! [`dns`] is its DNS, [`service`] its ClusterIP, [`cluster`] the whole with pods in it, and [`mesh`] has a pod on each
//! of many nodes.
//!
//! It is what `cargo run -p local-cluster` shows, and what the tests stand on. It is never shipped.

pub mod cluster;
pub mod dns;
pub mod mesh;
pub mod service;
