//! Bounds on the sum of the weights of a row's small entries. Computing them takes a fraction of the time of exact
//! weights.

use fearless_simd::{dispatch, f32x16, i32x16, prelude::*, Level, Simd};

use super::blocks::{reaches, Blocks};
use super::element::{with_element, Element};
use super::lanes::{Lanes, LANES};
use super::layout::{BIN, BLOCK};
use super::weighing::WeightScale;
use crate::dtype::Logits;
use crate::semantics::arith::Arith;
use crate::semantics::sizes::WEIGHT_BITS;
use crate::semantics::weights::OCTAVE_BITS;

/// The pass skips a block if all of its weights are below this limit.
const LEAST_READ: i32 = 8;
/// The number of blocks whose approximations are added in f32 lanes.
const GROUP: usize = 32;
/// An upper limit of the relative error of such a sum. A term passes through fewer than 40 roundings. Each has a
/// relative error of at most 2⁻²⁴.
const SUM_ERROR: f64 = 1e-5;
/// An upper limit of the sum of the other relative errors. A weight contributes at most 4e-6 (2⁻¹⁸), and `q` at most
/// 4e-6 (1.5 units of 2⁻¹⁸ octaves). The bits of `2ⁿ · (1 + f)` are rounded to a multiple of 128. With an unfused
/// multiplication, the error is up to 8 larger. Both contribute at most 9e-6.
const OTHER_ERRORS: f64 = 2e-5;

/// How close the bounds are, in addition to [`TailBounds::rounding`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Precision {
    /// The bounds differ by 1.5% of the sum.
    Coarse,
    /// The bounds differ by 0.14% of the sum. Computing them takes 1.5 times as long.
    Fine,
}

/// Bounds on the sum of the weights below a bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TailBounds {
    pub(super) low: u64,
    pub(super) high: u64,
    /// The part of the difference that no precision reduces: 1 per logit, because weights are rounded, and 7 per logit
    /// of a skipped block.
    pub(super) rounding: u64,
}

/// Returns bounds on the sum of all weights of logits below `bound`. `reaching` is the number of logits that are at
/// least `bound`, and `bins` contains the block maxima. Returns `None` if the scale is too large or if the weights
/// below the bound are tiny.
pub(super) fn tail_bounds(
    level: Level,
    row: Logits<'_>,
    bins: &[f32],
    scale: WeightScale,
    (bound, reaching): (f32, usize),
    precision: Precision,
) -> Option<TailBounds> {
    let line = Line::new(scale, bound)?;
    let floor = scale.floor(LEAST_READ);
    if bound < floor {
        return None;
    }
    Some(match precision {
        Precision::Coarse => bounds::<TwoLines>(level, row, bins, line, floor, reaching),
        Precision::Fine => bounds::<Cubic>(level, row, bins, line, floor, reaching),
    })
}

/// An approximation of powers of two. It starts from the float `2ⁿ · (1 + f)`, whose bits are a linear function of the
/// exponent `n + f` (N. N. Schraudolph, "A fast, compact approximation of the exponential function", 1999).
trait Approximation {
    /// The least and the largest value of the approximation divided by the power of two.
    const QUOTIENTS: (f64, f64);

    /// Adds the approximations of two vectors to sums. `bits` are the bits of the floats `2ⁿ · (1 + f)`.
    fn add<S: Simd>(bits: [i32x16<S>; 2], sums: &mut [f32x16<S>; 2]);

    /// The sum of all approximations that [`Approximation::add`] added. `sums` are the sums over all lanes.
    fn total(sums: [f64; 2]) -> f64;
}

/// The mean of two piecewise linear functions. The first one is exact at whole octaves. The second one is exact in the
/// middle of each octave.
struct TwoLines;

impl TwoLines {
    const HALF_OCTAVE: i32 = 1 << (Line::MANTISSA_BITS - 1);
}

impl Approximation for TwoLines {
    // In the first half of an octave, the quotient at the fraction `f` is `(a + b · f) / 2^f` with
    // `a = (1 + 1.5 / √2) / 2` and `b = (1 + 1 / √2) / 2`. It is least at `f = 0` and largest at `f = 1 / ln 2 − a /
    //   b`.
    // The second half has the same quotients.
    const QUOTIENTS: (f64, f64) = (1.030_330, 1.045_891);

    /// `sums[0]` is the sum of the first function. `sums[1]` is the sum of the second function times √2.
    #[inline(always)]
    fn add<S: Simd>([first, second]: [i32x16<S>; 2], sums: &mut [f32x16<S>; 2]) {
        let whole: [f32x16<S>; 2] = [first.bitcast(), second.bitcast()];
        let half: [f32x16<S>; 2] =
            [(first + Self::HALF_OCTAVE).bitcast(), (second + Self::HALF_OCTAVE).bitcast()];
        sums[0] += whole[0] + whole[1];
        sums[1] += half[0] + half[1];
    }

    fn total([whole, half]: [f64; 2]) -> f64 {
        (whole + half * std::f64::consts::FRAC_1_SQRT_2) / 2.0
    }
}

/// `2ⁿ · (1 + f)` times a cubic polynomial in `1 + f`. The polynomial is a minimax approximation of `2^f / (1 + f)`.
struct Cubic;

impl Cubic {
    const COEFFICIENTS: [f32; 4] = [-0.106_445_7, 0.707_475_83, -1.377_307_6, 1.775_614_7];

    #[inline(always)]
    fn add_vector<S: Simd>(bits: i32x16<S>, sum: &mut f32x16<S>) {
        let line: f32x16<S> = bits.bitcast();
        let mantissa: f32x16<S> = ((bits & Line::MANTISSA) | 1.0_f32.to_bits() as i32).bitcast();
        let [c3, c2, c1, c0] = Self::COEFFICIENTS;
        let factor = mantissa.mul_add(c3, f32x16::splat(bits.simd, c2));
        let factor = mantissa.mul_add(factor, f32x16::splat(bits.simd, c1));
        let factor = mantissa.mul_add(factor, f32x16::splat(bits.simd, c0));
        *sum = line.mul_add(factor, *sum);
    }
}

impl Approximation for Cubic {
    const QUOTIENTS: (f64, f64) = (0.999_337, 1.000_663);

    #[inline(always)]
    fn add<S: Simd>([first, second]: [i32x16<S>; 2], sums: &mut [f32x16<S>; 2]) {
        Self::add_vector(first, &mut sums[0]);
        Self::add_vector(second, &mut sums[1]);
    }

    fn total([first, second]: [f64; 2]) -> f64 {
        first + second
    }
}

/// The bits of the float `2ⁿ · (1 + f)` for a logit, as a linear function of its distance from the maximum.
#[derive(Clone, Copy)]
struct Line {
    max: f32,
    /// The distance of the bound from the maximum. A logit above the bound counts as the bound.
    least_distance: f32,
    slope: f32,
}

impl Line {
    const MANTISSA_BITS: u32 = 23;
    /// The bits of 2^[`WEIGHT_BITS`], as a number.
    const AT_MAX: f32 = ((127 + WEIGHT_BITS) << Self::MANTISSA_BITS) as f32;
    const MANTISSA: i32 = (1 << Self::MANTISSA_BITS) - 1;
    /// The bits of twice the least normal float, as a number. The products of [`Cubic`] are then normal too.
    const LEAST: f32 = (2 << Self::MANTISSA_BITS) as f32;

    fn new(scale: WeightScale, bound: f32) -> Option<Line> {
        let slope = -scale.scale * (1 << (Self::MANTISSA_BITS - OCTAVE_BITS)) as f32;
        slope.is_finite().then_some(Line { max: scale.max, least_distance: scale.max - bound, slope })
    }

    #[inline(always)]
    fn at<S: Simd>(self, x: f32x16<S>) -> i32x16<S> {
        let a = Lanes(x.simd);
        let distance = a.at_least(a.float(self.max) - x, self.least_distance);
        let bits = distance.mul_add(a.float(self.slope), a.float(Self::AT_MAX));
        a.at_least(bits, Self::LEAST).to_int()
    }
}

/// Sums of approximations.
struct Sums {
    /// The sum for all logits that were read. A logit above the bound counts as the bound.
    read: f64,
    /// The approximation at the bound.
    at_bound: f64,
    blocks_read: usize,
}

/// [`tail_bounds`] with one approximation. Blocks whose maxima are below `floor` are skipped.
fn bounds<A: Approximation>(
    level: Level,
    row: Logits<'_>,
    bins: &[f32],
    line: Line,
    floor: f32,
    reaching: usize,
) -> TailBounds {
    let sums = dispatch!(level, simd => with_element!(row, row, E => {
        sum::<_, E, A>(simd, row, bins, line, floor)
    }));
    let (least_quotient, largest_quotient) = A::QUOTIENTS;
    // The sum contains the value at the bound for each logit that reaches the bound.
    let tail = sums.read - reaching as f64 * sums.at_bound;
    let error = sums.read * SUM_ERROR;
    let rounding = 0.5 * (sums.blocks_read * BLOCK) as f64;
    let skipped = (bins.len() / BIN - sums.blocks_read) * BLOCK;
    let skipped = skipped as f64 * f64::from(LEAST_READ - 1);
    let low = (tail - error) * (1.0 - OTHER_ERRORS) / largest_quotient - rounding;
    let high = (tail + error) * (1.0 + OTHER_ERRORS) / least_quotient + rounding + skipped;
    TailBounds {
        low: low.max(0.0) as u64,
        high: high.max(0.0).ceil() as u64,
        rounding: (2.0 * rounding + skipped) as u64,
    }
}

#[inline(always)]
fn sum<S: Simd, E: Element, A: Approximation>(
    simd: S,
    row: &[E::Bits],
    bins: &[f32],
    line: Line,
    floor: f32,
) -> Sums {
    let zero = [f32x16::splat(simd, 0.0); 2];
    let mut at_bound = zero;
    // `Line::at` replaces the maximum by the bound.
    A::add([line.at(f32x16::splat(simd, line.max)); 2], &mut at_bound);
    let at_bound = A::total([lane(at_bound[0]), lane(at_bound[1])]) / 2.0;
    let mut sums = Sums { read: 0.0, at_bound, blocks_read: 0 };
    let blocks = Blocks::<E>::new(row);
    for (i, bins) in bins.chunks(GROUP * BIN).enumerate() {
        let mut bins = bins.as_chunks::<BIN>().0.iter();
        let mut group = zero;
        for blocks in blocks.range(i * GROUP..i * GROUP + bins.len()) {
            for (block, bin) in blocks.iter().zip(&mut bins) {
                if reaches(simd, bin, floor) {
                    let mut here = zero;
                    for pair in block.as_chunks::<{ 2 * LANES }>().0 {
                        let [first, second] = E::unordered_pair(simd, pair);
                        A::add([line.at(first), line.at(second)], &mut here);
                    }
                    group[0] += here[0];
                    group[1] += here[1];
                    sums.blocks_read += 1;
                }
            }
        }
        sums.read += A::total([sum_of_lanes(group[0]), sum_of_lanes(group[1])]);
    }
    sums
}

#[inline(always)]
fn lane<S: Simd>(lanes: f32x16<S>) -> f64 {
    f64::from(lanes.to_array()[0])
}

/// The sum of the lanes.
#[inline(always)]
fn sum_of_lanes<S: Simd>(lanes: f32x16<S>) -> f64 {
    let mut sum = 0.0;
    for lane in lanes.to_array() {
        sum += f64::from(lane);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::lanes::levels;
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

    /// Checks the bounds with several instruction sets. `values` are the elements of `row`.
    fn check(row: Logits<'_>, values: &[f32], scale: f32) {
        let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let scale = WeightScale { max, scale };
        let bins = bins(values);
        let all: f64 = values.iter().map(|&x| exact(scale, x)).sum();
        for octaves in [0.0, 0.01, 1.0, 3.3, 12.0] {
            let bound = max - (1 << OCTAVE_BITS) as f32 / scale.scale * octaves;
            let reached = (bound, values.iter().filter(|&&x| x >= bound).count());
            let sum: f64 = values.iter().filter(|&&x| x < bound).map(|&x| exact(scale, x)).sum();
            for (precision, width) in [(Precision::Coarse, 0.0153), (Precision::Fine, 0.0015)] {
                for level in levels() {
                    let found = tail_bounds(level, row, &bins, scale, reached, precision);
                    let TailBounds { low, high, rounding } = found.expect("bounds exist");
                    let case = format!("{scale:?}, {octaves}, {precision:?}: {sum} in {low}..={high}");
                    assert!(low as f64 <= sum && sum <= high as f64, "{case}");
                    assert!(
                        (high - low) as f64 <= width * sum + 1e-4 * all + rounding as f64 + 2.0,
                        "{case}"
                    );
                    assert!(rounding as usize <= 7 * (bins.len() / BIN * BLOCK), "{case}");
                }
            }
        }
    }

    #[test]
    fn the_sum_of_the_weights_is_between_the_bounds() {
        for (max, scale) in [(0.0_f32, 378_193.6), (20.5, 378_193.6), (-3e4, 40.0), (1e30, 1e-22), (3.0, 2e6)]
        {
            // 40 octaves in steps that are different in each round, and values that share one octave.
            let octave = (1 << OCTAVE_BITS) as f32 / scale;
            for (step, values) in [(0.01_f32, 4000), (0.37, 100), (1e-4, 5000), (0.5, 300)] {
                let mut row: Vec<f32> =
                    (0..values).map(|i| max - octave * step * (i % 4000) as f32).collect();
                check(Logits::F32(&row), &row, scale);
                row.iter_mut().skip(1).step_by(3).for_each(|x| *x = f32::NEG_INFINITY);
                check(Logits::F32(&row), &row, scale);
                let bf16: Vec<half::bf16> = row.iter().map(|&x| half::bf16::from_f32(x)).collect();
                let bits: Vec<u16> = bf16.iter().map(|x| x.to_bits()).collect();
                let widened: Vec<f32> = bf16.iter().map(|x| x.to_f32()).collect();
                check(Logits::Bf16(&bits), &widened, scale);
            }
        }
    }

    /// Computes the quotients of an approximation for all fractions of an octave in small steps.
    fn check_quotients<A: Approximation>(level: Level) {
        let (mut least, mut largest) = (f64::INFINITY, 0.0_f64);
        for mantissa in (0..1 << Line::MANTISSA_BITS).step_by(64) {
            let fraction = f64::from(mantissa) / f64::from(1 << Line::MANTISSA_BITS);
            let twice = dispatch!(level, simd => {
                let mut sums = [f32x16::splat(simd, 0.0); 2];
                let bits = i32x16::splat(simd, 1.0_f32.to_bits() as i32 | mantissa);
                A::add([bits; 2], &mut sums);
                A::total([lane(sums[0]), lane(sums[1])])
            });
            let quotient = twice / 2.0 / fraction.exp2();
            (least, largest) = (least.min(quotient), largest.max(quotient));
        }
        let (low, high) = A::QUOTIENTS;
        // The constants include the rounding errors of f32.
        assert!(low <= least && least < low + 2e-6, "{least}, expected {low}");
        assert!(high - 2e-6 < largest && largest <= high, "{largest}, expected {high}");
    }

    #[test]
    fn the_quotients_of_the_approximations_are_as_stated() {
        for level in levels() {
            check_quotients::<TwoLines>(level);
            check_quotients::<Cubic>(level);
        }
    }

    #[test]
    fn scales_and_bounds_without_a_use_have_no_bounds() {
        let row = [1.0, 0.0];
        let of = |scale, bound| {
            let scale = WeightScale { max: 1.0, scale };
            tail_bounds(Level::new(), Logits::F32(&row), &bins(&row), scale, (bound, 1), Precision::Coarse)
        };
        assert_eq!(of(1e38, 1.0), None);
        assert_eq!(of(1e7, 0.0), None);
        assert!(of(1e6, 1.0).is_some_and(|bounds| bounds.high < MAX_WEIGHT as u64));
    }
}
