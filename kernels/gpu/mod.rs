//! Kernels for NVIDIA GPUs, in PTX. Each kernel is part of a StableHLO program that PJRT compiles.
//!
//! The arbitrary path has the kernels of `arbitrary`. The bounded path has two kernels. The first one reads the
//! logits once, with one block of threads per slice of a row, and keeps the largest entries of each slice. The second
//! one has one block per row. It selects the k largest entries and draws. The StableHLO around the kernels computes the
//! wide arrays from the logits and the thresholds of each row.
//!
//! A file imports only files to the left of it:
//!
//! ```text
//! layout, block ← order, parameters, places, remainder, results ← logits ← filter ← finish; call, logits ← arbitrary
//!   ← this file
//! ```

mod arbitrary;
mod block;
mod call;
mod filter;
mod finish;
mod layout;
mod logits;
mod order;
mod parameters;
mod places;
mod remainder;
mod results;

use super::program_arrays::ResultRow;
use super::spec::{Path, Spec};
use super::stablehlo::inputs::{self, Inputs, Operands};
use super::stablehlo::search::TopK;
use super::stablehlo::wide_outputs::{full_width, k_slices, Thresholds};
use super::target::Gpu;
use crate::mlir::stablehlo::{Hlo, Value};
use call::call;
use layout::{Layout, KEPT, LARGEST_BATCH, LARGEST_SLICES, LARGEST_VOCAB, THREADS};
use results::Threshold;

const _: () = assert!(LARGEST_BATCH * LARGEST_SLICES * KEPT < 1 << 31);
/// The largest number of slots of the kernels.
const LARGEST_SLOTS: usize = 128;

/// Whether there are GPU kernels for a spec. Other specs run the portable program.
pub fn supports(spec: &Spec) -> bool {
    let path = match spec.path {
        Path::Arbitrary => true,
        Path::Bounded(_) => spec.slots() <= LARGEST_SLOTS && spec.stable,
    };
    path && spec.vocab <= LARGEST_VOCAB && spec.batch <= LARGEST_BATCH
}

/// Returns the limits of [`supports`], as text for messages.
pub(super) fn limits() -> String {
    format!(
        "at most {LARGEST_BATCH} rows and {LARGEST_VOCAB} elements per row, and on the bounded path at most \
         {LARGEST_SLOTS} slots (max_k), without keep_ties"
    )
}

/// Returns the PTX text of the kernels of a spec, for people to read.
pub fn kernel_text(spec: &Spec, gpu: &Gpu) -> String {
    if spec.path == Path::Arbitrary {
        return arbitrary::kernel_text(spec, gpu);
    }
    let layout = &Layout::new(spec, gpu);
    let seeded = spec.returns_tokens();
    format!("{}\n{}", filter::kernel(spec, layout, FILTER), finish::kernel(spec, layout, seeded, FINISH))
}

/// Returns the indices of the logits of each row that the arbitrary path samples; an empty list for short rows. Tests
/// use them to make rows with a misleading sample.
pub fn sampled_indices(spec: &Spec) -> Vec<usize> {
    arbitrary::sampled_indices(spec)
}

const FILTER: &str = "nucleus_filter";
const FINISH: &str = "nucleus_finish";

/// Returns the text of the program of a spec, with its kernels.
pub fn emit(spec: &Spec, gpu: &Gpu) -> String {
    let h = &Hlo::new();
    let operands = &inputs::operands(h, spec, true);
    let (results, tokens) = results_and_tokens(h, spec, gpu, operands);
    h.finish(&spec.name(), &inputs::with_tokens(spec, results, |_| tokens))
}

/// Adds the operations of the GPU algorithm, with its kernels, to a program. Returns the results and the tokens.
pub(super) fn results_and_tokens(
    h: &Hlo,
    spec: &Spec,
    gpu: &Gpu,
    operands: &Operands,
) -> (Vec<Value>, Value) {
    let called = match spec.path {
        Path::Arbitrary => arbitrary::calls(h, spec, gpu, operands).to_vec(),
        Path::Bounded(_) => bounded_calls(h, spec, gpu, operands),
    };
    let row = |array: Value, number: usize| h.reshape(h.slice(array, 0, number, number + 1), &[spec.batch]);
    let threshold = |which: Threshold| row(called[1], which as usize);
    let mut results = vec![called[0]];
    if spec.wanted.full_width() || spec.wanted.slices {
        let params = operands.parameters;
        let logits = inputs::rows(h, spec, operands.logits, params);
        let inputs = &Inputs::new(h, spec, logits, params, Some(threshold(Threshold::MaxKey)));
        if spec.wanted.full_width() {
            let thresholds = Thresholds {
                top_k: TopK {
                    threshold: threshold(Threshold::TopK),
                    last_tie: threshold(Threshold::LastTie),
                },
                greedy: row(called[0], ResultRow::Greedy as usize),
                least_weight: threshold(Threshold::LeastWeight),
            };
            results.extend(full_width(h, spec, inputs, &thresholds));
        }
        if spec.wanted.slices {
            results.extend(k_slices(h, spec, inputs, [called[3], called[4], called[5]]));
        }
    }
    (results, h.reshape(called[2], &[spec.batch]))
}

/// Adds the calls of the kernels of the bounded path. Returns the numbers `[RESULTS, batch]`, the thresholds
/// `[THRESHOLDS, batch]`, the tokens `[1, batch]`, and the k-slices if the spec wants them.
fn bounded_calls(h: &Hlo, spec: &Spec, gpu: &Gpu, operands: &Operands) -> Vec<Value> {
    let &Operands { logits, parameters, step } = operands;
    let layout = &Layout::new(spec, gpu);
    let blocks = spec.batch * layout.slices;
    let filtered = call(
        h,
        FILTER,
        &filter::kernel(spec, layout, FILTER),
        (blocks, layout.threads),
        &[logits, parameters],
        &[vec![blocks, KEPT * 2], vec![blocks, filter::SLICE_WORDS]],
    );
    let mut operands = vec![parameters, filtered[0], filtered[1]];
    operands.extend(step);
    let mut results = results::shapes(spec).to_vec();
    if spec.wanted.slices {
        results.extend([(); 3].map(|()| vec![spec.batch, spec.slots()]));
    }
    let text = finish::kernel(spec, layout, step.is_some(), FINISH);
    call(h, FINISH, &text, (spec.batch, THREADS), &operands, &results)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use crate::kernels::spec::{Source, Wanted};
    use crate::kernels::target::Target;

    fn spec(batch: usize, vocab: usize) -> Spec {
        let (dtype, wanted) = (Dtype::F32, Wanted::default());
        Spec { path: Path::Bounded(128), batch, vocab, dtype, stable: true, wanted, source: Source::Batch }
    }

    #[test]
    fn blocks_fill_the_device() {
        let Some(Target::Gpu(gpu)) = Target::named("h100") else { panic!("a GPU") };
        for (batch, vocab, slices) in
            [(1, 128_256, 32), (16, 262_144, 43), (128, 262_144, 43), (1, 1, 1), (1, 1 << 20, 64)]
        {
            assert_eq!(Layout::new(&spec(batch, vocab), &gpu).slices, slices, "{batch} × {vocab}");
        }
    }
}
