//! Checks that the compiler inlines the SIMD operations of the built-in backend.
//!
//! The backend enables an instruction set only for some functions. A function that is not inlined into one of them is
//! compiled without this instruction set. Then each of its SIMD operations is a function call, and the symbol table
//! contains the operation. This happened with `map` of an array and with calls through a reference to a closure. The
//! results are correct, but the code is slow.

#![cfg(target_arch = "x86_64")]

use std::collections::BTreeSet;
use std::process::Command;

use fearless_simd::{f64x4, prelude::*, Level, Simd};

/// The type of the operations of [`planted`]. The backend does not use it.
const PLANTED_TYPE: &str = "_f64x4";

/// An operation that is not inlined, so that the test shows that it finds such operations.
#[inline(never)]
fn planted<S: Simd>(simd: S, x: f64) -> f64 {
    f64x4::splat(simd, x).trunc().to_array()[0]
}

/// Returns the symbols of this program that are SIMD operations of AVX2 or AVX-512.
fn operations() -> BTreeSet<String> {
    let program = std::env::current_exe().unwrap();
    let output =
        Command::new("nm").arg(program).output().expect("nm is part of binutils, and so is the linker");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let symbols = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_operation = |symbol: &&str| symbol.contains("Avx") && symbol.contains("__fearless_simd_kernel");
    symbols.split_whitespace().filter(is_operation).map(str::to_owned).collect()
}

#[test]
fn no_simd_operation_is_a_function_call() {
    if cfg!(debug_assertions) {
        println!("skipped: the compiler inlines less in the development profile");
        return;
    }
    if let Some(avx2) = Level::new().as_avx2() {
        assert_eq!(planted(avx2, 1.5), 1.0);
    }
    let (expected, unexpected): (Vec<String>, Vec<String>) =
        operations().into_iter().partition(|symbol| symbol.contains(PLANTED_TYPE));
    assert!(!expected.is_empty(), "the test does not find the operations that are function calls on purpose");
    assert!(unexpected.is_empty(), "these SIMD operations are function calls: {unexpected:#?}");
}
