//! A program that joins the results of a call whose rows ran in two programs.
//!
//! The rows of a batch can take different paths. Each path is a program, and its results are in the order of its own
//! rows. This program puts them in the order of the batch, so that the caller gets one array on the device. It also
//! fills in the results of rows that no program sampled, because their parameters are impossible.

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
    /// The number of rows of each part, including padding. 0 if there is no such part.
    pub parts: [usize; 2],
    /// The number of rows of the batch.
    pub rows: usize,
    /// The number of elements per row.
    pub vocab: usize,
    /// The type of the logits.
    pub dtype: Dtype,
    /// The wide arrays. The k-slices are never wanted: only one path has them.
    pub wanted: Wanted,
}

impl CombineSpec {
    /// Returns the name of the module. It includes every field.
    pub fn name(&self) -> String {
        let CombineSpec { parts: [first, second], rows, vocab, dtype, wanted } = self;
        let flags = [(wanted.topk_logits, "_logits"), (wanted.weights, "_weights")];
        let flags: String = flags.iter().filter(|f| f.0).map(|f| f.1).collect();
        format!("nucleus_combine_{first}and{second}to{rows}x{vocab}_{dtype:?}{flags}").to_lowercase()
    }

    /// Returns the number of arrays that the program returns: the numbers, the tokens and the wide arrays.
    pub fn num_outputs(&self) -> usize {
        2 + usize::from(self.wanted.topk_logits) + usize::from(self.wanted.weights)
    }
}

/// Returns the text of the program.
///
/// Its operands are `places`, i32 `[rows]`: for each row of the batch, its place in the rows of both parts. The place
/// after the last row means that the row was not sampled. The next operand is the replace value of such rows, as bits
/// of the logits' type, i32 `[1]`. Then come the numbers of each part, and the parts of each wide array.
///
/// It returns the numbers `[RESULTS, rows]`, the tokens `[rows]`, and the wide arrays `[rows, vocab]`.
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
    let wide_parts = |wanted: bool, elem| wanted.then(|| parts(elem, &|rows| [rows, spec.vocab]));
    let logits = wide_parts(spec.wanted.topk_logits, logits_bits);
    let weights = wide_parts(spec.wanted.weights, Elem::I32);

    // The results of a row that was not sampled follow the parts.
    let in_order = |parts: &[Value]| h.gather_rows(h.concatenate(parts, 0), places);
    let one = |value: i32| h.broadcast(h.int(value), &[1]);
    let unsampled = [NO_TOKEN, NO_TOKEN, 0, 0, ROW_BAD_PARAMETER as i32].map(one);
    numbers.push(h.transpose(h.stack(&unsampled)));
    let numbers = h.transpose(in_order(&numbers));
    let mut results = vec![numbers, tokens(h, numbers)];
    let with_row = |mut parts: Vec<Value>, row: Value| {
        parts.push(h.broadcast(row, &[1, spec.vocab]));
        in_order(&parts)
    };
    results.extend(logits.map(|parts| with_row(parts, h.convert(replace_val, logits_bits))));
    results.extend(weights.map(|parts| with_row(parts, one(0))));
    h.finish(&spec.name(), &results)
}
