//! The first pass over a row. It finds the row's maximum, and whether the row may hold a NaN. It also records the
//! maxima of groups and blocks. Later passes use these maxima to skip most of the row.

use fearless_simd::{dispatch, f32x16, f32x8, prelude::*, Level, Simd};

use super::blocks::Blocks;
use super::element::{with_element, Element};
use super::lanes::{Lanes, LANES};
use super::layout::{BIN, BLOCK};
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

    /// Combines the lanes of a running maximum.
    #[inline(always)]
    pub(super) fn of_lanes<S: Simd>(max: f32x16<S>, poison: f32) -> Summary {
        Summary { max: max.reduce_max(), poison }
    }
}

/// Scans a row, or a part of it. Writes the maxima of blocks to `bins`, unless `bins` is empty, and the maxima of
/// groups to `tops`.
pub(super) fn scan(
    level: Level,
    row: Logits<'_>,
    group: usize,
    bins: &mut [f32],
    tops: &mut [f32],
) -> Summary {
    dispatch!(level, simd => with_element!(row, row, E => {
        if bins.is_empty() {
            scan_impl::<_, E, false>(simd, row, group, bins, tops)
        } else {
            scan_impl::<_, E, true>(simd, row, group, bins, tops)
        }
    }))
}

#[inline(always)]
fn scan_impl<S: Simd, E: Element, const BINS: bool>(
    simd: S,
    row: &[E::Bits],
    group: usize,
    bins: &mut [f32],
    tops: &mut [f32],
) -> Summary {
    let blocks = Blocks::<E>::new(row);
    let a = Lanes(simd);
    let (mut max, mut watch) = (a.float(f32::NEG_INFINITY), E::watch(simd));
    let count = row.len().div_ceil(BLOCK);
    debug_assert!(!BINS || bins.len() == count * BIN, "the scan skips blocks without space for their maxima");
    let mut bins = bins.as_chunks_mut::<BIN>().0.iter_mut();
    for (i, top) in tops.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let mut group_max = a.float(f32::NEG_INFINITY);
        let mut halves = [f32x8::splat(simd, f32::NEG_INFINITY); 2];
        for blocks in blocks.range(i * group..((i + 1) * group).min(count)) {
            if BINS {
                for (block, bin) in blocks.iter().zip(&mut bins) {
                    E::all_maxima(simd, block, &mut watch, &mut halves).store_slice(bin);
                }
            } else {
                for block in blocks {
                    group_max = group_max.max(E::maxima(simd, block, &mut watch));
                }
            }
        }
        if BINS {
            group_max = halves[0].combine(halves[1]);
        }
        group_max.store_slice(top);
        max = max.max(group_max);
    }
    Summary::of_lanes(max, E::poison(watch))
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
    let mut watch = E::watch(simd);
    let mut max = E::maxima(simd, &tail, &mut watch);
    for block in blocks {
        max = max.max(E::maxima(simd, block, &mut watch));
    }
    max.reduce_max()
}
