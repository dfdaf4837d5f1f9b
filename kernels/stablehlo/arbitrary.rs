//! The arbitrary-k kernel: argmax, top-k threshold, weights, top-p threshold and draw, each a search over the
//! whole row; nothing is sorted and nothing leaves index order.

use super::rows::Row;
use super::sampling::{and_min_p, draw_remainder, top_p_target, weights, Draw};
use super::search::{first_beyond, top_k};
use crate::kernels::{Column, Spec};
use crate::mlir::stablehlo::{Hlo, Reduce, Value};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::NEG_INF_KEY;
use crate::semantics::weights::MAX_WEIGHT;

pub(super) fn kernel(h: &Hlo, spec: &Spec, row: &Row) -> Vec<Value> {
    let dims = [spec.batch, spec.vocab];
    let index = h.iota(&dims, 1);
    let at_max = h.eq(row.keys, row.max_key);
    let greedy = h.reduce(h.select(at_max, index, h.int(i32::MAX)), Reduce::Min);

    let asked = row.param(h, Column::K);
    let k = h.select(h.eq(asked, h.int(0)), h.int(spec.vocab as i32), asked);
    let kept = top_k(h, row.keys, row.max_key, k, NEG_INF_KEY, spec.stable).mask(h, row.keys);

    let weights = weights(h, row, row.keys, kept, h.eq(index, greedy));
    let least = least_weight(h, row, weights);
    let nucleus = h.select(h.lt(weights, least), h.int(0), weights);

    let remainder = draw_remainder(h, row, h.wide_sum(nucleus));
    let draw = Draw { remainder, next: first_beyond(h, nucleus, remainder) };

    let mut results = vec![super::outcome(h, row, greedy, &draw)];
    if spec.wanted.topk_logits {
        results.push(row.masked_logits(h, kept));
    }
    if spec.wanted.weights {
        results.push(nucleus);
    }
    results
}

/// The least weight that top-p and min-p keep: bisects for the largest θ whose weights of at least θ sum to the
/// target. A row without top-p is never open, so a batch without top-p makes no pass.
fn least_weight(h: &Hlo, row: &Row, weights: Value) -> Value {
    let batch = h.dims(weights)[0];
    let (off, target) = top_p_target(h, row, weights);

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
            let reach = h.select(h.lt(weights, middle), h.int(0), weights);
            let enough = h.not(h.wlt(h.wide_sum(reach), target));
            let open = open(state);
            [h.select(h.both(open, enough), middle, low), h.select(h.both(open, h.not(enough)), middle, high)]
        },
    );
    and_min_p(h, row, threshold)
}
