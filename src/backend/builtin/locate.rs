//! Finds indices in the row from the data that the passes recorded.

use fearless_simd::{dispatch, f32x16, prelude::*, Level, Simd};

use super::blocks::{mask_of, Blocks};
use super::bounds::Limit;
use super::element::{with_element, Element};
use super::lanes::{load, Lanes, LANES};
use super::layout::{Layout, BLOCK};
use crate::dtype::Logits;
use crate::semantics::arith::Arith;

/// The index of the first element that is at least `bound`. The search uses the group maxima.
pub(super) fn first_in_row(
    level: Level,
    row: Logits<'_>,
    layout: Layout,
    tops: &[f32],
    bound: f32,
) -> Option<usize> {
    dispatch!(level, simd => with_element!(row, row, E => {
        first_in_row_impl::<_, E>(simd, row, layout.group, tops, bound)
    }))
}

#[inline(always)]
fn first_in_row_impl<S: Simd, E: Element>(
    simd: S,
    row: &[E::Bits],
    group_len: usize,
    tops: &[f32],
    bound: f32,
) -> Option<usize> {
    let first = first_vector(simd, tops, bound)? * group_len;
    let blocks = Blocks::<E>::new(row);
    for block in first..(first + group_len).min(row.len().div_ceil(BLOCK)) {
        let mask = at_least::<_, E>(simd, blocks.get(block), bound);
        if mask != 0 {
            return Some(block * BLOCK + mask.trailing_zeros() as usize);
        }
    }
    None
}

#[inline(always)]
fn first_vector<S: Simd>(simd: S, maxima: &[f32], bound: f32) -> Option<usize> {
    for (i, vector) in maxima.chunks_exact(LANES).enumerate() {
        if load::<S, f32x16<S>, f32>(simd, vector).simd_ge(bound).any_true() {
            return Some(i);
        }
    }
    None
}

/// The elements of a block that are at least `bound`, as a bit mask.
#[inline(always)]
fn at_least<S: Simd, E: Element>(simd: S, block: &[E::Bits; BLOCK], bound: f32) -> u128 {
    let bound = f32x16::splat(simd, bound);
    mask_of::<S, E>(
        simd,
        block,
        #[inline(always)]
        |x| x.simd_ge(bound),
    )
}

/// The position of the first collected value that is at least `bound`. `bits` holds the collected values.
pub(super) fn first_collected(level: Level, bits: &[i32], bound: f32) -> Option<usize> {
    dispatch!(level, simd => first_collected_impl(simd, bits, bound))
}

#[inline(always)]
fn first_collected_impl<S: Simd>(simd: S, bits: &[i32], bound: f32) -> Option<usize> {
    let a = Lanes(simd);
    let (vectors, rest) = bits.as_chunks::<LANES>();
    for (i, vector) in vectors.iter().enumerate() {
        let mask = a.from_bits(load(simd, vector)).simd_ge(bound).to_bitmask();
        if mask != 0 {
            return Some(i * LANES + mask.trailing_zeros() as usize);
        }
    }
    let position = rest.iter().position(|&bits| f32::from_bits(bits as u32) >= bound)?;
    Some(vectors.len() * LANES + position)
}

/// The block of the collected entry at `position`, and the number of collected entries of this block before it. For
/// each block, `offsets` holds the position at which the pass wrote or would write the first entry of the block.
pub(super) fn block_of(offsets: &[u32], position: usize) -> (usize, usize) {
    let block = offsets.partition_point(|&offset| offset as usize <= position) - 1;
    (block, position - offsets[block] as usize)
}

/// The index in the row of an entry, given its `position` among the entries that were collected.
pub(super) fn index_of(
    level: Level,
    row: Logits<'_>,
    offsets: &[u32],
    limit: Limit,
    position: usize,
) -> usize {
    let (block, n) = block_of(offsets, position);
    index_in_block(level, row, block, limit.at(offsets[block] as usize), n)
}

/// The index in the row of the `n`-th element of a block that is at least `bound`. `n` counts from 0.
pub(super) fn index_in_block(level: Level, row: Logits<'_>, block: usize, bound: f32, n: usize) -> usize {
    let mask = dispatch!(level, simd => with_element!(row, row, E => {
        at_least::<_, E>(simd, Blocks::<E>::new(row).get(block), bound)
    }));
    block * BLOCK + nth_set(mask, n)
}

/// Writes the indices of all `len` entries that were collected.
pub(super) fn indices_of(
    level: Level,
    row: Logits<'_>,
    offsets: &[u32],
    limit: Limit,
    len: usize,
    out: &mut [i32],
) {
    dispatch!(level, simd => with_element!(row, row, E => {
        indices_of_impl::<_, E>(simd, row, offsets, limit, len, out)
    }));
}

#[inline(always)]
fn indices_of_impl<S: Simd, E: Element>(
    simd: S,
    row: &[E::Bits],
    offsets: &[u32],
    limit: Limit,
    len: usize,
    out: &mut [i32],
) {
    let blocks = Blocks::<E>::new(row);
    for (block, &offset) in offsets.iter().enumerate() {
        let next = offsets.get(block + 1).map_or(len, |&next| next as usize);
        if next > offset as usize {
            let mut mask = at_least::<_, E>(simd, blocks.get(block), limit.at(offset as usize));
            for index in &mut out[offset as usize..next] {
                *index = (block * BLOCK) as i32 + mask.trailing_zeros() as i32;
                mask &= mask - 1;
            }
        }
    }
}

/// The position of the `n`-th set bit, counted from 0.
pub(super) fn nth_set(mut mask: u128, n: usize) -> usize {
    for _ in 0..n {
        mask &= mask - 1;
    }
    mask.trailing_zeros() as usize
}
