//! Bounds on the sum of the weights of a row's small entries. Computing them takes a fraction of the time of exact
//! weights.

use fearless_simd::{dispatch, f32x16, i32x16, prelude::*, Level, Simd};

use super::blocks::{reaches, Blocks};
use super::element::{with_element, Element};
use super::lanes::LANES;
use super::layout::{BIN, BLOCK};
use super::weighing::WeightScale;
use crate::dtype::Logits;
use crate::semantics::sizes::WEIGHT_BITS;
use crate::semantics::weights::OCTAVE_BITS;

/// The pass skips a block if all of its weights are below this limit.
const LEAST_READ: i32 = 8;
/// The number of blocks whose weights are added in f32 lanes. The relative error of these sums is below [`SUM_ERROR`]:
/// the sum of a lane has at most 40 dependent additions, and each of them has a relative error of at most 2⁻²⁴.
const GROUP: usize = 32;
const SUM_ERROR: f64 = 1e-5;
/// The least and the largest value of the quotient `(mean of Lines::at) / (power of two)`. In the first half of an
/// octave, the quotient at the fraction `f` is `(a + b · f) / 2^f` with `a = (1 + 1.5 / √2) / 2` and
/// `b = (1 + 1 / √2) / 2`. It is least at `f = 0` and largest at `f = 1 / ln 2 − a / b`. The second half has the same
/// quotients.
const LEAST_QUOTIENT: f64 = 1.030_330;
const LARGEST_QUOTIENT: f64 = 1.045_891;
/// An upper limit of the sum of the other relative errors. A weight contributes at most 4e-6 (2⁻¹⁸), and `q` at most
/// 4e-6 (1.5 units of 2⁻¹⁸ octaves). The rounding of the straight lines contributes at most 9e-6 (the bits of a float
/// are rounded to a multiple of 128).
const OTHER_ERRORS: f64 = 1e-4;

/// Returns a lower and an upper bound on the sum of all weights of logits below `bound`. `reaching` is the number of
/// logits that are at least `bound`, and `bins` contains the block maxima. Returns `None` if the scale is too large or
/// if the weights below the bound are tiny.
///
/// The mean of two functions approximates each power of two. Each function consists of straight lines. In the first
/// function, the lines connect the values at whole octaves. In the second function, they connect the values in the
/// middles of the octaves (N. N. Schraudolph, "A fast, compact approximation of the exponential function", 1999).
pub(super) fn tail_bounds(
    level: Level,
    row: Logits<'_>,
    bins: &[f32],
    scale: WeightScale,
    bound: f32,
    reaching: usize,
) -> Option<(u64, u64)> {
    let lines = Lines::new(scale, bound)?;
    let floor = scale.floor(LEAST_READ);
    if bound < floor {
        return None;
    }
    let sums = dispatch!(level, simd => with_element!(row, row, E => {
        sum_of_lines::<_, E>(simd, row, bins, lines, floor)
    }));
    let lines = mean(sums.lines);
    // The sum contains the value at the bound for each logit that reaches the bound.
    let tail = lines - reaching as f64 * mean(sums.at_bound);
    let error = lines * SUM_ERROR;
    let rounding = 0.5 * (sums.blocks_read * BLOCK) as f64;
    let unread = (bins.len() / BIN - sums.blocks_read) * BLOCK;
    let low = (tail - error) * (1.0 - OTHER_ERRORS) / LARGEST_QUOTIENT - rounding;
    let high = (tail + error) * (1.0 + OTHER_ERRORS) / LEAST_QUOTIENT
        + rounding
        + unread as f64 * f64::from(LEAST_READ - 1);
    Some((low.max(0.0) as u64, high.max(0.0).ceil() as u64))
}

/// The mean of the values of the two functions that [`Lines::at`] returns.
fn mean([whole, half]: [f64; 2]) -> f64 {
    (whole + half * std::f64::consts::FRAC_1_SQRT_2) / 2.0
}

/// The two functions of straight lines, for a logit. They compute the bits of a float as a number. Each whole octave of
/// distance from the maximum decreases the exponent by 1. The fraction of an octave decreases the mantissa.
#[derive(Clone, Copy)]
struct Lines {
    max: f32,
    /// A logit above this bound counts as the bound.
    bound: f32,
    slope: f32,
}

/// Values of both functions.
struct Sums {
    /// The sums of the functions over all logits that were read. A logit above the bound counts as the bound.
    lines: [f64; 2],
    at_bound: [f64; 2],
    blocks_read: usize,
}

impl Lines {
    const MANTISSA_BITS: u32 = 23;
    /// The bits of 2^[`WEIGHT_BITS`], as a number.
    const AT_MAX: f32 = ((127 + WEIGHT_BITS) << Self::MANTISSA_BITS) as f32;
    /// The bits of the least normal float, as a number.
    const LEAST: f32 = (1 << Self::MANTISSA_BITS) as f32;
    const HALF_OCTAVE: i32 = 1 << (Self::MANTISSA_BITS - 1);

    fn new(scale: WeightScale, bound: f32) -> Option<Lines> {
        let slope = -scale.scale * (1 << (Self::MANTISSA_BITS - OCTAVE_BITS)) as f32;
        slope.is_finite().then_some(Lines { max: scale.max, bound, slope })
    }

    /// The function with lines between whole octaves, and √2 times the function with lines between half octaves.
    #[inline(always)]
    fn at<S: Simd>(self, x: f32x16<S>) -> [f32x16<S>; 2] {
        let simd = x.simd;
        let distance = f32x16::splat(simd, self.max) - x.min(f32x16::splat(simd, self.bound));
        let bits = distance.mul_add(f32x16::splat(simd, self.slope), f32x16::splat(simd, Self::AT_MAX));
        let bits: i32x16<S> = bits.max(f32x16::splat(simd, Self::LEAST)).to_int();
        [bits.bitcast(), (bits + Self::HALF_OCTAVE).bitcast()]
    }
}

#[inline(always)]
fn sum_of_lines<S: Simd, E: Element>(
    simd: S,
    row: &[E::Bits],
    bins: &[f32],
    lines: Lines,
    floor: f32,
) -> Sums {
    let [whole, half] = lines.at(f32x16::splat(simd, lines.bound));
    let at_bound = [f64::from(whole.to_array()[0]), f64::from(half.to_array()[0])];
    let mut sums = Sums { lines: [0.0; 2], at_bound, blocks_read: 0 };
    let blocks = Blocks::<E>::new(row);
    for (i, bins) in bins.chunks(GROUP * BIN).enumerate() {
        let mut bins = bins.as_chunks::<BIN>().0.iter();
        let zero = f32x16::splat(simd, 0.0);
        let (mut whole, mut half) = (zero, zero);
        for blocks in blocks.range(i * GROUP..i * GROUP + bins.len()) {
            for (block, bin) in blocks.iter().zip(&mut bins) {
                if reaches(simd, bin, floor) {
                    let (mut whole_here, mut half_here) = (zero, zero);
                    for pair in block.as_chunks::<{ 2 * LANES }>().0 {
                        let [first, second] = E::unordered_pair(simd, pair);
                        let (first, second) = (lines.at(first), lines.at(second));
                        whole_here += first[0] + second[0];
                        half_here += first[1] + second[1];
                    }
                    whole += whole_here;
                    half += half_here;
                    sums.blocks_read += 1;
                }
            }
        }
        sums.lines[0] += sum(whole);
        sums.lines[1] += sum(half);
    }
    sums
}

/// The sum of the lanes.
#[inline(always)]
fn sum<S: Simd>(lanes: f32x16<S>) -> f64 {
    let mut sum = 0.0;
    for lane in lanes.to_array() {
        sum += f64::from(lane);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::arith::Scalar;
    use crate::semantics::weights::{quantize, weight, MAX_WEIGHT};

    fn exact(scale: WeightScale, x: f32) -> f64 {
        f64::from(weight(Scalar, quantize(Scalar, scale.max, x, scale.scale)))
    }

    /// The block maxima of a row, each in every lane.
    fn bins(row: &[f32]) -> Vec<f32> {
        let max = |block: &[f32]| block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.chunks(BLOCK).flat_map(|block| [max(block); BIN]).collect()
    }

    #[test]
    fn the_sum_of_the_weights_is_between_the_bounds() {
        for (max, scale) in [(0.0_f32, 378_193.6), (20.5, 378_193.6), (-3e4, 40.0), (1e30, 1e-22), (3.0, 2e6)]
        {
            let scale = WeightScale { max, scale };
            // 40 octaves in steps that are different in each round, and values that share one octave.
            let octave = (1 << OCTAVE_BITS) as f32 / scale.scale;
            for (step, values) in [(0.01_f32, 4000), (0.37, 100), (1e-4, 5000), (0.5, 300)] {
                let row: Vec<f32> = (0..values).map(|i| max - octave * step * (i % 4000) as f32).collect();
                for octaves in [0.0, 0.01, 1.0, 3.3, 12.0] {
                    let bound = max - octave * octaves;
                    let reaching = row.iter().filter(|&&x| x >= bound).count();
                    let sum: f64 = row.iter().filter(|&&x| x < bound).map(|&x| exact(scale, x)).sum();
                    let found =
                        tail_bounds(Level::new(), Logits::F32(&row), &bins(&row), scale, bound, reaching);
                    let (low, high) = found.expect("bounds exist");
                    let case = format!("{scale:?}, {step}, {octaves}: {sum} in {low}..={high}");
                    assert!(low as f64 <= sum && sum <= high as f64, "{case}");
                    let all: f64 = row.iter().map(|&x| exact(scale, x)).sum();
                    let width = 0.017 * sum + 1e-4 * all + 8.0 * row.len() as f64;
                    assert!((high - low) as f64 <= width, "{case}");
                }
            }
        }
    }

    #[test]
    fn scales_and_bounds_without_a_use_have_no_bounds() {
        let row = [1.0, 0.0];
        let of = |scale, bound| {
            let scale = WeightScale { max: 1.0, scale };
            tail_bounds(Level::new(), Logits::F32(&row), &bins(&row), scale, bound, 1)
        };
        assert_eq!(of(1e38, 1.0), None);
        assert_eq!(of(1e7, 0.0), None);
        assert!(of(1e6, 1.0).is_some_and(|(_, high)| high < MAX_WEIGHT as u64));
    }
}
