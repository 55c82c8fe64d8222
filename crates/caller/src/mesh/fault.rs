//! The faults that a mesh can have, as data. [`crate::verdict::mesh`] has the words for them.

use std::num::NonZeroU16;

use crate::failure::FailureKind;

/// Something that is wrong with a mesh. A node is its index in [`Matrix::nodes`](super::matrix::Matrix::nodes).
///
/// `failed` is the number of calls that fail, and the number of calls that are known.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// No node reaches any other node.
    AllPairsFail {
        /// Number of pairs that were called, all of which fail.
        pairs: usize,
        /// How these calls fail.
        symptoms: Symptoms,
    },
    /// The nodes of a group reach each other, and the rest of the mesh does so, too; between the two nothing passes in at
    /// least one direction.
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
        /// Calls to the first of these nodes.
        failed: (usize, usize),
        /// What is known of the calls that these nodes make.
        own: OwnView,
        /// How these calls fail.
        symptoms: Symptoms,
    },
    /// A node reaches nobody, and is reached.
    ReachesNobody {
        /// Index of the node.
        node: usize,
        /// Calls of the node.
        failed: (usize, usize),
        /// Whether any other row says that it is reached.
        is_reached: bool,
        /// How these calls fail.
        symptoms: Symptoms,
    },
    /// Nodes that cannot look the name up.
    LookupFails {
        /// Indices of the nodes.
        nodes: Vec<usize>,
        /// Of what the lookup of the first fails.
        kind: FailureKind,
    },
    /// A node is not reached by some.
    PartlyConnected {
        /// Index of the node.
        node: usize,
        /// Whether it is the node that does not reach some.
        is_outward: bool,
        /// Calls of the node.
        failed: (usize, usize),
        /// How these calls fail.
        symptoms: Symptoms,
    },
    /// A pair of nodes, where no other fault explains that calls between them fail.
    Pair {
        /// Index of the calling node.
        from: usize,
        /// Index of the called node.
        to: usize,
        /// Whether it fails the other way as well.
        is_mutual: bool,
        /// How these calls fail.
        symptoms: Symptoms,
    },
    /// Nodes whose rows are missing, although they are reached, as far as is known.
    RowsMissing {
        /// Indices of the nodes.
        nodes: Vec<usize>,
    },
    /// Calls of a node take long.
    Slow {
        /// Index of the node.
        node: usize,
        /// Whether the calls that it makes take long.
        is_outward: bool,
        /// Whether the calls to it take long.
        is_inward: bool,
        /// The median of its calls, in milliseconds.
        ms: f32,
        /// The median of the mesh, in milliseconds.
        usual_ms: f32,
    },
}

/// What a node that is not reached says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnView {
    /// Its row is missing.
    Missing,
    /// The node reaches other nodes.
    Reaches,
    /// The node reaches no other node.
    ReachesNobody,
    /// It has called nobody yet.
    Unknown,
}

/// Of what calls fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symptoms {
    /// The kinds of failure, the most frequent first.
    pub kinds: Vec<FailureKind>,
    /// The largest packet that passes, in bytes, where larger ones are lost and that has been measured.
    pub mtu: Option<NonZeroU16>,
}

impl Symptoms {
    /// Whether large packets are lost, and smaller ones pass. Of a large call on a path that has not been measured no
    /// more is known than that it was not answered.
    pub fn is_path_mtu(&self) -> bool {
        let is_possible =
            |kind| matches!(kind, &FailureKind::PathMtu | &FailureKind::ResponseTimeout);
        self.kinds.contains(&FailureKind::PathMtu) && self.kinds.iter().all(is_possible)
    }
}

impl Fault {
    /// Whether it is a fault of a whole node or group, and of large packets alone.
    pub(super) fn is_path_mtu(&self) -> bool {
        match self {
            Self::Group { symptoms, .. }
            | Self::NotReached { symptoms, .. }
            | Self::ReachesNobody { symptoms, .. } => symptoms.is_path_mtu(),
            _ => false,
        }
    }
}
