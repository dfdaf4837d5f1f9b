//! The C ABI: functions over opaque handles and flat structs.
//!
//! `types` has the structs and constants, and `functions` the exported functions, one file per topic. Their doc
//! comments are the manual: `tests/library/header.rs` copies them into the header. `structs`, `options` and `calls`
//! turn raw arguments into checked Rust values, with the help of `pointers`, `enums`, `arrays` and `memory`. `device`
//! and `embedding` do the same for logits on a device and for programs to embed. `guard`, `error_struct` and `message`
//! turn errors and panics into statuses and messages. `cancellation` and `float_environment` protect a call from the
//! state of the caller's thread. `handle`, `objects` and `info` own the data behind a handle, and `callbacks` runs
//! callbacks of the caller.
#![allow(unsafe_code)]
// The names follow C conventions.
#![allow(non_camel_case_types)]

mod argument_names;
mod arrays;
mod callbacks;
mod calls;
mod cancellation;
mod device;
mod embedding;
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
mod objects;
mod options;
mod pointers;
mod process;
mod sigpipe;
mod status_names;
mod structs;
mod types;

pub use functions::*;
pub use types::*;
