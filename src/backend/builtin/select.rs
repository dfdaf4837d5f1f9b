//! Top-k: a bound that lets few entries through, the entries above it, and the exact threshold among them.

use fearless_simd::{dispatch, f32x16, i16x32, i32x16, prelude::*, u16x32, Level, Simd};

use super::format::{for_vectors, key16, with_format, Bf16, Blocks, Format, Half, BLOCK, F16, F32};
use super::lanes::{load, total, Lanes, Room, LANES, SUMMABLE};
use super::nucleus::Temper;
use super::scan::{at_least, floor_of_key, Summary};
use super::search::{measure, pad, search, Found, Goal, Measure};
use crate::dtype::Logits;
use crate::semantics::arith::{Arith, Scalar};
use crate::semantics::clean::{order_key, NEG_INF_KEY};

/// Above −inf: the order key that every candidate reaches.
pub(super) const LEAST_KEY: i32 = NEG_INF_KEY + 1;

/// A bound that at least `k` elements reach, from maxima of disjoint parts of the row: each stands for an element.
pub(super) fn bound_from_maxima(
    level: Level,
    maxima: &[f32],
    k: usize,
    keys: &mut [i32],
    spare: &mut [i32],
) -> Option<f32> {
    if maxima.len() < k {
        return None;
    }
    keys_of(level, maxima, keys);
    // A few elements too many cost less than the passes that would tell them apart.
    let found = search_keys(level, &keys[..maxima.len()], spare, k, k / 8)?;
    Some(floor_of_key(found.threshold))
}

/// The threshold of the `k`-th largest key, unless fewer than `k` are above −inf.
fn search_keys(level: Level, keys: &[i32], spare: &mut [i32], k: usize, tolerance: usize) -> Option<Found> {
    let (candidates, low, high) = dispatch!(level, simd => extent(simd, keys));
    (candidates >= k).then(|| {
        let (target, tolerance) = (k as u64, tolerance as u64);
        search(level, keys, spare, Goal { measure: Measure::Count, target, tolerance, low, high, hint: high })
    })
}

/// How many keys are above −inf, the least of those and the largest.
#[inline(always)]
fn extent<S: Simd>(simd: S, keys: &[i32]) -> (usize, i32, i32) {
    let a = Lanes(simd);
    let (mut least, mut most) = (a.int(i32::MAX), a.int(i32::MIN));
    let mut count = a.int(0);
    for vector in keys.chunks_exact(LANES) {
        let x: i32x16<S> = load(simd, vector);
        let candidate = x.simd_ge(LEAST_KEY);
        count += candidate.select(a.int(1), a.int(0));
        least = least.min(candidate.select(x, a.int(i32::MAX)));
        most = most.max(x);
    }
    (total(count) as usize, least.reduce_min(), most.reduce_max())
}

/// What a sample says about a row's `k`-th largest element.
#[derive(Clone, Copy)]
pub(super) struct Estimate {
    /// Probably somewhat more than `k` elements reach this.
    pub(super) bound: f32,
    /// Probably somewhat fewer reach this order key.
    pub(super) above: i32,
}

pub(super) fn estimate(
    level: Level,
    row: Logits<'_>,
    k: usize,
    keys: &mut [i32],
    spare: &mut [i32],
) -> Option<Estimate> {
    let vocab = row.len();
    let vectors = vocab / LANES;
    let wanted = (32 * vocab / k).clamp(2048, 8192) / LANES;
    if vectors < 2 * wanted {
        return None;
    }
    let len = wanted * LANES;
    sample(level, row, vectors / wanted, &mut keys[..len]);
    // The number of the k largest that fall into the sample varies like a Poisson variable.
    let expected = k as f64 * len as f64 / vocab as f64;
    let rank = (expected + 4.0 * expected.sqrt() + 4.0).ceil() as usize;
    if rank > len * 7 / 8 {
        return None;
    }
    let bound = search_keys(level, &keys[..len], spare, rank, rank / 16)?.threshold;
    let rank = ((expected - 3.0 * expected.sqrt()) as usize).max(1);
    let above = search_keys(level, &keys[..len], spare, rank, rank / 4)?.threshold;
    Some(Estimate { bound: floor_of_key(bound), above })
}

/// Order keys of every `stride`-th vector of a row.
fn sample(level: Level, row: Logits<'_>, stride: usize, keys: &mut [i32]) {
    dispatch!(level, simd => with_format!(row, row, F => sample_impl::<_, F>(simd, row, stride, keys)))
}

#[inline(always)]
fn sample_impl<S: Simd, F: Format>(simd: S, row: &[F::Bits], stride: usize, keys: &mut [i32]) {
    sampled::<S, F>(
        simd,
        row,
        stride,
        keys,
        #[inline(always)]
        |x| Lanes(simd).keys(x),
    );
}

/// Writes a function of every `stride`-th vector of a row.
#[inline(always)]
pub(super) fn sampled<S: Simd, F: Format>(
    simd: S,
    row: &[F::Bits],
    stride: usize,
    out: &mut [i32],
    function: impl Fn(f32x16<S>) -> i32x16<S>,
) {
    for (i, out) in out.chunks_exact_mut(LANES).enumerate() {
        let mut bits = [F::NEG_INF; 2 * LANES];
        bits[..LANES].copy_from_slice(&row[i * stride * LANES..][..LANES]);
        function(F::pair(simd, &bits)[0]).store_slice(out);
    }
}

/// Order keys of floats that may be anything.
fn keys_of(level: Level, values: &[f32], keys: &mut [i32]) {
    dispatch!(level, simd => {
        for (values, keys) in values.chunks_exact(LANES).zip(keys.chunks_exact_mut(LANES)) {
            Lanes(simd).keys(load(simd, values)).store_slice(keys);
        }
    })
}

/// Turns the bits of values into their order keys, and pads.
pub(super) fn keys_in_place(level: Level, bits: &mut [i32], len: usize) {
    dispatch!(level, simd => {
        let a = Lanes(simd);
        for vector in bits[..len.next_multiple_of(LANES)].chunks_exact_mut(LANES) {
            a.keys(a.from_bits(load(simd, vector))).store_slice(vector);
        }
    });
    pad(bits, len);
}

/// Collects the bits of the elements that are at least `bound`, in order, looking only where the maxima say so.
/// `offsets` receives the number collected before each block. Returns their number.
pub(super) fn collect(
    level: Level,
    row: Logits<'_>,
    group: usize,
    (bins, tops): (&[f32], &[f32]),
    bound: f32,
    values: &mut [i32],
    offsets: &mut [u32],
) -> usize {
    dispatch!(level, simd => with_format!(row, row, F => {
        collect_impl::<_, F>(simd, row, group, (bins, tops), bound, values, offsets)
    }))
}

#[inline(always)]
fn collect_impl<S: Simd, F: Format>(
    simd: S,
    row: &[F::Bits],
    group: usize,
    (bins, tops): (&[f32], &[f32]),
    bound: f32,
    values: &mut [i32],
    offsets: &mut [u32],
) -> usize {
    let a = Lanes(simd);
    let limit = a.float(bound);
    let blocks = Blocks::<F>::new(row);
    let mut len = 0;
    for (i, (top, offsets)) in tops.chunks_exact(LANES).zip(offsets.chunks_mut(group)).enumerate() {
        offsets.fill(len as u32);
        if !load::<S, f32x16<S>, f32>(simd, top).simd_ge(limit).any_true() {
            continue;
        }
        for (j, offset) in offsets.iter_mut().enumerate() {
            *offset = len as u32;
            let block = i * group + j;
            let bin: f32x16<S> = load(simd, &bins[block * LANES..][..LANES]);
            if bin.simd_ge(limit).any_true() {
                let mut room = Room::new(values, len);
                for_vectors!(F, simd, blocks.get(block), x => room.push(a.to_bits(x), x.simd_ge(limit)));
                len += room.len();
            }
        }
    }
    len
}

/// Scans and collects in one pass, for a bound that was guessed.
pub(super) fn scan_and_collect(
    level: Level,
    row: Logits<'_>,
    bound: f32,
    values: &mut [i32],
    offsets: &mut [u32],
) -> (Summary, usize) {
    dispatch!(level, simd => match row {
        Logits::Bf16(row) => scan_and_collect_half::<_, Bf16>(simd, row, bound, values, offsets),
        Logits::F16(row) => scan_and_collect_half::<_, F16>(simd, row, bound, values, offsets),
        Logits::F32(row) => scan_and_collect_impl::<_, F32>(simd, row, bound, values, offsets),
    })
}

#[inline(always)]
fn scan_and_collect_impl<S: Simd, F: Format>(
    simd: S,
    row: &[F::Bits],
    bound: f32,
    values: &mut [i32],
    offsets: &mut [u32],
) -> (Summary, usize) {
    let a = Lanes(simd);
    let limit = a.float(bound);
    let blocks = Blocks::<F>::new(row);
    let mut max = [a.float(f32::NEG_INFINITY); 2];
    let mut poison = [a.float(0.0); 2];
    let mut len = 0;
    for (block, offset) in offsets.iter_mut().enumerate() {
        *offset = len as u32;
        let mut room = Room::new(values, len);
        for pair in blocks.get(block).as_chunks::<{ 2 * LANES }>().0 {
            let pair = F::pair(simd, pair);
            for i in 0..2 {
                max[i] = max[i].max(pair[i]);
                poison[i] += pair[i];
                room.push(a.to_bits(pair[i]), pair[i].simd_ge(limit));
            }
        }
        len += room.len();
    }
    (Summary::of_lanes(max[0].max(max[1]), poison[0] + poison[1]), len)
}

/// [`scan_and_collect_impl`] for 16-bit types: compares and compacts 32 elements at a time as they are, and widens only
/// what it collected. Where a machine compacts 16-bit lanes with one instruction, that is.
#[inline(always)]
fn scan_and_collect_half<S: Simd, F: Half>(
    simd: S,
    row: &[u16],
    bound: f32,
    values: &mut [i32],
    offsets: &mut [u32],
) -> (Summary, usize) {
    if S::f32s::LEN < LANES {
        return scan_and_collect_impl::<S, F>(simd, row, bound, values, offsets);
    }
    const PAIR: usize = 2 * LANES;
    let (least, most) = (key_of(F::NEG_INF), -1 - key_of(F::NEG_INF));
    let limit = i16x32::splat(simd, least_key::<F>(bound));
    let blocks = Blocks::<F>::new(row);
    let (mut max, mut min) = (i16x32::splat(simd, least), i16x32::splat(simd, most));
    let mut len = 0;
    let narrow: &mut [u16] = bytemuck::cast_slice_mut(values);
    for (block, offset) in offsets.iter_mut().enumerate() {
        *offset = len as u32;
        let room: &mut [u16; BLOCK + PAIR] =
            (&mut narrow[len..len + BLOCK + PAIR]).try_into().expect("as long as the slice");
        let mut here = 0;
        for pair in blocks.get(block).as_chunks::<PAIR>().0 {
            let bits = u16x32::simd_from(simd, *pair);
            let key = key16(bits.bitcast::<i16x32<S>>());
            (max, min) = (max.max(key), min.min(key));
            let mask = key.simd_ge(limit);
            // The compiler is told that a pair fits.
            let at = here % BLOCK;
            here += mask.to_bitmask().count_ones() as usize;
            bits.compress(mask).store_slice(&mut room[at..at + PAIR]);
        }
        len += here;
    }
    // From the end on, so that nothing is overwritten before it is read.
    for pair in (0..len.div_ceil(PAIR)).rev() {
        let narrow: &[u16] = bytemuck::cast_slice(values);
        let bits = narrow[pair * PAIR..][..PAIR].try_into().expect("a pair of vectors");
        let [first, second]: [f32x16<S>; 2] = F::pair(simd, bits);
        let wide = &mut values[pair * PAIR..][..PAIR];
        first.bitcast::<i32x16<S>>().store_slice(&mut wide[..LANES]);
        second.bitcast::<i32x16<S>>().store_slice(&mut wide[LANES..]);
    }
    let max = max.to_array().into_iter().fold(least, i16::max);
    let min = min.to_array().into_iter().fold(most, i16::min);
    // The keys of NaNs lie outside those of the infinities.
    let poison = if min < least || max > most { f32::NAN } else { 0.0 };
    (Summary { max: widened_key::<F>(max), poison }, len)
}

fn key_of(bits: u16) -> i16 {
    (bits as i16) ^ (((bits as i16) >> 15) & i16::MAX)
}

fn widened_key<F: Half>(key: i16) -> f32 {
    f32::from_bits(F::widen(Scalar, i32::from(key_of(key as u16) as u16)) as u32)
}

/// The least key of an element that is at least `bound`, which is finite.
fn least_key<F: Half>(bound: f32) -> i16 {
    let (mut below, mut reaches) = (key_of(F::NEG_INF), -1 - key_of(F::NEG_INF));
    while reaches - 1 > below {
        let middle = ((i32::from(below) + i32::from(reaches)) >> 1) as i16;
        if widened_key::<F>(middle) >= bound {
            reaches = middle;
        } else {
            below = middle;
        }
    }
    reaches
}

/// Which of the collected entries top-k keeps: keys above `threshold`, and those equal to it up to position `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) threshold: i32,
    pub(super) last: usize,
}

impl Kept {
    /// Everything that was collected.
    pub(super) const ALL: Kept = Kept { threshold: LEAST_KEY, last: usize::MAX };
}

/// The exact choice of `k` among collected keys, of which there are at least as many. They lie in `low..=high`; fewer
/// than `k` probably reach `above`.
pub(super) fn keep(
    level: Level,
    keys: &[i32],
    spare: &mut [i32],
    k: usize,
    (low, above, high): (i32, i32, i32),
    stable: bool,
) -> Kept {
    let goal =
        Goal { measure: Measure::Count, target: k as u64, tolerance: 0, low, high, hint: above.max(low) };
    let Found { threshold, measure: reached } = search(level, keys, spare, goal);
    if reached == k as u64 || !stable {
        return Kept { threshold, last: usize::MAX };
    }
    let more = measure(level, keys, Measure::Count, threshold + 1);
    Kept { threshold, last: nth_equal(level, keys, threshold, k - more as usize) }
}

/// The position of the `n`-th key, counted from 1, that equals `value`.
fn nth_equal(level: Level, keys: &[i32], value: i32, n: usize) -> usize {
    dispatch!(level, simd => nth_equal_impl(simd, keys, value, n))
}

#[inline(always)]
fn nth_equal_impl<S: Simd>(simd: S, keys: &[i32], value: i32, mut n: usize) -> usize {
    for (i, vector) in keys.chunks_exact(LANES).enumerate() {
        let mut mask = load::<S, i32x16<S>, i32>(simd, vector).simd_eq(value).to_bitmask();
        let here = mask.count_ones() as usize;
        if here >= n {
            for _ in 1..n {
                mask &= mask - 1;
            }
            return i * LANES + mask.trailing_zeros() as usize;
        }
        n -= here;
    }
    usize::MAX
}

/// The index of the collected entry at `position`, the bound being the one it was collected with.
pub(super) fn locate(level: Level, row: Logits<'_>, offsets: &[u32], bound: f32, position: usize) -> usize {
    let block = offsets.partition_point(|&offset| offset as usize <= position) - 1;
    let mask = dispatch!(level, simd => with_format!(row, row, F => {
        at_least::<_, F>(simd, Blocks::<F>::new(row).get(block), bound)
    }));
    block * BLOCK + nth_set(mask, position - offsets[block] as usize)
}

/// The indices of the collected entries.
pub(super) fn indices(
    level: Level,
    row: Logits<'_>,
    offsets: &[u32],
    bound: f32,
    len: usize,
    out: &mut [i32],
) {
    dispatch!(level, simd => with_format!(row, row, F => {
        indices_impl::<_, F>(simd, row, offsets, bound, len, out)
    }));
}

#[inline(always)]
fn indices_impl<S: Simd, F: Format>(
    simd: S,
    row: &[F::Bits],
    offsets: &[u32],
    bound: f32,
    len: usize,
    out: &mut [i32],
) {
    let blocks = Blocks::<F>::new(row);
    for (block, &offset) in offsets.iter().enumerate() {
        let next = offsets.get(block + 1).map_or(len, |&next| next as usize);
        if next > offset as usize {
            let mut mask = at_least::<_, F>(simd, blocks.get(block), bound);
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

/// The first position whose value, given as its bits, is at least `bound`.
pub(super) fn first_at_least(level: Level, bits: &[i32], bound: f32) -> Option<usize> {
    dispatch!(level, simd => first_at_least_impl(simd, bits, bound))
}

#[inline(always)]
fn first_at_least_impl<S: Simd>(simd: S, bits: &[i32], bound: f32) -> Option<usize> {
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

/// Writes the weights of collected keys, 0 where not kept, padded with zeros; their sum.
pub(super) fn weigh(level: Level, keys: &[i32], kept: Kept, temper: Temper, weights: &mut [i32]) -> u64 {
    dispatch!(level, simd => {
        const FOUR: usize = 4 * LANES;
        let mut sum = 0;
        let mut at = 0;
        while at < keys.len() {
            // Few at a time that the lanes do not overflow, and the last of them one by one.
            let left = keys.len() - at;
            let (width, end) = if left >= FOUR {
                (4, at + left.min(SUMMABLE * LANES) / FOUR * FOUR)
            } else {
                (1, keys.len())
            };
            let (keys, weights) = (&keys[at..end], &mut weights[at..end]);
            sum += match width {
                4 => weigh_impl::<_, 4>(simd, keys, kept, at, temper, weights),
                _ => weigh_impl::<_, 1>(simd, keys, kept, at, temper, weights),
            };
            at = end;
        }
        sum
    })
}

#[inline(always)]
fn weigh_impl<S: Simd, const N: usize>(
    simd: S,
    keys: &[i32],
    kept: Kept,
    first: usize,
    temper: Temper,
    weights: &mut [i32],
) -> u64 {
    let a = Lanes(simd);
    let (max, scale) = (a.float(temper.max), a.float(temper.scale));
    let iota = i32x16::from_fn(
        simd,
        #[inline(always)]
        |i| i as i32,
    );
    let last = kept.last.min(i32::MAX as usize) as i32;
    let mut lanes = a.int(0);
    for i in (0..keys.len()).step_by(N * LANES) {
        let mut x = [max; 4];
        for j in 0..N {
            x[j] = a.from_bits(order_key(a, load(simd, &keys[i + j * LANES..][..LANES])));
        }
        let found = if N == 4 { a.weights4(x, max, scale) } else { [a.weights(x[0], max, scale); 4] };
        for (j, &found) in found[..N].iter().enumerate() {
            let at = i + j * LANES;
            let key: i32x16<S> = load(simd, &keys[at..at + LANES]);
            let tie = key.simd_eq(kept.threshold) & (iota + (first + at) as i32).simd_le(last);
            let weight = (key.simd_gt(kept.threshold) | tie).select(found, a.int(0));
            weight.store_slice(&mut weights[at..at + LANES]);
            lanes += weight;
        }
    }
    total(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An element reaches a bound exactly where its key reaches the bound's.
    #[test]
    fn least_keys_divide_elements_as_bounds_do() {
        fn check<F: Half>(bound: f32) {
            let least = least_key::<F>(bound);
            for bits in 0..=u16::MAX {
                let value = f32::from_bits(F::widen(Scalar, i32::from(bits)) as u32);
                if !value.is_nan() {
                    assert_eq!(key_of(bits) >= least, value >= bound, "{bits:#x}, bound {bound}");
                }
            }
        }
        for key in [LEAST_KEY, -0x4123_4567, -1, 0, 1, 0x0080_0000, 0x3f80_0000, 0x4123_4567, 0x7f7f_ffff] {
            check::<Bf16>(floor_of_key(key));
            check::<F16>(floor_of_key(key));
        }
    }

    /// However a bound comes about, what is collected is the row filtered by it.
    #[test]
    fn collects_what_reaches_the_bound() {
        let mut state = 1_u32;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as u16
        };
        for vocab in [1_usize, 100, 128, 1000, 5000] {
            let row: Vec<u16> = (0..vocab).map(|_| random() & 0xfbff & 0xff7f).collect();
            for key in [LEAST_KEY, -0x3f80_0000, 0, 0x3f80_0000, 0x7f00_0000] {
                let bound = floor_of_key(key);
                let widened: [Vec<f32>; 2] = [
                    row.iter().map(|&x| widened_key::<Bf16>(key_of(x))).collect(),
                    row.iter().map(|&x| widened_key::<F16>(key_of(x))).collect(),
                ];
                for (row, widened) in [Logits::Bf16(&row), Logits::F16(&row)].into_iter().zip(widened) {
                    let blocks = vocab.div_ceil(BLOCK);
                    let mut values = vec![0; blocks * BLOCK + LANES];
                    let mut offsets = vec![0; blocks];
                    let (summary, len) =
                        scan_and_collect(Level::new(), row, bound, &mut values, &mut offsets);
                    let expected: Vec<i32> =
                        widened.iter().filter(|&&x| x >= bound).map(|x| x.to_bits() as i32).collect();
                    assert_eq!(values[..len], expected);
                    for (block, &offset) in offsets.iter().enumerate() {
                        let before = widened[..block * BLOCK].iter().filter(|&&x| x >= bound).count();
                        assert_eq!(offset as usize, before);
                    }
                    assert!(summary.is_plain());
                    assert_eq!(summary.max, widened.iter().copied().fold(f32::NEG_INFINITY, f32::max));
                }
            }
        }
    }
}
