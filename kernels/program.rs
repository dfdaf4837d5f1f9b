//! The specification of a program of any kind.

use serde::{Deserialize, Serialize};

use super::combine::{self, CombineSpec};
use super::row_major::{self, RowMajorSpec};
use super::spec::Spec;
use super::target::Target;

/// Everything that determines the text of a program for a target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProgramSpec {
    /// Samples rows.
    Sampling(Spec),
    /// Joins the results of two paths.
    Combine(CombineSpec),
    /// Copies logits to the row-major layout.
    RowMajor(RowMajorSpec),
}

impl ProgramSpec {
    /// Returns the name of the module. It includes every field.
    pub fn name(&self) -> String {
        match self {
            ProgramSpec::Sampling(spec) => spec.name(),
            ProgramSpec::Combine(spec) => spec.name(),
            ProgramSpec::RowMajor(spec) => spec.name(),
        }
    }

    /// Returns the StableHLO text of the program: see [`emit`](super::emit).
    pub fn emit(&self, target: &Target) -> String {
        match self {
            ProgramSpec::Sampling(spec) => super::emit(spec, target),
            ProgramSpec::Combine(spec) => combine::emit(spec),
            ProgramSpec::RowMajor(spec) => row_major::emit(spec),
        }
    }

    /// Returns the number of arrays that the program returns.
    pub fn num_outputs(&self) -> usize {
        match self {
            ProgramSpec::Sampling(spec) => spec.num_outputs(),
            ProgramSpec::Combine(spec) => spec.num_outputs(),
            ProgramSpec::RowMajor(_) => 1,
        }
    }

    /// Returns the specification if the program samples rows. Otherwise returns `None`.
    pub fn sampling(&self) -> Option<&Spec> {
        match self {
            ProgramSpec::Sampling(spec) => Some(spec),
            ProgramSpec::Combine(_) | ProgramSpec::RowMajor(_) => None,
        }
    }
}

impl From<Spec> for ProgramSpec {
    fn from(spec: Spec) -> Self {
        ProgramSpec::Sampling(spec)
    }
}

impl From<CombineSpec> for ProgramSpec {
    fn from(spec: CombineSpec) -> Self {
        ProgramSpec::Combine(spec)
    }
}

impl From<RowMajorSpec> for ProgramSpec {
    fn from(spec: RowMajorSpec) -> Self {
        ProgramSpec::RowMajor(spec)
    }
}
