//! Selects how a block is sampled: from few survivors, by passes over the candidate list, or by passes over all logits.

use super::candidate_list::CandidateList;
use super::compaction;
use super::context::{Context, Outcome};
use super::gather::Gather;
use super::k_slices::KSlices;
use super::keys::{edge_below, order_keys};
use super::multi_pass::{MultiPass, Unlisted};
use super::passes::{Passes, Source};
use super::prefilter::{Prefilter, Summary};
use super::sampling::Sampling;
use super::survivors::Survivors;
use super::total_bounds::{are_promising, bounds, Rest};
use crate::kernels::program_arrays::Column;
use crate::kernels::spec::Path;
use crate::mlir::mosaic::wide::Wide;
use crate::mlir::mosaic::{Kernel, Value};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::MAX_FINITE_BITS;
use crate::semantics::rules::{reported_token, LEAST_CANDIDATE_KEY};

/// The survivor path is tried only if at most this number of cells of each row contain a logit that reaches the
/// threshold. If these cells are spread evenly over the lanes, their logits fit the lanes.
const FEW_CELLS: i32 = 384;
/// The candidate list is tried only if few cells of each row contain a logit that reaches the threshold: at most the
/// number of cells divided by this number.
const CELLS_PER_CANDIDATE: i32 = 4;
/// In a row without top-k, the bound is chosen so that at most about this number of entries reach it.
const LARGEST: usize = 170;
/// In a row without top-k, there must be at least this number of cells for each entry that reaches the bound. With
/// fewer cells, some lane would have no space for its survivors.
const CELLS_PER_LARGEST: usize = 180;
/// If the candidate list contains only some of the entries that have a weight, it contains about this number of entries
/// of each row. A longer list would suffice for more rows, but every pass over the list would take more time.
const MOST_LISTED: usize = 4000;
/// For each entry of such a list, there must be at least this number of cells.
const CELLS_PER_LISTED: usize = 8;

/// The memory of all stages.
pub(super) struct Stages {
    pub(super) prefilter: Prefilter,
    gather: Gather,
    candidate_list: Option<CandidateList>,
    passes: Passes,
    slices: Option<KSlices>,
}

/// The values with which sampling starts, per row.
struct Start<'a> {
    sampling: &'a Sampling,
    /// A key. The number of logits that reach it is at least the number that top-k keeps.
    bound: Value,
    /// The least key of an entry that can affect the result. It is the key of a candidate.
    threshold: Value,
    /// A mask: whether a row contains a NaN or +inf.
    irregular: Value,
}

/// The rows with top-p and without top-k, for which the candidate list can omit entries that have a weight.
struct Partial {
    /// A scalar: whether the cells that reach `threshold` have not been counted.
    uncounted: Value,
    /// The least key of a candidate.
    threshold: Value,
    /// A mask: whether entries of the row below `threshold` can have a weight.
    unlisted: Value,
}

impl Stages {
    /// Allocates the memory.
    pub(super) fn new(cx: &Context<'_>, slices: Option<KSlices>) -> Stages {
        let candidate_list = cx.layout.candidate_list.then(|| CandidateList::new(cx));
        Stages {
            prefilter: Prefilter::new(cx),
            gather: Gather::new(cx),
            candidate_list,
            passes: Passes::new(cx),
            slices,
        }
    }

    /// Samples a block. `bound` is a key. In each row, the number of logits that reach it is at least the number that
    /// top-k keeps.
    pub(super) fn sample(&self, cx: &Context<'_>, summary: &Summary, bound: Value) -> Outcome {
        let sampling = &Sampling::new(cx, summary.max_key);
        let k = cx.k;
        let irregular = k.either(summary.had_inf, k.lt(k.i32(0), summary.had_nan));
        let start = Start { sampling, bound, threshold: threshold(cx, sampling, bound), irregular };
        let flat = match &self.candidate_list {
            // The layout has no list if the kernel has few slots, because few entries reach the bound of most rows. It
            // also has no list if the memory is too small.
            None => self.by_survivors(cx, &start),
            Some(list) => self.by_survivors_or_passes(cx, &start, list, summary),
        };
        let outcome = Outcome::from_flat(&flat);
        let outcome = Outcome {
            next: reported_token(cx.k, sampling.no_candidate, outcome.next),
            greedy: reported_token(cx.k, sampling.no_candidate, outcome.greedy),
            ..outcome
        };
        if let Some(slices) = self.slices.as_ref().filter(|slices| slices.registers() > 1) {
            compaction::write(cx, slices, sampling, &outcome);
        }
        outcome
    }

    /// Returns the k-slices if they are one register long. Then the method that samples the block writes them.
    /// Otherwise [`compaction::write`] writes them after sampling.
    fn short_slices(&self) -> Option<&KSlices> {
        self.slices.as_ref().filter(|slices| slices.registers() == 1)
    }

    /// Returns the survivors of a threshold. Also returns a scalar: whether every row can be sampled from its
    /// survivors. It is false if a lane has no space for its survivors or if there are too few survivors.
    fn survivors(&self, cx: &Context<'_>, threshold: Value) -> (Survivors, Value) {
        let k = cx.k;
        let survivors = Survivors::new(cx, &self.gather.survivors(cx, &self.prefilter, threshold));
        let room = survivors.fit(cx);
        // Entries without a weight can be missing. This matters only if the caller sees which entries top-k keeps.
        let suffice = match cx.spec.wanted.shows_top_k() {
            true => k.both(room, survivors.suffice(cx)),
            false => room,
        };
        (survivors, suffice)
    }

    /// Samples from the survivors of the threshold if possible. Otherwise samples by passes over all logits.
    fn by_survivors(&self, cx: &Context<'_>, start: &Start<'_>) -> Vec<Value> {
        let k = cx.k;
        let (survivors, suffice) = self.survivors(cx, start.threshold);
        let slices = self.short_slices();
        let nothing = Rest::nothing(k);
        let sample = || survivors.sample(cx, start.sampling, start.threshold, &nothing, slices).0.flat();
        let otherwise = || self.by_passes_over_logits(cx, start);
        k.if_else("survivors suffice", suffice, sample, otherwise)
    }

    /// Samples from the survivors of a threshold if possible. In the rows of `open`, entries below the threshold can
    /// have a weight. Returns an outcome and a flag. The flag is 1 in all lanes if every row was sampled. Otherwise,
    /// the flag is 0 and the outcome has no meaning.
    fn by_largest(&self, cx: &Context<'_>, start: &Start<'_>, threshold: Value, open: Value) -> Vec<Value> {
        let (k, sampling) = (cx.k, start.sampling);
        let (survivors, suffice) = self.survivors(cx, threshold);
        let sampled = || {
            let rest = k.if_else(
                "some entries with a weight are no survivors",
                k.any_row(open),
                || bounds(cx, sampling, open, |value| survivors.sum_floats(cx, value)).flat(k),
                || Rest::nothing(k).flat(k),
            );
            let (outcome, decided) =
                survivors.sample(cx, sampling, threshold, &Rest::from_flat(&rest), self.short_slices());
            let undecided = k.any_row(k.both(open, k.not(decided)));
            [outcome.flat(), vec![k.splat(k.choose(undecided, k.i32(0), k.i32(1)))]].concat()
        };
        k.if_else("survivors suffice", suffice, sampled, || undecided(k))
    }

    /// Counts the cells of each row that reach a threshold. A cell reaches the threshold if one of its logits does.
    fn cells_reaching(&self, cx: &Context<'_>, threshold: Value) -> Value {
        self.prefilter.count_above(cx, edge_below(cx.k, threshold))
    }

    /// Calls `sample` if few cells of each row reach a threshold. `cells` are the numbers of these cells, or 0 if the
    /// cells are not counted. `sample` returns an outcome and a flag, like [`by_largest`](Stages::by_largest). Returns
    /// this outcome and this flag, and `cells`. If many cells reach the threshold, the flag is 0.
    fn if_few_cells(
        &self,
        cx: &Context<'_>,
        cells: Value,
        sample: impl FnOnce() -> Vec<Value>,
    ) -> Vec<Value> {
        let k = cx.k;
        let few = at_most(k, cells, FEW_CELLS);
        let few = k.any_is_correct(few, "survivors that do not fit are detected after they are gathered");
        let sampled = k.if_else("few cells reach the threshold", few, sample, || undecided(k));
        [sampled, vec![cells]].concat()
    }

    /// Samples from the survivors if possible. Returns the same values as [`if_few_cells`](Stages::if_few_cells).
    fn by_few(&self, cx: &Context<'_>, start: &Start<'_>) -> Vec<Value> {
        let (k, slices) = (cx.k, self.short_slices());
        self.if_few_cells(cx, self.cells_reaching(cx, start.threshold), || {
            let (survivors, suffice) = self.survivors(cx, start.threshold);
            let sampled = || {
                let nothing = Rest::nothing(k);
                let outcome = survivors.sample(cx, start.sampling, start.threshold, &nothing, slices).0;
                [outcome.flat(), vec![k.splat(k.i32(1))]].concat()
            };
            k.if_else("survivors suffice", suffice, sampled, || undecided(k))
        })
    }

    /// Like [`by_few`](Stages::by_few), but for any k. In a row with top-p and without top-k, only the largest entries
    /// are survivors. The returned number of cells has no meaning if [`Partial::uncounted`] is true. Also returns what
    /// [`by_passes_over_list`](Stages::by_passes_over_list) needs.
    fn by_largest_if_promising(
        &self,
        cx: &Context<'_>,
        start: &Start<'_>,
        summary: &Summary,
    ) -> (Vec<Value>, Partial) {
        let (k, sampling) = (cx.k, start.sampling);
        // If a row has top-p but no top-k, the sum of the weights of its largest entries may reach the target of top-p.
        let top_p_alone = k.both(k.eq(cx.param(Column::K), k.i32(0)), sampling.has_top_p(cx));
        let open = k.both(top_p_alone, k.lt(start.threshold, start.bound));
        let largest = k.choose(open, start.bound, start.threshold);
        let some_open = k.any_row(open);
        // In a row without top-k, usually few entries reach the bound. If no row has top-k, and `largest` is not below
        // the bound in any row, few cells probably reach `largest`. Then the cells need not be counted before the
        // survivors are gathered.
        let has_top_k = k.lt(k.i32(0), cx.param(Column::K));
        let uncertain = k.any_row(k.either(has_top_k, k.lt(largest, start.bound)));
        let uncertain = k.any_is_correct(uncertain, "survivors that do not fit are detected");
        let estimates = || {
            let few = (largest_entries(cx.cells()), start.bound);
            let wanted = MOST_LISTED.min(cx.cells() / CELLS_PER_LISTED);
            let more = self.prefilter.estimated_place(cx, summary, few, wanted);
            let more = cx.full_key(cx.short_key(order_keys(k, more)));
            let more = k.any_is_correct(more, "the passes show whether the list suffices");
            let more = k.choose(open, k.max(more, start.threshold), start.threshold);
            let promising = are_promising(cx, sampling, summary, [largest, more], open);
            let [largest, list] = promising.map(|mask| k.one_where(mask));
            let list = k.any_is_correct(k.eq(list, k.i32(1)), "the passes show whether the list suffices");
            vec![largest, k.choose(list, more, start.threshold)]
        };
        let promising = k.if_else(
            "some rows have top-p alone",
            k.both(some_open, k.not(k.any_row(start.irregular))),
            estimates,
            || vec![k.one_where(k.not(some_open)), start.threshold],
        );
        let [promising, threshold] = promising.try_into().expect("both branches return two values");
        let if_few = || {
            let cells = k.if_else(
                "cells are counted",
                uncertain,
                || vec![self.cells_reaching(cx, largest)],
                || vec![k.splat(k.i32(0))],
            );
            self.if_few_cells(cx, cells[0], || self.by_largest(cx, start, largest, open))
        };
        let without = || [undecided(k), vec![k.splat(k.i32(0))]].concat();
        let promising = k.eq(promising, k.i32(1));
        let promising =
            k.any_is_correct(promising, "the bounds of the total show whether the entries suffice");
        let first = k.if_else("the largest entries may suffice", promising, if_few, without);
        let uncounted = k.either(some_open, k.not(uncertain));
        (first, Partial { uncounted, threshold, unlisted: k.both(open, k.lt(start.threshold, threshold)) })
    }

    /// Samples a block. Tries three methods, in this order: from the survivors, by passes over the candidate list, and
    /// by passes over all logits.
    fn by_survivors_or_passes(
        &self,
        cx: &Context<'_>,
        start: &Start<'_>,
        list: &CandidateList,
        summary: &Summary,
    ) -> Vec<Value> {
        let k = cx.k;
        let (first, partial) = match cx.spec.path {
            Path::Arbitrary => {
                let (first, partial) = self.by_largest_if_promising(cx, start, summary);
                (first, Some(partial))
            }
            // On this path, a row without top-k has no more entries than slots. So the threshold of this row excludes
            // only entries without a weight.
            Path::Bounded(_) => (self.by_few(cx, start), None),
        };
        let decided = k.any_row(k.eq(first[Outcome::VALUES], k.i32(1)));
        let passes = || {
            let counted = first[Outcome::VALUES + 1];
            let cells = match &partial {
                Some(Partial { uncounted, threshold, .. }) => k.if_else(
                    "some rows need another count of cells",
                    *uncounted,
                    || vec![self.cells_reaching(cx, *threshold)],
                    || vec![counted],
                )[0],
                None => counted,
            };
            let limit = cx.cells() as i32 / CELLS_PER_CANDIDATE;
            let no_nan = k.not(k.any_row(k.lt(k.i32(0), summary.had_nan)));
            let few = at_most(k, cells, limit);
            let few = k.any_is_correct(few, "candidates that do not fit the list are detected");
            self.by_passes_over_list(cx, start, list, partial.as_ref(), k.both(few, no_nan))
        };
        k.if_else("decided", decided, || first[..Outcome::VALUES].to_vec(), passes)
    }

    /// Samples by passes over the candidate list if the candidates fit it. Otherwise samples by passes over all logits.
    /// `try_list` is a scalar: whether there are few enough candidates to try the list, and no NaNs.
    ///
    /// With `partial`, the candidates of some rows are only the entries that probably suffice for top-p. If they do not
    /// suffice, the passes read all logits.
    fn by_passes_over_list(
        &self,
        cx: &Context<'_>,
        start: &Start<'_>,
        list: &CandidateList,
        partial: Option<&Partial>,
        try_list: Value,
    ) -> Vec<Value> {
        let k = cx.k;
        let threshold = partial.map_or(start.threshold, |partial| partial.threshold);
        let listed = k.if_else(
            "some hundredths of the rows",
            try_list,
            || vec![k.choose(list.fill(cx, threshold), k.i32(0), k.i32(1))],
            || vec![k.i32(0)],
        );
        let over_list = || {
            let unlisted = partial.map(|&Partial { unlisted: open, threshold, .. }| {
                let total = k.if_else(
                    "some entries with a weight are not listed",
                    k.any_row(open),
                    || self.passes.total_weight(cx, |x| start.sampling.weight_of(cx, x)).flat(),
                    || k.wide(0).flat().into_iter().map(|part| k.splat(part)).collect(),
                );
                Unlisted { open, total: Wide::from_flat(&total), threshold }
            });
            let (outcome, known) = self.by_passes(cx, start, Source::Candidates(list), unlisted);
            let known = k.not(k.any_row(k.not(known)));
            [outcome, vec![k.splat(k.one_where(known))]].concat()
        };
        let sampled =
            k.if_else("over the candidate list", k.eq(listed[0], k.i32(1)), over_list, || undecided(k));
        k.if_else(
            "the candidate list suffices",
            k.any_row(k.eq(sampled[Outcome::VALUES], k.i32(1))),
            || sampled[..Outcome::VALUES].to_vec(),
            || self.by_passes_over_logits(cx, start),
        )
    }

    /// Samples by passes over all logits.
    fn by_passes_over_logits(&self, cx: &Context<'_>, start: &Start<'_>) -> Vec<Value> {
        self.by_passes(cx, start, Source::AllLogits, None).0
    }

    /// Samples by passes over a source. Also returns a mask: see [`MultiPass::sample`].
    fn by_passes(
        &self,
        cx: &Context<'_>,
        start: &Start<'_>,
        source: Source<'_>,
        unlisted: Option<Unlisted>,
    ) -> (Vec<Value>, Value) {
        let (k, sampling, passes) = (cx.k, start.sampling, &self.passes);
        let max_key = sampling.max_key;
        // The summaries of the groups come from comparisons of raw logits. But cleaning maps several raw logits to
        // zero, and several to the largest finite number. These raw logits differ, although their cleaned logits are
        // equal.
        let ambiguous = k.either(k.eq(max_key, k.i32(0)), k.eq(max_key, k.i32(MAX_FINITE_BITS)));
        let [first, tied] = self.prefilter.greedy(cx, max_key);
        let greedy = k.if_else(
            "the first maximum is ambiguous",
            k.any(k.either(ambiguous, tied)),
            || vec![passes.greedy(cx, max_key)],
            || vec![first],
        )[0];
        let irregular = k.any_row(start.irregular);
        let passes = MultiPass { cx, passes, source, sampling, irregular, unlisted };
        let (outcome, known) = passes.sample(greedy, start.bound, self.short_slices());
        (outcome.flat(), known)
    }
}

/// Returns the number of entries that reach the bound in a row without top-k, if the logits are independent.
pub(super) fn largest_entries(cells: usize) -> usize {
    (cells / CELLS_PER_LARGEST).clamp(1, LARGEST)
}

/// Returns a scalar: whether the number of cells is at most `limit` in every row.
fn at_most(k: &Kernel, cells: Value, limit: i32) -> Value {
    k.not(k.any_row(k.lt(k.i32(limit), cells)))
}

/// Returns the result of [`Stages::by_largest`] for the case that some rows were not sampled.
fn undecided(k: &Kernel) -> Vec<Value> {
    vec![k.splat(k.i32(0)); Outcome::VALUES + 1]
}

/// Returns the least key of an entry that can affect the result. An entry can affect the result only if top-k can keep
/// the entry and the entry can have a weight. The result is at least [`LEAST_CANDIDATE_KEY`].
fn threshold(cx: &Context<'_>, sampling: &Sampling, bound: Value) -> Value {
    let k = cx.k;
    k.comment("what top-k can keep and what can have a weight");
    let max = sampling.max;
    let reach = k.from_bits(cx.param(Column::Reach));
    let weighs = order_keys(k, k.fsub(max, reach));
    let top_k = k.lt(k.i32(0), cx.param(Column::K));
    // Entries without a weight matter only if the caller sees which entries top-k keeps.
    let with_top_k = if cx.spec.wanted.shows_top_k() { bound } else { k.max(bound, weighs) };
    k.max(k.choose(top_k, with_top_k, weighs), k.i32(LEAST_CANDIDATE_KEY))
}
