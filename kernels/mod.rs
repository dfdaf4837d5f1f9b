//! The programs that devices run, generated for each input shape and target.
//!
//! `src/semantics` defines what every kernel must compute. The files here contain only the loops, the memory traffic
//! and the searches of each target.
//!
//! Imports point in one direction: `spec`, `program_arrays` and `target` ← `stablehlo` ← `tpu`, `gpu` ← this file ←
//! `embed`, `program`. `combine` imports only `program_arrays`, `spec` and `stablehlo`. `row_major` imports no file of
//! this directory. `program` also imports `combine` and `row_major`.

pub mod combine;
pub mod embed;
pub mod gpu;
pub mod program;
mod program_arrays;
pub mod row_major;
mod spec;
pub mod stablehlo;
mod target;
pub mod tpu;

pub use program_arrays::{pack_params, pack_seeds, Column, ResultRow, COLUMNS, RESULTS};
pub use spec::{Path, Source, Spec, Wanted};
pub use target::{Chip, Gpu, Target};

use crate::mlir::stablehlo::{Hlo, Value};
use stablehlo::inputs::{self, Operands};

/// Returns the StableHLO text of the program for a spec. It contains a kernel of the target if the target has one.
///
/// Programs take and return the same arrays for every target.
pub fn emit(spec: &Spec, target: &Target) -> String {
    match target {
        Target::Tpu(chip) if tpu::supports(spec) => tpu::emit(spec, chip),
        Target::Gpu(gpu) if gpu::supports(spec) => gpu::emit(spec, gpu),
        Target::Portable | Target::Tpu(_) | Target::Gpu(_) => stablehlo::emit(spec),
    }
}

/// Adds the sampling operations of [`emit`] to a program. Returns the results and the tokens of the rows.
fn results_and_tokens(h: &Hlo, spec: &Spec, target: &Target, operands: &Operands) -> (Vec<Value>, Value) {
    let rows_and_words = || operands.rows_and_words(h, spec);
    let with_extracted = |results: Vec<Value>| {
        let tokens = inputs::tokens(h, results[0]);
        (results, tokens)
    };
    match target {
        Target::Tpu(chip) if tpu::supports(spec) => {
            with_extracted(tpu::results(h, spec, chip, rows_and_words()))
        }
        // These kernels also compute the random words and the tokens.
        Target::Gpu(gpu) if gpu::supports(spec) => gpu::results_and_tokens(h, spec, gpu, operands),
        Target::Portable | Target::Tpu(_) | Target::Gpu(_) => {
            with_extracted(stablehlo::results(h, spec, rows_and_words()))
        }
    }
}

/// Returns the reason why [`emit`] returns the portable program although the target has its own kernels. Returns `None`
/// in all other cases.
///
/// A caller that compiles the program should log the reason.
pub fn portable_reason(spec: &Spec, target: &Target) -> Option<String> {
    match target {
        Target::Tpu(chip) if !tpu::supports(spec) => Some(format!(
            "{} exceeds the limits of the kernels for {} ({}): it runs the portable program",
            spec.name(),
            chip.name,
            tpu::limits()
        )),
        Target::Gpu(gpu) if !gpu::supports(spec) => Some(format!(
            "there is no kernel for {} on {}: it runs the portable program; the kernels support {}",
            spec.name(),
            gpu.name,
            gpu::limits()
        )),
        Target::Portable | Target::Tpu(_) | Target::Gpu(_) => None,
    }
}

/// Returns the text of the kernels in the program for a spec, in MLIR or PTX, for people to read. Returns `None` if the
/// program contains only StableHLO.
pub fn kernel_text(spec: &Spec, target: &Target) -> Option<String> {
    match target {
        Target::Tpu(chip) if tpu::supports(spec) => Some(tpu::kernel_text(spec, chip)),
        Target::Gpu(gpu) if gpu::supports(spec) => Some(gpu::kernel_text(spec, gpu)),
        Target::Portable | Target::Tpu(_) | Target::Gpu(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;

    #[test]
    fn a_program_beyond_the_limits_says_why_it_is_portable() {
        let spec = |path, vocab| {
            let (dtype, wanted) = (Dtype::F32, Wanted::default());
            Spec { path, batch: 1, vocab, dtype, stable: true, wanted, source: Source::Batch }
        };
        let tpu = Target::named("v5e").unwrap();
        for (path, vocab) in [(Path::Bounded(1025), 2000), (Path::Arbitrary, (1 << 24) + 1)] {
            let large = spec(path, vocab);
            let reason = portable_reason(&large, &tpu).unwrap();
            assert!(reason.starts_with(&large.name()) && reason.contains("v5e"), "{reason}");
            assert_eq!(emit(&large, &tpu), emit(&large, &Target::Portable));
            assert_eq!(portable_reason(&large, &Target::Portable), None);
        }
        // A row has at most as many slots as the vocabulary has entries.
        for (path, vocab) in
            [(Path::Bounded(1024), 2000), (Path::Bounded(1025), 1024), (Path::Arbitrary, 1 << 24)]
        {
            let small = spec(path, vocab);
            assert_eq!(portable_reason(&small, &tpu), None);
            assert!(emit(&small, &tpu).contains("tpu_custom_call"));
        }
    }
}
