//! Programs as functions, for programs of the caller: a decode step that samples inside.

use super::program_arrays::{Column, COLUMNS};
use super::spec::Spec;
use super::stablehlo::inputs;
use super::target::Target;
use crate::mlir::stablehlo::{Elem, Hlo, Value};
use crate::semantics::arith::WideArith;
use crate::semantics::philox::random_words_of;

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
    let parameters = with_random_words(h, spec, parameters, step);
    let mut results = super::results(h, spec, target, logits, parameters);
    results.insert(0, inputs::tokens(h, results[0]));
    h.finish_function(name, &results)
}

/// Replaces the seed and the offset of each row by the row's random words at `step`.
fn with_random_words(h: &Hlo, spec: &Spec, parameters: Value, step: Value) -> Value {
    let first = Column::WORDS[0] as usize;
    let column = |number: usize| {
        let column = h.slice(parameters, 1, first + number, first + number + 1);
        h.widen(h.reshape(column, &[spec.batch]))
    };
    let wide = |number: usize| h.wor(h.wshl(column(number + 1), 32), column(number));
    let offset = h.wadd(wide(2), h.broadcast(step, &[spec.batch]));
    let words = random_words_of(h, wide(0), offset);
    let words = words.map(|word| h.reshape(word, &[spec.batch, 1]));
    let (before, after) =
        (h.slice(parameters, 1, 0, first), h.slice(parameters, 1, first + words.len(), COLUMNS));
    h.concatenate(&[&[before], &words[..], &[after]].concat(), 1)
}
