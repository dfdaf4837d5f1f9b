//! The first pass over a row. It finds the row's maximum, and whether the row may hold a NaN. It also records the
//! maxima of blocks and groups. Later passes use these maxima to skip most of the row.

use fearless_simd::{dispatch, f32x16, prelude::*, Level, Simd};

use super::blocks::Blocks;
use super::element::{with_element, Element};
use super::lanes::{Lanes, LANES};
use super::layout::BLOCK;
use crate::dtype::Logits;
use crate::semantics::arith::Arith;

/// The result of a scan of a row or of a part of it. The values are raw floats: NaN and +inf are not cleaned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Summary {
    /// The maximum. It has no meaning if `poison` is NaN.
    pub(super) max: f32,
    /// NaN if an element is NaN. It can also be NaN if an element is +inf or a partial sum overflows.
    pub(super) poison: f32,
}

impl Summary {
    /// The summary of no elements.
    pub(super) const EMPTY: Summary = Summary { max: f32::NEG_INFINITY, poison: 0.0 };

    /// Combines the summaries of two parts.
    pub(super) fn and(self, other: Summary) -> Summary {
        Summary { max: self.max.max(other.max), poison: self.poison + other.poison }
    }

    /// Whether the elements certainly include neither NaN nor +inf. The passes handle all other values without
    /// cleaning.
    pub(super) fn is_plain(self) -> bool {
        !self.poison.is_nan() && self.max < f32::INFINITY
    }

    /// Combines the lanes of a running maximum and of a running sum.
    #[inline(always)]
    pub(super) fn of_lanes<S: Simd>(max: f32x16<S>, poison: f32x16<S>) -> Summary {
        let max = max.to_array().into_iter().fold(f32::NEG_INFINITY, f32::max);
        Summary { max, poison: poison.to_array().into_iter().sum() }
    }
}

/// Scans a row, or a part of it. Writes the maxima of blocks to `bins` and the maxima of groups to `tops`.
pub(super) fn scan(
    level: Level,
    row: Logits<'_>,
    group: usize,
    bins: &mut [f32],
    tops: &mut [f32],
) -> Summary {
    dispatch!(level, simd => with_element!(row, row, E => scan_impl::<_, E>(simd, row, group, bins, tops)))
}

#[inline(always)]
fn scan_impl<S: Simd, E: Element>(
    simd: S,
    row: &[E::Bits],
    group: usize,
    bins: &mut [f32],
    tops: &mut [f32],
) -> Summary {
    let blocks = Blocks::<E>::new(row);
    let a = Lanes(simd);
    let (mut max, mut poison) = (a.float(f32::NEG_INFINITY), a.float(0.0));
    let groups = tops.as_chunks_mut::<LANES>().0.iter_mut().zip(bins.chunks_mut(group * LANES));
    for (i, (top, bins)) in groups.enumerate() {
        let mut bins = bins.as_chunks_mut::<LANES>().0;
        let mut group_max = a.float(f32::NEG_INFINITY);
        for blocks in blocks.range(i * group..i * group + bins.len()) {
            let (here, rest) = bins.split_at_mut(blocks.len());
            bins = rest;
            for (bin, block) in here.iter_mut().zip(blocks) {
                let (block_max, block_poison) = E::summary(simd, block);
                block_max.store_slice(bin);
                group_max = group_max.max(block_max);
                poison += block_poison;
            }
        }
        group_max.store_slice(top);
        max = max.max(group_max);
    }
    Summary::of_lanes(max, poison)
}

/// Computes only the maximum of a row. No pass over a row can be faster, so benchmarks use it as a baseline. The result
/// has no meaning if the row holds a NaN.
pub fn max_scan(level: Level, row: Logits<'_>) -> f32 {
    dispatch!(level, simd => with_element!(row, row, E => max_scan_impl::<_, E>(simd, row)))
}

#[inline(always)]
fn max_scan_impl<S: Simd, E: Element>(simd: S, row: &[E::Bits]) -> f32 {
    let (blocks, rest) = row.as_chunks::<BLOCK>();
    let mut tail = [E::NEG_INF; BLOCK];
    tail[..rest.len()].copy_from_slice(rest);
    let mut max = E::summary(simd, &tail).0;
    for block in blocks {
        max = max.max(E::summary(simd, block).0);
    }
    max.to_array().into_iter().fold(f32::NEG_INFINITY, f32::max)
}
