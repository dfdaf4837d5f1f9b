//! Calls of kernels in a StableHLO program.

use crate::mlir::ir::{Attribute, Attributes};
use crate::mlir::stablehlo::{CallConfig, Elem, Hlo, Value};

/// The target of a custom call that runs a PTX kernel on the CUDA plugin.
const TARGET: &str = "__gpu$xla.gpu.ptx";

/// Adds a call of a kernel, with `blocks` blocks of `threads` threads each. Its results have elements of type i32.
pub(super) fn call(
    h: &Hlo,
    name: &str,
    text: &str,
    grid: (usize, usize),
    operands: &[Value],
    results: &[Vec<usize>],
) -> Vec<Value> {
    call_in_place(h, name, text, grid, operands, results, &[])
}

/// Like [`call`]. Each alias is the number of an operand and the number of a result that have the same memory.
pub(super) fn call_in_place(
    h: &Hlo,
    name: &str,
    text: &str,
    (blocks, threads): (usize, usize),
    operands: &[Value],
    results: &[Vec<usize>],
    aliases: &[(usize, usize)],
) -> Vec<Value> {
    let results: Vec<(Elem, Vec<usize>)> = results.iter().map(|dims| (Elem::I32, dims.clone())).collect();
    let config = CallConfig::Dictionary(config(name, text, blocks, threads));
    h.custom_call_in_place(TARGET, &config, operands, &results, aliases)
}

/// Returns the configuration of a call.
fn config(name: &str, text: &str, blocks: usize, threads: usize) -> Attributes {
    let string = |text: &str| Attribute::String(text.to_owned());
    let number = |number: usize| Attribute::Integer(number as i64, "i32");
    vec![
        ("name", string(name)),
        ("kernel_type", string("ptx")),
        ("kernel_data", string(text)),
        ("grid_x", number(blocks)),
        ("grid_y", number(1)),
        ("grid_z", number(1)),
        ("block_x", number(threads)),
        ("block_y", number(1)),
        ("block_z", number(1)),
        ("shared_mem_bytes", number(0)),
    ]
}
