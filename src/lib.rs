//! nucleus chooses the next token of a language model: exact greedy, top-k, top-p and min-p sampling over
//! `[batch, vocab]` logits, bit-identical on every backend. The C ABI in `include/nucleus.h` is the product;
//! this crate is also an `rlib` so that its parts can be tested.
#![deny(unsafe_code)]

pub mod abi;
pub mod ahead;
mod buckets;
pub mod cpu;
pub mod error;
#[path = "../kernels/mod.rs"]
pub mod kernels;
pub mod mosaic;
pub mod pjrt;
mod pjrt_backend;
pub mod problem;
pub mod program_dir;
pub mod programs;
pub mod reference;
pub mod sampler;
pub mod semantics;
pub mod stablehlo;
