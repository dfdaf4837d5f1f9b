//! Collects the few entries of a row that reach a bound, together with their indices.

use fearless_simd::{dispatch, f32x16, prelude::*, Level, Simd};

use super::blocks::{mask_of_pair, Blocks};
use super::element::{with_element, Element};
use super::lanes::LANES;
use super::layout::{BIN, BLOCK};
use crate::dtype::Logits;

/// The pass collects at most this number of entries.
pub(super) const FEW: usize = 256;
/// Each step of the pass that lists units compares this number of maxima with the bound. Then it lists the units whose
/// maxima reach the bound.
const MAXIMA: usize = u64::BITS as usize;
/// The number of units that are written to the list before the next branch.
const LISTED: usize = 4;
/// The elements of this number of units are compared with the bound. Then the elements that reach it are written.
const COMPARED: usize = 32;
/// The length of the array for a list of units. A list has at most [`FEW`] units. Before a step checks the length of
/// the list, it can write up to [`MAXIMA`] more units, and up to [`LISTED`] unused values after them.
const LIST: usize = FEW + MAXIMA + LISTED;

/// Collects the bits of all elements that are at least `bound`, in order, and their indices. `bins` contains the maxima
/// of all blocks. Returns the number of elements, or `None` if there are more than [`FEW`].
///
/// The entries are usually in different blocks. [`super::collect::collect`] branches for each block, and the processor
/// cannot predict these branches. This pass first lists the units that have such an element, with few branches. If each
/// recorded maximum is the maximum of consecutive elements, a unit consists of the elements of one maximum. Otherwise,
/// a unit is a block.
pub(super) fn collect_few(
    level: Level,
    row: Logits<'_>,
    bins: &[f32],
    bound: f32,
    arrays: (&mut [i32], &mut [i32]),
) -> Option<usize> {
    dispatch!(level, simd => with_element!(row, row, E => {
        if E::CONSECUTIVE_BINS {
            collect_few_impl::<_, E, { BLOCK / BIN }, 1>(simd, row, bins, bound, arrays)
        } else {
            collect_few_impl::<_, E, BLOCK, { BLOCK / WORD }>(simd, row, bins, bound, arrays)
        }
    }))
}

/// The number of bits of a word of a mask.
const WORD: usize = u64::BITS as usize;

/// [`collect_few`] with units of `UNIT` elements. A mask of a unit has `WORDS` words.
#[inline(always)]
fn collect_few_impl<S: Simd, E: Element, const UNIT: usize, const WORDS: usize>(
    simd: S,
    row: &[E::Bits],
    bins: &[f32],
    bound: f32,
    (values, indices): (&mut [i32], &mut [i32]),
) -> Option<usize> {
    let mut list = [0; LIST];
    let units = list_units(simd, bins, bound, UNIT == BLOCK, &mut list)?;
    let blocks = Blocks::<E>::new(row);
    let bound = f32x16::splat(simd, bound);
    let mut len = 0;
    for units in units.chunks(COMPARED) {
        // The pass first compares the elements of several units, and then branches on the results. So the processor can
        // read several units at the same time. If the pass branched after each comparison, each wrong prediction would
        // delay the reads of the next units.
        let mut masks = [[0; WORDS]; COMPARED];
        let mut count = len;
        for (mask, &unit) in masks.iter_mut().zip(units) {
            *mask = mask_of_unit::<S, E, WORDS>(simd, unit_of::<E, UNIT>(&blocks, unit), bound);
            for word in mask {
                count += word.count_ones() as usize;
            }
        }
        if count > FEW {
            return None;
        }
        for (mask, &unit) in masks.iter().zip(units) {
            let elements = unit_of::<E, UNIT>(&blocks, unit);
            for (i, &(mut word)) in mask.iter().enumerate() {
                while word != 0 {
                    let at = (i * WORD + word.trailing_zeros() as usize) % UNIT;
                    values[len] = E::value(elements[at]).to_bits() as i32;
                    indices[len] = (unit as usize * UNIT + at) as i32;
                    len += 1;
                    word &= word - 1;
                }
            }
        }
    }
    Some(len)
}

/// Lists the units that have an element that is at least `bound`, in order. `None` if there are more than [`FEW`].
#[inline(always)]
fn list_units<'l, S: Simd>(
    simd: S,
    bins: &[f32],
    bound: f32,
    units_are_blocks: bool,
    list: &'l mut [u32; LIST],
) -> Option<&'l [u32]> {
    let (mut len, mut first) = (0, 0);
    let (chunks, rest) = bins.as_chunks::<MAXIMA>();
    let mut last = [f32::NAN; MAXIMA];
    last[..rest.len()].copy_from_slice(rest);
    let last = &std::slice::from_ref(&last)[..usize::from(!rest.is_empty())];
    for chunks in [chunks, last] {
        for bins in chunks {
            let mut units = maxima_reaching(simd, bins, bound);
            if units_are_blocks {
                units = every_fourth_bit(units | units >> 1 | units >> 2 | units >> 3);
            }
            let mut at = len;
            len += units.count_ones() as usize;
            // Each iteration lists several units. A loop with one unit per iteration would have a number of iterations
            // that the processor cannot predict.
            loop {
                for slot in &mut list[at..at + LISTED] {
                    *slot = first + units.trailing_zeros();
                    units &= units.wrapping_sub(1);
                }
                if units == 0 {
                    break;
                }
                at += LISTED;
            }
            if len > FEW {
                return None;
            }
            first += (MAXIMA / if units_are_blocks { BIN } else { 1 }) as u32;
        }
    }
    Some(&list[..len])
}

/// Returns a bit mask of the maxima that are at least `bound`.
#[inline(always)]
fn maxima_reaching<S: Simd>(simd: S, bins: &[f32; MAXIMA], bound: f32) -> u64 {
    // There is no `map` here, because the compiler does not always inline `map` of an array. A function that is not
    // inlined is compiled without the vector instructions, and each of its operations is a function call.
    let (vectors, _) = bins.as_chunks::<LANES>();
    let low = vector_reaching(simd, &vectors[0], bound) | vector_reaching(simd, &vectors[1], bound) << LANES;
    let high = vector_reaching(simd, &vectors[2], bound) | vector_reaching(simd, &vectors[3], bound) << LANES;
    low | high << (2 * LANES)
}

/// Returns a bit mask of the elements that are at least `bound`.
#[inline(always)]
fn vector_reaching<S: Simd>(simd: S, vector: &[f32; LANES], bound: f32) -> u64 {
    f32x16::simd_from(simd, *vector).simd_ge(bound).to_bitmask()
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

/// The elements of a unit.
#[inline(always)]
fn unit_of<'b, E: Element, const UNIT: usize>(blocks: &'b Blocks<'_, E>, unit: u32) -> &'b [E::Bits; UNIT] {
    let start = unit as usize * UNIT;
    blocks.get(start / BLOCK)[start % BLOCK..].first_chunk().expect("a block consists of whole units")
}

/// A bit mask of the elements of a unit that are at least `bound`.
#[inline(always)]
fn mask_of_unit<S: Simd, E: Element, const WORDS: usize>(
    simd: S,
    unit: &[E::Bits],
    bound: f32x16<S>,
) -> [u64; WORDS] {
    let mut mask = [0; WORDS];
    for (i, pair) in unit.as_chunks::<{ 2 * LANES }>().0.iter().enumerate() {
        let bits = mask_of_pair::<S, E>(
            simd,
            pair,
            #[inline(always)]
            |x| x.simd_ge(bound),
        );
        mask[i / 2] |= bits << (i % 2 * 2 * LANES);
    }
    mask
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
        for vocab in [1_usize, 127, 128, 300, 4096, 5000, 70_001] {
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
        // one more. There are three cases: the entries are consecutive, each is in its own unit, or each is in its
        // own block.
        for more in 0..2 {
            for stride in [1, BLOCK / BIN, BLOCK] {
                let reaches = |i: usize| i.is_multiple_of(stride) && i / stride < FEW + more;
                let row: Vec<f32> = (0..50_000).map(|i| f32::from(u8::from(reaches(i)))).collect();
                let [bf16, f16]: [Vec<u16>; 2] = [0x3f80, 0x3c00]
                    .map(|one| (0..50_000).map(|i| if reaches(i) { one } else { 0 }).collect());
                check(Logits::F32(&row), 1.0);
                check(Logits::Bf16(&bf16), 1.0);
                check(Logits::F16(&f16), 1.0);
            }
        }
    }
}
