//! Chooses a row's token from its candidates: weights, top-p, min-p and the draw.

use super::candidates::Candidates;
use super::draw::{draw, draw_by_blocks, index_of_weight};
use super::lanes::LANES;
use super::locate::index_of;
use super::row_kind::RowKind;
use super::row_task::{Collected, KeptWeights, RowTask};
use super::split::split_collect;
use super::threshold_search::pad;
use super::top_k::Kept;
use super::top_p::{self, least_kept};
use super::weigh_row::{weigh_and_collect, weigh_blocks, Sums};
use super::weighing::{weigh_collected, WeightScale};
use super::workspace::Workspace;
use crate::semantics::arith::Scalar;
use crate::semantics::clean::order_key;
use crate::semantics::rules::{least_weight, row_weight};
use crate::semantics::weights::{quantize, weight, MAX_WEIGHT};

/// The least weight that the draw can choose.
const LEAST_DRAWN: i32 = 1;

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
            _ if self.kind == RowKind::TopP => self.draw_by_top_p(scale, work),
            _ => self.draw_plain(scale, work),
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
        let found = least_kept(level, weights, work.spare, least, MAX_WEIGHT, (total, total), self.params)
            .expect("every weight was collected");
        let remainder = self.remainder(found.measure);
        let position = draw(level, weights, found.threshold, remainder).expect(REACHED);
        let index = index_of(level, self.row(), work.offsets, collected.bound, position);
        Drawn { index, remainder, weights: KeptWeights::Collected { least: found.threshold } }
    }

    /// Draws the token of a row without top-k and without top-p. The least kept weight is known before the pass, so the
    /// pass stores only sums.
    fn draw_plain(&self, scale: WeightScale, work: &mut Workspace<'_>) -> Drawn {
        let level = self.level;
        let least = least_weight(Scalar, LEAST_DRAWN, self.params.min_weight);
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

    /// Draws the token of a row with top-p and without top-k. Collects the weights that are at least an estimate. If
    /// the estimate was too high, collects every weight above 0.
    fn draw_by_top_p(&self, scale: WeightScale, work: &mut Workspace<'_>) -> Drawn {
        let (level, row) = (self.level, self.row());
        let (estimate, hint) =
            top_p::estimate(level, row, work.tops, scale, self.params, work.weights, work.spare);
        for least in [estimate, LEAST_DRAWN] {
            let (sums, len) = self.collect_weights(scale, least, work);
            pad(work.weights, len);
            let weights = &work.weights[..len.next_multiple_of(LANES)];
            let sums = (sums.collected, sums.all);
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
