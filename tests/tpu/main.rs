//! The tests of the TPU kernels: libtpu compiles them, and the interpreter in `tests/interpreter` runs them.

#[path = "../common/mod.rs"]
mod common;

mod equal_rows;
mod grid;
mod kernels;
mod libtpu;
mod limit_rows;
mod limits;
mod mutant_rows;
mod mutants;
mod paths;
mod small_batches;
