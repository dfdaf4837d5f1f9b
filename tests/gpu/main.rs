//! The tests of GPU programs without a GPU: ptxas assembles their kernels, and the interpreter in `tests/interpreter`
//! runs them.

#[path = "../common/mod.rs"]
mod common;

mod held;
mod kernels;
mod ptxas;
