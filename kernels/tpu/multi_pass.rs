//! Computes top-k, top-p and the draw by passes. The result is exact for any row and any k.
//!
//! Ties at the top-k threshold differ only in their index. So the ties are only counted, and no pass computes their
//! weights. The passes process only the entries above the threshold. The total weight of the kept ties is the number of
//! ties times the weight of one tie.

use super::context::{Context, Outcome, NO_INDEX};
use super::interpolation::{End, Narrow, Neighbors, Probed, Range, Search};
use super::k_slices::{KSlices, Slot};
use super::keys::{edge_below, float_of_key, order_keys};
use super::lane_sums::{
    approximate_log2, approximate_log2_of_float, inclusive_sums, noted_sum, ones, sum_lanes, Split,
};
use super::passes::{total, Content, Iteration, Passes, Source};
use super::sampling::Sampling;
use super::threshold_search::{is_open, search_for_value, Probe, Question};
use crate::dtype::Dtype;
use crate::kernels::program_arrays::Column;
use crate::kernels::spec::Path;
use crate::mlir::mosaic::wide::Wide;
use crate::mlir::mosaic::{Reduce, Value, LANES};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::NEG_INF_KEY;
use crate::semantics::rules::kept_weight;
use crate::semantics::sizes::WEIGHT_BITS;
use crate::semantics::weights::MAX_WEIGHT;

/// If the search for a threshold takes more steps than this number, the later passes also find the entries next to the
/// probed place.
const FAST_STEPS: i32 = 9;
/// Like [`FAST_STEPS`], for a search over the candidate list.
const FAST_STEPS_OVER_LIST: i32 = 6;

/// Stands for a number of entries that the search for the top-k threshold has not counted. It is larger than any number
/// of entries.
const UNKNOWN: i32 = i32::MAX;

/// Sampling by passes over a source.
pub(super) struct MultiPass<'a> {
    pub(super) cx: &'a Context<'a>,
    pub(super) passes: &'a Passes,
    pub(super) source: Source<'a>,
    pub(super) sampling: &'a Sampling,
    /// A scalar: whether a row of the block contains a NaN or +inf.
    pub(super) irregular: Value,
    /// The entries that are not in the source, if they can have a weight.
    pub(super) unlisted: Option<Unlisted>,
}

/// Describes the entries that the source does not contain, for the rows in which they can have a weight. These rows
/// have top-p and no top-k.
#[derive(Clone, Copy)]
pub(super) struct Unlisted {
    /// A mask: whether entries of the row that are not in the source can have a weight.
    pub(super) open: Value,
    /// The sum of all weights of the row. It has no meaning in other rows.
    pub(super) total: Wide,
    /// The least key of an entry in the source.
    pub(super) threshold: Value,
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

/// The values that determine the top-p threshold of each row.
#[derive(Clone, Copy)]
struct TopP {
    kept: Kept,
    /// The sum of the weights of the source.
    sum: Wide,
    /// The sum of all weights.
    total: Wide,
    /// The sum of weights that top-p must reach.
    target: Wide,
    /// A mask: the rows that need no search.
    closed: Value,
    /// The short key of [`Kept::threshold`].
    lowest: Value,
    /// The weight of the least kept entry.
    lowest_weight: Value,
}

/// The scale on which a search for the top-p threshold interpolates.
struct Scale<'a> {
    /// See [`Search::ends`].
    ends: [End; 2],
    /// See [`Search::aim`].
    aim: Value,
    /// Receives the sum of the weights below a place, as a float. Returns [`Probed::log`] of this place.
    log: Box<dyn Fn(Value) -> Value + 'a>,
}

impl Kept {
    /// Whether a raw logit at an index is kept as one of the `ties`.
    fn is_counted_tie(&self, cx: &Context<'_>, x: Value, index: Value) -> Value {
        let k = cx.k;
        let tie = k.both(k.eq(order_keys(k, x), self.threshold), k.le(index, self.last_tie));
        k.both(tie, k.lt(k.i32(0), self.ties))
    }
}

/// Whether logits can have many different values. Logits of bf16 have few different values, so a search for one of them
/// takes few passes.
fn has_many_values(cx: &Context<'_>) -> bool {
    cx.spec.dtype != Dtype::Bf16
}

impl MultiPass<'_> {
    /// Samples from the entries of the source. They include every entry that can affect the result. `bound` is a key.
    /// In each row, the number of logits that reach it is at least the number that top-k keeps. `greedy` is the lowest
    /// index of each row's maximum.
    ///
    /// Also returns a mask: whether the result of the row is known. It is always known if the source contains every
    /// entry that has a weight. Otherwise, the top-p threshold can be an entry that is not in the source.
    pub(super) fn sample(&self, greedy: Value, bound: Value, slices: Option<&KSlices>) -> (Outcome, Value) {
        let (cx, k, sampling) = (self.cx, self.cx.k, self.sampling);
        let (top_k, tie_counts) = self.top_k(bound);
        let (kept, tie_counts) = self.or_greedy(top_k, tie_counts, greedy);

        k.comment("weights");
        let all_sums = self.weigh_all(kept);
        let sum = k.wadd(total(cx, all_sums), k.product_of_words(kept.ties, kept.tie_weight));
        let sum = noted_sum(k, sum, cx.spec.vocab);

        k.comment("top-p and min-p");
        let (least_weight, known) = self.least_weight(kept, sum);

        k.comment("draw");
        let kept_sums = || {
            let sums = self.passes.chunk_sums(
                cx,
                self.source,
                ("kept weight per chunk", 2),
                |iteration, register| kept_weight(k, self.weight(kept, iteration, register), least_weight),
            );
            sums.flat()
        };
        let removes = k.any_row(k.lt(k.i32(1), least_weight));
        let sums = k.if_else("top-p or min-p removes weights", removes, kept_sums, || all_sums.flat());
        let sums = Wide::from_flat(&sums);
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
        let located = |content| vec![self.passes.locate(cx, sums, remainder, content, final_weight)];
        let from_weights = || {
            let value = |weight: Value, _| kept_weight(k, k.bits(weight), least_weight);
            vec![self.passes.locate(cx, sums, remainder, Content::Weights, value)]
        };
        let next = match self.source {
            Source::AllLogits if self.passes.keep_weights() => {
                let ties = k.any_row(k.lt(k.i32(0), kept.ties));
                k.if_else("ties are kept", ties, || located(Content::Logits), from_weights)[0]
            }
            _ => located(Content::Logits)[0],
        };

        if let Some(slices) = slices {
            self.write_slices(slices, top_k, final_weight);
        }
        let Kept { threshold, last_tie, .. } = top_k;
        (Outcome { next, greedy, remainder, threshold, last_tie, least_weight }, known)
    }

    /// Returns the entries that top-k keeps, and the number of ties in each chunk. The number for chunk `i` is in lane
    /// `i`.
    fn top_k(&self, bound: Value) -> (Kept, Value) {
        let (cx, k) = (self.cx, self.cx.k);
        k.comment("top-k");
        let wanted = cx.param(Column::K);
        let on = k.lt(k.i32(0), wanted);
        let (zero, all) = (k.splat(k.i32(0)), k.splat(k.i32(i32::MAX)));
        let (lowest, none_below) = (k.splat(k.i32(NEG_INF_KEY)), k.splat(k.f32(f32::NEG_INFINITY)));
        let found = k.if_else(
            "a row has top-k",
            k.any_row(on),
            || {
                let (threshold, edges, counts) = self.top_k_threshold(wanted, on, bound);
                let floats = [edges.below_threshold, edges.at_threshold];
                [vec![threshold], floats.to_vec(), self.ties(wanted, on, edges, counts)].concat()
            },
            || vec![lowest, none_below, none_below, zero, all, zero],
        );
        let [threshold, below_threshold, at_threshold, ties, last_tie, counts] =
            found.try_into().expect("both branches return six values");

        let crowded = k.lt(zero, ties);
        let kept = Kept {
            edge: k.choose(crowded, at_threshold, below_threshold),
            below_threshold,
            threshold,
            ties,
            last_tie,
            tie_weight: self.sampling.weight_of_key(cx, threshold),
        };
        (kept, counts)
    }

    /// Returns the top-k threshold as an order key, and the floats around it. In rows without top-k, the threshold is
    /// −inf. Also returns the numbers of entries that [`ties`](MultiPass::ties) needs. The first number is
    /// [`UNKNOWN`] in a row in which the search did not count them.
    fn top_k_threshold(&self, wanted: Value, on: Value, bound: Value) -> (Value, Edges, [Value; 2]) {
        let (cx, k) = (self.cx, self.cx.k);
        let lowest = cx.short_key(bound);
        let beyond = k.add(cx.short_key(self.sampling.max_key), k.i32(1));
        let high = k.choose(on, beyond, k.add(lowest, k.i32(1)));
        // Slightly more entries than wanted usually reach the bound.
        let log = |count: Value| approximate_log2(k, k.widen(count));
        let many = log(k.add(wanted, k.shr(wanted, 3)));
        let log_beyond = |excess: Value| {
            let count = k.max(k.add(wanted, k.trunc(excess)), k.i32(1));
            log(count)
        };
        let one = |_| k.f32(1.0);
        let passes = |neighbors: bool| Search {
            label: if neighbors {
                "top-k threshold, with neighbors"
            } else {
                "top-k threshold, one pass per step"
            },
            places: [lowest, high],
            values: [k.i32(UNKNOWN), k.i32(0)],
            ends: [
                End { logit: float_of_key(k, bound), log: many },
                End { logit: self.sampling.max, log: k.f32(0.0) },
            ],
            aim: log(wanted),
            open: |count, _| k.ne(count, wanted),
            most_steps: None,
            narrow: None,
            probe: move |key| {
                let (count, neighbors) = self.count_reaching(key, neighbors);
                let sum = Some(k.widen(count));
                Probed { reaches: k.ge(count, wanted), value: count, log: log(count), neighbors, sum }
            },
        };
        let narrow = Narrow {
            sums: [k.widen(k.i32(i32::MAX)), k.wide(0)],
            target: k.widen(wanted),
            entry: &one,
            log_beyond: &log_beyond,
        };
        // If the range contains several places, exactly the wanted number of entries reach the lower place. Then there
        // are no ties, and the number at the upper place has no effect.
        let [found, reached, above] = self.threshold(
            "few entries near the top-k threshold",
            passes,
            narrow,
            |range| [range.low.place, range.low.value, range.high.value],
            |range, open| {
                let (found, failed) = self.top_k_among_few(wanted, range, open);
                ([found, k.splat(k.i32(UNKNOWN)), k.splat(k.i32(0))], failed)
            },
        );
        let threshold = k.choose(on, cx.full_key(found), k.i32(NEG_INF_KEY));
        (threshold, self.edges(found, threshold), [reached, above])
    }

    /// Returns the number of entries that reach a key. If `neighbors` is true, also returns the entries next to the
    /// key, unless the source is the whole row.
    fn count_reaching(&self, key: Value, neighbors: bool) -> (Value, Option<Neighbors>) {
        let (cx, edge) = (self.cx, edge_below(self.cx.k, key));
        match self.source {
            Source::Candidates(list) if neighbors => {
                let (count, neighbors) = self.passes.count_in_list(cx, list, "count", edge);
                (count, Some(neighbors))
            }
            source => (self.passes.count(cx, source, "count", [edge])[0], None),
        }
    }

    /// Returns the floats around a top-k threshold. `found` is the short key of the threshold. `threshold` is its order
    /// key, or that of −inf in a row without top-k.
    fn edges(&self, found: Value, threshold: Value) -> Edges {
        let (cx, k) = (self.cx, self.cx.k);
        // If −inf is kept, every candidate is above the threshold.
        let is_lowest = k.eq(threshold, k.i32(NEG_INF_KEY));
        let none_below = k.f32(f32::NEG_INFINITY);
        let below_threshold = k.choose(is_lowest, none_below, edge_below(k, threshold));
        let at_threshold = edge_below(k, cx.full_key(k.add(found, k.i32(1))));
        let at_threshold = k.choose(is_lowest, none_below, at_threshold);
        Edges { is_lowest, below_threshold, at_threshold }
    }

    /// Returns three values per row: the number of kept ties, the index of the last kept tie, and the number of ties in
    /// each chunk. The number of kept ties is 0 if the row keeps all ties or has no top-k.
    ///
    /// `known` contains the number of entries at or above the threshold, and the number of entries above it. The first
    /// is [`UNKNOWN`] in a row in which they are not known. If it is unknown in any row with top-k, a pass counts both.
    fn ties(&self, wanted: Value, on: Value, edges: Edges, known: [Value; 2]) -> Vec<Value> {
        let (cx, k) = (self.cx, self.cx.k);
        let (zero, all) = (k.splat(k.i32(0)), k.splat(k.i32(i32::MAX)));
        let Edges { is_lowest, below_threshold, at_threshold } = edges;
        let edges_to_count = [below_threshold, at_threshold];
        let unknown = k.any_row(k.both(on, k.eq(known[0], k.i32(UNKNOWN))));
        let counted = || self.passes.count(cx, self.source, "count ties", edges_to_count).to_vec();
        let counts = k.if_else("the search did not count the ties", unknown, counted, || known.to_vec());
        let [reached, above] = [counts[0], counts[1]];
        // Every entry reaches the key of −inf, including NaNs.
        let everything = k.choose(is_lowest, k.i32(cx.spec.vocab as i32), zero);
        let reached = k.choose(is_lowest, everything, reached);
        let crowded = k.both(on, k.lt(wanted, reached));
        let crowded = if cx.spec.stable { crowded } else { k.both(crowded, k.bool(false)) };
        let ties = k.at_most_noted(k.choose(crowded, k.sub(wanted, above), zero), cx.spec.vocab as i32);
        let found = k.if_else(
            "ties at the top-k threshold",
            k.any_row(crowded),
            || self.find_ties(edges, ties),
            || vec![all, zero],
        );
        vec![ties, k.choose(crowded, found[0], all), found[1]]
    }

    /// Returns the index of the last tie that each row keeps, and the number of ties in each chunk. `kept` is the
    /// number of kept ties. It is 0 in rows that keep all ties.
    fn find_ties(&self, edges: Edges, kept: Value) -> Vec<Value> {
        let (cx, k) = (self.cx, self.cx.k);
        let is_tie = |x: Value| {
            let reaches = k.either(edges.is_lowest, k.above(x, edges.below_threshold));
            k.both(reaches, k.not(k.above(x, edges.at_threshold)))
        };
        let counted = |source: Source<'_>| {
            self.passes.chunk_counts(cx, source, ("ties per chunk", 2), |iteration, register| {
                is_tie(iteration.logit(cx, register))
            })
        };
        let counts = match self.source {
            Source::AllLogits => counted(self.source),
            // The candidate list does not contain entries of −inf.
            Source::Candidates(_) => {
                let in_rows = k.any_row(k.both(edges.is_lowest, k.lt(k.i32(0), kept)));
                let all = || vec![counted(Source::AllLogits)];
                k.if_else("ties at -inf", in_rows, all, || vec![counted(self.source)])[0]
            }
        };
        let before_last = k.choose(k.lt(k.i32(0), kept), k.sub(kept, k.i32(1)), k.i32(0));
        let one_if_tie = |x: Value, _| k.one_where(is_tie(x));
        let last = self.passes.locate(cx, k.widen(counts), k.widen(before_last), Content::Logits, one_if_tie);
        vec![last, counts]
    }

    /// Returns the entries that have a weight, by the rule of [`has_weight`](crate::semantics::rules::has_weight). A
    /// greedy row keeps only its maximum, which counts as a tie. The maximum has the same weight at any temperature.
    fn or_greedy(&self, kept: Kept, counts: Value, greedy: Value) -> (Kept, Value) {
        let (cx, k) = (self.cx, self.cx.k);
        let is_greedy = self.sampling.greedy_row;
        let summed = (cx.layout.summed() * LANES).trailing_zeros();
        let here = match (cx.layout.sums(), k.stripes()) {
            (1, 1) => k.eq(k.lane(), k.splat(k.i32(0))),
            (_, 1) => k.eq(k.lane(), k.shr(greedy, summed)),
            (sums, _) => {
                let chunk = k.shr(greedy, summed);
                let number = k.add(k.lane(), k.mul(k.stripe(), k.i32(sums as i32)));
                k.both(k.eq(number, chunk), k.lt(k.lane(), k.i32(sums as i32)))
            }
        };
        let one = k.one_where(here);
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
        let kept = k.choose(k.lt(left, k.i32(0)), k.i32(0), k.min(left, counts));
        k.at_most_noted(kept, self.cx.spec.vocab as i32)
    }

    /// Computes the weights of the entries above the edge, stores them if there is space, and returns the sum of each
    /// chunk.
    fn weigh_all(&self, kept: Kept) -> Wide {
        let (cx, k) = (self.cx, self.cx.k);
        let weigh = |label: &str, weight: &dyn Fn(Value) -> Value| {
            let sums = self.passes.chunk_sums(cx, self.source, (label, 1), |iteration, register| {
                let weight = weight(iteration.logit(cx, register));
                iteration.keep_weight(cx, register, weight);
                weight
            });
            sums.flat()
        };
        let above_edge = || weigh("weights above an edge", &|x| self.weight_above_edge(kept, x));
        // Without an edge, the pass needs neither a comparison nor cleaned logits. The weight of −inf is 0.
        let all = || weigh("weights", &|x| self.sampling.weight_of(cx, x));
        let sums = match self.source {
            // On the bounded path, every row has top-k.
            Source::AllLogits if cx.spec.path == Path::Arbitrary => {
                let edges = k.any_row(k.above(kept.edge, k.f32(f32::NEG_INFINITY)));
                let masked = k.either(edges, self.irregular);
                k.if_else("some entries have no weight", masked, above_edge, all)
            }
            _ => above_edge(),
        };
        Wide::from_flat(&sums)
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

    /// Returns the least weight that survives both top-p and min-p. `sum` is the sum of the weights of the source. Also
    /// returns a mask: whether the least weight is known.
    fn least_weight(&self, kept: Kept, sum: Wide) -> (Value, Value) {
        let (cx, k, sampling) = (self.cx, self.cx.k, self.sampling);
        let total = self.unlisted.map_or(sum, |unlisted| k.wselect(unlisted.open, unlisted.total, sum));
        let (off, target) = sampling.top_p_target(cx, total);
        let closed = k.either(off, sampling.greedy_row);
        // If the entries of the source do not reach the target, there is nothing to search.
        let missing = self.unlisted.map(|unlisted| k.both(unlisted.open, k.wlt(sum, target)));
        let closed = missing.map_or(closed, |missing| k.either(closed, missing));
        let lowest_weight = sampling.weight_of_key(cx, kept.threshold);
        let least = k.if_else(
            "a row has top-p",
            k.any_row(k.not(closed)),
            || {
                let lowest = cx.short_key(kept.threshold);
                let top_p = TopP { kept, sum, total, target, closed, lowest, lowest_weight };
                vec![self.top_p_threshold(&top_p)]
            },
            || vec![k.splat(lowest_weight)],
        );
        let least_weight = sampling.least_weight(cx, off, least[0]);
        let known = match (self.unlisted, missing) {
            (Some(Unlisted { open, threshold, .. }), Some(missing)) => {
                // Every entry that is not in the source must have a weight below the threshold of top-p.
                let below = k.sub(cx.short_key(threshold), k.i32(1));
                let below = sampling.weight_of_key(cx, cx.full_key(below));
                k.either(k.not(open), k.both(k.not(missing), k.lt(below, least[0])))
            }
            _ => k.bool(true),
        };
        (least_weight, known)
    }

    /// Returns the top-p threshold of each row: a weight. In the rows of [`TopP::closed`], the result is
    /// [`TopP::lowest_weight`].
    fn top_p_threshold(&self, top_p: &TopP) -> Value {
        let k = self.cx.k;
        let &TopP { kept, sum, total, target, lowest_weight, .. } = top_p;
        let places = self.top_p_places(top_p);
        let allowed = k.wsub(total, target);
        let Scale { ends, aim, log } = match self.source {
            Source::AllLogits => self.top_p_scale_of_row(top_p, allowed),
            Source::Candidates(_) => self.top_p_scale_of_list(top_p, allowed),
        };
        let log = &log;
        let log_beyond = |excess: Value| log(k.fmax(k.fsub(k.near(allowed), excess), k.f32(1.0)));
        let entry = |weight| k.fmax(k.to_float(weight), k.f32(1.0));
        let passes = |neighbors: bool| Search {
            label: if neighbors {
                "top-p threshold, with neighbors"
            } else {
                "top-p threshold, one pass per step"
            },
            places,
            values: [lowest_weight, k.i32(MAX_WEIGHT + 1)],
            ends,
            aim,
            // The search continues while a weight between those of the ends is possible.
            open: |low_weight, high_weight| is_open(k, low_weight, high_weight),
            most_steps: None,
            narrow: None,
            probe: move |key| self.probe_top_p(top_p, log, key, neighbors),
        };
        let narrow = Narrow { sums: [sum, k.wide(0)], target, entry: &entry, log_beyond: &log_beyond };
        self.threshold(
            "few entries near the top-p threshold",
            passes,
            narrow,
            |range| [range.low.value],
            |range, open| {
                let (found, failed) = self.top_p_among_few(kept, target, range, open);
                ([found], failed)
            },
        )[0]
    }

    /// Returns the places where a search for the top-p threshold starts: see [`Search::places`].
    fn top_p_places(&self, top_p: &TopP) -> [Value; 2] {
        let (cx, k) = (self.cx, self.cx.k);
        let &TopP { closed, lowest, .. } = top_p;
        let beyond = k.add(cx.short_key(self.sampling.max_key), k.i32(1));
        [lowest, k.choose(closed, k.add(lowest, k.i32(1)), beyond)]
    }

    /// Probes a place in the search for the top-p threshold, with one pass. `log` is [`Scale::log`]. `neighbors` says
    /// whether the pass also finds the entries next to the place.
    fn probe_top_p(&self, top_p: &TopP, log: &dyn Fn(Value) -> Value, key: Value, neighbors: bool) -> Probed {
        let (cx, k, sampling) = (self.cx, self.cx.k, self.sampling);
        let least = sampling.weight_of_key(cx, key);
        let weight = |iteration: &Iteration<'_>, register| self.weight(top_p.kept, iteration, register);
        let (reached, neighbors) = if neighbors {
            let (sum, neighbors) = self.passes.sum_with_neighbors(cx, self.source, "sum", least, weight);
            (sum, Some(neighbors))
        } else {
            let sum = self.passes.sum(cx, self.source, ("sum", 4), |iteration, register| {
                kept_weight(k, weight(iteration, register), least)
            });
            (sum, None)
        };
        let reaches = k.not(k.wlt(reached, top_p.target));
        let log = log(k.near(k.wsub(top_p.total, reached)));
        // No entry has a weight between `least` and the weight of `above`. So the sum of the weights that are at least
        // `least` does not change if `least` increases to the weight of `above`. The search ends earlier with the
        // larger value.
        let value = match neighbors {
            Some(Neighbors { above, .. }) => {
                let above = sampling.weight_of_key(cx, order_keys(k, above));
                k.choose(reaches, k.max(least, above), least)
            }
            None => least,
        };
        Probed { reaches, value, log, neighbors, sum: Some(reached) }
    }

    /// Returns the scale of a search over all logits. `allowed` is the sum of weights that top-p may remove.
    fn top_p_scale_of_row(&self, top_p: &TopP, allowed: Wide) -> Scale<'_> {
        let k = self.cx.k;
        let log = |below| approximate_log2_of_float(k, below);
        let ends = self.top_p_ends(top_p, allowed);
        Scale { ends, aim: log(k.near(allowed)), log: Box::new(log) }
    }

    /// Returns the scale of a search over the candidate list. `allowed` is the sum of weights that top-p may remove.
    ///
    /// If entries that are not in the source have a weight, the sum of the weights below a logit contains their
    /// weights. Then the logarithm of this sum is nearly a linear function of the logit. Otherwise, the row has no
    /// small weights, and the sum itself is nearly a linear function of the logit.
    fn top_p_scale_of_list(&self, top_p: &TopP, allowed: Wide) -> Scale<'_> {
        let (cx, k, sampling) = (self.cx, self.cx.k, self.sampling);
        let &TopP { kept, sum, total, .. } = top_p;
        let one = k.f32(1.0);
        let inverse = k.divide(one, k.fmax(k.near(allowed), one));
        let share = move |below: Value| k.fmul(below, inverse);
        let farthest = k.fsub(sampling.max, sampling.distance_of_octaves(cx, WEIGHT_BITS as f32));
        let listed = self.unlisted.map_or(kept.threshold, |Unlisted { open, threshold, .. }| {
            k.choose(open, threshold, kept.threshold)
        });
        let low = k.fmax(float_of_key(k, listed), farthest);
        let log: Box<dyn Fn(Value) -> Value> = match self.unlisted {
            Some(Unlisted { open, .. }) => Box::new(move |below| {
                k.choose(open, approximate_log2_of_float(k, k.fmax(below, one)), share(below))
            }),
            None => Box::new(share),
        };
        let low = End { logit: low, log: log(k.near(k.wsub(total, sum))) };
        let high = End { logit: sampling.max, log: log(k.near(total)) };
        Scale { ends: [low, high], aim: log(k.near(allowed)), log }
    }

    /// Returns [`FAST_STEPS`] or [`FAST_STEPS_OVER_LIST`], as the source requires. Returns `None` if logits have few
    /// different values: then the number of steps needs no limit.
    fn fast_steps(&self) -> Option<i32> {
        let steps = match self.source {
            Source::AllLogits => FAST_STEPS,
            Source::Candidates(_) => FAST_STEPS_OVER_LIST,
        };
        has_many_values(self.cx).then_some(steps)
    }

    /// Whether a search ends at narrow ranges. Then one more pass collects the entries in the ranges, and replaces the
    /// last steps of the search. This saves time only if these steps take more time than the pass. They take less time
    /// if logits have few different values, or if each step is a short pass. Passes over the list and over the short
    /// stripes of small batches are short.
    fn collects_few(&self) -> bool {
        match (self.source, has_many_values(self.cx)) {
            (Source::AllLogits, false) => self.cx.k.stripes() == 1,
            (Source::AllLogits, true) => self.cx.k.stripes() < 8,
            (Source::Candidates(_), many_values) => many_values,
        }
    }

    /// Searches for the threshold of each row, in up to three parts:
    ///
    /// 1. The first search usually ends when the range of each row contains few entries. Its passes do not find the
    ///    entries next to the probed place.
    /// 2. One pass collects the entries in these ranges. `among_few` makes this pass, and finds the threshold among the
    ///    entries.
    /// 3. If a range contains too many entries, for example ties, a second search continues. Its passes also find the
    ///    entries next to the probed place.
    ///
    /// `search` returns a search. It receives a flag: whether the passes also find the entries next to the probed
    /// place. `narrow` estimates the number of entries in a range. `result` returns the threshold at the end of a
    /// search, and other values that are known then. `among_few` receives the ranges, and a mask of the rows whose
    /// threshold is not known yet. For these rows, it returns the same values as `result`. It also returns a scalar:
    /// whether there were too many entries.
    fn threshold<'a, const N: usize, O: Fn(Value, Value) -> Value, P: Fn(Value) -> Probed>(
        &self,
        label: &str,
        search: impl Fn(bool) -> Search<'a, O, P>,
        narrow: Narrow<'a>,
        result: impl Fn(&Range) -> [Value; N],
        among_few: impl FnOnce(&Range, Value) -> ([Value; N], Value),
    ) -> [Value; N] {
        let (cx, k) = (self.cx, self.cx.k);
        let most_steps = self.fast_steps();
        let fast = Search { most_steps, narrow: self.collects_few().then_some(narrow), ..search(false) };
        let range = fast.run(cx);
        let known = result(&range);
        let Some(narrow) = &fast.narrow else {
            return match fast.most_steps {
                Some(_) => result(&search(true).run_from(cx, range)),
                None => known,
            };
        };
        let open = fast.is_open(cx, &range);
        let wide = k.both(open, narrow.is_wide(cx, &range));
        let state = k.choose(wide, k.f32(2.0), k.choose(open, k.f32(1.0), k.f32(0.0)));
        let state = k.over_all(Reduce::Max, state);
        let wide = k.above(state, k.f32(1.0));
        let found = k.if_else(
            label,
            k.both(k.above(state, k.f32(0.0)), k.not(wide)),
            || {
                let (found, failed) = among_few(&range, open);
                let found = found.iter().zip(&known).map(|(&found, &known)| k.choose(open, found, known));
                [found.collect(), vec![k.one_where(failed)]].concat()
            },
            || [known.to_vec(), vec![k.one_where(wide)]].concat(),
        );
        let (&failed, found) = found.split_last().expect("the flag is the last value");
        let results = k.if_else(
            "many entries in a range",
            k.eq(failed, k.i32(1)),
            || result(&search(true).run_from(cx, range)).to_vec(),
            || found.to_vec(),
        );
        std::array::from_fn(|i| results[i])
    }

    /// Finds the top-k threshold in the rows of `open`, among the entries in the range of each row. Returns a short key
    /// per row. Also returns a scalar: whether there are too many of these entries.
    fn top_k_among_few(&self, wanted: Value, range: &Range, open: Value) -> (Value, Value) {
        let (cx, k) = (self.cx, self.cx.k);
        let [low_edge, high_edge] =
            [range.low.place, range.high.place].map(|key| edge_below(k, cx.full_key(key)));
        let high_edge = k.choose(open, high_edge, low_edge);
        let empty = k.f32(f32::NEG_INFINITY);
        let (logits, failed) = self.passes.few_entries(
            cx,
            self.source,
            "entries near the top-k threshold",
            empty,
            |iteration, i| {
                let x = iteration.logit(cx, i);
                (k.both(k.above(x, low_edge), k.not(k.above(x, high_edge))), x)
            },
        );
        let key = |&x: &Value| k.choose(k.above(x, empty), cx.short_key(order_keys(k, x)), k.i32(i32::MIN));
        let keys: Vec<Value> = logits.iter().map(key).collect();
        let missing = k.sub(wanted, range.high.sum.low);
        let terms = |place| vec![ones(k, keys.iter().map(|&key| k.ge(key, place)))];
        let decide = |sums: &[Value]| Probe::count(k, k.trunc(sums[0]), missing);
        let [low, high] = [range.low.place, range.high.place];
        let places = [low, k.choose(open, high, k.add(low, k.i32(1)))];
        let question = Question { terms, decide };
        let logit = |key: Value| float_of_key(k, cx.full_key(key));
        let label = "top-k threshold among few entries";
        let least = search_for_value(k, label, places, &keys, &question, logit);
        (cx.short_key(order_keys(k, least)), failed)
    }

    /// Finds the top-p threshold in the rows of `open`, among the entries in the range of each row. `target` is the sum
    /// of weights that top-p must reach. Returns a weight per row. Also returns a scalar: whether there are too many of
    /// these entries.
    fn top_p_among_few(&self, kept: Kept, target: Wide, range: &Range, open: Value) -> (Value, Value) {
        let (cx, k) = (self.cx, self.cx.k);
        // An entry without a weight cannot be the threshold.
        let low = k.max(range.low.value, k.i32(1));
        let high = k.choose(open, range.high.value, low);
        let empty = k.i32(-1);
        let (weights, failed) = self.passes.few_entries(
            cx,
            self.source,
            "entries near the top-p threshold",
            empty,
            |iteration, i| {
                let weight = self.weight(kept, iteration, i);
                (k.both(k.ge(weight, low), k.lt(weight, high)), weight)
            },
        );
        let parts: Vec<Split> =
            weights.iter().map(|&weight| Split::new(k, k.widen(k.max(weight, k.i32(0))))).collect();
        // The range of an open row is narrow. So the missing sum is not larger than the sum of a few weights, and its
        // two parts are exact as floats.
        let missing = Split::new(k, k.wsub(target, range.high.sum));
        let sum = |place| Split::sum_where(k, &parts, |i| k.ge(weights[i], place));
        let terms = |place| sum(place).terms();
        let decide =
            |sums: &[Value]| Probe { reaches: missing.is_at_most(k, &Split::from_terms(sums)), exact: None };
        let places = [low, k.choose(open, high, k.add(low, k.i32(1)))];
        let question = Question { terms, decide };
        // If this number is added to a weight, the bits are those of a normal float. Larger weights give larger floats.
        const NORMAL: i32 = 1 << 29;
        let float = |weight| k.from_bits(k.add(weight, k.i32(NORMAL)));
        let label = "top-p threshold among few entries";
        let least = search_for_value(k, label, places, &weights, &question, float);
        let least = k.sub(k.bits(least), k.i32(NORMAL));
        // The pass does not collect the kept ties at the top-k threshold. If the collected entries do not reach the
        // target without the ties, the search has reached no place above the ties. Then the threshold is the weight of
        // the ties, which is the value of the lower end.
        let reached = missing.is_at_most(k, &sum(low).over_row(k));
        (k.choose(reached, least, range.low.value), failed)
    }

    /// Returns the places where the search for the top-p threshold starts to interpolate. `allowed` is the sum of
    /// weights that top-p may remove. The source contains all logits, so [`TopP::sum`] is the sum of all weights.
    ///
    /// A search in a sample of the weights costs a fraction of a pass over all of them. Its result is close to the
    /// threshold if many entries are near the threshold.
    fn top_p_ends(&self, top_p: &TopP, allowed: Wide) -> [End; 2] {
        let (cx, k, sampling) = (self.cx, self.cx.k, self.sampling);
        let aim = approximate_log2(k, allowed);
        let ends = [
            End {
                logit: k.fsub(sampling.max, sampling.distance_of(cx, allowed)),
                log: k.fsub(aim, k.f32(4.0)),
            },
            End { logit: sampling.max, log: approximate_log2(k, top_p.sum) },
        ];
        let Some(share) = self.passes.sample_share(cx) else { return ends };
        let places = self.top_p_places(top_p);
        let found = self.top_p_in_sample(share, places, ends, aim);
        let place = k.choose(k.eq(found.high.value, k.i32(1)), found.high.place, found.low.place);
        let logit = float_of_key(k, cx.full_key(place));
        // The weights of the two ends differ from the weight of the result by this number of octaves.
        let step = sampling.distance_of_octaves(cx, 0.35);
        let start = self.log_below_in_sample(share, sampling.weight_of(cx, logit));
        let end = |logit: Value| {
            let weight = sampling.weight_of(cx, k.fmin(logit, sampling.max));
            let log = self.log_below_in_sample(share, weight);
            End { logit, log: k.fadd(aim, k.fsub(log, start)) }
        };
        let sampled = [end(k.fsub(logit, step)), end(k.fadd(logit, step))];
        let [low, high] = sampled.map(|end| k.fsub(end.log, aim));
        // If the sample has only few entries below the threshold, its result has no meaning.
        let regular = |distance: Value| k.both(k.above(distance, k.f32(0.1)), k.above(k.f32(2.0), distance));
        let regular = k.both(regular(k.fsub(k.f32(0.0), low)), regular(high));
        let regular = k.both(regular, k.lt(k.i32(0), k.or(found.low.value, found.high.value)));
        let chosen = |number: usize| {
            let (sampled, other): (End, End) = (sampled[number], ends[number]);
            End {
                logit: k.choose(regular, sampled.logit, other.logit),
                log: k.choose(regular, sampled.log, other.log),
            }
        };
        [chosen(0), chosen(1)]
    }

    /// Searches a sample of the weights for a place whose logarithm is close to `aim`. [`Probed::value`] is 1 at such a
    /// place, and 0 at other places. `share` is the part of the weights that the sample contains. `places` and `ends`
    /// are those of [`Search`].
    fn top_p_in_sample(&self, share: f32, places: [Value; 2], ends: [End; 2], aim: Value) -> Range {
        let (cx, k) = (self.cx, self.cx.k);
        // The search ends at a place whose logarithm is this close to the aim.
        const CLOSE: f32 = 0.04;
        let search = Search {
            label: "top-p threshold of a sample",
            places,
            values: [k.i32(0), k.i32(0)],
            ends,
            aim,
            open: |low: Value, high: Value| k.eq(k.or(low, high), k.i32(0)),
            most_steps: Some(6),
            narrow: None,
            probe: |key| {
                let log = self.log_below_in_sample(share, self.sampling.weight_of_key(cx, key));
                let difference = k.fsub(aim, log);
                let close = k.both(k.above(k.f32(CLOSE), difference), k.above(difference, k.f32(-CLOSE)));
                let value = k.one_where(close);
                Probed { reaches: k.at_least(difference, k.f32(0.0)), value, log, neighbors: None, sum: None }
            },
        };
        search.run(cx)
    }

    /// Estimates the binary logarithm of the sum of the weights below `least`, from a sample of the weights. `share` is
    /// the part of the weights that the sample contains.
    fn log_below_in_sample(&self, share: f32, least: Value) -> Value {
        let (cx, k) = (self.cx, self.cx.k);
        let below = self.passes.sum_of_sample(cx, |weight| k.choose(k.lt(weight, least), weight, k.i32(0)));
        k.fadd(approximate_log2(k, below), k.f32(-share.log2()))
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
