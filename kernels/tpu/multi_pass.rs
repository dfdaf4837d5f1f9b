//! Computes top-k, top-p and the draw by passes. The result is exact for any row and any k.
//!
//! Ties at the top-k threshold differ only in their index. So the ties are only counted, and no pass computes their
//! weights. The passes process only the entries above the threshold. The total weight of the kept ties is the number of
//! ties times the weight of one tie.

use super::context::{Context, Outcome, NO_INDEX};
use super::k_slices::{KSlices, Slot};
use super::keys::{edge_below, order_keys};
use super::lane_sums::{inclusive_sums, sum_lanes};
use super::passes::{total, Iteration, Passes, Source};
use super::sampling::Sampling;
use super::threshold_search::{bisect, Probe};
use super::top_p_search::search_top_p;
use crate::kernels::program_arrays::Column;
use crate::mlir::mosaic::wide::Wide;
use crate::mlir::mosaic::{Reduce, Value, LANES};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::NEG_INF_KEY;
use crate::semantics::rules::kept_weight;

/// Sampling by passes over a source.
pub(super) struct MultiPass<'a> {
    pub(super) cx: &'a Context<'a>,
    pub(super) passes: &'a Passes,
    pub(super) source: Source<'a>,
    pub(super) sampling: &'a Sampling,
}

/// The entries that top-k keeps, by the rule of [`survives_top_k`](crate::semantics::rules::survives_top_k). In this
/// form of the rule, a pass needs no order keys.
///
/// Top-k keeps the logits above the float `edge`. It also keeps `ties` entries at the threshold. The last of these is
/// at index `last_tie`. If it keeps every tie, `edge` is just below the threshold and `ties` is 0. If it keeps only
/// some ties, `edge` is the threshold itself.
#[derive(Clone, Copy)]
struct Kept {
    edge: Value,
    /// Logits above this float are at or above the threshold.
    below_threshold: Value,
    /// The threshold, an order key.
    threshold: Value,
    ties: Value,
    last_tie: Value,
    /// The weight of a tie.
    tie_weight: Value,
}

/// The floats around a top-k threshold.
#[derive(Clone, Copy)]
struct Edges {
    /// Whether the threshold is −inf. A float comparison cannot distinguish a NaN, which counts as −inf, from a
    /// number.
    is_lowest: Value,
    /// Logits above this float are at or above the threshold.
    below_threshold: Value,
    /// Logits above this float are above the threshold.
    at_threshold: Value,
}

impl Kept {
    /// Whether a raw logit at an index is kept as one of the `ties`.
    fn is_counted_tie(&self, cx: &Context<'_>, x: Value, index: Value) -> Value {
        let k = cx.k;
        let tie = k.both(k.eq(order_keys(k, x), self.threshold), k.le(index, self.last_tie));
        k.both(tie, k.lt(k.i32(0), self.ties))
    }
}

impl MultiPass<'_> {
    /// Samples from the entries of the source. They include every entry that can affect the result. `bound` is a key.
    /// In each row, the number of logits that reach it is at least the number that top-k keeps. `greedy` is the lowest
    /// index of each row's maximum.
    pub(super) fn sample(&self, greedy: Value, bound: Value, slices: Option<&KSlices>) -> Outcome {
        let (cx, k, sampling) = (self.cx, self.cx.k, self.sampling);
        let (top_k, tie_counts) = self.top_k(bound);
        let (kept, tie_counts) = self.or_greedy(top_k, tie_counts, greedy);

        k.comment("weights");
        let sum = self.weigh_all(kept);
        let sum = k.wadd(sum, k.product_of_words(kept.ties, kept.tie_weight));

        k.comment("top-p and min-p");
        let least_weight = self.least_weight(kept, sum);

        k.comment("draw");
        let sums = self.passes.chunk_sums(cx, self.source, "kept weight per chunk", |iteration, register| {
            kept_weight(k, self.weight(kept, iteration, register), least_weight)
        });
        let tie_weight = kept_weight(k, kept.tie_weight, least_weight);
        let ties = self.kept_ties(kept, tie_counts);
        let sums = k.wadd(sums, k.product_of_words(ties, tie_weight));
        let remainder = sampling.remainder(cx, total(cx, sums));
        let final_weight = |x: Value, index: Value| {
            let weight = sampling.weight_of_raw(cx, x);
            // This is the comparison of `kept_weight`. Adding it to the mask is cheaper than a second selection.
            let above = k.both(k.above(x, kept.edge), k.ge(weight, least_weight));
            let tie = kept.is_counted_tie(cx, x, index);
            k.choose(above, weight, k.choose(tie, tie_weight, k.i32(0)))
        };
        let next = self.passes.locate(cx, sums, remainder, final_weight);

        if let Some(slices) = slices {
            self.write_slices(slices, top_k, final_weight);
        }
        let Kept { threshold, last_tie, .. } = top_k;
        Outcome { next, greedy, remainder, threshold, last_tie, least_weight }
    }

    /// Returns the entries that top-k keeps, and the number of ties in each chunk. The number for chunk `i` is in lane
    /// `i`.
    fn top_k(&self, bound: Value) -> (Kept, Value) {
        let (cx, k) = (self.cx, self.cx.k);
        k.comment("top-k");
        let wanted = cx.param(Column::K);
        let on = k.lt(k.i32(0), wanted);
        let (threshold, edges) = self.top_k_threshold(wanted, on, bound);
        let (zero, all) = (k.splat(k.i32(0)), k.splat(k.i32(i32::MAX)));
        let ties = k.if_else(
            "a row has top-k",
            k.any(on),
            || self.ties(wanted, on, edges),
            || vec![zero, all, zero],
        );
        let (ties, last_tie, counts) = (ties[0], ties[1], ties[2]);

        let crowded = k.lt(zero, ties);
        let kept = Kept {
            edge: k.choose(crowded, edges.at_threshold, edges.below_threshold),
            below_threshold: edges.below_threshold,
            threshold,
            ties,
            last_tie,
            tie_weight: self.sampling.weight_of_key(cx, threshold),
        };
        (kept, counts)
    }

    /// Returns the top-k threshold as an order key, and the floats around it. In rows without top-k, the threshold is
    /// −inf.
    fn top_k_threshold(&self, wanted: Value, on: Value, bound: Value) -> (Value, Edges) {
        let (cx, k) = (self.cx, self.cx.k);
        let lowest = cx.short_key(bound);
        let beyond = k.add(cx.short_key(self.sampling.max_key), k.i32(1));
        let high = k.choose(on, beyond, k.add(lowest, k.i32(1)));
        let found = bisect(k, "top-k threshold, one pass per step", lowest, high, |middle| {
            let edge = edge_below(k, cx.full_key(middle));
            let [count] = self.passes.count(cx, self.source, "count", [edge]);
            Probe::count(k, count, wanted)
        });
        let threshold = k.choose(on, cx.full_key(found), k.i32(NEG_INF_KEY));
        // If −inf is kept, every candidate is above the threshold.
        let is_lowest = k.eq(threshold, k.i32(NEG_INF_KEY));
        let none_below = k.f32(f32::NEG_INFINITY);
        let below_threshold = k.choose(is_lowest, none_below, edge_below(k, threshold));
        let at_threshold = edge_below(k, cx.full_key(k.add(found, k.i32(1))));
        let at_threshold = k.choose(is_lowest, none_below, at_threshold);
        (threshold, Edges { is_lowest, below_threshold, at_threshold })
    }

    /// Returns three values per row: the number of kept ties, the index of the last kept tie, and the number of ties in
    /// each chunk. The number of kept ties is 0 if the row keeps all ties or has no top-k.
    fn ties(&self, wanted: Value, on: Value, edges: Edges) -> Vec<Value> {
        let (cx, k) = (self.cx, self.cx.k);
        let (zero, all) = (k.splat(k.i32(0)), k.splat(k.i32(i32::MAX)));
        let Edges { is_lowest, below_threshold, at_threshold } = edges;
        let edges_to_count = [below_threshold, at_threshold];
        let [reached, above] = self.passes.count(cx, self.source, "count ties", edges_to_count);
        // Every entry reaches the key of −inf, including NaNs.
        let everything = k.choose(is_lowest, k.i32(cx.spec.vocab as i32), zero);
        let reached = k.choose(is_lowest, everything, reached);
        let crowded = k.both(on, k.lt(wanted, reached));
        let crowded = if cx.spec.stable { crowded } else { k.both(crowded, k.bool(false)) };
        let ties = k.choose(crowded, k.sub(wanted, above), zero);
        let found = k.if_else(
            "ties at the top-k threshold",
            k.any(crowded),
            || self.find_ties(edges, ties),
            || vec![all, zero],
        );
        vec![ties, k.choose(crowded, found[0], all), found[1]]
    }

    /// Returns the index of the last tie that each row keeps, and the number of ties in each chunk. `kept` is the
    /// number of kept ties. It is 0 in rows that keep all ties.
    fn find_ties(&self, edges: Edges, kept: Value) -> Vec<Value> {
        let (cx, k) = (self.cx, self.cx.k);
        let one_if_tie = |x: Value| {
            let reaches = k.either(edges.is_lowest, k.above(x, edges.below_threshold));
            k.choose(k.both(reaches, k.not(k.above(x, edges.at_threshold))), k.i32(1), k.i32(0))
        };
        let counted = |source: Source<'_>| {
            self.passes.chunk_sums(cx, source, "ties per chunk", |iteration, register| {
                one_if_tie(iteration.logit(cx, register))
            })
        };
        let sums = match self.source {
            Source::AllLogits => counted(self.source),
            // The candidate list does not contain entries of −inf.
            Source::Candidates(_) => {
                let in_rows = k.any(k.both(edges.is_lowest, k.lt(k.i32(0), kept)));
                let flat = |sums: Wide| vec![sums.low, sums.high];
                let all = || flat(counted(Source::AllLogits));
                let sums = k.if_else("ties at -inf", in_rows, all, || flat(counted(self.source)));
                Wide { low: sums[0], high: sums[1] }
            }
        };
        let before_last = k.choose(k.lt(k.i32(0), kept), k.sub(kept, k.i32(1)), k.i32(0));
        let last = self.passes.locate(cx, sums, k.widen(before_last), |x, _| one_if_tie(x));
        vec![last, sums.low]
    }

    /// Returns the entries that have a weight, by the rule of [`has_weight`](crate::semantics::rules::has_weight). A
    /// greedy row keeps only its maximum, which counts as a tie. The maximum has the same weight at any temperature.
    fn or_greedy(&self, kept: Kept, counts: Value, greedy: Value) -> (Kept, Value) {
        let (cx, k) = (self.cx, self.cx.k);
        let is_greedy = self.sampling.greedy_row;
        let here = match (cx.layout.chunks, k.stripes()) {
            (1, 1) => k.eq(k.lane(), k.splat(k.i32(0))),
            (_, 1) => k.eq(k.lane(), k.shr(greedy, (cx.layout.chunk * LANES).trailing_zeros())),
            (chunks, _) => {
                let chunk = k.shr(greedy, (cx.layout.chunk * LANES).trailing_zeros());
                let number = k.add(k.lane(), k.mul(k.stripe(), k.i32(chunks as i32)));
                k.both(k.eq(number, chunk), k.lt(k.lane(), k.i32(chunks as i32)))
            }
        };
        let one = k.choose(here, k.i32(1), k.i32(0));
        let threshold = k.choose(is_greedy, self.sampling.max_key, kept.threshold);
        let weighed = Kept {
            edge: k.choose(is_greedy, k.f32(f32::INFINITY), kept.edge),
            below_threshold: kept.below_threshold,
            threshold,
            ties: k.choose(is_greedy, k.i32(1), kept.ties),
            last_tie: k.choose(is_greedy, greedy, kept.last_tie),
            tie_weight: self.sampling.weight_of_key(cx, threshold),
        };
        (weighed, k.choose(is_greedy, one, counts))
    }

    /// Returns the number of kept ties in each chunk. `counts` contains the numbers of all ties. The number for chunk
    /// `i` is in lane `i`.
    fn kept_ties(&self, kept: Kept, counts: Value) -> Value {
        let k = self.cx.k;
        let before = k.sub(inclusive_sums(k, k.widen(counts)).low, counts);
        let left = k.sub(kept.ties, before);
        k.choose(k.lt(left, k.i32(0)), k.i32(0), k.min(left, counts))
    }

    /// Computes the weights of the entries above the edge, stores them if there is space, and returns their sum.
    fn weigh_all(&self, kept: Kept) -> Wide {
        let cx = self.cx;
        self.passes.sum(cx, self.source, ("weights", 1), |iteration, register| {
            let weight = self.weight_above_edge(kept, iteration.logit(cx, register));
            iteration.keep_weight(cx, register, weight);
            weight
        })
    }

    /// Returns the weight of a raw logit if it is above the edge, else 0.
    fn weight_above_edge(&self, kept: Kept, x: Value) -> Value {
        let k = self.cx.k;
        k.choose(k.above(x, kept.edge), self.sampling.weight_of_raw(self.cx, x), k.i32(0))
    }

    /// Returns [`weight_above_edge`](MultiPass::weight_above_edge) of a register. Loads the weight if it is stored, and
    /// otherwise computes it again.
    fn weight(&self, kept: Kept, iteration: &Iteration<'_>, register: usize) -> Value {
        iteration
            .kept_weight(self.cx, register)
            .unwrap_or_else(|| self.weight_above_edge(kept, iteration.logit(self.cx, register)))
    }

    /// Returns the least weight that survives both top-p and min-p. `sum` is the sum of all weights.
    fn least_weight(&self, kept: Kept, sum: Wide) -> Value {
        let (cx, k, sampling) = (self.cx, self.cx.k, self.sampling);
        let (off, target) = sampling.top_p_target(cx, sum);
        let lowest = cx.short_key(kept.threshold);
        let beyond = k.add(cx.short_key(sampling.max_key), k.i32(1));
        let closed = k.either(off, sampling.greedy_row);
        let high = k.choose(closed, k.add(lowest, k.i32(1)), beyond);
        let shares = (sum, k.wsub(sum, target));
        let threshold = search_top_p(cx, sampling, (lowest, high), shares, |least| {
            let reached = self.passes.sum(cx, self.source, ("sum", 2), |iteration, register| {
                kept_weight(k, self.weight(kept, iteration, register), least)
            });
            (k.not(k.wlt(reached, target)), k.wsub(sum, reached))
        });
        sampling.least_weight(cx, off, threshold)
    }

    /// Writes the k-slices, with one pass per slot. This is slow. Only debug calls need it, and only for blocks that
    /// cannot be sampled from survivors.
    fn write_slices(&self, slices: &KSlices, top_k: Kept, final_weight: impl Fn(Value, Value) -> Value) {
        let (cx, k) = (self.cx, self.cx.k);
        let (lane, none) = (k.lane(), k.i32(NO_INDEX));
        let is_lowest = k.eq(top_k.threshold, k.i32(NEG_INF_KEY));
        let last = k.min(top_k.last_tie, k.i32(cx.spec.vocab as i32 - 1));
        slices.write(cx, |previous| {
            let start = [k.splat(none), k.splat(k.f32(0.0))];
            let next = cx.logits.pass("next kept entry", &start, |chunk, number, state| {
                let [mut least, mut logit] = [state[0], state[1]];
                let first = k.add(cx.in_stripe(lane), k.mul(number, k.i32((cx.layout.chunk * LANES) as i32)));
                for register in 0..cx.layout.chunk {
                    let at = k.i32((register * LANES) as i32);
                    let (x, index) = (k.load(chunk, at), k.add(first, at));
                    // Every entry reaches the key of −inf. An entry above the edge is kept at any index.
                    let reaches = k.either(is_lowest, k.above(x, top_k.below_threshold));
                    let tie = k.both(reaches, k.ge(last, index));
                    let kept = k.either(k.above(x, top_k.edge), tie);
                    let first = k.both(k.lt(previous, index), k.lt(index, least));
                    let mask = k.both(kept, first);
                    least = k.choose(mask, index, least);
                    logit = k.choose(mask, x, logit);
                }
                vec![least, logit]
            });
            let index = k.trunc(k.over_row(Reduce::Min, k.to_float(next[0])));
            let here = k.both(k.eq(next[0], index), k.lt(index, none));
            let x = k.from_bits(sum_lanes(k, k.choose(here, k.bits(next[1]), k.i32(0))).low);
            Slot { index, key: order_keys(k, x), weight: final_weight(x, index) }
        });
    }
}
