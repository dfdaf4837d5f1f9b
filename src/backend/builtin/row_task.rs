//! A row to sample, and the intermediate results that its passes exchange.

use fearless_simd::Level;

use super::bounds::Limit;
use super::layout::Part;
use super::row_kind::RowKind;
use super::top_k::Kept;
use super::weighing::WeightScale;
use crate::batch::CallOptions;
use crate::dtype::Logits;
use crate::semantics::arith::Scalar;
use crate::semantics::draw::{remainder, remainder_by_digits, LARGEST_DIGIT_BITS};
use crate::semantics::params::RowParams;
use crate::semantics::rules::least_weight;

/// The least weight that the draw can choose.
pub(super) const LEAST_DRAWN: i32 = 1;

/// A row to sample, its parameters, and how to process it.
pub(super) struct RowTask<'a> {
    pub(super) level: Level,
    pub(super) kind: RowKind,
    /// The row that the passes read: the caller's logits or their cleaned copy.
    pub(super) whole: Part<'a>,
    /// The number of parts into which each pass is split.
    pub(super) parts: usize,
    /// The caller's logits.
    pub(super) original: Logits<'a>,
    /// Whether the row is known to hold neither NaN nor +inf.
    pub(super) plain: bool,
    pub(super) params: &'a RowParams,
    pub(super) options: CallOptions,
}

impl<'a> RowTask<'a> {
    /// The row that the passes read.
    pub(super) fn row(&self) -> Logits<'a> {
        self.whole.row
    }

    /// The least weight above 0 that can change the result of a row without top-k. Top-p needs the sum of all weights.
    pub(super) fn least_counted(&self) -> i32 {
        match self.kind {
            RowKind::Plain => least_weight(Scalar, LEAST_DRAWN, self.params.min_weight),
            _ => LEAST_DRAWN,
        }
    }

    /// Returns the least sum of the weights that top-p keeps. `total` is the sum of all weights.
    pub(super) fn target(&self, total: u64) -> u64 {
        self.params.top_p.target(total)
    }

    /// The row's random number modulo the total of the kept weights.
    pub(super) fn remainder(&self, total: u64) -> u64 {
        let words = self.params.words.map(|word| word as i32);
        // Larger digits need fewer divisions. But with a large total, their intermediate results do not fit 64 bits.
        if total <= 1 << (u64::BITS - LARGEST_DIGIT_BITS) {
            remainder_by_digits(Scalar, words, total, LARGEST_DIGIT_BITS)
        } else {
            remainder(Scalar, words, total)
        }
    }
}

/// The entries that a pass collected for top-k: all entries that reach the limit.
#[derive(Clone, Copy)]
pub(super) struct Collected {
    pub(super) limit: Limit,
    /// Probably, fewer than k entries have an order key of at least this value.
    pub(super) above: i32,
    pub(super) len: usize,
    /// Whether the workspace contains the indices of the entries.
    pub(super) indexed: bool,
}

/// Where the kept weights are stored.
#[derive(Clone, Copy)]
pub(super) enum KeptWeights {
    /// The row has no candidate.
    None,
    /// The row is greedy. Only the entry at this index has a weight.
    Greedy(usize),
    /// In the workspace, in the order of the collected keys. A weight is kept if it is at least `least`.
    Collected { least: i32 },
    /// Not stored, but computed from the logits when needed. A weight is kept if it is at least `least`.
    Row { scale: WeightScale, least: i32 },
}

/// The decisions about a row from which the wide arrays are written.
pub(super) struct Choice {
    /// With top-k: the collected entries, and which of them top-k keeps.
    pub(super) top_k: Option<(Collected, Kept)>,
    pub(super) weights: KeptWeights,
}
