//! The phases of a server.

/// A phase of a server, from start to end. They are ordered by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Connections are accepted, and requests answered.
    Serving,
    /// As in [`Phase::Serving`], while clients are asked to go elsewhere.
    LameDuck,
    /// The port is closed, and requests in progress are finished.
    Draining,
    /// The connections that are left are closed.
    Cut,
}
