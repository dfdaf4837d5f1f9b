//! The pass for rows in which few logits have a weight above 0: it scans the row and collects these logits.
//!
//! The weight of a logit depends on its distance from the row's maximum, which is not known before the end of the pass.
//! Instead, the pass uses the maximum of the logits that it has read. This maximum is at most that of the row. So the
//! pass collects all logits whose weight is above 0, and can also collect logits whose weight is 0.

use fearless_simd::Level;

use super::bounds::{key_of, Limit};
use super::collect::{scan_and_collect, scan_and_collect_by_pages};
use super::layout::BLOCK;
use super::locate::{block_of, first_collected, index_in_block};
use super::page_output::Staging;
use super::pages::Pages;
use super::scan::Summary;
use super::weighing::WeightScale;
use crate::dtype::Logits;

/// The number of blocks in a chunk. The bound is the same for all blocks of a chunk.
const CHUNK: usize = 64;

/// The logits that the pass collected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reaching {
    pub(super) pages: Pages,
    /// The collected logits before this position are less than the maximum of the row.
    below_max: usize,
}

/// Scans a row and collects the logits that may have a weight of at least `least`, in order. `scale.max` is the maximum
/// of a part of the row. Writes the bits of the collected logits to the pages of `values`, and the number of logits of
/// each page to `counts`. For each block, writes the position of the first of its logits to `offsets`. Position 0 is
/// the start of the first page. Writes the bound of each chunk to `bounds`.
pub(super) fn scan_and_collect_reaching(
    level: Level,
    row: Logits<'_>,
    scale: WeightScale,
    least: i32,
    pages: Pages,
    (values, offsets, counts): (&mut [i32], &mut [u32], &mut [u32]),
    bounds: &mut [f32],
) -> (Summary, Reaching) {
    let values = &mut values[pages.start..];
    let mut summary = Summary { max: scale.max, ..Summary::EMPTY };
    let mut reaching = Reaching { pages, below_max: 0 };
    // If there are several pages, a chunk consists of whole pages. The only page can have several chunks.
    let page_blocks = pages.blocks().min(CHUNK);
    let mut staging = if pages.count > 1 { None } else { Staging::if_faster(level) };
    let mut len = 0;
    for (i, (offsets, bound)) in offsets.chunks_mut(CHUNK).zip(bounds).enumerate() {
        *bound = WeightScale { max: summary.max, ..scale }.floor(least);
        let start = i * CHUNK * BLOCK;
        let chunk = row.slice(start, (CHUNK * BLOCK).min(row.len() - start));
        let (at, found) = if pages.count > 1 {
            let counts = &mut counts[i * (CHUNK / page_blocks)..];
            let arrays = (&mut values[start..], &mut *offsets, counts);
            (start, scan_and_collect_by_pages(level, chunk, Limit::fixed(*bound), page_blocks, arrays))
        } else {
            let arrays = (&mut values[len..], &mut *offsets);
            let (found, count) =
                scan_and_collect(level, chunk, Limit::fixed(*bound), arrays, staging.as_mut());
            len += count;
            (len - count, found)
        };
        for offset in offsets {
            *offset += at as u32;
        }
        // Zeros and subnormals are equal after cleaning, so the keys are compared.
        if key_of(found.max) > key_of(summary.max) {
            reaching.below_max = at;
        }
        summary = summary.and(found);
    }
    if pages.count == 1 {
        counts[0] = len as u32;
    }
    (summary, reaching)
}

impl Reaching {
    /// The position of the first collected logit that is at least `bound`. No logit that is less than the maximum of
    /// the row may reach `bound`.
    pub(super) fn first_maximum(
        self,
        level: Level,
        (values, counts): (&[i32], &[u32]),
        bound: f32,
    ) -> Option<usize> {
        let Pages { start, len, count } = self.pages;
        (self.below_max / len..count).find_map(|page| {
            let first = self.below_max.max(page * len);
            let here = &values[start + first..start + page * len + counts[page] as usize];
            first_collected(level, here, bound).map(|position| first + position)
        })
    }
}

/// The bounds of a pass that collected logits. The pass collected the logits that are at least the bound of their
/// block.
#[derive(Clone, Copy)]
pub(super) enum Bounds<'w> {
    /// One bound for the whole row.
    Row(f32),
    /// The bounds that [`scan_and_collect_reaching`] wrote.
    Chunks(&'w [f32]),
}

impl Bounds<'_> {
    /// The index in the row of a collected logit, given its `position`. For each block, `offsets` contains the position
    /// of the first of its logits.
    pub(super) fn index_of(self, level: Level, row: Logits<'_>, offsets: &[u32], position: usize) -> usize {
        let (block, n) = block_of(offsets, position);
        let bound = match self {
            Bounds::Row(bound) => bound,
            Bounds::Chunks(bounds) => bounds[block / CHUNK],
        };
        index_in_block(level, row, block, bound, n)
    }
}

#[cfg(test)]
mod tests {
    use super::super::bounds::bound_of_key;
    use super::super::lanes::{levels, LANES};
    use super::*;
    use crate::semantics::arith::Scalar;
    use crate::semantics::weights::{quantize, weight};

    /// Checks the pass with several instruction sets. The collected logits must be those that are at least the bound of
    /// their chunk, in order, and must include every logit with a weight of at least `least`.
    fn check(row: Logits<'_>, first_max: f32, scale: f32, least: i32) {
        let values_of = |row: Logits<'_>| -> Vec<f32> {
            (0..row.len()).map(|i| f32::from_bits(row.dtype().widen(row.bits(i)))).collect()
        };
        let logits = values_of(row);
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let blocks = row.len().div_ceil(BLOCK);
        for level in levels() {
            let mut values = vec![0; blocks * BLOCK + LANES + Pages::SPACE];
            let of_first = WeightScale { max: first_max, scale };
            for pages in [Pages::one(row), Pages::several(row, &values)] {
                let (mut offsets, mut counts) = (vec![0; blocks], vec![u32::MAX; Pages::most(blocks)]);
                let mut bounds = vec![f32::NAN; blocks];
                let arrays = (&mut values[..], &mut offsets[..], &mut counts[..]);
                let (summary, reaching) =
                    scan_and_collect_reaching(level, row, of_first, least, pages, arrays, &mut bounds);
                assert!(summary.is_plain());
                assert_eq!(summary.max, max);
                let bounds = &bounds[..blocks.div_ceil(CHUNK)];
                assert!(bounds.iter().all(|bound| !bound.is_nan()) && bounds.is_sorted());
                let collected: Vec<usize> =
                    (0..row.len()).filter(|&i| logits[i] >= bounds[i / BLOCK / CHUNK]).collect();
                let expected: Vec<u32> = collected.iter().map(|&i| logits[i].to_bits()).collect();
                let page = |page| page * pages.len..page * pages.len + counts[page] as usize;
                let positions: Vec<usize> = (0..pages.count).flat_map(page).collect();
                let found: Vec<u32> = positions.iter().map(|&at| values[pages.start + at] as u32).collect();
                assert_eq!(found, expected);
                for (&position, &index) in positions.iter().zip(&collected) {
                    let bounds = Bounds::Chunks(bounds);
                    assert_eq!(bounds.index_of(level, row, &offsets, position), index);
                }
                let first = collected.iter().position(|&i| key_of(logits[i]) == key_of(max));
                let first = positions[first.expect("the maximum is collected")];
                let bound = bound_of_key(key_of(max));
                assert_eq!(reaching.first_maximum(level, (&values, &counts), bound), Some(first));
                assert_eq!(reaching.first_maximum(level, (&values, &counts), f32::INFINITY), None);
                for (i, &x) in logits.iter().enumerate() {
                    if weight(Scalar, quantize(Scalar, max, x, scale)) >= least {
                        assert!(collected.binary_search(&i).is_ok(), "{x} at {i} has a weight");
                    }
                }
            }
        }
    }

    #[test]
    fn collects_all_logits_with_a_weight() {
        let mut state = 1_u32;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32
        };
        // At this scale, the weight is above 0 up to about 20 below the maximum.
        let scale = std::f32::consts::LOG2_E * 262_144.0;
        let chunk = CHUNK * BLOCK;
        for vocab in [1, 127, chunk - 1, chunk, chunk + 1, 3 * chunk + 200] {
            let body: Vec<f32> = (0..vocab).map(|_| random() * 40.0 - 30.0).collect();
            let mut rows = vec![body.clone(), vec![1.0; vocab]];
            // Only the last logit of each chunk reaches the bound. Most blocks have no such logit.
            rows.push((0..vocab).map(|i| if i % chunk == chunk - 1 { 5.0 } else { -50.0 }).collect());
            // The maximum of each chunk is larger than that of the previous chunk. All logits of the last chunk reach
            // the bound.
            rows.push((0..vocab).map(|i| body[i].max(i as f32 / chunk as f32 * 7.0 - 25.0)).collect());
            // The largest logit is the first one.
            rows.push((0..vocab).map(|i| if i == 0 { 30.0 } else { body[i] }).collect());
            // Two logits are equal after cleaning, and all others are smaller. So the greedy token is the first of the
            // two. But the second one is the larger float.
            for (first, last) in [(0.0, 1e-40), (-1e-40, 0.0)] {
                let of = |i: usize| match i {
                    10 => first,
                    _ if i + 10 == vocab => last,
                    _ => body[i] - 20.0,
                };
                rows.push((0..vocab).map(of).collect());
            }
            for row in rows {
                let first_max = row[..vocab.div_ceil(4)].iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let bf16: Vec<u16> = row.iter().map(|&x| half::bf16::from_f32(x).to_bits()).collect();
                let f16: Vec<u16> = row.iter().map(|&x| half::f16::from_f32(x).to_bits()).collect();
                for least in [1, 1 << 20] {
                    check(Logits::F32(&row), first_max, scale, least);
                    // Rounding never changes the order, so this is the maximum of the rounded logits.
                    check(Logits::Bf16(&bf16), half::bf16::from_f32(first_max).to_f32(), scale, least);
                    check(Logits::F16(&f16), half::f16::from_f32(first_max).to_f32(), scale, least);
                }
            }
        }
    }

    #[test]
    fn finds_nan_and_infinity() {
        let plain = vec![1.0_f32; 3 * CHUNK * BLOCK + 5];
        for special in [f32::NAN, -f32::NAN, f32::INFINITY] {
            for at in [0, CHUNK * BLOCK, plain.len() - 1] {
                let mut row = plain.clone();
                row[at] = special;
                let blocks = row.len().div_ceil(BLOCK);
                let (mut values, mut offsets) = (vec![0; blocks * BLOCK + LANES], vec![0; blocks]);
                let scale = WeightScale { max: 1.0, scale: 378_193.6 };
                let (row, mut counts) = (Logits::F32(&row), [0]);
                let arrays = (&mut values[..], &mut offsets[..], &mut counts[..]);
                let (mut bounds, pages) = (vec![0.0; blocks], Pages::one(row));
                let (summary, _) =
                    scan_and_collect_reaching(Level::new(), row, scale, 1, pages, arrays, &mut bounds);
                assert!(!summary.is_plain(), "{special} at {at}");
            }
        }
    }
}
