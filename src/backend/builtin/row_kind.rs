//! The kinds of rows, and the memory that each kind needs.

use super::collect_few::FEW;
use super::lanes::LANES;
use super::layout::{Layout, BIN, BLOCK};
use super::pages::Pages;
use super::top_k::KEYS_PER_K;
use crate::semantics::params::RowParams;

/// The least number of groups of a long row without top-k. The maxima of this number of groups usually have most of the
/// row's weight.
const MAXIMA_WITHOUT_TOP_K: usize = 128;

/// The kinds of rows, by the passes that they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowKind {
    /// The row needs only the scan. Only the maximum has a weight, and top-k changes no requested output.
    Greedy,
    /// A pass collects entries for top-k with this k. A greedy row is of this kind if its wide arrays need top-k.
    TopK(usize),
    /// A pass collects weights for top-p. There is no top-k.
    TopP,
    /// There is no top-k and no top-p. Every weight that min-p keeps takes part in the draw.
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
            // The bound of top-k needs [`KEYS_PER_K`] group maxima per k. With more groups, the scan would take longer.
            RowKind::TopK(k) => Layout::new(vocab, (KEYS_PER_K * k).div_ceil(LANES)),
            RowKind::Greedy | RowKind::TopP | RowKind::Plain => Layout::new(vocab, MAXIMA_WITHOUT_TOP_K),
        }
    }

    /// The memory that a row needs if `layout` describes its division and its passes are split into `parts` parts.
    pub(super) fn sizes(self, layout: Layout, parts: usize) -> Sizes {
        // Each part writes whole vectors, so it needs space for one vector more than its elements.
        let entries = layout.blocks * BLOCK + parts * LANES;
        let (keys, weights, spare) = match self {
            RowKind::Greedy => (0, 0, 0),
            RowKind::TopK(_) => (entries, entries, entries),
            RowKind::TopP => (0, entries, entries),
            RowKind::Plain => (0, entries, layout.blocks * LANES),
        };
        let (weights, counts) = match self {
            RowKind::TopP | RowKind::Plain => (weights + Pages::SPACE, Pages::most(layout.blocks)),
            RowKind::Greedy | RowKind::TopK(_) => (weights, 0),
        };
        Sizes {
            bins: if self == RowKind::Greedy { 0 } else { layout.blocks * BIN },
            tops: layout.groups() * LANES,
            keys,
            weights,
            spare,
            offsets: if self == RowKind::Greedy { 0 } else { layout.blocks },
            counts,
            indices: if matches!(self, RowKind::TopK(_) | RowKind::TopP) { FEW } else { 0 },
            cleaned: 0,
        }
    }
}

/// Lengths of the arrays of a row's workspace. Every element has four bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) bins: usize,
    pub(super) tops: usize,
    pub(super) keys: usize,
    pub(super) weights: usize,
    pub(super) spare: usize,
    pub(super) offsets: usize,
    pub(super) counts: usize,
    pub(super) indices: usize,
    /// The cleaned copy of a row that holds NaN or +inf.
    pub(super) cleaned: usize,
}

impl Sizes {
    /// Sizes that are large enough for both.
    pub(super) fn max(self, other: Sizes) -> Sizes {
        Sizes {
            bins: self.bins.max(other.bins),
            tops: self.tops.max(other.tops),
            keys: self.keys.max(other.keys),
            weights: self.weights.max(other.weights),
            spare: self.spare.max(other.spare),
            offsets: self.offsets.max(other.offsets),
            counts: self.counts.max(other.counts),
            indices: self.indices.max(other.indices),
            cleaned: self.cleaned.max(other.cleaned),
        }
    }

    /// The sum of all lengths, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let Sizes { bins, tops, keys, weights, spare, offsets, counts, indices, cleaned } = *self;
        (bins + tops + keys + weights + spare + offsets + counts + indices + cleaned) * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_rows_need_top_k_only_for_arrays() {
        let params = |k, p, temperature| RowParams::new(k, p, 0.0, temperature, [0; 4], 1000);
        assert_eq!(RowKind::of(&params(5, 0.5, 0.0), false), RowKind::Greedy);
        assert_eq!(RowKind::of(&params(5, 0.5, 0.0), true), RowKind::TopK(5));
        assert_eq!(RowKind::of(&params(0, 0.5, 0.0), true), RowKind::Greedy);
        assert_eq!(RowKind::of(&params(0, 0.5, 1.0), true), RowKind::TopP);
        assert_eq!(RowKind::of(&params(0, 1.0, 1.0), false), RowKind::Plain);
        assert_eq!(RowKind::of(&params(1000, 1.0, 1.0), false), RowKind::Plain);
    }
}
