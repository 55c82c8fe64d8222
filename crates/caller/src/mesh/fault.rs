//! The faults that a mesh can have, as data. Their wording is in [`crate::verdict::mesh`].

use std::num::NonZeroU16;

use crate::failure::FailureKind;

/// A fault of a mesh. A node is given by its index in [`Matrix::nodes`](super::matrix::Matrix::nodes).
///
/// `failed` is the number of pairs whose calls fail, and the number of pairs whose results are known.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// No node reaches any other node.
    AllPairsFail {
        /// Number of pairs that were called, whose calls all fail.
        pairs: usize,
        /// How these calls fail.
        symptoms: Symptoms,
    },
    /// A network partition: the nodes of a group reach each other, and so do the other nodes of the mesh, but calls
    /// between the two parts fail in at least one direction.
    Group {
        /// Nodes of the group, which is the smaller part.
        nodes: Vec<usize>,
        /// Whether calls into the group fail.
        is_inward: bool,
        /// Whether calls out of the group fail.
        is_outward: bool,
        /// How these calls fail.
        symptoms: Symptoms,
    },
    /// Nodes that no other node reaches.
    NotReached {
        /// Nodes that are not reached: one, or several whose rows are all missing.
        nodes: Vec<usize>,
        /// Pairs of the calls to the first of these nodes.
        failed: (usize, usize),
        /// The results of the calls that these nodes make.
        own: OwnView,
        /// How these calls fail.
        symptoms: Symptoms,
    },
    /// A node that reaches no other node.
    ReachesNobody {
        /// Index of the node.
        node: usize,
        /// Pairs of the calls that the node makes.
        failed: (usize, usize),
        /// Whether any other node reaches it, according to the rows.
        is_reached: bool,
        /// How these calls fail.
        symptoms: Symptoms,
    },
    /// Nodes that cannot look up the names of the mesh.
    LookupFails {
        /// Indices of the nodes.
        nodes: Vec<usize>,
        /// The kind of failure of the first node's lookup.
        kind: FailureKind,
    },
    /// A node that some of the other nodes do not reach, or that does not reach some of them.
    PartlyConnected {
        /// Index of the node.
        node: usize,
        /// Whether the calls that fail are those that the node makes, and not those to it.
        is_outward: bool,
        /// Pairs of these calls.
        failed: (usize, usize),
        /// How these calls fail.
        symptoms: Symptoms,
    },
    /// A pair of nodes whose calls fail, which no other fault explains.
    Pair {
        /// Index of the calling node.
        from: usize,
        /// Index of the called node.
        to: usize,
        /// Whether calls in the other direction fail as well.
        is_mutual: bool,
        /// How these calls fail.
        symptoms: Symptoms,
    },
    /// Nodes whose rows are missing, although no row says that they cannot be reached.
    RowsMissing {
        /// Indices of the nodes.
        nodes: Vec<usize>,
    },
    /// A node whose calls take much longer than is usual in the mesh.
    Slow {
        /// Index of the node.
        node: usize,
        /// Whether the calls that the node makes are slow.
        is_outward: bool,
        /// Whether the calls to the node are slow.
        is_inward: bool,
        /// The median duration of these calls, in milliseconds.
        ms: f32,
        /// The median duration of all calls of the mesh, in milliseconds.
        usual_ms: f32,
    },
}

/// The results of the calls that an unreachable node makes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnView {
    /// The row of the node is missing.
    Missing,
    /// The node reaches other nodes.
    Reaches,
    /// The node reaches no other node.
    ReachesNobody,
    /// The node has not called any other node yet.
    Unknown,
}

/// How the calls of a fault fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symptoms {
    /// The kinds of failure, the most frequent first.
    pub kinds: Vec<FailureKind>,
    /// Size of the largest packet that passes, in bytes, if larger ones are lost and the limit has been measured.
    pub mtu: Option<NonZeroU16>,
}

impl Symptoms {
    /// Whether large packets are lost, and smaller ones pass. A timeout is compatible with that: it is the result of a
    /// large call on a path that has not been measured yet.
    pub fn is_path_mtu(&self) -> bool {
        let is_possible =
            |kind| matches!(kind, &FailureKind::PathMtu | &FailureKind::ResponseTimeout);
        self.kinds.contains(&FailureKind::PathMtu) && self.kinds.iter().all(is_possible)
    }
}

impl Fault {
    /// Whether the fault concerns a whole node or group, and only large packets.
    pub(super) fn is_path_mtu(&self) -> bool {
        match self {
            Self::Group { symptoms, .. }
            | Self::NotReached { symptoms, .. }
            | Self::ReachesNobody { symptoms, .. } => symptoms.is_path_mtu(),
            _ => false,
        }
    }
}
