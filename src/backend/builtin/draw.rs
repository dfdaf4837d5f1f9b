//! The draw: the first entry at which the running sum of the kept weights exceeds the remainder.

use fearless_simd::{dispatch, prelude::*, Level, Simd};

use super::blocks::{mask_of, Blocks};
use super::element::{with_element, Element};
use super::lanes::{halves, load, total, Lanes, WeightSum, LANES};
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

/// The numbers of weights in the two kinds of chunks. The search first finds a large chunk, then a small chunk in it,
/// then the weight.
const CHUNKS: [usize; 2] = [64 * LANES, VECTORS * LANES];

#[inline(always)]
fn draw_impl<S: Simd>(simd: S, weights: &[i32], least: i32, remainder: u64) -> Option<usize> {
    let (mut from, mut part, mut remainder) = (0, weights, remainder);
    for chunk in CHUNKS.into_iter().filter(|&chunk| chunk < weights.len()) {
        let (number, rest) =
            first_beyond(part.chunks(chunk).map(|chunk| sum_of_kept(simd, chunk, least)), remainder)?;
        part = &part[number * chunk..];
        part = &part[..chunk.min(part.len())];
        from += number * chunk;
        remainder = rest;
    }
    let kept = part.iter().map(|&weight| if weight >= least { weight as u64 } else { 0 });
    Some(from + first_beyond(kept, remainder)?.0)
}

/// Finds the first value at which the running sum exceeds `remainder`. Returns its number, and `remainder` minus the
/// sum of the values before it.
#[inline(always)]
fn first_beyond(values: impl Iterator<Item = u64>, mut remainder: u64) -> Option<(usize, u64)> {
    for (number, value) in values.enumerate() {
        if value > remainder {
            return Some((number, remainder));
        }
        remainder -= value;
    }
    None
}

/// The sum of the weights that are at least `least`.
#[inline(always)]
fn sum_of_kept<S: Simd>(simd: S, weights: &[i32], least: i32) -> u64 {
    let a = Lanes(simd);
    let mut sum = WeightSum::new(simd);
    for vectors in weights.as_chunks::<LANES>().0.chunks(VECTORS) {
        let mut lanes = a.int(0);
        for vector in vectors {
            lanes += kept_weight(a, load(simd, vector), a.int(least));
        }
        sum.add(lanes);
    }
    sum.total()
}

/// [`draw`] for logits whose weights are not stored. Finds the block from the sums that
/// [`weigh_blocks`](super::weigh_row::weigh_blocks) or [`weigh_pages`](super::weigh_row::weigh_pages) wrote, and
/// computes the weights of this block only. Returns the position in `row`. After `weigh_pages`, the end of a block can
/// contain old values. They do not change the result, because the draw ends before them.
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
fn find_block<S: Simd>(simd: S, sums: &[i32], remainder: u64) -> Option<(usize, u64)> {
    // The number of blocks that the first search adds to one sum.
    const CHUNK: usize = 32;
    let blocks = sums.as_chunks::<LANES>().0;
    // This closure computes the same sum as `WeightSum`, but only for a small number of values. With `WeightSum`, the
    // compiler would permute the lanes in each iteration.
    let sum_of_blocks = |blocks: &[[i32; LANES]]| {
        let a = Lanes(simd);
        let (mut low, mut high) = (a.int(0), a.int(0));
        for block in blocks {
            let [low_here, high_here] = halves::<S>(load(simd, block));
            low += low_here;
            high += high_here;
        }
        total(low) + (total(high) << 16)
    };
    let (chunk, remainder) = first_beyond(blocks.chunks(CHUNK).map(sum_of_blocks), remainder)?;
    let inside = blocks[chunk * CHUNK..].iter().map(|block| total::<S>(load(simd, block)));
    let (block, remainder) = first_beyond(inside, remainder)?;
    Some((chunk * CHUNK + block, remainder))
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

#[cfg(test)]
mod tests {
    use super::super::layout::BIN;
    use super::super::weigh_row::weigh_blocks;
    use super::*;

    /// All logits are equal. So in a full block, the sum of each lane is 2³¹. As an `i32`, this sum is negative.
    #[test]
    fn draws_by_blocks_from_the_largest_weights() {
        const WEIGHT_BITS: u32 = crate::semantics::sizes::WEIGHT_BITS;
        let row = [0.5; 5000];
        let (level, logits) = (Level::new(), Logits::F32(&row));
        let scale = WeightScale { max: 0.5, scale: 378_193.6 };
        let blocks = row.len().div_ceil(BLOCK);
        let (mut sums, mut offsets) = (vec![0; blocks * LANES], vec![0; blocks]);
        let bins = vec![0.5; blocks * BIN];
        let (total, len) = weigh_blocks(level, logits, &bins, scale, 1, (&mut sums, &mut offsets));
        assert_eq!(total, 5000 << WEIGHT_BITS);
        for index in [0, 1, 127, 128, 4095, 4096, 4999] {
            let remainder = ((index as u64 + 1) << WEIGHT_BITS) - 1;
            assert_eq!(draw_by_blocks(level, logits, &sums[..len], scale, 1, remainder), Some(index));
        }
        assert_eq!(draw_by_blocks(level, logits, &sums[..len], scale, 1, total), None);
    }
}
