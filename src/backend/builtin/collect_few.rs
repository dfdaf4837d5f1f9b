//! Collects the few entries of a row that reach a bound, together with their indices.

use fearless_simd::{dispatch, f32x16, prelude::*, Level, Simd};

use super::blocks::{mask_of, Blocks};
use super::element::{with_element, Element};
use super::lanes::{load, LANES};
use super::layout::{BIN, BLOCK};
use crate::dtype::Logits;

/// The pass collects at most this number of entries.
pub(super) const FEW: usize = 256;
/// Each step of the pass that lists the blocks processes this number of blocks. The step first compares the maxima of
/// these blocks with the bound, and sets one bit of an integer for each block that reaches the bound. Then it lists
/// these blocks.
const BLOCKS_AT_ONCE: usize = u64::BITS as usize;
/// The number of blocks whose maxima fit one bit mask. A block has [`BIN`] maxima, and the mask has one bit for each
/// maximum.
const BLOCKS_PER_MASK: usize = u64::BITS as usize / BIN;
/// The number of blocks whose elements are compared with the bound before the elements that reach it are written.
const COMPARED: usize = 32;

/// Collects the bits of all elements that are at least `bound`, in order, and their indices. `bins` contains the maxima
/// of all blocks. Returns the number of elements, or `None` if there are more than [`FEW`].
///
/// The entries are usually in different blocks. [`super::collect::collect`] branches for each block, and the processor
/// cannot predict these branches. This pass first lists the blocks without branches.
pub(super) fn collect_few(
    level: Level,
    row: Logits<'_>,
    bins: &[f32],
    bound: f32,
    (values, indices): (&mut [i32], &mut [i32]),
) -> Option<usize> {
    dispatch!(level, simd => {
        let mut list = [0; FEW + BLOCKS_AT_ONCE];
        let blocks = list_blocks(simd, bins, bound, &mut list)?;
        with_element!(row, row, E => collect_blocks::<_, E>(simd, row, blocks, bound, (values, indices)))
    })
}

/// Lists the blocks that have an element that is at least `bound`, in order. `None` if there are more than [`FEW`].
#[inline(always)]
fn list_blocks<'l, S: Simd>(
    simd: S,
    bins: &[f32],
    bound: f32,
    list: &'l mut [u32; FEW + BLOCKS_AT_ONCE],
) -> Option<&'l [u32]> {
    let mut len = 0;
    for (i, bins) in bins.chunks(BLOCKS_AT_ONCE * BIN).enumerate() {
        let mut blocks = 0_u64;
        for (part, bins) in bins.chunks(BLOCKS_PER_MASK * BIN).enumerate() {
            blocks |= blocks_reaching(simd, bins, bound) << (part * BLOCKS_PER_MASK);
        }
        while blocks != 0 {
            list[len] = (i * BLOCKS_AT_ONCE) as u32 + blocks.trailing_zeros();
            len += 1;
            blocks &= blocks - 1;
        }
        if len > FEW {
            return None;
        }
    }
    Some(&list[..len])
}

/// Returns a bit mask of the blocks that have an element that is at least `bound`. `bins` contains the maxima of at
/// most [`BLOCKS_PER_MASK`] blocks.
#[inline(always)]
fn blocks_reaching<S: Simd>(simd: S, bins: &[f32], bound: f32) -> u64 {
    let mut padded = [f32::NAN; BLOCKS_PER_MASK * BIN];
    let bins = if let Ok(bins) = <&[f32; BLOCKS_PER_MASK * BIN]>::try_from(bins) {
        bins
    } else {
        padded[..bins.len()].copy_from_slice(bins);
        &padded
    };
    let [a, b, c, d] = [0, 1, 2, 3].map(
        #[inline(always)]
        |i| load::<S, f32x16<S>, f32>(simd, &bins[i * LANES..][..LANES]).simd_ge(bound).to_bitmask(),
    );
    let maxima = (a | b << LANES) | (c | d << LANES) << (2 * LANES);
    every_fourth_bit(maxima | maxima >> 1 | maxima >> 2 | maxima >> 3)
}

/// Returns an integer. Its bit `i` is bit `4 · i` of `bits`.
#[inline(always)]
fn every_fourth_bit(bits: u64) -> u64 {
    let bits = bits & 0x1111_1111_1111_1111;
    let bits = (bits | bits >> 3) & 0x0303_0303_0303_0303;
    let bits = (bits | bits >> 6) & 0x000f_000f_000f_000f;
    let bits = (bits | bits >> 12) & 0x0000_00ff_0000_00ff;
    (bits | bits >> 24) & 0xffff
}

/// Collects the elements of the listed blocks that are at least `bound`.
#[inline(always)]
fn collect_blocks<S: Simd, E: Element>(
    simd: S,
    row: &[E::Bits],
    list: &[u32],
    bound: f32,
    (values, indices): (&mut [i32], &mut [i32]),
) -> Option<usize> {
    let blocks = Blocks::<E>::new(row);
    let bound = f32x16::splat(simd, bound);
    let mut len = 0;
    for list in list.chunks(COMPARED) {
        // The comparisons of several blocks come before the branches on their elements. So the processor can read
        // several blocks at the same time. If there were branches after each comparison, a wrong prediction could stop
        // the reads at each block.
        let mut masks = [0_u128; COMPARED];
        let mut count = len;
        for (mask, &block) in masks.iter_mut().zip(list) {
            *mask = mask_of::<S, E>(
                simd,
                blocks.get(block as usize),
                #[inline(always)]
                |x| x.simd_ge(bound),
            );
            count += mask.count_ones() as usize;
        }
        if count > FEW {
            return None;
        }
        for (&(mut mask), &block) in masks.iter().zip(list) {
            let elements = blocks.get(block as usize);
            while mask != 0 {
                let at = mask.trailing_zeros() as usize % BLOCK;
                values[len] = E::value(elements[at]).to_bits() as i32;
                indices[len] = (block as usize * BLOCK + at) as i32;
                len += 1;
                mask &= mask - 1;
            }
        }
    }
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::super::layout::Layout;
    use super::super::scan::scan;
    use super::*;

    /// The expected values and indices, from a comparison of each element.
    fn expected(row: Logits<'_>, bound: f32) -> (Vec<i32>, Vec<i32>) {
        let value = |i: &usize| f32::from_bits(row.dtype().widen(row.bits(*i)));
        let indices = (0..row.len()).filter(|i| value(i) >= bound);
        indices.map(|i| (value(&i).to_bits() as i32, i as i32)).unzip()
    }

    fn check(row: Logits<'_>, bound: f32) {
        for wanted in [1, 64] {
            let layout = Layout::new(row.len(), wanted);
            let mut bins = vec![0.0; layout.blocks * BIN];
            let mut tops = vec![0.0; layout.groups() * LANES];
            scan(Level::new(), row, layout.group, &mut bins, &mut tops);
            let (mut values, mut indices) = (vec![0; FEW], vec![0; FEW]);
            let arrays = (&mut values[..], &mut indices[..]);
            let len = collect_few(Level::new(), row, &bins, bound, arrays);
            let (expected_values, expected_indices) = expected(row, bound);
            let count = expected_values.len();
            assert_eq!(len, (count <= FEW).then_some(count), "{} elements, bound {bound}", row.len());
            if let Some(len) = len {
                assert_eq!((&values[..len], &indices[..len]), (&expected_values[..], &expected_indices[..]));
            }
        }
    }

    #[test]
    fn collects_values_and_indices_in_order() {
        for vocab in [1_usize, 127, 128, 300, 5000, 70_001] {
            let row: Vec<f32> = (0..vocab).map(|i| ((i * 7919) % 10_007) as f32).collect();
            let narrow: Vec<u16> = row.iter().map(|x| (x.to_bits() >> 16) as u16).collect();
            for bound in [-1.0, 9_000.0, 9_970.0, 9_999.0, 10_006.0, 20_000.0] {
                check(Logits::F32(&row), bound);
                check(Logits::Bf16(&narrow), bound);
                // As f16, the largest of these values is about 6.1.
                check(Logits::F16(&narrow), bound / 1640.0);
            }
        }
        // In each row, the number of entries that reach the bound is the largest number that the pass can collect, or
        // one more. These entries are consecutive, or each of them is in its own block.
        for more in 0..2 {
            for stride in [1, BLOCK] {
                let reaches = |i: usize| i.is_multiple_of(stride) && i / stride < FEW + more;
                let row: Vec<f32> = (0..50_000).map(|i| f32::from(u8::from(reaches(i)))).collect();
                check(Logits::F32(&row), 1.0);
            }
        }
    }
}
