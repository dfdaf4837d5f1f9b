//! The arbitrary-k kernel. It computes the argmax, the top-k threshold, the weights, the top-p threshold and the draw.
//!
//! Each step is a search over the whole row. Nothing is sorted, and entries stay in index order.

use super::inputs::Inputs;
use super::sampling::{self, draw_remainder, row_results, top_p_target, weights, Draw};
use super::search::{first_beyond, top_k};
use super::wide_outputs::topk_logits;
use crate::kernels::program_arrays::Column;
use crate::kernels::spec::Spec;
use crate::mlir::stablehlo::{Hlo, Reduce, Value};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::NEG_INF_KEY;
use crate::semantics::rules::kept_weight;
use crate::semantics::weights::MAX_WEIGHT;

pub(super) fn kernel(h: &Hlo, spec: &Spec, inputs: &Inputs) -> Vec<Value> {
    let dims = [spec.batch, spec.vocab];
    let index = h.iota(&dims, 1);
    let at_max = h.eq(inputs.keys, inputs.max_key);
    let greedy = h.reduce(h.select(at_max, index, h.int(i32::MAX)), Reduce::Min);

    let asked = inputs.param(h, Column::K);
    let k = h.select(h.eq(asked, h.int(0)), h.int(spec.vocab as i32), asked);
    let kept = top_k(h, inputs.keys, inputs.max_key, k, NEG_INF_KEY, spec.stable).keeps(h, inputs.keys);

    let all_weights = weights(h, inputs, inputs.keys, kept, h.eq(index, greedy));
    let least = least_weight(h, inputs, all_weights);
    let kept_weights = kept_weight(h, all_weights, least);

    let remainder = draw_remainder(h, inputs, h.wide_sum(kept_weights));
    let draw = Draw { remainder, next: first_beyond(h, kept_weights, remainder) };

    let mut results = vec![row_results(h, inputs, greedy, &draw)];
    if spec.wanted.topk_logits {
        results.push(topk_logits(h, inputs, kept));
    }
    if spec.wanted.weights {
        results.push(kept_weights);
    }
    results
}

/// Returns the least weight that top-p and min-p keep.
///
/// For top-p, bisection finds the largest θ for which the sum of the weights ≥ θ reaches the target. A row without
/// top-p starts with a closed range, so a batch without top-p makes no pass.
fn least_weight(h: &Hlo, inputs: &Inputs, weights: Value) -> Value {
    let batch = h.dims(weights)[0];
    let (off, target) = top_p_target(h, inputs, weights);

    // In every open row: Σ(weights ≥ low) ≥ target > Σ(weights ≥ high).
    let low = h.select(off, h.int(0), h.broadcast(h.int(1), &[batch]));
    let high = h.select(off, h.int(1), h.broadcast(h.int(MAX_WEIGHT + 1), &[batch]));
    let open = |[low, high]: [Value; 2]| h.lt(h.add(low, h.int(1)), high);
    let [threshold, _] = h.while_loop(
        [low, high],
        |state| h.any(open(state)),
        |state| {
            let [low, high] = state;
            let middle = h.shr(h.add(low, high), 1);
            let enough = h.not(h.wlt(h.wide_sum(kept_weight(h, weights, middle)), target));
            let open = open(state);
            [h.select(h.both(open, enough), middle, low), h.select(h.both(open, h.not(enough)), middle, high)]
        },
    );
    sampling::least_weight(h, inputs, threshold)
}
