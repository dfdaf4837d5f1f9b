//! Passes that collect the entries of a row that reach a limit.

use std::hint::black_box;

use fearless_simd::{dispatch, f32x16, i16x32, i32x16, prelude::*, u16x32, Level, Simd};

use super::blocks::{for_vectors, reaches, BlockOutput, Blocks};
use super::bounds::Limit;
use super::element::{with_element, Bf16, Element, Element16, F16, F32};
use super::key16;
use super::lanes::{load, Lanes, LANES};
use super::layout::{BIN, BLOCK};
use super::page_output::{Contiguous, PageOutput, SeparatePages, Staging};
use super::pages::PAGE;
use super::scan::Summary;
use crate::dtype::Logits;
use crate::semantics::arith::Arith;

/// Collects the bits of the elements that reach the limit, in order. Reads only the blocks whose maxima reach the
/// limit. For each block, writes the number of elements collected before it to `offsets`. Returns the number of
/// collected elements.
pub(super) fn collect(
    level: Level,
    row: Logits<'_>,
    group: usize,
    (bins, tops): (&[f32], &[f32]),
    limit: Limit,
    values: &mut [i32],
    offsets: &mut [u32],
) -> usize {
    dispatch!(level, simd => with_element!(row, row, E => {
        collect_impl::<_, E>(simd, row, group, (bins, tops), limit, values, offsets)
    }))
}

#[inline(always)]
fn collect_impl<S: Simd, E: Element>(
    simd: S,
    row: &[E::Bits],
    group: usize,
    (bins, tops): (&[f32], &[f32]),
    limit: Limit,
    values: &mut [i32],
    offsets: &mut [u32],
) -> usize {
    let a = Lanes(simd);
    let blocks = Blocks::<E>::new(row);
    let mut len = 0;
    for (i, (top, offsets)) in tops.chunks_exact(LANES).zip(offsets.chunks_mut(group)).enumerate() {
        offsets.fill(len as u32);
        if !load::<S, f32x16<S>, f32>(simd, top).simd_ge(limit.at(len)).any_true() {
            continue;
        }
        let first = i * group;
        let mut rest = offsets.iter_mut().zip(bins[first * BIN..].as_chunks::<BIN>().0);
        for blocks in blocks.range(first..first + rest.len()) {
            for (block, (offset, bin)) in blocks.iter().zip(&mut rest) {
                *offset = len as u32;
                let limit = limit.at(len);
                if reaches(simd, bin, limit) {
                    let limit = a.float(limit);
                    let mut output = BlockOutput::new(values, len);
                    for_vectors!(E, simd, block, x => output.push(a.to_bits(x), x.simd_ge(limit)));
                    len += output.len();
                }
            }
        }
    }
    len
}

/// Scans a row and collects elements in one pass. The limit is an estimate, because no maxima are known yet. The pass
/// records no block maxima and no group maxima. For each block, writes the number of elements collected before it to
/// `offsets`. Returns the summary of the row and the number of collected elements.
///
/// With a staging array, the pass collects the elements of each page in it: see [`Contiguous`].
pub(super) fn scan_and_collect(
    level: Level,
    row: Logits<'_>,
    limit: Limit,
    (values, offsets): (&mut [i32], &mut [u32]),
    staging: Option<&mut Staging>,
) -> (Summary, usize) {
    let Some(staging) = staging else {
        let (blocks, mut count) = (offsets.len(), [0]);
        let arrays = (values, offsets, &mut count[..]);
        let summary = scan_and_collect_by_pages(level, row, limit, blocks, arrays);
        return (summary, count[0] as usize);
    };
    let mut output = Contiguous::new(values, staging);
    // A page of the row occupies 4 KiB.
    let page_blocks = match row {
        Logits::F32(_) => PAGE / BLOCK,
        Logits::Bf16(_) | Logits::F16(_) => Staging::MOST_BLOCKS,
    };
    let summary = scan_and_collect_to(level, row, limit, page_blocks, offsets, &mut output);
    (summary, output.collected())
}

/// [`scan_and_collect`] for pages of `page_blocks` blocks. If a page starts at index `i` of the row, its collected
/// elements are written from `values[i]` on. Writes the number of collected elements of each page to `counts`. For each
/// block, writes to `offsets` the position in `values` of its first collected element. If the block has none, writes
/// the position at which the next element of the page would be written.
pub(super) fn scan_and_collect_by_pages(
    level: Level,
    row: Logits<'_>,
    limit: Limit,
    page_blocks: usize,
    (values, offsets, counts): (&mut [i32], &mut [u32], &mut [u32]),
) -> Summary {
    let mut output = SeparatePages::new(values, counts);
    scan_and_collect_to(level, row, limit, page_blocks, offsets, &mut output)
}

/// [`scan_and_collect_by_pages`] with any output.
fn scan_and_collect_to(
    level: Level,
    row: Logits<'_>,
    limit: Limit,
    page_blocks: usize,
    offsets: &mut [u32],
    output: &mut impl PageOutput,
) -> Summary {
    dispatch!(level, simd => match row {
        Logits::Bf16(row) => scan_and_collect_16::<_, Bf16>(simd, row, limit, page_blocks, offsets, output),
        Logits::F16(row) => scan_and_collect_16::<_, F16>(simd, row, limit, page_blocks, offsets, output),
        Logits::F32(row) => scan_and_collect_impl::<_, F32>(simd, row, limit, page_blocks, offsets, output),
    })
}

#[inline(always)]
fn scan_and_collect_impl<S: Simd, E: Element>(
    simd: S,
    row: &[E::Bits],
    limit: Limit,
    page_blocks: usize,
    offsets: &mut [u32],
    output: &mut impl PageOutput,
) -> Summary {
    let a = Lanes(simd);
    let blocks = Blocks::<E>::new(row);
    let mut max = [a.float(f32::NEG_INFINITY); 2];
    let mut poison = [a.float(0.0); 2];
    for (page, offsets) in offsets.chunks_mut(page_blocks).enumerate() {
        let first = page * page_blocks;
        let before = output.collected();
        let (values, position) = output.start(first * BLOCK, row[first * BLOCK..].as_ptr() as usize);
        let mut len = 0;
        let mut rest = offsets.iter_mut();
        for blocks in blocks.range(first..first + rest.len()) {
            for (block, offset) in blocks.iter().zip(&mut rest) {
                *offset = (position + len) as u32;
                let limit = a.float(limit.at(before + len));
                let mut here = BlockOutput::new(values, len);
                for pair in block.as_chunks::<{ 2 * LANES }>().0 {
                    let pair = E::pair(simd, pair);
                    for i in 0..2 {
                        max[i] = max[i].max(pair[i]);
                        poison[i] += pair[i];
                        here.push(a.to_bits(pair[i]), pair[i].simd_ge(limit));
                    }
                }
                len += here.len();
            }
        }
        output.end(len);
    }
    let poison = (poison[0] + poison[1]).to_array().into_iter().sum();
    Summary::of_lanes(max[0].max(max[1]), poison)
}

/// The number of 16-bit elements in a 512-bit register.
const PAIR: usize = 2 * LANES;

/// [`scan_and_collect_impl`] for 16-bit types. With 512-bit registers, one instruction compacts 16-bit lanes. The pass
/// then compares 16-bit order keys, collects 16-bit elements, and widens only the collected elements. With smaller
/// registers it calls [`scan_and_collect_impl`].
#[inline(always)]
fn scan_and_collect_16<S: Simd, E: Element16>(
    simd: S,
    row: &[u16],
    limit: Limit,
    page_blocks: usize,
    offsets: &mut [u32],
    output: &mut impl PageOutput,
) -> Summary {
    if S::f32s::LEN < LANES {
        return scan_and_collect_impl::<S, E>(simd, row, limit, page_blocks, offsets, output);
    }
    let (least, largest) = (key16::least_key::<E>(), key16::largest_key::<E>());
    let [limit_key, later_key] = [limit.bound, limit.later].map(key16::least_key_at_least::<E>);
    let blocks = Blocks::<E>::new(row);
    let (mut max, mut min) = (i16x32::splat(simd, least), i16x32::splat(simd, largest));
    for (page, offsets) in offsets.chunks_mut(page_blocks).enumerate() {
        let first = page * page_blocks;
        let before = output.collected();
        let (values, position) = output.start(first * BLOCK, row[first * BLOCK..].as_ptr() as usize);
        let narrow: &mut [u16] = bytemuck::cast_slice_mut(values);
        let mut len = 0;
        let mut rest = offsets.iter_mut();
        for blocks in blocks.range(first..first + rest.len()) {
            for (block, offset) in blocks.iter().zip(&mut rest) {
                *offset = (position + len) as u32;
                // See `Limit::at`.
                let limit_key = if before + len >= limit.enough { black_box(later_key) } else { limit_key };
                let limit = i16x32::splat(simd, limit_key);
                let place: &mut [u16; BLOCK + PAIR] =
                    (&mut narrow[len..len + BLOCK + PAIR]).try_into().expect("as long as the slice");
                let mut here = 0;
                for pair in block.as_chunks::<PAIR>().0 {
                    let bits = u16x32::simd_from(simd, *pair);
                    let key = key16::keys(bits.bitcast::<i16x32<S>>());
                    (max, min) = (max.max(key), min.min(key));
                    let mask = key.simd_ge(limit);
                    // `here` is below `BLOCK`. The remainder operation shows the compiler that a pair fits.
                    let at = here % BLOCK;
                    here += mask.to_bitmask().count_ones() as usize;
                    bits.compress(mask).store_slice(&mut place[at..at + PAIR]);
                }
                len += here;
            }
        }
        widen_in_place::<S, E>(simd, values, len);
        output.end(len);
    }
    let max = max.to_array().into_iter().fold(least, i16::max);
    let min = min.to_array().into_iter().fold(largest, i16::min);
    // The keys of NaNs are below the key of −inf or above the key of +inf.
    let poison = if min < least || max > largest { f32::NAN } else { 0.0 };
    Summary { max: key16::value_of::<E>(max), poison }
}

/// Replaces `len` 16-bit values at the start of an array by their f32 bits.
#[inline(always)]
fn widen_in_place<S: Simd, E: Element16>(simd: S, values: &mut [i32], len: usize) {
    // The loop runs from the end to the start, so it reads each value before it overwrites it.
    for pair in (0..len.div_ceil(PAIR)).rev() {
        let narrow: &[u16] = bytemuck::cast_slice(values);
        let bits = narrow[pair * PAIR..][..PAIR].try_into().expect("a pair of vectors");
        let [first, second]: [f32x16<S>; 2] = E::pair(simd, bits);
        let wide = &mut values[pair * PAIR..][..PAIR];
        first.bitcast::<i32x16<S>>().store_slice(&mut wide[..LANES]);
        second.bitcast::<i32x16<S>>().store_slice(&mut wide[LANES..]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::bounds::{bound_of_key, LEAST_KEY};
    use super::super::key16::{key_of, value_of};
    use super::super::lanes::levels;
    use super::*;

    /// Checks the pass with several instruction sets. It must collect exactly the elements that reach the limit, in
    /// order.
    fn check(row: Logits<'_>, widened: &[f32], limit: Limit) {
        let (mut expected, mut before) = (Vec::new(), Vec::new());
        for block in widened.chunks(BLOCK) {
            before.push(expected.len() as u32);
            let bound = limit.at(expected.len());
            expected.extend(block.iter().filter(|&&x| x >= bound).map(|x| x.to_bits() as i32));
        }
        for level in levels() {
            for mut staging in [None, Some(Staging::new())] {
                let mut values = vec![0; before.len() * BLOCK + LANES];
                let mut offsets = vec![0; before.len()];
                let arrays = (&mut values[..], &mut offsets[..]);
                let (summary, len) = scan_and_collect(level, row, limit, arrays, staging.as_mut());
                assert_eq!(values[..len], expected);
                assert_eq!(offsets, before);
                assert!(summary.is_plain());
                assert_eq!(summary.max, widened.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            }
        }
    }

    #[test]
    fn collects_what_reaches_the_limit() {
        let mut state = 1_u32;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as u16
        };
        for vocab in [1_usize, 100, 128, 1000, 5000] {
            let row: Vec<u16> = (0..vocab).map(|_| random() & 0xfbff & 0xff7f).collect();
            let widened: [Vec<f32>; 2] = [
                row.iter().map(|&x| value_of::<Bf16>(key_of(x))).collect(),
                row.iter().map(|&x| value_of::<F16>(key_of(x))).collect(),
            ];
            for key in [LEAST_KEY, -0x3f80_0000, 0, 0x3f80_0000, 0x7f00_0000] {
                let bound = bound_of_key(key);
                for limit in [Limit::fixed(bound), Limit::of_first(10, bound), Limit::of_first(1100, bound)] {
                    check(Logits::Bf16(&row), &widened[0], limit);
                    check(Logits::F16(&row), &widened[1], limit);
                    check(Logits::F32(&widened[0]), &widened[0], limit);
                }
            }
        }
    }
}
