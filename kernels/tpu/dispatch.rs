//! Selects how a block is sampled: from few survivors, by passes over the candidate list, or by passes over all logits.

use super::candidate_list::CandidateList;
use super::context::{Context, Outcome};
use super::gather::Gather;
use super::k_slices::KSlices;
use super::keys::{edge_below, order_keys};
use super::multi_pass::MultiPass;
use super::passes::{Passes, Source};
use super::prefilter::{Prefilter, Summary};
use super::sampling::Sampling;
use super::survivors::Survivors;
use crate::kernels::program_arrays::Column;
use crate::mlir::mosaic::Value;
use crate::semantics::arith::Arith;
use crate::semantics::clean::MAX_FINITE_BITS;
use crate::semantics::rules::{reported_token, LEAST_CANDIDATE_KEY};

/// The survivor path is tried only if at most this number of cells of each row contain a logit that reaches the
/// threshold. If these cells are spread evenly over the lanes, their logits fit the lanes.
const FEW_CELLS: i32 = 384;
/// The candidate list is tried only if few cells of each row contain a logit that reaches the threshold: at most the
/// number of cells divided by this number.
const CELLS_PER_CANDIDATE: i32 = 4;

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
        let start = Start { sampling, bound, threshold: threshold(cx, sampling, bound) };
        let flat = match &self.candidate_list {
            // On the bounded path, few entries reach the bound, unless there are many ties.
            None => {
                self.by_survivors(cx, &start, Outcome::flat, || self.by_passes(cx, &start, Source::AllLogits))
            }
            Some(list) => self.by_survivors_or_passes(cx, &start, list),
        };
        let outcome = Outcome::from_flat(&flat);
        Outcome {
            next: reported_token(cx.k, sampling.no_candidate, outcome.next),
            greedy: reported_token(cx.k, sampling.no_candidate, outcome.greedy),
            ..outcome
        }
    }

    /// Samples from the survivors of the threshold. Calls `otherwise` if a lane has no space for its survivors or if
    /// there are too few survivors.
    fn by_survivors(
        &self,
        cx: &Context<'_>,
        start: &Start<'_>,
        result: impl FnOnce(Outcome) -> Vec<Value>,
        otherwise: impl FnOnce() -> Vec<Value>,
    ) -> Vec<Value> {
        let k = cx.k;
        let gathered = self.gather.survivors(cx, &self.prefilter, start.threshold);
        let survivors = Survivors::new(cx, &gathered);
        let room = survivors.fit(cx);
        // Entries without a weight can be missing. This matters only if the caller sees which entries top-k keeps.
        let suffice = match cx.spec.wanted.shows_top_k() {
            true => k.both(room, survivors.suffice(cx)),
            false => room,
        };
        let sample = || survivors.sample(cx, start.sampling, start.threshold, self.slices.as_ref());
        k.if_else("survivors suffice", suffice, || result(sample()), otherwise)
    }

    /// Samples from the survivors if possible. Otherwise samples by passes over the candidate list if possible.
    /// Otherwise samples by passes over all logits.
    fn by_survivors_or_passes(
        &self,
        cx: &Context<'_>,
        start: &Start<'_>,
        list: &CandidateList,
    ) -> Vec<Value> {
        let k = cx.k;
        let cells = self.prefilter.count_above(cx, edge_below(k, start.threshold));
        let at_most = |limit: i32| k.not(k.any(k.lt(k.i32(limit), cells)));
        // The last value says whether the survivors decided the result.
        let with_flag = |values: Vec<Value>, done: i32| [values, vec![k.splat(k.i32(done))]].concat();
        let undecided = || with_flag(vec![k.splat(k.i32(0)); Outcome::VALUES], 0);
        let first = k.if_else(
            "few cells reach the threshold",
            at_most(FEW_CELLS),
            || self.by_survivors(cx, start, |outcome| with_flag(outcome.flat(), 1), undecided),
            undecided,
        );
        let decided = k.any(k.eq(first[Outcome::VALUES], k.i32(1)));
        let limit = cx.cells() as i32 / CELLS_PER_CANDIDATE;
        k.if_else(
            "decided",
            decided,
            || first[..Outcome::VALUES].to_vec(),
            || self.by_passes_over_list(cx, start, list, at_most(limit)),
        )
    }

    /// Samples by passes over the candidate list if the candidates fit it. Otherwise samples by passes over all logits.
    /// `try_list` is a scalar: whether there are few enough candidates to try the list.
    fn by_passes_over_list(
        &self,
        cx: &Context<'_>,
        start: &Start<'_>,
        list: &CandidateList,
        try_list: Value,
    ) -> Vec<Value> {
        let k = cx.k;
        let listed = k.if_else(
            "some hundredths of the rows",
            try_list,
            || vec![k.choose(list.fill(cx, start.threshold), k.i32(0), k.i32(1))],
            || vec![k.i32(0)],
        );
        k.if_else(
            "over the candidate list",
            k.eq(listed[0], k.i32(1)),
            || self.by_passes(cx, start, Source::Candidates(list)),
            || self.by_passes(cx, start, Source::AllLogits),
        )
    }

    /// Samples by passes over a source.
    fn by_passes(&self, cx: &Context<'_>, start: &Start<'_>, source: Source<'_>) -> Vec<Value> {
        let (k, sampling, passes) = (cx.k, start.sampling, &self.passes);
        let max_key = sampling.max_key;
        // The summaries of the cells compare raw logits. Cleaning maps some different logits to zero, and others to the
        // largest finite number. The cleaned logits are then equal, but the summaries do not treat them as equal.
        let ambiguous = k.either(k.eq(max_key, k.i32(0)), k.eq(max_key, k.i32(MAX_FINITE_BITS)));
        let greedy = k.if_else(
            "the first maximum is ambiguous",
            k.any(ambiguous),
            || vec![passes.greedy(cx, max_key)],
            || vec![self.prefilter.greedy(cx, max_key)],
        )[0];
        MultiPass { cx, passes, source, sampling }.sample(greedy, start.bound, self.slices.as_ref()).flat()
    }
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
