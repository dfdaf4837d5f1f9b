//! Kernels as StableHLO, for any PJRT plugin.
//!
//! A program takes the logits `[batch, vocab]` and the parameters `i32 [batch, COLUMNS]`, and returns
//! `i32 [RESULTS, batch]`, then the wide arrays that [`Wanted`](super::Wanted) names, in its order. Wide logits are
//! returned as the bits of their type, so that no conversion can touch them.

mod arbitrary;
mod bounded;
pub(super) mod rows;
pub(super) mod sampling;
pub(super) mod search;

use super::{Path, Spec};
use crate::mlir::stablehlo::{Hlo, Value};

/// The text of the program for a spec.
pub fn emit(spec: &Spec) -> String {
    let h = &Hlo::new();
    let (logits, params) = rows::Row::arguments(h, spec);
    let row = rows::Row::new(h, spec, logits, params, None);
    let results = match spec.path {
        Path::Arbitrary => arbitrary::kernel(h, spec, &row),
        Path::Bounded(max_k) => bounded::kernel(h, spec, &row, max_k.min(spec.vocab)),
    };
    h.finish(&spec.name(), &results)
}

/// The five numbers a row, in the order of [`super::ResultRow`].
fn outcome(h: &Hlo, row: &rows::Row, greedy: Value, draw: &sampling::Draw) -> Value {
    use crate::semantics::arith::{Arith, WideArith};
    let none = h.int(-1);
    let greedy = h.select(row.no_candidate, none, greedy);
    let next = h.select(row.no_candidate, none, draw.next);
    let status = h.or(
        h.select(row.no_candidate, h.int(crate::outputs::ROW_NO_CANDIDATE as i32), h.int(0)),
        h.select(row.had_nan(h), h.int(crate::outputs::ROW_HAD_NAN as i32), h.int(0)),
    );
    h.stack(&[next, greedy, h.high(draw.remainder), h.low(draw.remainder), status])
}
