//! Where a server is in its life.

/// The order is the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Accepting and answering.
    Serving,
    /// Accepting and answering, while asking clients to leave.
    LameDuck,
    /// Not accepting; finishing what is under way.
    Draining,
    /// Closing what is left.
    Cut,
}
