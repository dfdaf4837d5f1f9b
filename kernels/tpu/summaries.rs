//! The form of the summaries of groups and cells, and of the memories that contain them.
//!
//! A summary register is a register of f32. It contains the summary of one group register or of one cell register. If
//! groups and cells are packed, it is a packed register of bf16 instead. Each half then contains one summary.

use super::context::Context;
use crate::mlir::mosaic::{Elem, Memory, Value};

/// Returns the number of group registers or cell registers that one summary register describes.
pub(super) fn cells_together(cx: &Context<'_>) -> usize {
    match cx.layout.packed {
        true => 2,
        false => 1,
    }
}

/// Returns the type of the elements.
pub(super) fn cell_elem(cx: &Context<'_>) -> Elem {
    match cx.layout.packed {
        true => Elem::Bf16,
        false => Elem::F32,
    }
}

/// Loads a summary register, or logits in the same form, from a memory. The first lane is column `lane`.
pub(super) fn load(cx: &Context<'_>, memory: &Memory, lane: Value) -> Value {
    match cx.layout.packed {
        true => cx.k.load_packed(memory, lane),
        false => cx.k.load(memory, lane),
    }
}

/// Splits a summary register into the summaries of its group registers or cell registers, as f32.
pub(super) fn halves(cx: &Context<'_>, value: Value) -> Vec<Value> {
    match cx.layout.packed {
        true => cx.k.unpacked(value).to_vec(),
        false => vec![value],
    }
}
