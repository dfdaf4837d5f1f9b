//! Passes that compute the weights of a whole row without top-k. The row holds neither NaN nor +inf.

use fearless_simd::{dispatch, f32x16, i32x16, prelude::*, Level, Simd};

use super::blocks::{reaches, BlockOutput, Blocks};
use super::element::{with_element, Element, F32};
use super::lanes::{load, sum_of_weights, Lanes, WeightSum, LANES};
use super::layout::{BIN, BLOCK, VECTORS};
use super::pages::{pad_page, Pages};
use super::weighing::{WeightLanes, WeightScale};
use crate::dtype::Logits;
use crate::semantics::arith::Arith;
use crate::semantics::rules::kept_weight;
use crate::semantics::sizes::SUMMABLE;

/// The number of elements in four vectors.
const FOUR: usize = 4 * LANES;
// A 32-bit lane can hold the sum of the weights that a block has in this lane.
const _: () = assert!(VECTORS <= SUMMABLE);

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
        weigh_and_collect_impl::<_, E>(simd, row, group, (bins, tops), scale, least, (values, offsets))
    }))
}

#[inline(always)]
fn four_vectors<S: Simd, E: Element>(simd: S, elements: &[E::Bits; FOUR]) -> [f32x16<S>; 4] {
    let (pairs, _) = elements.as_chunks::<{ 2 * LANES }>();
    let ([x0, x1], [x2, x3]) = (E::pair(simd, &pairs[0]), E::pair(simd, &pairs[1]));
    [x0, x1, x2, x3]
}

/// [`four_vectors`] with the elements in any order.
#[inline(always)]
fn four_unordered<S: Simd, E: Element>(simd: S, elements: &[E::Bits; FOUR]) -> [f32x16<S>; 4] {
    let (pairs, _) = elements.as_chunks::<{ 2 * LANES }>();
    let ([x0, x1], [x2, x3]) = (E::unordered_pair(simd, &pairs[0]), E::unordered_pair(simd, &pairs[1]));
    [x0, x1, x2, x3]
}

/// Calls a function with the weights of each vector of a block, in order.
#[inline(always)]
fn for_weights<S: Simd, E: Element>(
    simd: S,
    scale: &WeightLanes<S>,
    block: &[E::Bits; BLOCK],
    function: impl FnMut(i32x16<S>),
) {
    let mut function = function;
    if S::f32s::LEN == LANES {
        let fours = block.as_chunks::<FOUR>().0;
        let ([a, b, c, d], [e, f, g, h]) =
            (four_vectors::<S, E>(simd, &fours[0]), four_vectors::<S, E>(simd, &fours[1]));
        for weight in scale.weights8([a, b, c, d, e, f, g, h]) {
            function(weight);
        }
        return;
    }
    for four in block.as_chunks::<FOUR>().0 {
        for weight in scale.weights4(four_vectors::<S, E>(simd, four)) {
            function(weight);
        }
    }
}

/// The sum of the weights of a block, lane by lane, with the lanes in any order. If `ALL` is false, only weights of at
/// least `least` count.
#[inline(always)]
fn sum_of_block<S: Simd, E: Element, const ALL: bool>(
    simd: S,
    scale: &WeightLanes<S>,
    block: &[E::Bits; BLOCK],
    least: i32x16<S>,
) -> i32x16<S> {
    // If a register has eight lanes, the processor has too few registers for eight vectors. For 16-bit types, eight
    // vectors are still faster than four, on AMD Zen 5 and on an Intel Xeon.
    let is_narrow = size_of::<E::Bits>() < size_of::<f32>();
    if S::f32s::LEN == LANES || (S::f32s::LEN == LANES / 2 && is_narrow) {
        let fours = block.as_chunks::<FOUR>().0;
        let ([a, b, c, d], [e, f, g, h]) =
            (four_unordered::<S, E>(simd, &fours[0]), four_unordered::<S, E>(simd, &fours[1]));
        let [a, b, c, d, e, f, g, h] = scale.weights8([a, b, c, d, e, f, g, h]);
        return sum_of_four::<S, ALL>([a, b, c, d], least) + sum_of_four::<S, ALL>([e, f, g, h], least);
    }
    sum_of_fours::<S, E, ALL>(simd, scale, block, least)
}

/// [`sum_of_block`] for any number of groups of four vectors.
#[inline(always)]
fn sum_of_fours<S: Simd, E: Element, const ALL: bool>(
    simd: S,
    scale: &WeightLanes<S>,
    elements: &[E::Bits],
    least: i32x16<S>,
) -> i32x16<S> {
    let mut sum = Lanes(simd).int(0);
    for four in elements.as_chunks::<FOUR>().0 {
        sum += sum_of_four::<S, ALL>(scale.weights4(four_unordered::<S, E>(simd, four)), least);
    }
    sum
}

/// The sum of four vectors of weights. If `ALL` is false, only weights of at least `least` count.
#[inline(always)]
fn sum_of_four<S: Simd, const ALL: bool>(weights: [i32x16<S>; 4], least: i32x16<S>) -> i32x16<S> {
    let mut w = weights;
    if !ALL {
        for weight in &mut w {
            *weight = kept_weight(Lanes(least.simd), *weight, least);
        }
    }
    // The additions form a tree. In a running sum, each addition would wait for the previous one.
    (w[0] + w[1]) + (w[2] + w[3])
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
    let floor = scale.floor(1);
    let (scale, least) = (scale.lanes(simd), a.int(least));
    let blocks = Blocks::<E>::new(row);
    let (mut sum, mut len) = (WeightSum::new(simd), 0);
    for (i, (top, offsets)) in tops.chunks_exact(LANES).zip(offsets.chunks_mut(group)).enumerate() {
        offsets.fill(len as u32);
        if !load::<S, f32x16<S>, f32>(simd, top).simd_ge(floor).any_true() {
            continue;
        }
        let first = i * group;
        let mut rest = offsets.iter_mut().zip(bins[first * BIN..].as_chunks::<BIN>().0);
        for blocks in blocks.range(first..first + rest.len()) {
            for (block, (offset, bin)) in blocks.iter().zip(&mut rest) {
                *offset = len as u32;
                if !reaches(simd, bin, floor) {
                    continue;
                }
                let mut lanes = a.int(0);
                let mut output = BlockOutput::new(values, len);
                for_weights::<S, E>(
                    simd,
                    &scale,
                    block,
                    #[inline(always)]
                    |weight| {
                        lanes += weight;
                        output.push(weight, weight.simd_ge(least));
                    },
                );
                sum.add(lanes);
                len += output.len();
            }
        }
    }
    (Sums { all: sum.total(), collected: sum_of_weights(simd, &values[..len]) }, len)
}

/// Evaluates an expression that uses a constant: whether all weights are at least `least` or 0.
macro_rules! with_least {
    ($least:expr, $all:ident => $run:expr) => {
        // A weight below 1 is 0.
        if $least <= 1 {
            const $all: bool = true;
            $run
        } else {
            const $all: bool = false;
            $run
        }
    };
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
        with_least!(least, ALL => {
            weigh_blocks_impl::<_, E, ALL>(simd, row, bins, scale, least, (sums, offsets))
        })
    }))
}

/// Computes the weights of logits that a pass collected in pages. Like [`weigh_blocks`], but a block consists of
/// collected logits, and no block is skipped. `values` contains the bits of the logits, and `counts` the number of
/// logits of each page. Changes values after the last logit of a page.
pub(super) fn weigh_pages(
    level: Level,
    pages: Pages,
    (values, counts): (&mut [i32], &[u32]),
    scale: WeightScale,
    least: i32,
    sums: &mut [i32],
) -> (u64, usize) {
    dispatch!(level, simd => with_least!(least, ALL => {
        weigh_pages_impl::<_, ALL>(simd, pages, (values, counts), scale, least, sums)
    }))
}

#[inline(always)]
fn weigh_pages_impl<S: Simd, const ALL: bool>(
    simd: S,
    pages: Pages,
    (values, counts): (&mut [i32], &[u32]),
    scale: WeightScale,
    least: i32,
    sums: &mut [i32],
) -> (u64, usize) {
    let a = Lanes(simd);
    let (scale, least) = (scale.lanes(simd), a.int(least));
    let mut sum = WeightSum::new(simd);
    let sums = sums.as_chunks_mut::<LANES>().0;
    let mut len = 0;
    let values = values[pages.start..].chunks_mut(pages.len);
    for (page, (values, &count)) in values.zip(&counts[..pages.count]).enumerate() {
        let first = page * pages.blocks();
        sums[len..first].fill([0; LANES]);
        len = first;
        let logits: &[f32] = bytemuck::cast_slice(pad_page(values, count as usize));
        for block in logits.chunks(BLOCK) {
            let here = match block.try_into() {
                Ok(whole) => sum_of_block::<S, F32, ALL>(simd, &scale, whole, least),
                // The last block of a page can be shorter.
                Err(_) => sum_of_fours::<S, F32, ALL>(simd, &scale, block, least),
            };
            here.store_slice(&mut sums[len]);
            sum.add(here);
            len += 1;
        }
    }
    (sum.total(), len * LANES)
}

/// Writes [`LANES`] sums of weights for each block of a row. The sums of a block are 0 if no logit of the block reaches
/// the floor of `least`.
#[inline(always)]
fn weigh_blocks_impl<S: Simd, E: Element, const ALL: bool>(
    simd: S,
    row: &[E::Bits],
    bins: &[f32],
    scale: WeightScale,
    least: i32,
    (sums, offsets): (&mut [i32], &mut [u32]),
) -> (u64, usize) {
    for (block, offset) in offsets.iter_mut().enumerate() {
        *offset = (block * LANES) as u32;
    }
    let a = Lanes(simd);
    let floor = scale.floor(least);
    let (scale, least) = (scale.lanes(simd), a.int(least));
    let bins = &bins.as_chunks::<BIN>().0[..offsets.len()];
    let mut sum = WeightSum::new(simd);
    let mut out = bins.iter().zip(sums.as_chunks_mut::<LANES>().0);
    for blocks in Blocks::<E>::new(row).range(0..bins.len()) {
        for (block, (bin, out)) in blocks.iter().zip(&mut out) {
            let mut here = a.int(0);
            if reaches(simd, bin, floor) {
                here = sum_of_block::<S, E, ALL>(simd, &scale, block, least);
            }
            here.store_slice(out);
            sum.add(here);
        }
    }
    (sum.total(), bins.len() * LANES)
}

#[cfg(test)]
mod tests {
    use super::super::draw::draw_by_blocks;
    use super::*;
    use crate::semantics::arith::Scalar;
    use crate::semantics::weights::{quantize, weight};

    /// The sums and the draws are those of the weights of the collected logits. What the arrays contained before has no
    /// effect.
    #[test]
    fn weighs_the_collected_logits_of_pages() {
        const PAGE: usize = 1024;
        const COUNTS: [u32; 9] = [3, 0, 1, 64, 65, 128, 1023, 1024, 100];
        let scale = WeightScale { max: 3.0, scale: 378_193.6 };
        // The last page has two blocks.
        let pages = Pages { start: 5, len: PAGE, count: COUNTS.len() };
        let blocks = (COUNTS.len() - 1) * PAGE / BLOCK + 2;
        for least in [1, 1 << 20] {
            let mut values = vec![i32::MAX; pages.start + blocks * BLOCK + LANES];
            let mut weights = vec![0; blocks * BLOCK];
            for (page, &count) in COUNTS.iter().enumerate() {
                for i in 0..count as usize {
                    let (at, x) = (page * PAGE + i, 3.0 - ((page * 37 + i * 101) % 23) as f32);
                    values[pages.start + at] = x.to_bits() as i32;
                    let found = weight(Scalar, quantize(Scalar, scale.max, x, scale.scale));
                    weights[at] = kept_weight(Scalar, found, least);
                }
            }
            let mut sums = vec![i32::MAX; blocks * LANES];
            let level = Level::new();
            let (total, len) = weigh_pages(level, pages, (&mut values, &COUNTS), scale, least, &mut sums);
            assert_eq!(total, weights.iter().map(|&weight| weight as u64).sum::<u64>());
            let logits = Logits::F32(bytemuck::cast_slice(&values[pages.start..]));
            let mut before = 0;
            for (position, &weight) in weights.iter().enumerate() {
                let weight = weight as u64;
                // The first and the last random number that draw this logit.
                for remainder in [before, (before + weight).saturating_sub(1)] {
                    if weight > 0 {
                        let drawn = draw_by_blocks(level, logits, &sums[..len], scale, least, remainder);
                        assert_eq!(drawn, Some(position), "remainder {remainder}, least {least}");
                    }
                }
                before += weight;
            }
            assert_eq!(draw_by_blocks(level, logits, &sums[..len], scale, least, total), None);
        }
    }
}
