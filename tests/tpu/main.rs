//! The tests of the TPU kernels: compiled by libtpu, and run by the interpreter in this directory.

#[path = "../common/mod.rs"]
mod common;

mod grid;
mod kernels;
mod libtpu;
mod paths;
