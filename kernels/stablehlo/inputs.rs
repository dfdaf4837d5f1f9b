//! The inputs of a program: cleaned keys, the maximum, and the parameters of each row.

use super::search::gather_in_rows;
use crate::dtype::{Dtype, BF16_NEG_INF, F16_NEG_INF};
use crate::kernels::program_arrays::{Column, ResultRow, COLUMNS};
use crate::kernels::spec::{Source, Spec};
use crate::mlir::stablehlo::{Elem, Hlo, Reduce, Value};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::{self, order_key};
use crate::semantics::philox::random_words_of;
use crate::semantics::rules::has_no_candidate;

/// The arguments of a program.
pub(in crate::kernels) struct Operands {
    /// The logits `[batch, vocab]`, or the buffer of the caller `[rows, vocab]`.
    pub(in crate::kernels) logits: Value,
    /// The parameters `[batch, COLUMNS]`.
    pub(in crate::kernels) parameters: Value,
    /// The number of the step. `None` if the parameters contain random words instead of seeds and offsets.
    pub(in crate::kernels) step: Option<Value>,
}

/// Declares the arguments of a program. If `donatable` is set and the caller donates the logits, a wide array of the
/// program can use their memory.
pub(in crate::kernels) fn operands(h: &Hlo, spec: &Spec, donatable: bool) -> Operands {
    let elem = match spec.dtype {
        Dtype::F32 => Elem::F32,
        Dtype::Bf16 => Elem::Bf16,
        Dtype::F16 => Elem::F16,
    };
    let parameters = [spec.batch, COLUMNS];
    let Source::Buffer { rows, singleton, in_order } = spec.source else {
        let logits = h.argument(elem, &[spec.batch, spec.vocab]);
        return Operands { logits, parameters: h.argument(Elem::I32, &parameters), step: None };
    };
    let dims = if singleton { vec![rows, 1, spec.vocab] } else { vec![rows, spec.vocab] };
    let buffer = match wide_output_of_same_size(spec) {
        Some(output) if in_order && donatable => h.donatable_argument(elem, &dims, output),
        _ => h.argument(elem, &dims),
    };
    let parameters = h.argument(Elem::I32, &parameters);
    // The step is the sum of two operands, so that the host can keep both operands on the device.
    let [multiple, rest] = [(); 2].map(|()| h.argument(Elem::U64, &[]));
    let step = Some(h.wadd(multiple, rest));
    Operands { logits: h.reshape(buffer, &[rows, spec.vocab]), parameters, step }
}

impl Operands {
    /// Returns the logits `[batch, vocab]` and the parameters `[batch, COLUMNS]` of the program's rows. The returned
    /// parameters contain the random words.
    pub(in crate::kernels) fn rows_and_words(&self, h: &Hlo, spec: &Spec) -> (Value, Value) {
        let Operands { logits, parameters, step } = *self;
        let Some(step) = step else { return (logits, parameters) };
        let parameters = with_random_words(h, spec, parameters, step);
        (rows(h, spec, logits, parameters), parameters)
    }
}

/// Returns the logits `[batch, vocab]` of the program's rows. `logits` is [`Operands::logits`].
pub(in crate::kernels) fn rows(h: &Hlo, spec: &Spec, logits: Value, parameters: Value) -> Value {
    let Source::Buffer { in_order: false, .. } = spec.source else { return logits };
    let row = Column::Row as usize;
    let row = h.reshape(h.slice(parameters, 1, row, row + 1), &[spec.batch]);
    h.gather_rows(logits, row)
}

/// Returns the index of an output of the program that has as many bytes as the logits. `None` if no output has this
/// size.
fn wide_output_of_same_size(spec: &Spec) -> Option<usize> {
    let has_size = spec.wanted.topk_logits || spec.wanted.weights && spec.dtype == Dtype::F32;
    // The first wide array follows the numbers and the tokens. It contains the logits if they are wanted, otherwise the
    // weights.
    has_size.then_some(2)
}

/// Replaces the seed and the offset in the parameters of each row by the row's random words at `step`.
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

/// Inserts the tokens of the rows as the second result of a program if the spec requires them. The first result is the
/// array of numbers. `tokens` computes the tokens from this array.
pub(in crate::kernels) fn with_tokens(
    spec: &Spec,
    mut results: Vec<Value>,
    tokens: impl FnOnce(Value) -> Value,
) -> Vec<Value> {
    if spec.returns_tokens() {
        results.insert(1, tokens(results[0]));
    }
    results
}

/// Extracts the tokens, `[rows]`, from the numbers of the rows, `[RESULTS, rows]`.
pub(in crate::kernels) fn tokens(h: &Hlo, numbers: Value) -> Value {
    let (row, rows) = (ResultRow::NextToken as usize, h.dims(numbers)[1]);
    h.reshape(h.slice(numbers, 0, row, row + 1), &[rows])
}

/// Returns the logits, as bits of their own type and as f32 bits, `[batch, vocab]` each.
pub(in crate::kernels) fn bits(h: &Hlo, dtype: Dtype, logits: Value) -> (Value, Value) {
    let raw = h.bitcast(logits, if dtype == Dtype::F32 { Elem::I32 } else { Elem::U16 });
    match dtype {
        Dtype::F32 => (raw, raw),
        Dtype::Bf16 => {
            let narrow = h.convert(raw, Elem::I32);
            (narrow, clean::widen_bf16(h, narrow))
        }
        Dtype::F16 => {
            let narrow = h.convert(raw, Elem::I32);
            (narrow, clean::widen_f16(h, narrow))
        }
    }
}

/// A batch on the device. Shapes are `[batch]` unless stated otherwise.
pub(in crate::kernels) struct Inputs {
    /// The logits as integers with the bits of their own type, `[batch, vocab]`.
    narrow: Value,
    /// The logits as f32 bits before cleaning, `[batch, vocab]`.
    bits: Value,
    /// Order keys of the cleaned logits, `[batch, vocab]`.
    pub(in crate::kernels) keys: Value,
    pub(in crate::kernels) max_key: Value,
    pub(in crate::kernels) no_candidate: Value,
    dtype: Dtype,
    params: Value,
    batch: usize,
}

impl Inputs {
    /// Reads a batch. `max_key` is the key of each row's maximum if it is known; otherwise it is computed.
    pub(in crate::kernels) fn new(
        h: &Hlo,
        spec: &Spec,
        logits: Value,
        params: Value,
        max_key: Option<Value>,
    ) -> Inputs {
        let (narrow, bits) = bits(h, spec.dtype, logits);
        let keys = order_key(h, clean::clean(h, bits));
        let max_key = max_key.unwrap_or_else(|| h.reduce(keys, Reduce::Max));
        let no_candidate = has_no_candidate(h, max_key);
        Inputs { narrow, bits, keys, max_key, no_candidate, dtype: spec.dtype, params, batch: spec.batch }
    }

    /// Whether each row contains a NaN.
    pub(in crate::kernels) fn had_nan(&self, h: &Hlo) -> Value {
        h.reduce(clean::is_nan(h, self.bits), Reduce::Or)
    }

    /// Whether each row contains a +inf.
    pub(in crate::kernels) fn had_inf(&self, h: &Hlo) -> Value {
        h.reduce(clean::is_infinity(h, self.bits), Reduce::Or)
    }

    pub(in crate::kernels) fn param(&self, h: &Hlo, column: Column) -> Value {
        let column = column as usize;
        h.reshape(h.slice(self.params, 1, column, column + 1), &[self.batch])
    }

    /// Returns the cleaned logits as bits of their own type, `[batch, vocab]`.
    pub(in crate::kernels) fn cleaned(&self, h: &Hlo) -> Value {
        match self.dtype {
            Dtype::F32 => clean::clean(h, self.bits),
            Dtype::Bf16 => clean::clean_narrow(h, self.narrow, self.bits, BF16_NEG_INF),
            Dtype::F16 => clean::clean_narrow(h, self.narrow, self.bits, F16_NEG_INF),
        }
    }

    /// Returns the [`cleaned`](Inputs::cleaned) logits at positions `[batch, n]` of the rows.
    pub(in crate::kernels) fn cleaned_at(&self, h: &Hlo, positions: Value) -> Value {
        gather_in_rows(h, self.cleaned(h), positions)
    }

    /// Returns `values` where `kept` is true, and the replace value elsewhere. `values` are bits of the logits' type.
    /// The result has the type of a wide output.
    pub(in crate::kernels) fn replace_masked(&self, h: &Hlo, kept: Value, values: Value) -> Value {
        let masked = h.select(kept, values, self.param(h, Column::Replace));
        match self.dtype {
            Dtype::F32 => masked,
            Dtype::Bf16 | Dtype::F16 => h.convert(masked, Elem::U16),
        }
    }
}
