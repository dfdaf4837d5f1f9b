//! Test code: a PJRT plugin that forwards every call to a real plugin and injects faults on request.
//!
//! The library under test loads this crate's shared library like any plugin. The test program loads the same file. It
//! uses the [`control`] interface to name the real plugin and to arm a fault. At the n-th call the proxy returns an
//! error ([`Kind::Internal`] and the other error kinds), or it returns success and invalid data ([`Kind::Empty`] and
//! the kinds after it). With [`Kind::Late`] and [`Kind::LateExhausted`], it returns success, and the asynchronous work
//! fails later. The proxy also keeps a ledger of all objects that it returned. The ledger finds leaks, objects that are
//! destroyed twice, and calls on destroyed objects.
//!
//! The proxy keeps destroyed clients and programs and returns them again. This makes a sweep with thousands of samplers
//! fast.
// Every pointer in this crate comes from the library under test or from the real plugin, in this process.
#![allow(clippy::undocumented_unsafe_blocks, unsafe_op_in_unsafe_fn)]

mod answers;
pub mod control;
mod dispatch;
mod errors;
mod events;
pub mod fault;
mod functions;
mod ledger;
mod real;
mod state;
mod store;

pub use control::Proxy;
pub use fault::{Fault, Kind};
pub use ledger::Contents;
