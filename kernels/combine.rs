//! A program that joins the results of a call whose rows ran in two programs.
//!
//! The rows of a batch can take different paths. Each path is a program, and its results are in the order of its own
//! rows. This program puts them in the order of the batch, so that the caller gets one array on the device.

use serde::{Deserialize, Serialize};

use super::program_arrays::RESULTS;
use super::spec::Wanted;
use super::stablehlo::inputs::tokens;
use crate::dtype::Dtype;
use crate::mlir::stablehlo::{Elem, Hlo, Value};

/// Everything that determines the text of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CombineSpec {
    /// The number of rows of each part, including padding.
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
/// Its operands are `places`, i32 `[rows]`: for each row of the batch, its place in the rows of both parts. Then come
/// the numbers of the first part and of the second part, and the two parts of each wide array.
pub fn emit(spec: &CombineSpec) -> String {
    let h = &Hlo::new();
    let places = h.argument(Elem::I32, &[spec.rows]);
    let pair =
        |elem: Elem, dims: &dyn Fn(usize) -> [usize; 2]| spec.parts.map(|rows| h.argument(elem, &dims(rows)));
    let numbers = pair(Elem::I32, &|rows| [RESULTS, rows]).map(|part| h.transpose(part));
    let logits_bits = if spec.dtype == Dtype::F32 { Elem::I32 } else { Elem::U16 };
    let wide = |wanted: bool, elem: Elem| wanted.then(|| pair(elem, &|rows| [rows, spec.vocab]));
    let wide = [wide(spec.wanted.topk_logits, logits_bits), wide(spec.wanted.weights, Elem::I32)];

    let in_order = |parts: [Value; 2]| h.gather_rows(h.concatenate(&parts, 0), places);
    let numbers = h.transpose(in_order(numbers));
    let mut results = vec![numbers, tokens(h, numbers)];
    results.extend(wide.into_iter().flatten().map(in_order));
    h.finish(&spec.name(), &results)
}
