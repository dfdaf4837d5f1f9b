//! Kernels as StableHLO, for any PJRT plugin.
//!
//! Other targets use some parts too: `inputs` reads a batch, `sampling` computes weights and draws, `search`
//! finds thresholds, and `wide_outputs` writes the wide arrays. Imports point in one direction: `search` ←
//! `inputs` ← `sampling` ← `wide_outputs` ← `arbitrary`, `bounded` ← this file.

mod arbitrary;
mod bounded;
pub(super) mod inputs;
pub(super) mod sampling;
pub(super) mod search;
pub(super) mod wide_outputs;

use super::spec::{Path, Spec};
use crate::mlir::stablehlo::{Hlo, Value};

/// Returns the text of the portable program for a spec.
pub fn emit(spec: &Spec) -> String {
    let h = &Hlo::new();
    let rows = inputs::operands(h, spec, true).rows_and_words(h, spec);
    let results = results(h, spec, rows);
    let results = inputs::with_tokens(spec, results, |numbers| inputs::tokens(h, numbers));
    h.finish(&spec.name(), &results)
}

/// Adds the operations of the portable algorithm to a program. Returns the results. The arguments are those of
/// [`Operands::rows_and_words`](inputs::Operands::rows_and_words).
pub(super) fn results(h: &Hlo, spec: &Spec, (logits, params): (Value, Value)) -> Vec<Value> {
    let inputs = &inputs::Inputs::new(h, spec, logits, params, None);
    match spec.path {
        Path::Arbitrary => arbitrary::kernel(h, spec, inputs),
        Path::Bounded(_) => bounded::kernel(h, spec, inputs),
    }
}
