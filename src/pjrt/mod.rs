//! A thread-safe layer over the PJRT C API: load a plugin, create a client, compile StableHLO, copy arrays, run
//! programs.
//!
//! # Ownership
//! One Rust value owns each object that a plugin returns, and keeps an `Arc` to everything that must outlive the
//! object: [`Buffer`] and [`Executable`] keep their [`Client`], a client keeps its [`Plugin`]. A loaded plugin is
//! never unloaded: XLA starts threads and registers global state that unloading cannot undo. Several plugins can be
//! loaded at the same time, each with its own copy of XLA (the tests load three).
//!
//! # Threads
//! All types here are `Send + Sync`. PJRT requires plugins to accept concurrent calls on one client, executable,
//! buffer or event. The caller has one obligation: no handle may be used during or after its destruction. Ownership
//! guarantees this.
//!
//! # Logging and callbacks
//! A log function of the caller may call this library again. So this layer logs only in [`Plugin::load`],
//! [`Client::create`] and [`log_release_failures`], and holds no lock there. Compiling, running, copying and
//! dropping never log, so callers may do these while they hold their own locks.
//!
//! A plugin is native code, so this library cannot protect the process from it. This layer checks the following: null
//! pointers where the API promises objects, missing functions, impossible sizes and impossible element types. Each of
//! them causes an [`Error`]. If a plugin does not report the end of a copy to the host, the memory of the copy is never
//! freed. The memory of a copy to the device belongs to the caller, so this library cannot keep it. If a plugin does
//! not report the end of such a copy, the plugin may read the memory after [`Client::buffer_from_host`] has returned an
//! error.
#![allow(unsafe_code)]
// The patterns use the names that bindgen generates for C enumerators.
#![allow(non_upper_case_globals)]

mod api_table;
mod args;
mod buffer;
mod client;
mod compile_options;
mod compiled_program;
mod description;
mod element;
mod elf;
mod error;
mod event;
mod executable;
#[cfg(test)]
mod fake;
mod fingerprint;
mod handle;
mod loaded;
mod mapped_file;
mod named_values;
mod plugin;
mod plugin_data;
mod plugin_file;
mod pointers;
mod release;
mod short_list;
mod static_program;
mod text;
mod topology;
mod tpu;
mod version;

pub use buffer::{Buffer, HostCopy};
pub use client::{Client, Device};
pub use compile_options::CompileOptions;
pub use description::DeviceDescription;
pub use element::ElementType;
pub use error::{Code, Error, ErrorKind, Result};
pub use executable::{Executable, Launch};
pub use named_values::OptionValue;
pub use plugin::Plugin;
pub use pointers::{BufferPointer, ClientPointer};
pub use release::log_release_failures;
pub use topology::Topology;
pub use tpu::{host_has_tpu, LIBTPU_AHEAD_ENVIRONMENT};
pub use version::{ApiVersion, MIN_API_MINOR};

pub(crate) use fingerprint::hex;
pub use fingerprint::FileState;
