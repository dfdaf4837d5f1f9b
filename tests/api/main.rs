//! Tests of the Rust interface. They use nothing else of the crate, so that they also run without the feature `pjrt`
//! (scripts/test_without_pjrt.py).

mod arguments;
#[cfg(feature = "pjrt")]
mod device;
mod threads;
mod vectors;
