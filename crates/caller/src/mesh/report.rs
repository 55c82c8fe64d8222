//! The state of a mesh: its matrix, its faults, and the lookups that failed.

use super::collect::Collected;
use super::conclude::{Conclusion, conclude};
use super::fault::Fault;
use super::matrix::Matrix;
use crate::dns::Lookup;
use crate::verdict;

/// A mesh and its conclusion.
#[derive(Debug)]
pub struct MeshReport {
    /// The results of the calls between all pairs of nodes.
    pub matrix: Matrix,
    /// Faults, and how much is known.
    pub conclusion: Conclusion,
    /// The lookups of names of the mesh that failed.
    pub failed_lookups: Vec<Lookup>,
}

/// State of a mesh as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeshState {
    /// There are rows, and no fault was found.
    Ok,
    /// At least one fault was found.
    NotOk,
    /// No row was collected.
    NoRows,
}

impl MeshState {
    /// The value of `state` in JSON.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotOk => "not_ok",
            Self::NoRows => "no_rows",
        }
    }

    /// The exit code of `caller mesh`.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::NotOk => 1,
            Self::NoRows => 3,
        }
    }
}

impl MeshReport {
    /// Searches the collected matrix for faults.
    pub fn new(collected: Collected) -> Self {
        let Collected {
            matrix,
            failed_lookups,
        } = collected;
        Self {
            conclusion: conclude(&matrix),
            matrix,
            failed_lookups,
        }
    }

    /// State of the mesh as a whole.
    pub fn state(&self) -> MeshState {
        let has_rows = (0..self.matrix.nodes.len()).any(|node| self.matrix.has_row(node));
        match (has_rows, self.is_well()) {
            (false, _) => MeshState::NoRows,
            (true, true) => MeshState::Ok,
            (true, false) => MeshState::NotOk,
        }
    }

    fn is_well(&self) -> bool {
        self.conclusion.faults.is_empty() && self.failed_lookups.is_empty()
    }

    /// A sentence for each fault, the most serious first; or, if there is none, one that says so.
    pub fn sentences(&self) -> Vec<String> {
        let Self {
            matrix,
            conclusion,
            failed_lookups,
        } = self;
        if self.state() == MeshState::NoRows {
            return vec![verdict::mesh::no_rows(matrix, failed_lookups)];
        }
        if self.is_well() {
            return vec![verdict::mesh::all_well(matrix, conclusion)];
        }
        let faults = conclusion.faults.iter();
        let faults = faults.map(|fault| verdict::mesh::fault(matrix, fault));
        let lookups = failed_lookups.iter().map(verdict::mesh::lookup_failed);
        faults.chain(lookups).collect()
    }

    /// The command to run next, unless all is well.
    pub fn next_command(&self) -> Option<String> {
        let of_lookup = || {
            let lookup = self.failed_lookups.first()?;
            let failure = lookup.outcome.as_ref().err()?;
            Some(verdict::after_lookup(lookup, failure))
        };
        let of_fault = |fault: &Fault| verdict::mesh::next_command(&self.matrix, fault);
        match self.state() {
            MeshState::Ok => None,
            MeshState::NoRows => of_lookup().or_else(|| Some(verdict::mesh::next_without_rows())),
            MeshState::NotOk => self
                .conclusion
                .faults
                .first()
                .map(of_fault)
                .or_else(of_lookup),
        }
    }
}
