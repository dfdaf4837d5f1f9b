//! Test code: a PJRT plugin that passes every call on to a real plugin and injects faults on request.
//!
//! The library under test loads this crate's shared library as it loads any plugin. The test program loads the same
//! file, takes its [`control`] interface, names the real plugin, and arms a fault: at the n-th call the proxy returns
//! an error ([`Kind::Internal`] and the other error kinds) or reports success and returns nonsense ([`Kind::Empty`]
//! and the kinds after it). The proxy also keeps a ledger of all objects that it handed out, so that leaks, double
//! destroys and calls on dead objects are found.
//!
//! Destroyed clients and programs are kept and handed out again, which makes a sweep with thousands of samplers short.
// Every pointer in this crate comes from the library under test or from the real plugin, in this process.
#![allow(clippy::undocumented_unsafe_blocks, unsafe_op_in_unsafe_fn)]

mod answers;
pub mod control;
mod dispatch;
mod errors;
pub mod fault;
mod functions;
mod ledger;
mod real;
mod state;
mod store;

pub use control::Proxy;
pub use fault::{Fault, Kind};
