//! The tests of the library and its backends. They are in one test program, so that they link once and share samplers.

#[path = "../common/mod.rs"]
mod common;

mod abi;
mod abi_device;
mod abi_prewarm;
mod agreement;
mod bad_plugins;
mod borrowed_client;
mod builtin_backend;
mod compile_ahead;
mod contraction;
mod device;
mod embed;
mod header;
mod layout;
mod pjrt_layer;
mod properties;
mod simd_inlined;
mod softmax;
mod steady_state;
mod structure;
mod vector_cases;
mod vectors;
