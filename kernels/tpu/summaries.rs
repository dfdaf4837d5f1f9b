//! The form of the summaries of cells, and of the memories that contain them.
//!
//! A summary register is a register of f32, with the summary of one cell register. If cells are packed, it is a packed
//! register of bf16 instead, with the summaries of two cell registers: one in each half.

use super::context::Context;
use crate::mlir::mosaic::{Elem, Memory, Value};
use crate::semantics::arith::Arith;

/// Returns the number of cell registers of a summary register.
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

/// Returns a summary register that contains the scalar constant `value` in every element.
pub(super) fn constant(cx: &Context<'_>, value: Value) -> Value {
    match cx.layout.packed {
        true => cx.k.splat_packed(value),
        false => cx.k.splat(value),
    }
}

/// Loads a summary register, or logits in the same form, from a memory. The first lane is column `lane`.
pub(super) fn load(cx: &Context<'_>, memory: &Memory, lane: Value) -> Value {
    match cx.layout.packed {
        true => cx.k.load_packed(memory, lane),
        false => cx.k.load(memory, lane),
    }
}

/// Returns the summaries of each cell register, as f32.
pub(super) fn halves(cx: &Context<'_>, value: Value) -> Vec<Value> {
    match cx.layout.packed {
        true => cx.k.unpacked(value).to_vec(),
        false => vec![value],
    }
}

/// Applies a function to the summaries of each cell register. bf16 must represent the results if cells are packed.
pub(super) fn map_halves(cx: &Context<'_>, value: Value, function: impl Fn(Value) -> Value) -> Value {
    match cx.layout.packed {
        true => cx.k.packed(cx.k.unpacked(value).map(function)),
        false => function(value),
    }
}

/// Returns the maximum of the summaries of the cell registers.
pub(super) fn largest_half(cx: &Context<'_>, value: Value) -> Value {
    halves(cx, value).into_iter().reduce(|a, b| cx.k.fmax(a, b)).expect("a register has a half")
}

/// Returns summary register `number` of a memory.
fn register_of(cx: &Context<'_>, memory: &Memory, number: Value) -> Memory {
    match cx.layout.packed {
        true => cx.k.registers(memory, cx.k.shl(number, 1), 2),
        false => cx.k.registers(memory, number, 1),
    }
}

/// Loads summary register `number` of a memory.
pub(super) fn load_summary(cx: &Context<'_>, memory: &Memory, number: Value) -> Value {
    load(cx, &register_of(cx, memory, number), cx.k.i32(0))
}

/// Stores summary register `number` of a memory.
pub(super) fn store_summary(cx: &Context<'_>, memory: &Memory, number: Value, value: Value) {
    cx.k.store(&register_of(cx, memory, number), cx.k.i32(0), value);
}
