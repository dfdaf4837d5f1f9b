//! The program that joins the results of a call whose rows do not all run in one program.
//!
//! Rows on different paths run in different programs. The results of a program are in the order of its own rows. The
//! joining program puts the results in the order of the batch, so that the caller receives one array on the device. It
//! also supplies the results of rows with impossible parameters, which no program samples.

use serde::{Deserialize, Serialize};

use super::program_arrays::RESULTS;
use super::spec::Wanted;
use super::stablehlo::inputs::tokens;
use crate::dtype::Dtype;
use crate::mlir::stablehlo::{Elem, Hlo, Value};
use crate::semantics::arith::Arith;
use crate::semantics::rules::{NO_TOKEN, ROW_BAD_PARAMETER};

/// Everything that determines the text of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CombineSpec {
    /// The number of rows of each part, including padding. A part is the result of one sampling program. 0 if there is
    /// no such part.
    pub parts: [usize; 2],
    /// The number of rows of the batch.
    pub rows: usize,
    /// The number of elements per row.
    pub vocab: usize,
    /// The type of the logits.
    pub dtype: Dtype,
    /// The wide arrays to join.
    pub wanted: Wanted,
    /// The width of the k-slices. 0 if they are not wanted.
    pub slots: usize,
}

impl CombineSpec {
    /// Returns the name of the module. It includes every field.
    pub fn name(&self) -> String {
        let CombineSpec { parts: [first, second], rows, vocab, dtype, wanted, slots } = self;
        let flags = [(wanted.topk_logits, "_logits"), (wanted.weights, "_weights")];
        let mut flags: String = flags.iter().filter(|f| f.0).map(|f| f.1).collect();
        if *slots > 0 {
            flags.push_str(&format!("_slices{slots}"));
        }
        format!("nucleus_combine_{first}and{second}to{rows}x{vocab}_{dtype:?}{flags}").to_lowercase()
    }

    /// Returns the number of arrays that the program returns: the numbers, the tokens and the wide arrays.
    pub fn num_outputs(&self) -> usize {
        let slices = if self.slots > 0 { 3 } else { 0 };
        2 + usize::from(self.wanted.topk_logits) + usize::from(self.wanted.weights) + slices
    }
}

/// Returns the text of the program.
///
/// The operands of the program, in this order:
///
/// - `places`, i32 `[rows]`: for each row of the batch, its index in the concatenation of both parts. A row that was
///   not sampled has the index after the last row of the parts.
/// - The replace value for rows that were not sampled, as bits of the logits' type: i32 `[1]`.
/// - The numbers of each part, `[RESULTS, part]`.
/// - For each wide array, the array of each part, `[part, vocab]`, and for each k-slice `[part, slots]`.
///
/// The program returns the numbers `[RESULTS, rows]`, the tokens `[rows]`, the wide arrays `[rows, vocab]`, and the
/// k-slices `[rows, slots]`.
pub fn emit(spec: &CombineSpec) -> String {
    let h = &Hlo::new();
    let places = h.argument(Elem::I32, &[spec.rows]);
    let replace_val = h.argument(Elem::I32, &[1]);
    let parts = |elem: Elem, dims: &dyn Fn(usize) -> [usize; 2]| -> Vec<Value> {
        let parts = spec.parts.into_iter().filter(|&rows| rows > 0);
        parts.map(|rows| h.argument(elem, &dims(rows))).collect()
    };
    let mut numbers: Vec<Value> =
        parts(Elem::I32, &|rows| [RESULTS, rows]).into_iter().map(|part| h.transpose(part)).collect();
    let logits_bits = if spec.dtype == Dtype::F32 { Elem::I32 } else { Elem::U16 };
    let wide_parts = |wanted: bool, elem, width: usize| wanted.then(|| parts(elem, &|rows| [rows, width]));
    let (wanted, slices) = (spec.wanted, spec.slots > 0);
    let wide = [
        (wide_parts(wanted.topk_logits, logits_bits, spec.vocab), spec.vocab, Unsampled::Replaced),
        (wide_parts(wanted.weights, Elem::I32, spec.vocab), spec.vocab, Unsampled::Is(0)),
        (wide_parts(slices, Elem::I32, spec.slots), spec.slots, Unsampled::Is(NO_TOKEN)),
        (wide_parts(slices, logits_bits, spec.slots), spec.slots, Unsampled::Replaced),
        (wide_parts(slices, Elem::I32, spec.slots), spec.slots, Unsampled::Is(0)),
    ];

    // One more row follows the rows of the parts. Every row that was not sampled takes its result from this row.
    let in_order = |parts: &[Value]| h.gather_rows(h.concatenate(parts, 0), places);
    let one = |value: i32| h.broadcast(h.int(value), &[1]);
    let unsampled = [NO_TOKEN, NO_TOKEN, 0, 0, ROW_BAD_PARAMETER as i32].map(one);
    numbers.push(h.transpose(h.stack(&unsampled)));
    let numbers = h.transpose(in_order(&numbers));
    let mut results = vec![numbers, tokens(h, numbers)];
    for (parts, width, unsampled) in wide {
        let Some(mut parts) = parts else { continue };
        let row = match unsampled {
            Unsampled::Replaced => h.convert(replace_val, logits_bits),
            Unsampled::Is(value) => one(value),
        };
        parts.push(h.broadcast(row, &[1, width]));
        results.push(in_order(&parts));
    }
    h.finish(&spec.name(), &results)
}

/// The elements of a wide array in a row that was not sampled.
enum Unsampled {
    /// The replace value.
    Replaced,
    /// This number.
    Is(i32),
}
