//! The program that copies logits to the row-major layout. The other programs expect logits in this layout.

use serde::{Deserialize, Serialize};

use crate::dtype::Dtype;
use crate::mlir::stablehlo::{Elem, Hlo};

/// Everything that determines the text of the program.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RowMajorSpec {
    /// The type of the elements.
    pub dtype: Dtype,
    /// The dimensions of the array.
    pub dims: Vec<usize>,
    /// The dimensions in the order of the memory of the input, the fastest-varying first.
    pub minor_to_major: Vec<usize>,
}

impl RowMajorSpec {
    /// Returns the name of the module. It includes every field.
    pub fn name(&self) -> String {
        let list = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        let (dims, order) = (list(&self.dims), list(&self.minor_to_major));
        format!("nucleus_row_major_{dims}_{:?}_from_{order}", self.dtype).to_lowercase()
    }
}

/// Returns the text of the program. The program takes an array and returns a copy of it.
pub fn emit(spec: &RowMajorSpec) -> String {
    let h = &Hlo::new();
    let elem = match spec.dtype {
        Dtype::F32 => Elem::F32,
        Dtype::Bf16 => Elem::Bf16,
        Dtype::F16 => Elem::F16,
    };
    let array = h.argument_with_layout(elem, &spec.dims, &spec.minor_to_major);
    h.finish(&spec.name(), &[array])
}
