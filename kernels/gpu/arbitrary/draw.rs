//! The draw from the sums of the chunks, and the results of a row.

use super::row_block::{RowBlock, RunningSums};
use super::weights::Weights;
use crate::kernels::gpu::parameters::{shared_remainder_of_maximum, Parameters};
use crate::kernels::gpu::remainder::remainder;
use crate::kernels::gpu::results::{Results, Summary};
use crate::ptx::{Int, Mask, Shared, Wide, WARP};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::rules::{has_no_candidate, kept_weight, reported_token};

/// The values that determine the results of a row, except the draw.
pub(super) struct Outcome {
    /// The words of [`Scanned`](super::records::Scanned).
    pub(super) scanned: [Int; 3],
    /// The threshold and the last tie of top-k.
    pub(super) top_k: [Int; 2],
    /// The least weight that top-p and min-p keep.
    pub(super) least: Int,
}

/// Draws the chunk that contains the token. `sum` is the sum of the kept weights of the chunk of this thread.
/// `remainder` returns the remainder of the draw, from the running sums over the chunks. Calls `find` with the drawn
/// chunk and a target: the token is the first index of the chunk at which the running sum of the kept weights of the
/// chunk reaches this target. Returns the remainder.
pub(super) fn draw<'k>(
    block: &RowBlock<'k>,
    sum: Wide,
    remainder: impl FnOnce(&RunningSums<'k>) -> Wide,
    find: impl FnOnce(Int, Wide),
) -> Wide {
    let k = block.k;
    block.prepare_to_pass(0);
    let sums = block.running_sums(sum);
    let remainder = remainder(&sums);
    let target = k.wadd(remainder, k.wide(1));
    let (chunk, before, _) = block.pass([sums.before, sums.upto], || vec![sum], target);
    find(chunk, k.wide_difference(target, before));
    remainder
}

/// Finds the token from the logits of the drawn chunk, and stores it. `chunk` and `target` are the arguments of `find`
/// in [`draw`].
pub(super) fn read_chunk(
    block: &RowBlock<'_>,
    parameters: &Parameters<'_>,
    results: &Results<'_>,
    outcome: &Outcome,
    (chunk, target): (Int, Wide),
) {
    let k = block.k;
    let weights = Weights::new(k, parameters, outcome.scanned[0], outcome.top_k);
    let kept = |key, index| kept_weight(k, weights.of(key, index), outcome.least);
    block.find_in_chunk(chunk, target, kept, |index| results.token(index));
}

/// Stores the results of a row. If the token is drawn, `draw` draws and stores it, and returns the remainder. `words`
/// is the array of random words.
pub(super) fn report(
    block: &RowBlock<'_>,
    words: Shared,
    results: &Results<'_>,
    outcome: &Outcome,
    is_drawn: Mask,
    draw: impl FnOnce() -> Wide,
) {
    let k = block.k;
    let &Outcome { scanned: [max_key, greedy, status], top_k, least } = outcome;
    let no_candidate = has_no_candidate(k, max_key);
    let remainder = k.wide_variable(k.wide(0));
    k.when_else(
        is_drawn,
        || k.set_wide(remainder, draw()),
        || k.set_wide(remainder, shared_remainder_of_maximum(k, words, no_candidate)),
    );
    let remainder = k.get_wide(remainder);
    k.when(block.is_first(), || {
        k.when(k.not(is_drawn), || results.token(reported_token(k, no_candidate, greedy)));
        results.summary(&Summary { max_key, index: greedy, remainder, status, top_k, least });
    });
}

/// Returns the remainder of the draw. `words` is the array of random words that [`Parameters::share_random_words`]
/// returned. All threads call this after a barrier.
pub(super) fn remainder_of_draw(block: &RowBlock<'_>, words: Shared, total: Wide) -> Wide {
    let k = block.k;
    let is_first_warp = k.lt(block.block.thread, k.int(WARP as i32));
    let shared = store_remainder(block, words, total, is_first_warp);
    k.barrier();
    k.load_shared_wide(shared, k.int(0))
}

/// Computes the remainder of the draw in one warp. If several warps computed it, they would slow each other down.
/// `is_in_warp` is true in the threads of this warp. `words` is the array of random words. Returns an array that
/// contains the remainder after the next barrier.
pub(super) fn store_remainder(block: &RowBlock<'_>, words: Shared, total: Wide, is_in_warp: Mask) -> Shared {
    let k = block.k;
    let shared = k.shared(2);
    k.when(is_in_warp, || {
        let words = k.load_shared_words_at(words, 0);
        let remainder = remainder(k, words, total);
        k.when(k.eq(k.lane(), k.int(0)), || k.store_shared_wide(shared, k.int(0), remainder));
    });
    shared
}
