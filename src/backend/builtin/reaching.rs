//! The pass for rows in which few logits have a weight above 0: it scans the row and collects these logits.
//!
//! The weight of a logit depends on its distance from the row's maximum, which is not known before the end of the pass.
//! Instead, the pass uses the maximum of the logits that it has read. This maximum is at most that of the row. So the
//! pass collects all logits whose weight is above 0, and can also collect logits whose weight is 0.

use fearless_simd::Level;

use super::bounds::{key_of, Limit};
use super::collect::scan_and_collect;
use super::layout::BLOCK;
use super::locate::{block_of, index_in_block};
use super::scan::Summary;
use super::weighing::WeightScale;
use crate::dtype::Logits;

/// The number of blocks in a chunk. The bound is the same for all blocks of a chunk.
const CHUNK: usize = 64;

/// The logits that the pass collected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reaching {
    /// The number of these logits.
    pub(super) len: usize,
    /// The collected logits before this position are less than the maximum of the row.
    pub(super) below_max: usize,
}

/// Scans a row and collects the logits that may have a weight of at least `least`, in order. `scale.max` is the maximum
/// of a part of the row. Writes the bits of the collected logits to `values`. For each block, writes the number of
/// logits that were collected before it to `offsets`. Writes the bound of each chunk to `bounds`.
pub(super) fn scan_and_collect_reaching(
    level: Level,
    row: Logits<'_>,
    scale: WeightScale,
    least: i32,
    (values, offsets): (&mut [i32], &mut [u32]),
    bounds: &mut [f32],
) -> (Summary, Reaching) {
    let mut summary = Summary { max: scale.max, ..Summary::EMPTY };
    let mut reaching = Reaching { len: 0, below_max: 0 };
    for (i, (offsets, bound)) in offsets.chunks_mut(CHUNK).zip(bounds).enumerate() {
        *bound = WeightScale { max: summary.max, ..scale }.floor(least);
        let start = i * CHUNK * BLOCK;
        let chunk = row.slice(start, (CHUNK * BLOCK).min(row.len() - start));
        let before = reaching.len;
        let values = &mut values[before..];
        let (found, len) = scan_and_collect(level, chunk, Limit::fixed(*bound), values, offsets);
        for offset in offsets {
            *offset += before as u32;
        }
        // Zeros and subnormals are equal after cleaning, so the keys are compared.
        if key_of(found.max) > key_of(summary.max) {
            reaching.below_max = before;
        }
        reaching.len += len;
        summary = summary.and(found);
    }
    (summary, reaching)
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
    /// The index in the row of a logit, given its `position` among the collected logits. For each block, `offsets`
    /// contains the number of logits that were collected before it.
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
    use super::super::lanes::LANES;
    use super::super::weighing::WeightScale;
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
        let best = Level::new();
        let levels = [Some(best), narrower(best), Some(Level::baseline())];
        for level in levels.into_iter().flatten() {
            let (mut values, mut offsets) = (vec![0; blocks * BLOCK + LANES], vec![0; blocks]);
            let mut bounds = vec![f32::NAN; blocks];
            let of_first = WeightScale { max: first_max, scale };
            let arrays = (&mut values[..], &mut offsets[..]);
            let (summary, reaching) =
                scan_and_collect_reaching(level, row, of_first, least, arrays, &mut bounds);
            assert!(summary.is_plain());
            assert_eq!(summary.max, max);
            let bounds = &bounds[..blocks.div_ceil(CHUNK)];
            assert!(bounds.iter().all(|bound| !bound.is_nan()) && bounds.is_sorted());
            let collected: Vec<usize> =
                (0..row.len()).filter(|&i| logits[i] >= bounds[i / BLOCK / CHUNK]).collect();
            let expected: Vec<u32> = collected.iter().map(|&i| logits[i].to_bits()).collect();
            let found: Vec<u32> = values[..reaching.len].iter().map(|&bits| bits as u32).collect();
            assert_eq!(found, expected);
            for (position, &index) in collected.iter().enumerate() {
                let bounds = Bounds::Chunks(bounds);
                assert_eq!(bounds.index_of(level, row, &offsets, position), index);
            }
            let first = collected.iter().position(|&i| key_of(logits[i]) == key_of(max));
            let first = first.expect("the maximum is collected");
            assert!(reaching.below_max <= first);
            for (i, &x) in logits.iter().enumerate() {
                if weight(Scalar, quantize(Scalar, max, x, scale)) >= least {
                    assert!(collected.binary_search(&i).is_ok(), "{x} at {i} has a weight");
                }
            }
        }
    }

    /// The next instruction set that has its own code.
    fn narrower(best: Level) -> Option<Level> {
        #[cfg(target_arch = "x86_64")]
        {
            use fearless_simd::Simd;
            best.as_avx2().map(|token| token.level())
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = best;
            None
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
                let (row, arrays) = (Logits::F32(&row), (&mut values[..], &mut offsets[..]));
                let mut bounds = vec![0.0; blocks];
                let (summary, _) =
                    scan_and_collect_reaching(Level::new(), row, scale, 1, arrays, &mut bounds);
                assert!(!summary.is_plain(), "{special} at {at}");
            }
        }
    }
}
