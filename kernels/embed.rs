//! Sampling as an MLIR function that callers insert into their own programs, for example into a decode step.

use super::spec::Spec;
use super::stablehlo::inputs;
use super::target::Target;
use crate::mlir::stablehlo::{Elem, Hlo};

/// Returns the text of `func.func private @name(logits, parameters, step) -> (tokens, numbers, …)`, in StableHLO. If
/// the target has kernels for the spec, the function calls them by custom calls, which contain the kernels.
///
/// The function is self-contained: it calls no other function and uses no global. `name` must be a valid MLIR symbol
/// name without quotes.
///
/// | operand | type | contents |
/// | --- | --- | --- |
/// | `logits` | `tensor<batch x vocab x type>` | the logits; row-major if the device has layouts |
/// | `parameters` | `tensor<batch x COLUMNS x i32>` | one row of [`pack_seeds`](super::pack_seeds) per row |
/// | `step` | `tensor<ui64>` | the number that is added to the offset of every row |
///
/// | result | type | contents |
/// | --- | --- | --- |
/// | `tokens` | `tensor<batch x i32>` | the token of each row; −1 if the row has no candidate |
/// | `numbers` | `tensor<RESULTS x batch x i32>` | one row per [`ResultRow`](super::ResultRow) |
/// | wide arrays | | the requested arrays, in the order of the fields of [`Wanted`](super::Wanted); logits as bits |
pub fn emit(spec: &Spec, target: &Target, name: &str) -> String {
    let h = &Hlo::new();
    let mut operands = inputs::operands(h, spec, false);
    operands.step = Some(h.argument(Elem::U64, &[]));
    let (mut results, tokens) = super::results_and_tokens(h, spec, target, &operands);
    results.insert(0, tokens);
    h.finish_function(name, &results)
}
