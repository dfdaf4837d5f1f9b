//! nucleus chooses the next token of a language model: exact greedy, top-k, top-p, min-p and temperature sampling over
//! `[num_rows, vocab]` logits.
//!
//! The same row, parameters and random words give the same token everywhere, bit for bit: on the built-in CPU backend,
//! on any device with a PJRT plugin, alone or in a batch, and at any position in the batch. Exactly k tokens survive
//! top-k, and a token that was filtered out is never drawn.
//!
//! # Example
//!
//! ```
//! use nucleus::{Batch, Sampler};
//!
//! let sampler = Sampler::builder().build()?;
//! // Two requests and a vocabulary of four tokens. The first row is sampled, the second is greedy.
//! let logits = [0.1_f32, 2.0, -1.0, 1.9, /* second row */ 5.0, 0.0, 4.0, 0.0];
//! let batch = Batch::new(&logits, 4)?
//!     .top_k(&[3, 0])
//!     .top_p(&[0.95, 1.0])
//!     .temperature(&[0.7, 0.0])
//!     .seed(&[1, 2])
//!     .offset(&[0, 0]);
//! let tokens = sampler.sample(&batch)?;
//! assert_eq!(tokens[1], 0);
//! # Ok::<(), nucleus::Error>(())
//! ```
//!
//! A [`Sampler`] is created once and used by any number of threads. A [`Batch`] borrows the arrays of one step.
//! [`Sampler::sample`] returns the tokens, [`Sampler::sample_with_status`] also the [`RowStatus`] of each row,
//! [`Sampler::sample_into`] writes to the caller's arrays, and [`Sampler::sample_debug`] returns every intermediate
//! array. The directory `examples/rust` has a decode loop.
//!
//! # Features
//!
//! | feature | default | adds |
//! | --- | --- | --- |
//! | `pjrt` | yes | PJRT plugins, compiled programs, logits on a device, and the C ABI |
//!
//! The feature `pjrt` needs `protoc` and `libclang` to build. Without this feature, the crate needs only the Rust
//! toolchain to build. It has only the built-in CPU backend, reads no environment variable, and exports no C function.
//! To use the crate without this feature: `nucleus-sampler = { version = "0.1", default-features = false }`.
//!
//! # Environment
//!
//! With the feature `pjrt`, [`Backend::Auto`] uses the plugin that the environment variable `NUCLEUS_PJRT_PLUGIN`
//! names, and samplers with a plugin look for compiled programs in the directory that `NUCLEUS_PROGRAM_DIR` names.
//!
//! # Logging
//!
//! The crate logs through the crate `log`, for example why a program was compiled instead of loaded.
//!
//! # The C ABI
//!
//! The crate is also a C library. Its header is `include/nucleus.h`. The hidden modules of this crate belong to the C
//! ABI, the tests and the command `nucleus`; they are not part of the Rust interface and can change in any version.
#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod api;

#[cfg(feature = "pjrt")]
#[doc(inline)]
pub use api::{device, programs};
#[doc(inline)]
pub use api::{
    Batch, DebugArrays, Error, KSlices, LogitsArray, Outputs, RowStatus, Sampled, Sampler, SamplerBuilder,
};
#[doc(inline)]
pub use backend::DeviceInfo;
#[doc(inline)]
pub use dtype::{Dtype, Logits, LogitsMut};
#[doc(inline)]
pub use error::ErrorKind;
#[doc(no_inline)]
pub use half::{bf16, f16};
#[doc(inline)]
pub use latency::{LatencyStats, LatencySummary};
#[doc(inline)]
pub use plan::Entry as Path;
#[doc(inline)]
pub use sampler::BackendChoice as Backend;

// The rest is internal. It is public for the tests, the benchmarks and the command, which are other crates.

// The examples in the comments of `abi` are C code for the header, so they are no documentation tests.
#[cfg(all(feature = "pjrt", not(doctest)))]
#[doc(hidden)]
pub mod abi;
#[doc(hidden)]
pub mod backend;
#[doc(hidden)]
pub mod batch;
#[cfg(feature = "pjrt")]
#[doc(hidden)]
pub mod compile_ahead;
#[doc(hidden)]
pub mod dtype;
#[cfg(feature = "pjrt")]
#[doc(hidden)]
pub mod embedding;
#[cfg(feature = "pjrt")]
#[doc(hidden)]
pub mod environment;
#[doc(hidden)]
pub mod error;
#[cfg(feature = "pjrt")]
#[doc(hidden)]
#[path = "../kernels/mod.rs"]
pub mod kernels;
#[doc(hidden)]
pub mod latency;
mod memory;
#[cfg(feature = "pjrt")]
#[doc(hidden)]
pub mod mlir;
#[doc(hidden)]
pub mod outputs;
// Without `pjrt` nothing compiles in the background, so these two modules have functions that nothing calls.
#[cfg_attr(not(feature = "pjrt"), allow(dead_code))]
mod panics;
#[cfg_attr(not(feature = "pjrt"), allow(dead_code))]
mod parallel;
#[cfg(feature = "pjrt")]
#[doc(hidden)]
pub mod pjrt;
#[doc(hidden)]
pub mod plan;
#[cfg(feature = "pjrt")]
#[doc(hidden)]
pub mod ptx;
#[doc(hidden)]
pub mod reference;
#[cfg(feature = "pjrt")]
mod regular_file;
#[doc(hidden)]
pub mod sampler;
#[doc(hidden)]
pub mod semantics;
mod signals;
#[cfg(feature = "pjrt")]
mod text;
#[cfg(feature = "pjrt")]
mod thread_flag;
