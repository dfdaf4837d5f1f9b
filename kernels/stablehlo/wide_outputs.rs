//! The wide arrays, computed from the thresholds of each row.
//!
//! A kernel only has to find the thresholds. For the k-slices it also has to find the kept entries. These functions
//! then compute the wide arrays in one pass over the logits. They are StableHLO, so a target whose kernel is a custom
//! call appends them to the program.

use super::inputs::Inputs;
use super::sampling::weights;
use super::search::TopK;
use crate::dtype::Dtype;
use crate::kernels::spec::Spec;
use crate::mlir::stablehlo::{Elem, Hlo, Value};
use crate::semantics::arith::Arith;
use crate::semantics::clean::order_key;
use crate::semantics::rules::kept_weight;

/// The values that determine every entry of the wide arrays, `[batch]` each.
pub(in crate::kernels) struct Thresholds {
    /// The entries that top-k keeps.
    pub(in crate::kernels) top_k: TopK,
    /// The lowest index of the row's maximum.
    pub(in crate::kernels) greedy: Value,
    /// The least weight that survives both top-p and min-p.
    pub(in crate::kernels) least_weight: Value,
}

/// Returns the `[batch, vocab]` arrays that the spec wants, in the order of a program's results.
pub(in crate::kernels) fn full_width(
    h: &Hlo,
    spec: &Spec,
    inputs: &Inputs,
    thresholds: &Thresholds,
) -> Vec<Value> {
    let mut outputs = Vec::new();
    let kept = thresholds.top_k.keeps(h, inputs.keys);
    if spec.wanted.topk_logits {
        outputs.push(topk_logits(h, inputs, kept));
    }
    if spec.wanted.weights {
        let index = h.iota(&[spec.batch, spec.vocab], 1);
        let is_greedy = h.eq(index, thresholds.greedy);
        let weights = weights(h, inputs, inputs.keys, kept, is_greedy);
        outputs.push(kept_weight(h, weights, thresholds.least_weight));
    }
    outputs
}

/// Returns `topk_logits_unsorted`, as bits of the logits' type.
pub(in crate::kernels) fn topk_logits(h: &Hlo, inputs: &Inputs, kept: Value) -> Value {
    inputs.replace_masked(h, kept, inputs.cleaned(h))
}

/// Returns the k-slices from their indices (−1 in an unused slot), order keys and weights, `[batch, slots]` each.
pub(in crate::kernels) fn k_slices(
    h: &Hlo,
    spec: &Spec,
    inputs: &Inputs,
    [indices, keys, weights]: [Value; 3],
) -> [Value; 3] {
    let used = h.le(h.int(0), indices);
    // Every cleaned value is a value of the logits' type, except the largest finite f32, which must round to +inf.
    // So the conversion is exact for every other value.
    let values = h.bitcast(order_key(h, keys), Elem::F32);
    let bits = match spec.dtype {
        Dtype::F32 => h.bitcast(values, Elem::I32),
        Dtype::Bf16 => h.convert(h.bitcast(h.convert(values, Elem::Bf16), Elem::U16), Elem::I32),
        Dtype::F16 => h.convert(h.bitcast(h.convert(values, Elem::F16), Elem::U16), Elem::I32),
    };
    [indices, inputs.replace_masked(h, used, bits), weights]
}
