//! Top-p and min-p: the least weight that both keep, and an estimate of it before all weights are known.

use fearless_simd::{dispatch, i32x16, prelude::*, Level, Simd};

use super::element::{with_element, Element};
use super::lanes::{load, sum_of_weights, WeightSum, LANES};
use super::strided_sample::{stride_of, strided_sample, SAMPLE};
use super::threshold_search::{measure, search, Found, Goal, Measure, NO_HINT};
use super::weighing::WeightScale;
use crate::dtype::Logits;
use crate::semantics::arith::Scalar;
use crate::semantics::params::RowParams;
use crate::semantics::rules::least_weight;
use crate::semantics::weights::MAX_WEIGHT;

/// The least weight that top-p and min-p keep, and the sum of the kept weights.
///
/// `weights` holds every weight of the row that is at least `least`, as whole vectors. `collected` is their sum. The
/// sum of all weights of the row is at least `totals.0` and at most `totals.1`. The threshold of top-p is probably at
/// most `hint`. Returns `None` if top-p also keeps weights below `least`, or if the bounds of the total are too far
/// apart to decide what top-p keeps.
pub(super) fn least_kept(
    level: Level,
    weights: &[i32],
    spare: &mut [i32],
    least: i32,
    hint: i32,
    (collected, totals): (u64, (u64, u64)),
    params: &RowParams,
) -> Option<Found> {
    let mut found = Found { threshold: least, measure: collected };
    if params.top_p.mantissa != 0 {
        let target_of = |total| params.top_p.target(total);
        let (target, largest_target) = (target_of(totals.0), target_of(totals.1));
        if collected < largest_target {
            return None;
        }
        let goal = Goal {
            measure: Measure::Sum,
            target,
            tolerance: 0,
            low: least,
            reached: collected,
            high: MAX_WEIGHT,
            hint,
        };
        found = search(level, weights, spare, goal);
        // The weights above the threshold do not reach the smallest target. If those at the threshold reach the largest
        // target, the threshold is the same for every target between them.
        if found.measure < largest_target {
            return None;
        }
    }
    let threshold = least_weight(Scalar, found.threshold, params.min_weight);
    if threshold > found.threshold {
        found = Found { threshold, measure: measure(level, weights, Measure::Sum, threshold) };
    }
    Some(found)
}

/// Samples a row to estimate its weights.
pub(super) struct Sampler<'r> {
    row: Logits<'r>,
    scale: WeightScale,
    /// The distance between the vectors of a sample of [`SAMPLE`] vectors.
    stride: usize,
    /// The sum of the weights of the group maxima: a lower bound on the row's total weight.
    maxima: u64,
    /// The weight that top-p removes if the total is `maxima`.
    dispensable: u64,
}

impl<'r> Sampler<'r> {
    /// Weighs the group maxima. Returns `None` if the row is too short for a sample.
    pub(super) fn new(
        level: Level,
        row: Logits<'r>,
        tops: &[f32],
        scale: WeightScale,
        params: &RowParams,
    ) -> Option<Sampler<'r>> {
        let stride = stride_of(row.len())?;
        let maxima = dispatch!(level, simd => weigh_maxima(simd, tops, scale));
        // One of the maxima is the maximum of the row. So `maxima` is at least the weight of the maximum. Then the
        // target is at most `maxima`, and the subtraction does not overflow.
        let dispensable = maxima - params.top_p.target(maxima);
        Some(Sampler { row, scale, stride, maxima, dispensable })
    }

    /// Weighs a sample of `vectors` vectors. `vectors` divides [`SAMPLE`]. Writes the weights to `weights`.
    pub(super) fn sample<'w>(&self, level: Level, vectors: usize, weights: &'w mut [i32]) -> Sampled<'w> {
        let (row, stride, scale) = (self.row, self.stride * (SAMPLE / vectors), self.scale);
        let weights = &mut weights[..vectors * LANES];
        dispatch!(level, simd => with_element!(row, row, E => {
            weigh_sample::<_, E>(simd, row, stride, scale, weights)
        }));
        let logits_per_sample = row.len() as f64 / weights.len() as f64;
        Sampled { weights, maxima: self.maxima, logits_per_sample, dispensable: self.dispensable }
    }
}

/// What a row's group maxima and a sample of the row show about its weights.
pub(super) struct Sampled<'w> {
    /// The weights of the sample.
    weights: &'w [i32],
    /// See [`Sampler::maxima`].
    maxima: u64,
    /// The number of logits in the row per logit in the sample.
    logits_per_sample: f64,
    /// See [`Sampler::dispensable`].
    dispensable: u64,
}

impl Sampled<'_> {
    /// Whether a few large entries are probably all that top-p keeps.
    ///
    /// A large weight in the sample counts only in part. Such a weight is probably one of the few large entries.
    pub(super) fn is_peaked(&self, level: Level) -> bool {
        let limit = (self.maxima / 16_384).min(MAX_WEIGHT as u64) as i32;
        let sum = dispatch!(level, simd => sum_of_limited(simd, self.weights, limit));
        sum as f64 * self.logits_per_sample <= 2.0 * self.dispensable as f64
    }

    /// Estimates the threshold of top-p. Returns two weights; the threshold is probably between them.
    ///
    /// The sum of the weights of the group maxima is a lower bound on the total weight. A sample of the row gives the
    /// distribution of the small weights.
    pub(super) fn threshold(&self, level: Level, spare: &mut [i32]) -> (i32, i32) {
        let sampled = dispatch!(level, simd => sum_of_weights(simd, self.weights));
        if sampled == 0 {
            return NO_ESTIMATE;
        }
        // These are two estimates of the sum of the weights that top-p removes from the sample. `by_maxima` assumes
        // that the total weight of the row is `maxima`. `by_sample` assumes that top-p removes the share
        // `dispensable / maxima` of the sum of the sample.
        let by_maxima = self.dispensable as f64 / self.logits_per_sample;
        let by_sample = sampled as f64 * (self.dispensable as f64 / self.maxima as f64);
        let mut weight_leaving = |removed: f64| {
            let goal = Goal {
                measure: Measure::Sum,
                target: sampled.saturating_sub(removed as u64).max(1),
                tolerance: (removed / 16.0) as u64,
                low: 1,
                reached: sampled,
                high: MAX_WEIGHT,
                hint: NO_HINT,
            };
            search(level, self.weights, spare, goal).threshold
        };
        // The factors allow for the error of the sample, and for the weight that the maxima do not include. An estimate
        // that is too low costs less time than an estimate that is too high.
        (weight_leaving(0.75 * by_maxima), weight_leaving((2.0 * by_maxima).max(1.25 * by_sample)))
    }
}

/// The range of the threshold if there is no estimate: any weight above 0.
pub(super) const NO_ESTIMATE: (i32, i32) = (1, NO_HINT);

#[inline(always)]
fn sum_of_limited<S: Simd>(simd: S, weights: &[i32], limit: i32) -> u64 {
    let mut sum = WeightSum::new(simd);
    for vector in weights.as_chunks::<LANES>().0 {
        sum.add(load::<S, i32x16<S>, i32>(simd, vector).min(i32x16::splat(simd, limit)));
    }
    sum.total()
}

#[inline(always)]
fn weigh_maxima<S: Simd>(simd: S, maxima: &[f32], scale: WeightScale) -> u64 {
    let scale = scale.lanes(simd);
    let mut sum = WeightSum::new(simd);
    for vector in maxima.as_chunks::<LANES>().0 {
        sum.add(scale.weights(load(simd, vector)));
    }
    sum.total()
}

#[inline(always)]
fn weigh_sample<S: Simd, E: Element>(
    simd: S,
    row: &[E::Bits],
    stride: usize,
    scale: WeightScale,
    weights: &mut [i32],
) {
    let scale = scale.lanes(simd);
    strided_sample::<S, E>(
        simd,
        row,
        stride,
        weights,
        #[inline(always)]
        |x| scale.weights(x),
    );
}
