//! Chooses a row's token from its candidates: weights, top-p, min-p and the draw.

use fearless_simd::{dispatch, Level};

use super::bounds::Limit;
use super::candidates::{Candidates, LARGEST_SHARE, LARGEST_SHARE_FOR_TOP_P};
use super::collect_few::collect_few;
use super::draw::{draw, draw_by_blocks, index_of_weight};
use super::lanes::{lanes_of, LANES};
use super::locate::index_of;
use super::pages::Pages;
use super::reaching::{Bounds, Reaching};
use super::row_kind::RowKind;
use super::row_task::{Collected, KeptWeights, RowTask, LEAST_DRAWN};
use super::split::split_collect;
use super::strided_sample::{share_at_least, SAMPLE, SMALL_SAMPLE};
use super::tail_bounds::{tail_bounds, Precision, TailBounds};
use super::threshold_search::{copy_at_least, measure, pad, Measure, NO_HINT};
use super::top_k::{bound_from_maxima, Kept};
use super::top_p::{least_kept, Sampler, NO_ESTIMATE};
use super::weigh_row::{weigh_and_collect, weigh_blocks, weigh_pages, Sums};
use super::weighing::{weigh_collected, weigh_in_place, WeightScale};
use super::workspace::Workspace;
use crate::dtype::Logits;
use crate::semantics::arith::Scalar;
use crate::semantics::clean::order_key;
use crate::semantics::rules::row_weight;
use crate::semantics::sizes::TOTAL_BITS;
use crate::semantics::weights::{quantize, weight, MAX_WEIGHT};

/// Returns a limit on the share of a row's logits that can be drawn. If the share is below the limit, the draw first
/// collects these logits and weighs only them. With registers of sixteen lanes, the limit is small, because weighing
/// all logits takes about as much time as collecting some of them.
fn largest_share(level: Level) -> f32 {
    dispatch!(level, simd => if lanes_of(simd) == LANES { 0.2 } else { 0.9 })
}

/// In a peaked row, about this number of the largest entries are collected to decide which entries top-p keeps.
const LARGEST: usize = 128;

/// The token that was drawn.
pub(super) struct Drawn {
    pub(super) index: usize,
    /// The random number modulo the total of the kept weights.
    pub(super) remainder: u64,
    pub(super) weights: KeptWeights,
}

const REACHED: &str = "the remainder is below the sum of the kept weights";

impl RowTask<'_> {
    /// Draws the token of a row whose maximum is at index `greedy`.
    pub(super) fn choose_token(
        &self,
        greedy: usize,
        found: &Candidates,
        kept: Option<Kept>,
        work: &mut Workspace<'_>,
    ) -> Drawn {
        if self.params.greedy {
            // Only the maximum has a weight. Top-p and min-p always keep the largest weight.
            let total = row_weight(Scalar, true, true, true, 0);
            let remainder = self.remainder(total as u64);
            return Drawn { index: greedy, remainder, weights: KeptWeights::Greedy(greedy) };
        }
        let scale = WeightScale { max: found.max, scale: self.params.scale };
        match (found.collected, kept) {
            (Some(collected), Some(kept)) => self.draw_collected(collected, kept, scale, work),
            _ if self.kind == RowKind::TopP => self.draw_by_top_p(found.reaching, scale, work),
            _ => self.draw_plain(found.reaching, scale, work),
        }
    }

    /// Draws the token of a row with top-k.
    fn draw_collected(
        &self,
        collected: Collected,
        kept: Kept,
        scale: WeightScale,
        work: &mut Workspace<'_>,
    ) -> Drawn {
        let level = self.level;
        let padded = collected.len.next_multiple_of(LANES);
        let weights = &mut work.weights[..padded];
        let total = weigh_collected(level, &work.keys[..padded], kept, scale, weights);
        // Every kept key is at least the threshold, so every kept weight is at least the weight of the threshold.
        let least = f32::from_bits(order_key(Scalar, kept.threshold) as u32);
        let least = weight(Scalar, quantize(Scalar, scale.max, least, scale.scale)).max(LEAST_DRAWN);
        let found =
            least_kept(level, weights, work.spare, least, NO_HINT, (total, (total, total)), self.params)
                .expect("every weight was collected");
        let remainder = self.remainder(found.measure);
        let position = draw(level, weights, found.threshold, remainder).expect(REACHED);
        let index = if collected.indexed {
            work.indices[position] as usize
        } else {
            index_of(level, self.row(), work.offsets, collected.limit, position)
        };
        Drawn { index, remainder, weights: KeptWeights::Collected { least: found.threshold } }
    }

    /// Draws the token of a row without top-k and without top-p. The least kept weight is known before the passes.
    fn draw_plain(&self, reaching: Option<Reaching>, scale: WeightScale, work: &mut Workspace<'_>) -> Drawn {
        let least = self.least_counted();
        if let Some(reaching) = reaching {
            return self.draw_reaching(reaching.pages, None, scale, least, work);
        }
        let floor = scale.floor(least);
        // Collecting few logits and weighing them is faster than weighing all logits.
        if self.parts <= 1 && share_at_least(self.level, self.row(), floor) < largest_share(self.level) {
            self.collect_logits(Limit::fixed(floor), work);
            self.draw_reaching(Pages::one(self.row()), Some(floor), scale, least, work)
        } else {
            self.draw_by_sums(scale, least, work)
        }
    }

    /// Draws one of the logits that were collected in pages. All other weights are below `least`. `floor` is the bound
    /// of all blocks. If it is `None`, each chunk of the row has its own bound.
    fn draw_reaching(
        &self,
        pages: Pages,
        floor: Option<f32>,
        scale: WeightScale,
        least: i32,
        work: &mut Workspace<'_>,
    ) -> Drawn {
        let collected = (&mut *work.weights, &*work.counts);
        let (total, len) = weigh_pages(self.level, pages, collected, scale, least, work.spare);
        let remainder = self.remainder(total);
        let logits = Logits::F32(bytemuck::cast_slice(&work.weights[pages.start..]));
        let sums = &work.spare[..len];
        let position = draw_by_blocks(self.level, logits, sums, scale, least, remainder).expect(REACHED);
        let index = self.index_of_reaching(position, floor, work);
        Drawn { index, remainder, weights: KeptWeights::Row { scale, least } }
    }

    /// The index in the row of a collected logit, given its `position`. See [`RowTask::draw_reaching`] for `floor`.
    fn index_of_reaching(&self, position: usize, floor: Option<f32>, work: &Workspace<'_>) -> usize {
        let bounds = floor.map_or(Bounds::Chunks(work.tops), Bounds::Row);
        bounds.index_of(self.level, self.row(), work.offsets, position)
    }

    /// Computes all weights, but stores only sums, and draws a token.
    fn draw_by_sums(&self, scale: WeightScale, least: i32, work: &mut Workspace<'_>) -> Drawn {
        let level = self.level;
        let (bins, tops) = (&*work.bins, &*work.tops);
        let (total, len) = split_collect(
            self.whole,
            self.parts,
            work.weights,
            work.offsets,
            |part, sums, offsets| {
                let (bins, _) = part.maxima(bins, tops);
                weigh_blocks(level, part.row, bins, scale, least, (sums, offsets))
            },
            |a, b| a + b,
        );
        let remainder = self.remainder(total);
        let index =
            draw_by_blocks(level, self.row(), &work.weights[..len], scale, least, remainder).expect(REACHED);
        Drawn { index, remainder, weights: KeptWeights::Row { scale, least } }
    }

    /// Draws the token of a row with top-p and without top-k.
    fn draw_by_top_p(
        &self,
        reaching: Option<Reaching>,
        scale: WeightScale,
        work: &mut Workspace<'_>,
    ) -> Drawn {
        let level = self.level;
        if reaching.is_some() {
            return self.draw_by_top_p_reaching(None, scale, work);
        }
        let floor = scale.floor(LEAST_DRAWN);
        let share = if self.parts <= 1 { share_at_least(level, self.row(), floor) } else { 1.0 };
        if share < LARGEST_SHARE_FOR_TOP_P {
            self.collect_logits(Limit::fixed(floor), work);
            return self.draw_by_top_p_reaching(Some(floor), scale, work);
        }
        let sampler = Sampler::new(level, self.row(), work.tops, scale, self.params);
        let is_peaked =
            |sampler: &Sampler<'_>| sampler.sample(level, SMALL_SAMPLE, work.weights).is_peaked(level);
        if self.parts <= 1 && sampler.as_ref().is_some_and(is_peaked) {
            if let Some(drawn) = self.draw_from_largest(scale, work) {
                return drawn;
            }
            if share < LARGEST_SHARE {
                self.collect_logits(Limit::fixed(floor), work);
                return self.draw_by_top_p_reaching(Some(floor), scale, work);
            }
        }
        let estimate = sampler.map_or(NO_ESTIMATE, |sampler| {
            sampler.sample(level, SAMPLE, work.weights).threshold(level, work.spare)
        });
        self.draw_by_weights(estimate, scale, work)
    }

    /// Decides which of the logits that were collected in one page top-p keeps, and draws one. All other weights are 0.
    /// See [`RowTask::draw_reaching`] for `floor`.
    fn draw_by_top_p_reaching(
        &self,
        floor: Option<f32>,
        scale: WeightScale,
        work: &mut Workspace<'_>,
    ) -> Drawn {
        let level = self.level;
        let len = work.counts[0] as usize;
        let (padded, total) = weigh_in_place(level, work.weights, len, scale, LEAST_DRAWN);
        // The sum of the weights below `least` is at most the weight that top-p may remove. So top-p keeps no weight
        // below `least`, and the search needs only the other weights.
        let dispensable = total - self.target(total);
        let least = (dispensable / padded as u64).clamp(LEAST_DRAWN as u64, MAX_WEIGHT as u64) as i32;
        let weights = &work.weights[..padded];
        let len = copy_at_least(level, weights, work.spare, least);
        let (large, spare) = work.spare.split_at_mut(len);
        let collected = measure(level, large, Measure::Sum, least);
        let (large, spare) = if spare.len() >= len { (&*large, spare) } else { (weights, &mut *work.spare) };
        let sums = (collected, (total, total));
        let found = least_kept(level, large, spare, least, NO_HINT, sums, self.params)
            .expect("every weight that top-p keeps was collected");
        let remainder = self.remainder(found.measure);
        let position = draw(level, weights, found.threshold, remainder).expect(REACHED);
        let index = self.index_of_reaching(position, floor, work);
        Drawn { index, remainder, weights: KeptWeights::Row { scale, least: found.threshold } }
    }

    /// Draws the token of a row in which top-p keeps only a few of the largest entries. Returns `None` if top-p may
    /// keep other entries.
    ///
    /// Only the weights of the largest entries are computed. Bounds on the sum of the other weights usually suffice to
    /// decide what top-p keeps.
    fn draw_from_largest(&self, scale: WeightScale, work: &mut Workspace<'_>) -> Option<Drawn> {
        let (level, row) = (self.level, self.row());
        let bound = bound_from_maxima(level, work.tops, LARGEST, work.weights, work.spare)?;
        let len = collect_few(level, row, work.bins, bound, (work.weights, work.indices))?;
        let (padded, sum) = weigh_in_place(level, work.weights, len, scale, 0);
        let weights = &work.weights[..padded];
        // An entry below the bound can have the same weight as the bound, but not a larger one.
        let least = weight(Scalar, quantize(Scalar, scale.max, bound, scale.scale)) + 1;
        let collected = measure(level, weights, Measure::Sum, least);
        if collected < self.target(sum) {
            return None;
        }
        let decide = |total, spare: &mut [i32]| {
            least_kept(level, weights, spare, least, NO_HINT, (collected, total), self.params)
        };
        let tail_of = |precision| tail_bounds(level, row, work.bins, scale, (bound, len), precision);
        let total_of = |tail: TailBounds| (sum + tail.low, (sum + tail.high).min(1 << TOTAL_BITS));
        // If `collected` does not reach the least possible target, top-p also keeps entries that were not collected.
        let keeps_others = |tail: TailBounds| collected < self.target(sum + tail.low);
        let coarse = tail_of(Precision::Coarse)?;
        let mut found = decide(total_of(coarse), work.spare);
        if found.is_none() {
            if keeps_others(coarse) {
                return None;
            }
            // The fine bounds still differ by `rounding`. If the coarse bounds differ by less than twice this number,
            // the fine bounds rarely decide.
            if coarse.high - coarse.low > 2 * coarse.rounding {
                let fine = tail_of(Precision::Fine)?;
                if keeps_others(fine) {
                    return None;
                }
                found = decide(total_of(fine), work.spare);
            }
        }
        if found.is_none() {
            // The bounds do not decide. The exact total decides, and no search among the small weights is necessary.
            let sums = (&mut *work.spare, &mut *work.offsets);
            let exact = weigh_blocks(level, row, work.bins, scale, LEAST_DRAWN, sums).0;
            found = decide((exact, exact), work.spare);
        }
        let found = found?;
        let remainder = self.remainder(found.measure);
        let position = draw(level, weights, found.threshold, remainder).expect(REACHED);
        let index = work.indices[position] as usize;
        Some(Drawn { index, remainder, weights: KeptWeights::Row { scale, least: found.threshold } })
    }

    /// Computes all weights, collects those that are at least an estimate, and draws a token. If the estimate was too
    /// high, collects every weight above 0.
    fn draw_by_weights(
        &self,
        (estimate, hint): (i32, i32),
        scale: WeightScale,
        work: &mut Workspace<'_>,
    ) -> Drawn {
        let (level, row) = (self.level, self.row());
        for (least, hint) in [(estimate, hint), (LEAST_DRAWN, NO_HINT)] {
            let (sums, len) = self.collect_weights(scale, least, work);
            pad(work.weights, len);
            let weights = &work.weights[..len.next_multiple_of(LANES)];
            let sums = (sums.collected, (sums.all, sums.all));
            if let Some(found) = least_kept(level, weights, work.spare, least, hint, sums, self.params) {
                let remainder = self.remainder(found.measure);
                let position = draw(level, weights, found.threshold, remainder).expect(REACHED);
                let index = index_of_weight(level, row, work.offsets, scale, least, position);
                return Drawn {
                    index,
                    remainder,
                    weights: KeptWeights::Row { scale, least: found.threshold },
                };
            }
        }
        unreachable!("the second round collects every weight")
    }

    /// Collects the logits that reach the limit. Writes the bits of these logits to one page of the array of weights.
    fn collect_logits(&self, limit: Limit, work: &mut Workspace<'_>) {
        let len = self.collect_reaching(limit, (work.bins, work.tops), work.weights, work.offsets);
        work.counts[0] = len as u32;
    }

    fn collect_weights(&self, scale: WeightScale, least: i32, work: &mut Workspace<'_>) -> (Sums, usize) {
        let level = self.level;
        let (bins, tops) = (&*work.bins, &*work.tops);
        split_collect(
            self.whole,
            self.parts,
            work.weights,
            work.offsets,
            |part, values, offsets| {
                let maxima = part.maxima(bins, tops);
                let group = part.layout.group;
                weigh_and_collect(level, part.row, group, maxima, scale, least, (values, offsets))
            },
            Sums::and,
        )
    }
}
