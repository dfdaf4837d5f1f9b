//! Computes the weights of logits, which are neither NaN nor +inf, and writes the weights to arrays.

use fearless_simd::{dispatch, f32x16, i32x16, prelude::*, Level, Simd};

use super::blocks::{for_vectors, Blocks};
use super::element::{with_element, Element};
use super::interleaved::Interleaved;
use super::lanes::{load, Lanes, WeightSum, LANES};
use super::layout::{BLOCK, VECTORS};
use super::pages::pad_page;
use super::top_k::Kept;
use crate::dtype::Logits;
use crate::semantics::arith::Arith;
use crate::semantics::clean::order_key;
use crate::semantics::rules::{kept_weight, survives_top_k};
use crate::semantics::sizes::WEIGHT_BITS;
use crate::semantics::weights::{quantize, weight};

/// The two values of a row that determine the weight of a logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct WeightScale {
    /// The row's maximum, cleaned.
    pub(super) max: f32,
    /// See [`crate::semantics::params::RowParams::scale`].
    pub(super) scale: f32,
}

/// [`WeightScale`] in SIMD lanes.
#[derive(Clone, Copy)]
pub(super) struct WeightLanes<S: Simd> {
    a: Lanes<S>,
    pub(super) max: f32x16<S>,
    pub(super) scale: f32x16<S>,
}

impl WeightScale {
    #[inline(always)]
    pub(super) fn lanes<S: Simd>(self, simd: S) -> WeightLanes<S> {
        let a = Lanes(simd);
        WeightLanes { a, max: a.float(self.max), scale: a.float(self.scale) }
    }

    /// A lower limit for logits. Every logit below it has a weight less than `least`. `least` is at least 1.
    pub(super) fn floor(self, least: i32) -> f32 {
        // The constants include a margin for the error of a weight (2⁻¹⁸ relative plus 0.5 absolute) and for the
        // rounding errors of this computation. Up to a distance of `WEIGHT_BITS + 1` octaves, a weight can be 1. If
        // `least` is at least 7, a margin of an eighth of an octave is enough for the absolute error:
        // 7 · 2^(-1/8) + 0.5 < 7.
        let bits = WEIGHT_BITS as f32 + 0.125;
        let octaves = if least < 8 { bits + 1.0 } else { bits - (least as f32).log2() };
        // Beyond this distance below the maximum, every weight is less than `least`.
        let reach = octaves * (1 << 18) as f32 / self.scale;
        // Rounding the difference is harmless, because no f32 lies between the exact result and the rounded result.
        self.max - reach
    }
}

impl<S: Simd> WeightLanes<S> {
    /// The weights of a vector.
    // A subnormal needs no cleaning. It is too small to change `q`, so it does not matter whether the machine flushes
    // it.
    #[inline(always)]
    pub(super) fn weights(&self, x: f32x16<S>) -> i32x16<S> {
        weight(self.a, quantize(self.a, self.max, x, self.scale))
    }

    /// The weights of four vectors. With wide registers, their computations are interleaved.
    #[inline(always)]
    pub(super) fn weights4(&self, x: [f32x16<S>; 4]) -> [i32x16<S>; 4] {
        let (max, scale) = (self.max, self.scale);
        if S::f32s::LEN >= LANES / 2 {
            let four = Interleaved::<_, 4>(self.a);
            weight(four, quantize(four, [max; 4], x, [scale; 4]))
        } else {
            [self.weights(x[0]), self.weights(x[1]), self.weights(x[2]), self.weights(x[3])]
        }
    }

    /// The weights of eight vectors. Their computations are interleaved. If a register has fewer than sixteen lanes,
    /// four vectors are often faster.
    #[inline(always)]
    pub(super) fn weights8(&self, x: [f32x16<S>; VECTORS]) -> [i32x16<S>; VECTORS] {
        let eight = Interleaved::<_, VECTORS>(self.a);
        weight(eight, quantize(eight, [self.max; VECTORS], x, [self.scale; VECTORS]))
    }
}

/// Writes the weights of collected keys. The weight of padding and of keys that top-k does not keep is 0. Returns the
/// sum of the weights.
pub(super) fn weigh_collected(
    level: Level,
    keys: &[i32],
    kept: Kept,
    scale: WeightScale,
    weights: &mut [i32],
) -> u64 {
    dispatch!(level, simd => {
        // Processes four vectors at a time, and then the last vectors one at a time.
        let fours = keys.len() / (4 * LANES) * (4 * LANES);
        let (first, last) = weights.split_at_mut(fours);
        weigh_collected_impl::<_, 4>(simd, &keys[..fours], kept, 0, scale, first)
            + weigh_collected_impl::<_, 1>(simd, &keys[fours..], kept, fours, scale, last)
    })
}

#[inline(always)]
fn weigh_collected_impl<S: Simd, const N: usize>(
    simd: S,
    keys: &[i32],
    kept: Kept,
    first: usize,
    scale: WeightScale,
    weights: &mut [i32],
) -> u64 {
    let a = Lanes(simd);
    let scale = scale.lanes(simd);
    let iota = i32x16::from_fn(
        simd,
        #[inline(always)]
        |i| i as i32,
    );
    let (threshold, last_tie) = (a.int(kept.threshold), a.int(kept.last_tie));
    let mut sum = WeightSum::new(simd);
    for i in (0..keys.len()).step_by(N * LANES) {
        let mut x = [scale.max; 4];
        for j in 0..N {
            x[j] = a.from_bits(order_key(a, load(simd, &keys[i + j * LANES..][..LANES])));
        }
        let sampled = if N == 4 { scale.weights4(x) } else { [scale.weights(x[0]); 4] };
        let mut lanes = a.int(0);
        for (j, &sampled) in sampled[..N].iter().enumerate() {
            let at = i + j * LANES;
            let key: i32x16<S> = load(simd, &keys[at..at + LANES]);
            let position = iota + (first + at) as i32;
            let survives = survives_top_k(a, key, position, threshold, last_tie);
            // This is `rules::row_weight` for a row that is not greedy. This function is not called for greedy rows.
            let weight = a.select(survives, sampled, a.int(0));
            weight.store_slice(&mut weights[at..at + LANES]);
            lanes += weight;
        }
        sum.add(lanes);
    }
    sum.total()
}

/// Replaces the bits of `len` collected logits by their weights, and pads the array to groups of four vectors with 0. A
/// weight below `least` becomes 0. Returns the padded length and the sum of the weights. `values` has at least the
/// padded length.
pub(super) fn weigh_in_place(
    level: Level,
    values: &mut [i32],
    len: usize,
    scale: WeightScale,
    least: i32,
) -> (usize, u64) {
    let values = pad_page(values, len);
    let sum = dispatch!(level, simd => weigh_in_place_impl(simd, values, scale, least));
    (values.len(), sum)
}

#[inline(always)]
fn weigh_in_place_impl<S: Simd>(simd: S, values: &mut [i32], scale: WeightScale, least: i32) -> u64 {
    let a = Lanes(simd);
    let (scale, least) = (scale.lanes(simd), a.int(least));
    let mut sum = WeightSum::new(simd);
    for four in values.as_chunks_mut::<{ 4 * LANES }>().0 {
        let four = four.as_chunks_mut::<LANES>().0;
        let mut x = [scale.max; 4];
        for i in 0..4 {
            x[i] = a.from_bits(load(simd, &four[i]));
        }
        let weights = scale.weights4(x);
        let mut lanes = a.int(0);
        for i in 0..4 {
            let weight = kept_weight(a, weights[i], least);
            weight.store_slice(&mut four[i]);
            lanes += weight;
        }
        sum.add(lanes);
    }
    sum.total()
}

/// Writes the weights of a row without top-k. Writes 0 for a weight below `least`.
pub(super) fn write_weights(level: Level, row: Logits<'_>, scale: WeightScale, least: i32, out: &mut [i32]) {
    dispatch!(level, simd => with_element!(row, row, E => {
        write_weights_impl::<_, E>(simd, row, scale, least, out)
    }));
}

#[inline(always)]
fn write_weights_impl<S: Simd, E: Element>(
    simd: S,
    row: &[E::Bits],
    scale: WeightScale,
    least: i32,
    out: &mut [i32],
) {
    let a = Lanes(simd);
    let (scale, least) = (scale.lanes(simd), a.int(least));
    let blocks = Blocks::<E>::new(row);
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let mut weights = [0; BLOCK];
        let mut at = 0;
        for_vectors!(E, simd, blocks.get(block), x => {
            kept_weight(a, scale.weights(x), least).store_slice(&mut weights[at..at + LANES]);
            at += LANES;
        });
        out.copy_from_slice(&weights[..out.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::arith::Scalar;

    #[test]
    fn every_weight_below_the_floor_is_less() {
        for max in [0.0_f32, 9.3, -1e4, 3e7, 1e30, f32::MAX] {
            for scale in [std::f32::consts::LOG2_E * 262_144.0, 40.0, 1e9, 1e-20] {
                for least in (0..WEIGHT_BITS).flat_map(|bit| [1 << bit, (1 << bit) + 1, (2 << bit) - 1]) {
                    let floor = WeightScale { max, scale }.floor(least);
                    let below = floor.next_down();
                    let reached = weight(Scalar, quantize(Scalar, max, below, scale));
                    assert!(floor == f32::NEG_INFINITY || reached < least, "{max} {scale} {least}");
                }
            }
        }
    }
}
