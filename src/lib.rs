//! nucleus chooses the next token of a language model: exact greedy, top-k, top-p and min-p sampling over
//! `[batch, vocab]` logits, bit-identical on every backend. The C ABI in `include/nucleus.h` is the product;
//! this crate is also an `rlib` so that its parts can be tested.
#![deny(unsafe_code)]

pub mod abi;
pub mod backend;
pub mod batch;
pub mod compile_ahead;
pub mod dtype;
pub mod environment;
pub mod error;
#[path = "../kernels/mod.rs"]
pub mod kernels;
mod memory;
pub mod mlir;
pub mod outputs;
mod parallel;
pub mod pjrt;
pub mod plan;
pub mod reference;
pub mod sampler;
pub mod semantics;
