//! Weights over a whole row, the nucleus, and the draw.

use fearless_simd::{dispatch, f32x16, i32x16, prelude::*, Level, Simd};

use super::format::{for_vectors, with_format, Blocks, Format, BLOCK, VECTORS};
use super::lanes::{load, total, Lanes, Room, Several, LANES, SUMMABLE};
use super::search::{measure, search, Found, Goal, Measure};
use super::select::{nth_set, sampled};
use crate::dtype::Logits;
use crate::semantics::arith::{Arith, Scalar};
use crate::semantics::params::RowParams;
use crate::semantics::top_p::target;
use crate::semantics::weights::{cubic, quantize, weight_of_cubic, MAX_WEIGHT};

/// What a weight is computed with, besides the logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Temper {
    /// The row's maximum, cleaned.
    pub(super) max: f32,
    /// See [`RowParams::scale`].
    pub(super) scale: f32,
}

/// Below this logit every weight is less than `least`, which is at least 1.
fn floor_of_weight(temper: Temper, least: i32) -> f32 {
    // Leaves room for the errors that W may have, 2⁻¹⁸ of it and 1, and for those made here.
    let octaves = if least < 16 { 26.0 } else { 24.125 - (least as f32).log2() };
    // Rounding the difference does no harm: it cannot pass over a logit.
    temper.max - octaves * (1 << 18) as f32 / temper.scale
}

/// Two weights between which the nucleus probably ends, not far apart, for a row with top-p and without top-k.
///
/// The maxima give a lower bound on the total, a sample the mass that lies low.
pub(super) fn estimate(
    level: Level,
    row: Logits<'_>,
    tops: &[f32],
    temper: Temper,
    params: &RowParams,
    weights: &mut [i32],
    spare: &mut [i32],
) -> (i32, i32) {
    let vectors = row.len() / LANES;
    let wanted = 2048 / LANES;
    if vectors < 4 * wanted {
        return (1, MAX_WEIGHT);
    }
    let weights = &mut weights[..wanted * LANES];
    let (total, sampled) = dispatch!(level, simd => {
        let total = weigh_maxima(simd, tops, temper);
        with_format!(row, row, F => weigh_sample::<_, F>(simd, row, vectors / wanted, temper, weights));
        (total, sum_of(simd, weights))
    });
    if total == 0 || sampled == 0 {
        return (1, MAX_WEIGHT);
    }
    let dispensable = total - target(Scalar, total, params.top_p.mantissa, params.top_p.shift);
    let budget = dispensable as f64 * weights.len() as f64 / row.len() as f64;
    let mut sparing = |share: f64| {
        let budget = (budget * share) as u64;
        let goal = Goal {
            measure: Measure::Sum,
            target: sampled.saturating_sub(budget).max(1),
            tolerance: budget / 16,
            low: 1,
            high: MAX_WEIGHT,
            hint: MAX_WEIGHT,
        };
        search(level, weights, spare, goal).threshold
    };
    // Shares that leave room for the sample's error and for what the maxima leave out.
    (sparing(0.75), sparing(2.0))
}

#[inline(always)]
fn weigh_maxima<S: Simd>(simd: S, maxima: &[f32], temper: Temper) -> u64 {
    let a = Lanes(simd);
    let (max, scale) = (a.float(temper.max), a.float(temper.scale));
    let mut sum = 0;
    for chunk in maxima.chunks(SUMMABLE * LANES) {
        let mut lanes = a.int(0);
        for vector in chunk.chunks_exact(LANES) {
            lanes += a.weights(load(simd, vector), max, scale);
        }
        sum += total(lanes);
    }
    sum
}

#[inline(always)]
fn weigh_sample<S: Simd, F: Format>(
    simd: S,
    row: &[F::Bits],
    stride: usize,
    temper: Temper,
    weights: &mut [i32],
) {
    let a = Lanes(simd);
    let (max, scale) = (a.float(temper.max), a.float(temper.scale));
    sampled::<S, F>(
        simd,
        row,
        stride,
        weights,
        #[inline(always)]
        |x| a.weights(x, max, scale),
    );
}

#[inline(always)]
fn sum_of<S: Simd>(simd: S, weights: &[i32]) -> u64 {
    let mut sum = 0;
    for chunk in weights.chunks(SUMMABLE * LANES) {
        let mut lanes = i32x16::splat(simd, 0);
        for vector in chunk.chunks_exact(LANES) {
            lanes += load::<S, i32x16<S>, i32>(simd, vector);
        }
        sum += total(lanes);
    }
    let rest = &weights[weights.len() / LANES * LANES..];
    sum + rest.iter().map(|&weight| weight as u64).sum::<u64>()
}

/// Sums of weights.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    /// Of the whole row.
    pub(super) all: u64,
    /// Of what was collected.
    pub(super) collected: u64,
}

impl Sums {
    pub(super) fn and(self, other: Sums) -> Sums {
        Sums { all: self.all + other.all, collected: self.collected + other.collected }
    }
}

/// Weighs a row without NaN and +inf and collects the weights that are at least `least`, in order. `offsets` receives
/// the number collected before each block. Returns the sums and the number collected.
pub(super) fn weigh_and_collect(
    level: Level,
    row: Logits<'_>,
    group: usize,
    (bins, tops): (&[f32], &[f32]),
    temper: Temper,
    least: i32,
    (values, offsets): (&mut [i32], &mut [u32]),
) -> (Sums, usize) {
    dispatch!(level, simd => with_format!(row, row, F => {
        weigh_and_collect_any::<_, F>(simd, row, group, (bins, tops), temper, least, (values, offsets))
    }))
}

#[inline(always)]
fn weigh_and_collect_any<S: Simd, F: Format>(
    simd: S,
    row: &[F::Bits],
    group: usize,
    maxima: (&[f32], &[f32]),
    temper: Temper,
    least: i32,
    out: (&mut [i32], &mut [u32]),
) -> (Sums, usize) {
    if S::f32s::LEN >= LANES {
        weigh_and_collect_in_halves::<S, F>(simd, row, group, maxima, temper, least, out)
    } else {
        weigh_and_collect_impl::<S, F>(simd, row, group, maxima, temper, least, out)
    }
}

/// [`weigh_and_collect_impl`] with each half of the weights' computation on several blocks before the other: one
/// operation waits for another in the halves for less long, so that a core finds more of them to start.
#[inline(always)]
fn weigh_and_collect_in_halves<S: Simd, F: Format>(
    simd: S,
    row: &[F::Bits],
    group: usize,
    (bins, tops): (&[f32], &[f32]),
    temper: Temper,
    least: i32,
    (values, offsets): (&mut [i32], &mut [u32]),
) -> (Sums, usize) {
    const FOUR: usize = 4 * LANES;
    const AT_ONCE: usize = 8;
    let a = Lanes(simd);
    let four = Several::<_, 4>(a);
    let (max, scale, least) = (a.float(temper.max), a.float(temper.scale), a.int(least));
    let floor = a.float(floor_of_weight(temper, 1));
    let blocks = Blocks::<F>::new(row);
    // Of each block `q` and its cubic.
    let mut between = [[[0_i32; BLOCK]; 2]; AT_ONCE];
    let (mut sum, mut len) = (0, 0);
    for (i, (top, offsets)) in tops.chunks_exact(LANES).zip(offsets.chunks_mut(group)).enumerate() {
        offsets.fill(len as u32);
        if !load::<S, f32x16<S>, f32>(simd, top).simd_ge(floor).any_true() {
            continue;
        }
        for (j, offsets) in offsets.chunks_mut(AT_ONCE).enumerate() {
            let first = i * group + j * AT_ONCE;
            let mut heavy = [false; AT_ONCE];
            for (j, [qs, cubics]) in between[..offsets.len()].iter_mut().enumerate() {
                let bin: f32x16<S> = load(simd, &bins[(first + j) * LANES..][..LANES]);
                heavy[j] = bin.simd_ge(floor).any_true();
                if !heavy[j] {
                    continue;
                }
                let fours = qs.as_chunks_mut::<FOUR>().0.iter_mut().zip(cubics.as_chunks_mut::<FOUR>().0);
                for (half, (qs, cubics)) in blocks.get(first + j).as_chunks::<FOUR>().0.iter().zip(fours) {
                    let (pairs, _) = half.as_chunks::<{ 2 * LANES }>();
                    let ([x0, x1], [x2, x3]) = (F::pair(simd, &pairs[0]), F::pair(simd, &pairs[1]));
                    let q = quantize(four, [max; 4], [x0, x1, x2, x3], [scale; 4]);
                    let cubic = cubic(four, q);
                    for i in 0..4 {
                        q[i].store_slice(&mut qs[i * LANES..][..LANES]);
                        cubic[i].store_slice(&mut cubics[i * LANES..][..LANES]);
                    }
                }
            }
            let mut lanes = a.int(0);
            for (j, (offset, [qs, cubics])) in offsets.iter_mut().zip(&between).enumerate() {
                *offset = len as u32;
                if !heavy[j] {
                    continue;
                }
                let mut room = Room::new(values, len);
                let fours = qs.as_chunks::<FOUR>().0.iter().zip(cubics.as_chunks::<FOUR>().0);
                for (qs, cubics) in fours {
                    let (mut q, mut cubic) = ([a.int(0); 4], [a.int(0); 4]);
                    for i in 0..4 {
                        q[i] = load(simd, &qs[i * LANES..][..LANES]);
                        cubic[i] = load(simd, &cubics[i * LANES..][..LANES]);
                    }
                    for weight in weight_of_cubic(four, q, cubic) {
                        lanes += weight;
                        room.push(weight, weight.simd_ge(least));
                    }
                }
                len += room.len();
            }
            sum += total(lanes);
        }
    }
    (Sums { all: sum, collected: sum_of(simd, &values[..len]) }, len)
}

#[inline(always)]
fn weigh_and_collect_impl<S: Simd, F: Format>(
    simd: S,
    row: &[F::Bits],
    group: usize,
    (bins, tops): (&[f32], &[f32]),
    temper: Temper,
    least: i32,
    (values, offsets): (&mut [i32], &mut [u32]),
) -> (Sums, usize) {
    let a = Lanes(simd);
    let (max, scale, least) = (a.float(temper.max), a.float(temper.scale), a.int(least));
    let floor = a.float(floor_of_weight(temper, 1));
    let blocks = Blocks::<F>::new(row);
    let (mut sum, mut lanes, mut pending, mut len) = (0, a.int(0), 0, 0);
    for (i, (top, offsets)) in tops.chunks_exact(LANES).zip(offsets.chunks_mut(group)).enumerate() {
        offsets.fill(len as u32);
        if !load::<S, f32x16<S>, f32>(simd, top).simd_ge(floor).any_true() {
            continue;
        }
        for (j, offset) in offsets.iter_mut().enumerate() {
            *offset = len as u32;
            let block = i * group + j;
            let bin: f32x16<S> = load(simd, &bins[block * LANES..][..LANES]);
            if !bin.simd_ge(floor).any_true() {
                continue;
            }
            if pending == SUMMABLE {
                sum += total(lanes);
                (lanes, pending) = (a.int(0), 0);
            }
            pending += VECTORS;
            let mut room = Room::new(values, len);
            for half in blocks.get(block).as_chunks::<{ 4 * LANES }>().0 {
                let (pairs, _) = half.as_chunks::<{ 2 * LANES }>();
                let ([x0, x1], [x2, x3]) = (F::pair(simd, &pairs[0]), F::pair(simd, &pairs[1]));
                for weight in a.weights4([x0, x1, x2, x3], max, scale) {
                    lanes += weight;
                    room.push(weight, weight.simd_ge(least));
                }
            }
            len += room.len();
        }
    }
    let all = sum + total(lanes);
    (Sums { all, collected: sum_of(simd, &values[..len]) }, len)
}

/// Weighs a row without NaN and +inf and writes, for each block, [`LANES`] sums of its weights that are at least
/// `least`. `offsets` receives the number of sums before each block. Returns their total and their number.
pub(super) fn weigh_blocks(
    level: Level,
    row: Logits<'_>,
    bins: &[f32],
    temper: Temper,
    least: i32,
    (sums, offsets): (&mut [i32], &mut [u32]),
) -> (u64, usize) {
    dispatch!(level, simd => with_format!(row, row, F => {
        weigh_blocks_impl::<_, F>(simd, row, bins, temper, least, (sums, offsets))
    }))
}

#[inline(always)]
fn weigh_blocks_impl<S: Simd, F: Format>(
    simd: S,
    row: &[F::Bits],
    bins: &[f32],
    temper: Temper,
    least: i32,
    (sums, offsets): (&mut [i32], &mut [u32]),
) -> (u64, usize) {
    let a = Lanes(simd);
    let floor = a.float(floor_of_weight(temper, least));
    let (max, scale, least) = (a.float(temper.max), a.float(temper.scale), a.int(least));
    let blocks = Blocks::<F>::new(row);
    let (mut sum, mut lanes, mut pending) = (0, a.int(0), 0);
    let bins = bins.as_chunks::<LANES>().0.iter().zip(sums.as_chunks_mut::<LANES>().0);
    for (block, (offset, (bin, out))) in offsets.iter_mut().zip(bins).enumerate() {
        *offset = (block * LANES) as u32;
        let mut here = a.int(0);
        if load::<S, f32x16<S>, f32>(simd, bin).simd_ge(floor).any_true() {
            for half in blocks.get(block).as_chunks::<{ 4 * LANES }>().0 {
                let (pairs, _) = half.as_chunks::<{ 2 * LANES }>();
                let ([x0, x1], [x2, x3]) = (F::pair(simd, &pairs[0]), F::pair(simd, &pairs[1]));
                for weight in a.weights4([x0, x1, x2, x3], max, scale) {
                    here += weight.simd_ge(least).select(weight, a.int(0));
                }
            }
        }
        here.store_slice(out);
        if pending == SUMMABLE {
            sum += total(lanes);
            (lanes, pending) = (a.int(0), 0);
        }
        pending += VECTORS;
        lanes += here;
    }
    (sum + total(lanes), offsets.len() * LANES)
}

/// The index where the running sum of the weights that are at least `least` exceeds `remainder`, from the sums that
/// [`weigh_blocks`] wrote.
pub(super) fn draw_by_blocks(
    level: Level,
    row: Logits<'_>,
    sums: &[i32],
    temper: Temper,
    least: i32,
    remainder: u64,
) -> Option<usize> {
    let (block, remainder) = dispatch!(level, simd => find_block(simd, sums, remainder))?;
    let start = block * BLOCK;
    let row = row.slice(start, BLOCK.min(row.len() - start));
    let mut weights = [0; BLOCK];
    write_weights(level, row, temper, least, &mut weights);
    Some(start + draw(level, &weights, least, remainder)?)
}

/// The block that [`draw_by_blocks`] ends in, and what is left of the remainder there.
#[inline(always)]
fn find_block<S: Simd>(simd: S, sums: &[i32], mut remainder: u64) -> Option<(usize, u64)> {
    // As many as a lane can add up.
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

/// The index of the weight at `position` among those that [`weigh_and_collect`] collected.
pub(super) fn locate(
    level: Level,
    row: Logits<'_>,
    offsets: &[u32],
    temper: Temper,
    least: i32,
    position: usize,
) -> usize {
    let block = offsets.partition_point(|&offset| offset as usize <= position) - 1;
    let mask = dispatch!(level, simd => with_format!(row, row, F => {
        block_mask::<_, F>(simd, Blocks::<F>::new(row).get(block), temper, least)
    }));
    block * BLOCK + nth_set(mask, position - offsets[block] as usize)
}

#[inline(always)]
fn block_mask<S: Simd, F: Format>(simd: S, block: &[F::Bits; BLOCK], temper: Temper, least: i32) -> u128 {
    let a = Lanes(simd);
    let (max, scale) = (a.float(temper.max), a.float(temper.scale));
    let mut mask = 0;
    let mut shift = 0;
    for_vectors!(F, simd, block, x => {
        mask |= u128::from(a.weights(x, max, scale).simd_ge(least).to_bitmask()) << shift;
        shift += LANES;
    });
    mask
}

/// The least weight that top-p and min-p keep, and the sum of the kept weights.
///
/// `weights` hold every weight of the row that is at least `least`, whole vectors; `collected` is their sum, `total`
/// that of all weights of the row. `None` where the nucleus reaches below `least`; it probably
/// does not reach up to `hint`.
pub(super) fn nucleus(
    level: Level,
    weights: &[i32],
    spare: &mut [i32],
    least: i32,
    hint: i32,
    (collected, total): (u64, u64),
    params: &RowParams,
) -> Option<Found> {
    let mut found = Found { threshold: least, measure: collected };
    if params.top_p.mantissa != 0 {
        let target = target(Scalar, total, params.top_p.mantissa, params.top_p.shift);
        if collected < target {
            return None;
        }
        let goal = Goal { measure: Measure::Sum, target, tolerance: 0, low: least, high: MAX_WEIGHT, hint };
        found = search(level, weights, spare, goal);
    }
    if params.min_weight > found.threshold {
        found.threshold = params.min_weight;
        found.measure = measure(level, weights, Measure::Sum, found.threshold);
    }
    Some(found)
}

/// The first position where the running sum of the weights that are at least `least` exceeds `remainder`.
pub(super) fn draw(level: Level, weights: &[i32], least: i32, remainder: u64) -> Option<usize> {
    dispatch!(level, simd => draw_impl(simd, weights, least, remainder))
}

#[inline(always)]
fn draw_impl<S: Simd>(simd: S, weights: &[i32], least: i32, mut remainder: u64) -> Option<usize> {
    const CHUNK: usize = 16 * LANES;
    for (i, chunk) in weights.chunks(CHUNK).enumerate() {
        let mut lanes = i32x16::splat(simd, 0);
        for vector in chunk.chunks_exact(LANES) {
            let weight: i32x16<S> = load(simd, vector);
            lanes += weight.simd_ge(least).select(weight, i32x16::splat(simd, 0));
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

/// Writes the weights of a row without top-k, 0 where below `least`.
pub(super) fn write_weights(level: Level, row: Logits<'_>, temper: Temper, least: i32, out: &mut [i32]) {
    dispatch!(level, simd => with_format!(row, row, F => {
        write_weights_impl::<_, F>(simd, row, temper, least, out)
    }));
}

#[inline(always)]
fn write_weights_impl<S: Simd, F: Format>(
    simd: S,
    row: &[F::Bits],
    temper: Temper,
    least: i32,
    out: &mut [i32],
) {
    let a = Lanes(simd);
    let (max, scale) = (a.float(temper.max), a.float(temper.scale));
    let blocks = Blocks::<F>::new(row);
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let mut weights = [0; BLOCK];
        let mut at = 0;
        for_vectors!(F, simd, blocks.get(block), x => {
            let weight = a.weights(x, max, scale);
            weight.simd_ge(least).select(weight, a.int(0)).store_slice(&mut weights[at..at + LANES]);
            at += LANES;
        });
        out.copy_from_slice(&weights[..out.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::weights::weight;

    #[test]
    fn below_the_floor_of_a_weight_all_weigh_less() {
        for max in [0.0_f32, 9.3, -1e4, 3e7, 1e30, f32::MAX] {
            for scale in [std::f32::consts::LOG2_E * 262_144.0, 40.0, 1e9, 1e-20] {
                for least in (0..24).flat_map(|bit| [1 << bit, (1 << bit) + 1, (2 << bit) - 1]) {
                    let floor = floor_of_weight(Temper { max, scale }, least);
                    let below = floor.next_down();
                    let reached = weight(Scalar, quantize(Scalar, max, below, scale));
                    assert!(floor == f32::NEG_INFINITY || reached < least, "{max} {scale} {least}");
                }
            }
        }
    }
}
