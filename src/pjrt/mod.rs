//! A thin, thread-safe layer over the PJRT C API: load a plugin, make a client, compile StableHLO, move arrays, run.
//!
//! Everything a plugin hands back is owned by one Rust value, and each value holds an `Arc` to whatever must outlive
//! it: [`Buffer`] and [`Executable`] hold their [`Client`], a client holds its [`Plugin`]. A plugin, once loaded,
//! stays in the process for good: XLA starts threads and registers global state that no unloading could undo. Several
//! plugins can be loaded side by side, each with its own XLA inside (the tests run three).
//!
//! Everything here is `Send + Sync`. PJRT requires its implementations to take concurrent calls on one client,
//! executable, buffer or event; the only thing the API leaves to the caller is not to use a handle while or after it
//! is destroyed, which ownership rules out.
//!
//! A plugin that misbehaves (null where the API promises an object, functions missing from its table) gives an
//! [`Error`], not a panic and not undefined behaviour, as far as that can be told from outside.
#![allow(unsafe_code)]
// bindgen's names for C enumerators, in patterns.
#![allow(non_upper_case_globals)]

mod args;
mod buffer;
mod client;
mod compile_options;
mod compiled_program;
mod description;
mod element;
mod error;
mod event;
mod executable;
#[cfg(test)]
mod fake;
mod fingerprint;
mod handle;
mod loaded;
mod named_values;
mod plugin;
mod plugin_data;
mod topology;
mod tpu;
mod version;

pub use buffer::Buffer;
pub use client::{Client, Device, MemoryStats};
pub use compile_options::CompileOptions;
pub use description::DeviceDescription;
pub use element::ElementType;
pub use error::{Code, Error, ErrorKind, Result};
pub use executable::{Executable, Launch};
pub use named_values::OptionValue;
pub use plugin::Plugin;
pub use topology::Topology;
pub use tpu::{host_has_tpu, LIBTPU_AHEAD_ENVIRONMENT};
pub use version::{ApiVersion, MIN_API_MINOR};

pub(crate) use fingerprint::hex;
