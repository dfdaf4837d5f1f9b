//! The first pass over a row: its maximum, whether it holds a NaN, and maxima of small parts of it, which later
//! passes use to look only where it matters.

use fearless_simd::{dispatch, f32x16, prelude::*, Level, Simd};

use super::format::{for_vectors, with_format, Blocks, Format, BLOCK};
use super::lanes::{load, Lanes, LANES};
use crate::dtype::Logits;
use crate::semantics::arith::Arith;
use crate::semantics::clean::{clean, is_nan, MAX_FINITE_BITS, NEG_INF_KEY};

/// How a row's maxima are laid out: `LANES` a block of the row, and `LANES` a group of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Blocks in a group; the last one may have fewer.
    pub(super) group: usize,
    /// Blocks in the row.
    pub(super) blocks: usize,
}

impl Layout {
    /// Groups are as large as still leaves sixteen or more maxima for each of `wanted` entries.
    pub(super) fn new(vocab: usize, wanted: usize) -> Layout {
        let blocks = vocab.div_ceil(BLOCK);
        let group = (blocks / wanted.max(32)).clamp(1, 32);
        Layout { group, blocks }
    }

    pub(super) fn groups(self) -> usize {
        self.blocks.div_ceil(self.group)
    }

    /// Elements of a group.
    pub(super) fn stride(self) -> usize {
        self.group * BLOCK
    }
}

/// What a pass learned of the row, or of a part of it. As raw floats: NaN and +inf are not cleaned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Summary {
    /// Means nothing where `poison` is NaN.
    pub(super) max: f32,
    /// NaN if an element is, and perhaps if one is +inf.
    pub(super) poison: f32,
}

impl Summary {
    pub(super) const EMPTY: Summary = Summary { max: f32::NEG_INFINITY, poison: 0.0 };

    pub(super) fn and(self, other: Summary) -> Summary {
        Summary { max: self.max.max(other.max), poison: self.poison + other.poison }
    }

    /// No element needs more cleaning than the passes do by themselves.
    pub(super) fn is_plain(self) -> bool {
        !self.poison.is_nan() && self.max < f32::INFINITY
    }

    #[inline(always)]
    pub(super) fn of_lanes<S: Simd>(max: f32x16<S>, poison: f32x16<S>) -> Summary {
        let max = max.to_array().into_iter().fold(f32::NEG_INFINITY, f32::max);
        Summary { max, poison: poison.to_array().into_iter().sum() }
    }
}

/// Scans a row, or a run of whole groups of it, and fills the maxima of its blocks and groups.
pub(super) fn scan(
    level: Level,
    row: Logits<'_>,
    group: usize,
    bins: &mut [f32],
    tops: &mut [f32],
) -> Summary {
    dispatch!(level, simd => with_format!(row, row, F => scan_impl::<_, F>(simd, row, group, bins, tops)))
}

#[inline(always)]
fn scan_impl<S: Simd, F: Format>(
    simd: S,
    row: &[F::Bits],
    group: usize,
    bins: &mut [f32],
    tops: &mut [f32],
) -> Summary {
    let blocks = Blocks::<F>::new(row);
    let a = Lanes(simd);
    let (mut max, mut poison) = (a.float(f32::NEG_INFINITY), a.float(0.0));
    let mut block = 0;
    for (top, bins) in tops.chunks_exact_mut(LANES).zip(bins.chunks_mut(group * LANES)) {
        let mut group_max = a.float(f32::NEG_INFINITY);
        for bin in bins.chunks_exact_mut(LANES) {
            let (block_max, block_poison) = F::summary(simd, blocks.get(block));
            block_max.store_slice(bin);
            group_max = group_max.max(block_max);
            poison += block_poison;
            block += 1;
        }
        group_max.store_slice(top);
        max = max.max(group_max);
    }
    Summary::of_lanes(max, poison)
}

/// The plain maximum of a row, as fast as this machine reads it: what the other passes are measured against. NaN
/// makes it meaningless.
pub fn max_scan(level: Level, row: Logits<'_>) -> f32 {
    dispatch!(level, simd => with_format!(row, row, F => max_scan_impl::<_, F>(simd, row)))
}

#[inline(always)]
fn max_scan_impl<S: Simd, F: Format>(simd: S, row: &[F::Bits]) -> f32 {
    let (blocks, rest) = row.as_chunks::<BLOCK>();
    let mut tail = [F::NEG_INF; BLOCK];
    tail[..rest.len()].copy_from_slice(rest);
    let mut max = F::summary(simd, &tail).0;
    for block in blocks {
        max = max.max(F::summary(simd, block).0);
    }
    max.to_array().into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// The least float whose cleaned order key is at least `key`; `key` is above that of −inf.
pub(super) fn floor_of_key(key: i32) -> f32 {
    const MIN_NORMAL: i32 = 0x0080_0000;
    const MAX_NEGATIVE: i32 = -MIN_NORMAL;
    let bits = match key {
        // −0 and every subnormal count as 0.
        MAX_NEGATIVE..=0 => 0x807f_ffff_u32 as i32,
        1..MIN_NORMAL => MIN_NORMAL,
        _ if key > 0 => key.min(MAX_FINITE_BITS),
        _ => key.max(NEG_INF_KEY + 1) ^ 0x7fff_ffff,
    };
    f32::from_bits(bits as u32)
}

/// The index of the first element that is at least `bound`, which the group and block maxima lead to.
pub(super) fn first_at_least(
    level: Level,
    row: Logits<'_>,
    layout: Layout,
    bins: &[f32],
    tops: &[f32],
    bound: f32,
) -> Option<usize> {
    dispatch!(level, simd => with_format!(row, row, F => {
        first_at_least_impl::<_, F>(simd, row, layout.group, bins, tops, bound)
    }))
}

#[inline(always)]
fn first_at_least_impl<S: Simd, F: Format>(
    simd: S,
    row: &[F::Bits],
    group_len: usize,
    bins: &[f32],
    tops: &[f32],
    bound: f32,
) -> Option<usize> {
    let group = first_vector(simd, tops, bound)?;
    let block = group * group_len + first_vector(simd, &bins[group * group_len * LANES..], bound)?;
    let mask = at_least::<_, F>(simd, Blocks::<F>::new(row).get(block), bound);
    (mask != 0).then(|| block * BLOCK + mask.trailing_zeros() as usize)
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

/// Which elements of a block are at least `bound`.
#[inline(always)]
pub(super) fn at_least<S: Simd, F: Format>(simd: S, block: &[F::Bits; BLOCK], bound: f32) -> u128 {
    let bound = f32x16::splat(simd, bound);
    let mut mask = 0;
    let mut shift = 0;
    for_vectors!(F, simd, block, x => {
        mask |= u128::from(x.simd_ge(bound).to_bitmask()) << shift;
        shift += LANES;
    });
    mask
}

/// Writes a row as cleaned f32 values; whether it held a NaN.
pub(super) fn clean_row(level: Level, row: Logits<'_>, out: &mut [f32]) -> bool {
    dispatch!(level, simd => with_format!(row, row, F => clean_row_impl::<_, F>(simd, row, out)))
}

#[inline(always)]
fn clean_row_impl<S: Simd, F: Format>(simd: S, row: &[F::Bits], out: &mut [f32]) -> bool {
    let a = Lanes(simd);
    let blocks = Blocks::<F>::new(row);
    let mut had_nan = false;
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let mut cleaned = [0.0; BLOCK];
        let mut at = 0;
        for_vectors!(F, simd, blocks.get(block), x => {
            let bits = a.to_bits(x);
            had_nan |= is_nan(a, bits).any_true();
            a.from_bits(clean(a, bits)).store_slice(&mut cleaned[at..at + LANES]);
            at += LANES;
        });
        out.copy_from_slice(&cleaned[..out.len()]);
    }
    had_nan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::arith::Scalar;
    use crate::semantics::clean::order_key;

    /// A raw float reaches the floor of a key exactly where its cleaned key reaches the key.
    #[test]
    fn floors_divide_raw_floats_as_keys_divide_cleaned_ones() {
        let magnitudes =
            [0, 1, 0x7f_fffe, 0x7f_ffff, 0x80_0000, 0x80_0001, 0x3f80_0000, 0x7f7f_fffe, 0x7f7f_ffff];
        let all: Vec<u32> = magnitudes.iter().flat_map(|&bits| [bits, bits | 0x8000_0000]).collect();
        for &bits in &all {
            // Keys of values that are never cleaned to are searched for too.
            let key = order_key(Scalar, bits as i32);
            for x in all.iter().copied().chain([0x7f80_0000, 0xff80_0000]) {
                let reaches = order_key(Scalar, clean(Scalar, x as i32)) >= key;
                assert_eq!(f32::from_bits(x) >= floor_of_key(key), reaches, "{x:#x} and key {key}");
            }
        }
    }
}
