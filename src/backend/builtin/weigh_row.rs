//! Passes that compute the weights of a whole row without top-k. The row holds neither NaN nor +inf.

use fearless_simd::{dispatch, f32x16, i32x16, prelude::*, Level, Simd};

use super::blocks::{BlockOutput, Blocks};
use super::element::{with_element, Element};
use super::interleaved::Interleaved;
use super::lanes::{load, sum_of_weights, total, Lanes, LANES, SUMMABLE};
use super::layout::{BLOCK, VECTORS};
use super::weighing::{WeightLanes, WeightScale};
use crate::dtype::Logits;
use crate::semantics::arith::Arith;
use crate::semantics::rules::kept_weight;
use crate::semantics::weights::{cubic, quantize, weight_of_cubic};

/// The number of elements in four vectors.
const FOUR: usize = 4 * LANES;

/// Sums of weights of a row or of a part of it.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    /// The sum of all weights.
    pub(super) all: u64,
    /// The sum of the collected weights.
    pub(super) collected: u64,
}

impl Sums {
    /// Adds the sums of two parts.
    pub(super) fn and(self, other: Sums) -> Sums {
        Sums { all: self.all + other.all, collected: self.collected + other.collected }
    }
}

/// Computes the weights of a row and collects those that are at least `least`, in order. For each block, writes the
/// number of weights collected before it to `offsets`. Returns the sums and the number of collected weights.
pub(super) fn weigh_and_collect(
    level: Level,
    row: Logits<'_>,
    group: usize,
    (bins, tops): (&[f32], &[f32]),
    scale: WeightScale,
    least: i32,
    (values, offsets): (&mut [i32], &mut [u32]),
) -> (Sums, usize) {
    dispatch!(level, simd => with_element!(row, row, E => {
        weigh_and_collect_any::<_, E>(simd, row, group, (bins, tops), scale, least, (values, offsets))
    }))
}

#[inline(always)]
fn weigh_and_collect_any<S: Simd, E: Element>(
    simd: S,
    row: &[E::Bits],
    group: usize,
    maxima: (&[f32], &[f32]),
    scale: WeightScale,
    least: i32,
    out: (&mut [i32], &mut [u32]),
) -> (Sums, usize) {
    if S::f32s::LEN >= LANES {
        weigh_and_collect_in_halves::<S, E>(simd, row, group, maxima, scale, least, out)
    } else {
        weigh_and_collect_impl::<S, E>(simd, row, group, maxima, scale, least, out)
    }
}

/// The intermediate results of the weights of a block: `q` and [`cubic`] of each element.
type Halves = [[i32; BLOCK]; 2];

/// Does the same as [`weigh_and_collect_impl`], but in two steps. It computes the intermediate results of several
/// blocks, and then their weights. This shortens the chains of dependent operations, so the CPU core executes more
/// operations in parallel.
#[inline(always)]
fn weigh_and_collect_in_halves<S: Simd, E: Element>(
    simd: S,
    row: &[E::Bits],
    group: usize,
    (bins, tops): (&[f32], &[f32]),
    scale: WeightScale,
    least: i32,
    (values, offsets): (&mut [i32], &mut [u32]),
) -> (Sums, usize) {
    const AT_ONCE: usize = 8;
    let a = Lanes(simd);
    let floor = a.float(scale.floor(1));
    let (scale, least) = (scale.lanes(simd), a.int(least));
    let blocks = Blocks::<E>::new(row);
    let mut halves: [Halves; AT_ONCE] = [[[0; BLOCK]; 2]; AT_ONCE];
    let (mut sum, mut len) = (0, 0);
    for (i, (top, offsets)) in tops.chunks_exact(LANES).zip(offsets.chunks_mut(group)).enumerate() {
        offsets.fill(len as u32);
        if !load::<S, f32x16<S>, f32>(simd, top).simd_ge(floor).any_true() {
            continue;
        }
        for (j, offsets) in offsets.chunks_mut(AT_ONCE).enumerate() {
            let first = i * group + j * AT_ONCE;
            let mut heavy = [false; AT_ONCE];
            for (j, halves) in halves[..offsets.len()].iter_mut().enumerate() {
                let bin: f32x16<S> = load(simd, &bins[(first + j) * LANES..][..LANES]);
                heavy[j] = bin.simd_ge(floor).any_true();
                if heavy[j] {
                    first_halves::<S, E>(simd, blocks.get(first + j), scale, halves);
                }
            }
            let mut lanes = a.int(0);
            for (j, (offset, halves)) in offsets.iter_mut().zip(&halves).enumerate() {
                *offset = len as u32;
                if heavy[j] {
                    let mut output = BlockOutput::new(values, len);
                    second_halves(simd, halves, least, &mut lanes, &mut output);
                    len += output.len();
                }
            }
            sum += total(lanes);
        }
    }
    (Sums { all: sum, collected: sum_of_weights(simd, &values[..len]) }, len)
}

#[inline(always)]
fn first_halves<S: Simd, E: Element>(
    simd: S,
    block: &[E::Bits; BLOCK],
    scale: WeightLanes<S>,
    [qs, cubics]: &mut Halves,
) {
    let four = Interleaved::<_, 4>(Lanes(simd));
    let fours = qs.as_chunks_mut::<FOUR>().0.iter_mut().zip(cubics.as_chunks_mut::<FOUR>().0);
    for (elements, (qs, cubics)) in block.as_chunks::<FOUR>().0.iter().zip(fours) {
        let q = quantize(four, [scale.max; 4], four_vectors::<S, E>(simd, elements), [scale.scale; 4]);
        let cubic = cubic(four, q);
        for i in 0..4 {
            q[i].store_slice(&mut qs[i * LANES..][..LANES]);
            cubic[i].store_slice(&mut cubics[i * LANES..][..LANES]);
        }
    }
}

/// Computes the weights of a block from the intermediate results. Adds the weights to `lanes`, and collects those that
/// are at least `least`.
#[inline(always)]
fn second_halves<S: Simd>(
    simd: S,
    [qs, cubics]: &Halves,
    least: i32x16<S>,
    lanes: &mut i32x16<S>,
    output: &mut BlockOutput<'_>,
) {
    let a = Lanes(simd);
    let four = Interleaved::<_, 4>(a);
    for (qs, cubics) in qs.as_chunks::<FOUR>().0.iter().zip(cubics.as_chunks::<FOUR>().0) {
        let (mut q, mut cubic) = ([a.int(0); 4], [a.int(0); 4]);
        for i in 0..4 {
            q[i] = load(simd, &qs[i * LANES..][..LANES]);
            cubic[i] = load(simd, &cubics[i * LANES..][..LANES]);
        }
        for weight in weight_of_cubic(four, q, cubic) {
            *lanes += weight;
            output.push(weight, weight.simd_ge(least));
        }
    }
}

#[inline(always)]
fn four_vectors<S: Simd, E: Element>(simd: S, elements: &[E::Bits; FOUR]) -> [f32x16<S>; 4] {
    let (pairs, _) = elements.as_chunks::<{ 2 * LANES }>();
    let ([x0, x1], [x2, x3]) = (E::pair(simd, &pairs[0]), E::pair(simd, &pairs[1]));
    [x0, x1, x2, x3]
}

#[inline(always)]
fn weigh_and_collect_impl<S: Simd, E: Element>(
    simd: S,
    row: &[E::Bits],
    group: usize,
    (bins, tops): (&[f32], &[f32]),
    scale: WeightScale,
    least: i32,
    (values, offsets): (&mut [i32], &mut [u32]),
) -> (Sums, usize) {
    let a = Lanes(simd);
    let floor = a.float(scale.floor(1));
    let (scale, least) = (scale.lanes(simd), a.int(least));
    let blocks = Blocks::<E>::new(row);
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
            let mut output = BlockOutput::new(values, len);
            for elements in blocks.get(block).as_chunks::<FOUR>().0 {
                for weight in scale.weights4(four_vectors::<S, E>(simd, elements)) {
                    lanes += weight;
                    output.push(weight, weight.simd_ge(least));
                }
            }
            len += output.len();
        }
    }
    let all = sum + total(lanes);
    (Sums { all, collected: sum_of_weights(simd, &values[..len]) }, len)
}

/// Computes the weights of a row. For each block, writes [`LANES`] sums of the weights that are at least `least` to
/// `sums`, and the number of sums before the block to `offsets`. Returns the total of the sums and their number.
pub(super) fn weigh_blocks(
    level: Level,
    row: Logits<'_>,
    bins: &[f32],
    scale: WeightScale,
    least: i32,
    (sums, offsets): (&mut [i32], &mut [u32]),
) -> (u64, usize) {
    dispatch!(level, simd => with_element!(row, row, E => {
        weigh_blocks_impl::<_, E>(simd, row, bins, scale, least, (sums, offsets))
    }))
}

#[inline(always)]
fn weigh_blocks_impl<S: Simd, E: Element>(
    simd: S,
    row: &[E::Bits],
    bins: &[f32],
    scale: WeightScale,
    least: i32,
    (sums, offsets): (&mut [i32], &mut [u32]),
) -> (u64, usize) {
    let a = Lanes(simd);
    let floor = a.float(scale.floor(least));
    let (scale, least) = (scale.lanes(simd), a.int(least));
    let blocks = Blocks::<E>::new(row);
    let (mut sum, mut lanes, mut pending) = (0, a.int(0), 0);
    let bins = bins.as_chunks::<LANES>().0.iter().zip(sums.as_chunks_mut::<LANES>().0);
    for (block, (offset, (bin, out))) in offsets.iter_mut().zip(bins).enumerate() {
        *offset = (block * LANES) as u32;
        let mut here = a.int(0);
        if load::<S, f32x16<S>, f32>(simd, bin).simd_ge(floor).any_true() {
            for elements in blocks.get(block).as_chunks::<FOUR>().0 {
                for weight in scale.weights4(four_vectors::<S, E>(simd, elements)) {
                    here += kept_weight(a, weight, least);
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
