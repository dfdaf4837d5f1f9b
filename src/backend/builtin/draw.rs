//! The draw: the first entry at which the running sum of the kept weights exceeds the remainder.

use fearless_simd::{dispatch, i32x16, prelude::*, Level, Simd};

use super::blocks::{mask_of, Blocks};
use super::element::{with_element, Element};
use super::lanes::{load, total, Lanes, LANES, SUMMABLE};
use super::layout::{BLOCK, VECTORS};
use super::locate::{block_of, nth_set};
use super::weighing::{write_weights, WeightScale};
use crate::dtype::Logits;
use crate::semantics::arith::Arith;
use crate::semantics::rules::kept_weight;

/// The first position at which the running sum of the weights that are at least `least` exceeds `remainder`.
pub(super) fn draw(level: Level, weights: &[i32], least: i32, remainder: u64) -> Option<usize> {
    dispatch!(level, simd => draw_impl(simd, weights, least, remainder))
}

#[inline(always)]
fn draw_impl<S: Simd>(simd: S, weights: &[i32], least: i32, mut remainder: u64) -> Option<usize> {
    const CHUNK: usize = 16 * LANES;
    let a = Lanes(simd);
    for (i, chunk) in weights.chunks(CHUNK).enumerate() {
        let mut lanes = a.int(0);
        for vector in chunk.chunks_exact(LANES) {
            lanes += kept_weight(a, load(simd, vector), a.int(least));
        }
        let sum = total(lanes);
        if sum <= remainder {
            remainder -= sum;
            continue;
        }
        for (j, &weight) in chunk.iter().enumerate().filter(|(_, &weight)| weight >= least) {
            if weight as u64 > remainder {
                return Some(i * CHUNK + j);
            }
            remainder -= weight as u64;
        }
    }
    None
}

/// [`draw`] for a row whose weights are not stored. Finds the block from the sums that
/// [`super::weigh_row::weigh_blocks`] wrote, and computes the weights of this block only. Returns the index in the row.
pub(super) fn draw_by_blocks(
    level: Level,
    row: Logits<'_>,
    sums: &[i32],
    scale: WeightScale,
    least: i32,
    remainder: u64,
) -> Option<usize> {
    let (block, remainder) = dispatch!(level, simd => find_block(simd, sums, remainder))?;
    let start = block * BLOCK;
    let row = row.slice(start, BLOCK.min(row.len() - start));
    let mut weights = [0; BLOCK];
    write_weights(level, row, scale, least, &mut weights);
    Some(start + draw(level, &weights, least, remainder)?)
}

/// Finds the block of the drawn entry. Returns the block and the remainder minus the sums of all blocks before it.
#[inline(always)]
fn find_block<S: Simd>(simd: S, sums: &[i32], mut remainder: u64) -> Option<(usize, u64)> {
    // The number of blocks whose sums a lane can add without overflow.
    const CHUNK: usize = SUMMABLE / VECTORS;
    for (i, chunk) in sums.chunks(CHUNK * LANES).enumerate() {
        let mut lanes = i32x16::splat(simd, 0);
        for vector in chunk.chunks_exact(LANES) {
            lanes += load::<S, i32x16<S>, i32>(simd, vector);
        }
        let sum = total(lanes);
        if sum <= remainder {
            remainder -= sum;
            continue;
        }
        for (j, vector) in chunk.chunks_exact(LANES).enumerate() {
            let sum = total::<S>(load(simd, vector));
            if sum > remainder {
                return Some((i * CHUNK + j, remainder));
            }
            remainder -= sum;
        }
    }
    None
}

/// The index in the row of a weight, given its `position` among the weights that are at least `least`. `offsets` holds
/// the number of these weights before each block.
pub(super) fn index_of_weight(
    level: Level,
    row: Logits<'_>,
    offsets: &[u32],
    scale: WeightScale,
    least: i32,
    position: usize,
) -> usize {
    let (block, n) = block_of(offsets, position);
    let mask = dispatch!(level, simd => with_element!(row, row, E => {
        mask_of_weights::<_, E>(simd, Blocks::<E>::new(row).get(block), scale, least)
    }));
    block * BLOCK + nth_set(mask, n)
}

#[inline(always)]
fn mask_of_weights<S: Simd, E: Element>(
    simd: S,
    block: &[E::Bits; BLOCK],
    scale: WeightScale,
    least: i32,
) -> u128 {
    let scale = scale.lanes(simd);
    mask_of::<S, E>(
        simd,
        block,
        #[inline(always)]
        |x| scale.weights(x).simd_ge(least),
    )
}
