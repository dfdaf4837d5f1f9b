//! Kernels as StableHLO, for any PJRT plugin.
//!
//! Other targets use some parts too: `inputs` reads a batch, `sampling` computes weights and draws, `search`
//! finds thresholds, and `wide_outputs` writes the wide arrays. Imports point in one direction: `search` ←
//! `inputs` ← `sampling` ← `wide_outputs` ← `arbitrary`, `bounded` ← this file.

mod arbitrary;
mod bounded;
pub(super) mod inputs;
pub(super) mod sampling;
pub(super) mod search;
pub(super) mod wide_outputs;

use super::spec::{Path, Spec};
use crate::mlir::stablehlo::{Hlo, Value};

/// Returns the text of the portable program for a spec.
pub fn emit(spec: &Spec) -> String {
    let h = &Hlo::new();
    let rows = inputs::operands(h, spec, true).rows_and_words(h, spec);
    let results = results(h, spec, rows);
    let results = inputs::with_tokens(spec, results, |numbers| inputs::tokens(h, numbers));
    h.finish(&spec.name(), &results)
}

/// Adds the operations of the portable algorithm to a program. Returns the results. The arguments are those of
/// [`Operands::rows_and_words`](inputs::Operands::rows_and_words).
pub(super) fn results(h: &Hlo, spec: &Spec, (logits, params): (Value, Value)) -> Vec<Value> {
    let inputs = &inputs::Inputs::new(h, spec, logits, params, None);
    match spec.path {
        Path::Arbitrary => arbitrary::kernel(h, spec, inputs),
        Path::Bounded(_) => bounded::kernel(h, spec, inputs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use crate::kernels::spec::{Source, Wanted};

    /// A gather with indices of 32 bits reads a wrong element if an index does not fit. A device reports no error.
    #[test]
    fn every_index_of_a_large_program_fits_its_type() {
        let wanted = Wanted { topk_logits: true, weights: true, slices: true };
        for (path, batch, vocab, dtype, large) in [
            // In the first two cases, two gathers are large: they read the keys and the cleaned logits at the kept
            // entries.
            (Path::Bounded(128), 256, 1 << 24, Dtype::F32, 2),
            (Path::Bounded(128), 16_640, 131_072, Dtype::Bf16, 2),
            (Path::Bounded(128), 128, 1 << 24, Dtype::F32, 0),
            // In this case, a third gather is large: it reads the tiles with the largest entries.
            (Path::Bounded(1024), 1 << 16, 1 << 24, Dtype::F32, 3),
            (Path::Arbitrary, 1 << 16, 1 << 24, Dtype::F32, 0),
        ] {
            let wanted = Wanted { slices: path != Path::Arbitrary, ..wanted };
            let spec = Spec { path, batch, vocab, dtype, stable: true, wanted, source: Source::Batch };
            let text = emit(&spec);
            let gathers: Vec<(bool, bool)> = text.lines().filter_map(large_and_wide).collect();
            assert!(
                gathers.iter().all(|(is_large, is_wide)| is_large == is_wide),
                "{}: {gathers:?}",
                spec.name()
            );
            assert_eq!(
                gathers.iter().filter(|gather| gather.0).count(),
                large,
                "{}: {gathers:?}",
                spec.name()
            );
        }
    }

    /// Returns `None` if the line is not a gather. Otherwise returns whether the table has more than 2^31 rows, and
    /// whether the indices have 64 bits.
    fn large_and_wide(line: &str) -> Option<(bool, bool)> {
        let types = line.split_once("stablehlo.gather\"")?.1.rsplit_once(" : (tensor<")?.1;
        let operands = types.split_once(") -> ")?.0;
        let rows: usize = operands.split_once('x')?.0.parse().ok()?;
        Some((rows > 1 << 31, operands.ends_with("xui64>")))
    }
}
