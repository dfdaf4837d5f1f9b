//! One row to sample, and what is known about it between its passes.

use fearless_simd::Level;

use super::layout::Part;
use super::row_kind::RowKind;
use super::top_k::Kept;
use super::weighing::WeightScale;
use crate::batch::CallOptions;
use crate::dtype::Logits;
use crate::semantics::arith::Scalar;
use crate::semantics::draw::remainder;
use crate::semantics::params::RowParams;

/// What a row asks for, and how it may be worked on.
pub(super) struct RowTask<'a> {
    pub(super) level: Level,
    pub(super) kind: RowKind,
    /// The row to work on: the caller's logits or their cleaned copy.
    pub(super) whole: Part<'a>,
    /// Into how many parts the passes are split.
    pub(super) parts: usize,
    /// The caller's logits.
    pub(super) original: Logits<'a>,
    /// Whether the row is known to hold neither NaN nor +inf.
    pub(super) plain: bool,
    pub(super) params: &'a RowParams,
    pub(super) options: CallOptions,
}

impl<'a> RowTask<'a> {
    /// The row to work on.
    pub(super) fn row(&self) -> Logits<'a> {
        self.whole.row
    }

    /// The row's random number modulo the total of the kept weights.
    pub(super) fn remainder(&self, total: u64) -> u64 {
        remainder(Scalar, self.params.words.map(|word| word as i32), total)
    }
}

/// The entries that a pass collected for top-k: all that are at least `bound`.
#[derive(Clone, Copy)]
pub(super) struct Collected {
    pub(super) bound: f32,
    /// Fewer than k entries probably reach this order key.
    pub(super) above: i32,
    pub(super) len: usize,
}

/// Where the kept weights are.
#[derive(Clone, Copy)]
pub(super) enum KeptWeights {
    /// The row has no candidate.
    None,
    /// The row is greedy: all weight is on this index.
    Greedy(usize),
    /// Beside the collected keys, where at least `least`.
    Collected { least: i32 },
    /// Not stored: to be computed from the logits, and kept where at least `least`.
    Row { scale: WeightScale, least: i32 },
}

/// Everything that was decided about a row.
pub(super) struct Choice {
    /// With top-k: the collected entries, and which of them stay.
    pub(super) top_k: Option<(Collected, Kept)>,
    pub(super) weights: KeptWeights,
}
