//! Calls of kernels in a StableHLO program.

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

/// Returns the configuration of a call, an MLIR dictionary as text.
fn config(name: &str, text: &str, blocks: usize, threads: usize) -> String {
    let escaped: String = text
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            '\n' => "\\0A".to_owned(),
            '\t' => "\\09".to_owned(),
            c => c.to_string(),
        })
        .collect();
    format!(
        "{{name = \"{name}\", kernel_type = \"ptx\", kernel_data = \"{escaped}\", grid_x = {blocks} : i32, \
         grid_y = 1 : i32, grid_z = 1 : i32, block_x = {threads} : i32, block_y = 1 : i32, block_z = 1 : i32, \
         shared_mem_bytes = 0 : i32}}"
    )
}
