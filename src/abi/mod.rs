//! The C ABI: functions over opaque handles and flat structs.
//!
//! `types` has the structs and constants, and `functions` the exported functions, one file per topic. Their doc comments
//! are the manual: `tests/library/header.rs` copies them into the header. `structs`, `options` and `calls` turn raw
//! arguments into checked Rust values, with the help of `pointers`, `enums`, `arrays` and `memory`. `guard`,
//! `error_struct` and `message` turn errors and panics into statuses and messages. `handle` and `info` own the data
//! behind a handle.
#![allow(unsafe_code)]
// The names follow C conventions.
#![allow(non_camel_case_types)]

mod argument_names;
mod arrays;
mod calls;
mod enums;
mod error_struct;
mod float_environment;
mod functions;
mod guard;
mod handle;
mod info;
mod log;
mod memory;
mod message;
mod options;
mod pointers;
mod sigpipe;
mod status_names;
mod structs;
mod types;

pub use functions::*;
pub use handle::nuc_sampler;
pub use types::*;
