//! nucleus chooses the next token of a language model: exact greedy, top-k, top-p and min-p sampling over
//! `[batch, vocab]` logits, bit-identical on every backend.
//!
//! The product is the C ABI in `include/nucleus.h`. The crate is also an `rlib`, for its tests and the command-line
//! tool; its Rust interface is not stable.
#![deny(unsafe_code)]

pub mod abi;
pub mod backend;
pub mod batch;
pub mod compile_ahead;
pub mod dtype;
pub mod embedding;
pub mod environment;
pub mod error;
#[path = "../kernels/mod.rs"]
pub mod kernels;
pub mod latency;
mod memory;
pub mod mlir;
pub mod outputs;
mod panics;
mod parallel;
pub mod pjrt;
pub mod plan;
pub mod ptx;
pub mod reference;
mod regular_file;
pub mod sampler;
pub mod semantics;
mod text;
mod thread_flag;
