//! Programs as functions, for programs of the caller: a decode step that samples inside.

use super::spec::Spec;
use super::stablehlo::inputs;
use super::target::Target;
use crate::mlir::stablehlo::{Elem, Hlo};

/// Returns the text of `func.func private @name(logits, parameters, step) -> (tokens, numbers, …)`, in StableHLO. If
/// the target has a kernel for the spec, the function contains it as a custom call.
///
/// The function is self-contained: it calls no other function and uses no global. `name` must be a valid MLIR symbol
/// name without quotes.
///
/// | operand | type | contents |
/// | --- | --- | --- |
/// | `logits` | `tensor<batch x vocab x type>` | row-major on devices with layouts |
/// | `parameters` | `tensor<batch x COLUMNS x i32>` | one row of [`pack_seeds`](super::pack_seeds) per row |
/// | `step` | `tensor<ui64>` | is added to the offset of every row |
///
/// | result | type | contents |
/// | --- | --- | --- |
/// | `tokens` | `tensor<batch x i32>` | the token of each row; −1 if there is no candidate |
/// | `numbers` | `tensor<RESULTS x batch x i32>` | one row per [`ResultRow`](super::ResultRow) |
/// | wide arrays | | those of [`Wanted`](super::Wanted), in the order of its fields; logits as bits |
pub fn emit(spec: &Spec, target: &Target, name: &str) -> String {
    let h = &Hlo::new();
    let (logits, parameters) = inputs::arguments(h, spec);
    let step = h.argument(Elem::U64, &[]);
    let parameters = inputs::with_random_words(h, spec, parameters, step);
    let mut results = super::results(h, spec, target, logits, parameters);
    results.insert(0, inputs::tokens(h, results[0]));
    h.finish_function(name, &results)
}
