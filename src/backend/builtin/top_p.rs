//! Top-p and min-p: the least weight that both keep, and an estimate of it before all weights are known.

use fearless_simd::{dispatch, Level, Simd};

use super::element::{with_element, Element};
use super::lanes::{load, sum_of_weights, WeightSum, LANES};
use super::strided_sample::strided_sample;
use super::threshold_search::{measure, search, Found, Goal, Measure};
use super::weighing::WeightScale;
use crate::dtype::Logits;
use crate::semantics::arith::Scalar;
use crate::semantics::params::RowParams;
use crate::semantics::rules::least_weight;
use crate::semantics::top_p::target;
use crate::semantics::weights::MAX_WEIGHT;

/// The least weight that top-p and min-p keep, and the sum of the kept weights.
///
/// `weights` holds every weight of the row that is at least `least`, as whole vectors. `collected` is their sum and
/// `total` the sum of all weights of the row. The least kept weight is probably below `hint`. Returns `None` if top-p
/// also keeps weights below `least`.
pub(super) fn least_kept(
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
    let threshold = least_weight(Scalar, found.threshold, params.min_weight);
    if threshold > found.threshold {
        found = Found { threshold, measure: measure(level, weights, Measure::Sum, threshold) };
    }
    Some(found)
}

/// Estimates the threshold of top-p for a row without top-k. Returns two weights; the threshold is probably between
/// them.
///
/// The sum of the weights of the group maxima is a lower bound on the total weight. A sample of the row gives the
/// distribution of the small weights.
pub(super) fn estimate(
    level: Level,
    row: Logits<'_>,
    tops: &[f32],
    scale: WeightScale,
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
        let total = weigh_maxima(simd, tops, scale);
        with_element!(row, row, E => weigh_sample::<_, E>(simd, row, vectors / wanted, scale, weights));
        (total, sum_of_weights(simd, weights))
    });
    if total == 0 || sampled == 0 {
        return (1, MAX_WEIGHT);
    }
    let dispensable = total - target(Scalar, total, params.top_p.mantissa, params.top_p.shift);
    let budget = dispensable as f64 * weights.len() as f64 / row.len() as f64;
    let mut weight_leaving = |share: f64| {
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
    // The factors allow for the error of the sample, and for the weight that the maxima do not include.
    (weight_leaving(0.75), weight_leaving(2.0))
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
