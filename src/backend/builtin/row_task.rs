//! One row to sample, and what is known about it between its passes.

use fearless_simd::Level;

use super::layout::{Layout, Part};
use super::top_k::Kept;
use super::weighing::WeightScale;
use crate::batch::CallOptions;
use crate::dtype::Logits;
use crate::semantics::arith::Scalar;
use crate::semantics::draw::remainder;
use crate::semantics::params::RowParams;

/// Group maxima per row without top-k, in vectors: enough of them to hold most of a row's weight.
const MAXIMA_WITHOUT_TOP_K: usize = 128;

/// Which passes a row needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowKind {
    /// The scan alone: no weight but the maximum's, and top-k does not matter.
    Greedy,
    /// Entries are collected for top-k with this k. The row may be greedy and need top-k for the wide arrays.
    TopK(usize),
    /// Weights are collected for top-p, without top-k.
    TopP,
    /// Every weight that min-p keeps counts.
    Plain,
}

impl RowKind {
    pub(super) fn of(params: &RowParams, wants_arrays: bool) -> RowKind {
        match params.k as usize {
            _ if params.greedy && !wants_arrays => RowKind::Greedy,
            0 if params.greedy => RowKind::Greedy,
            0 if params.top_p.mantissa == 0 => RowKind::Plain,
            0 => RowKind::TopP,
            k => RowKind::TopK(k),
        }
    }

    /// How a row of `vocab` elements is divided.
    pub(super) fn layout(self, vocab: usize) -> Layout {
        match self {
            RowKind::TopK(k) => Layout::new(vocab, k),
            _ => Layout::new(vocab, MAXIMA_WITHOUT_TOP_K),
        }
    }
}

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
