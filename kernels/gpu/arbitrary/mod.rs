//! The kernels of the arbitrary path. They accept any k.
//!
//! Kernels with one block per slice alternate with kernels with one block per row, which combine the slices:
//!
//! 1. [`scan`] finds the maximum and the status bits, and counts the first digits of the order keys.
//! 2. [`top_k`] finds the key of the k-th entry by a radix selection with three digits, and then the last tie. It reads
//!    the logits only for rows with top-k.
//! 3. [`top_p`] computes the weights. For rows without top-p, it sums them. For rows with top-p, it finds the least
//!    weight to keep by a radix selection in two passes.
//! 4. [`draw`] draws the token from the sums of the slices. It reads one slice.
//!
//! A kernel writes only its own results, and no block waits for another block. A block whose row does not need a step
//! does not read the logits in this step.
//!
//! A file imports only files to the left of it:
//!
//! ```text
//! records, division ← slice_block, row_block ← table ← digit, weigh ← scan ← top_k ← top_p ← draw ← this file
//! ```

mod digit;
mod division;
mod draw;
mod records;
mod row_block;
mod scan;
mod slice_block;
mod table;
mod top_k;
mod top_p;
mod weigh;

use super::call::call;
use super::results::THRESHOLDS;
use crate::kernels::program_arrays::RESULTS;
use crate::kernels::spec::Spec;
use crate::kernels::stablehlo::inputs::Operands;
use crate::kernels::target::Gpu;
use crate::mlir::stablehlo::{Hlo, Value};
use crate::ptx::Ptx;
use digit::Digit;
use division::Division;
use records::{NARROWED, SCANNED, SEARCH, SELECTED, WIDE};
use weigh::{BY_DISTANCE, BY_WEIGHT};

/// The kernels in the order in which they run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kernel {
    Scan,
    FirstDigit,
    CountSecond,
    SecondDigit,
    CountThird,
    ThirdDigit,
    Weigh,
    Narrow,
    Refine,
    Draw,
}

impl Kernel {
    const ALL: [Kernel; 10] = [
        Kernel::Scan,
        Kernel::FirstDigit,
        Kernel::CountSecond,
        Kernel::SecondDigit,
        Kernel::CountThird,
        Kernel::ThirdDigit,
        Kernel::Weigh,
        Kernel::Narrow,
        Kernel::Refine,
        Kernel::Draw,
    ];

    fn name(self) -> &'static str {
        match self {
            Kernel::Scan => "nucleus_scan",
            Kernel::FirstDigit => "nucleus_first_digit",
            Kernel::CountSecond => "nucleus_count_second",
            Kernel::SecondDigit => "nucleus_second_digit",
            Kernel::CountThird => "nucleus_count_third",
            Kernel::ThirdDigit => "nucleus_third_digit",
            Kernel::Weigh => "nucleus_weigh",
            Kernel::Narrow => "nucleus_narrow",
            Kernel::Refine => "nucleus_refine",
            Kernel::Draw => "nucleus_draw",
        }
    }

    /// Whether the kernel has one block per slice. The other kernels have one block per row.
    fn reads_slices(self) -> bool {
        use Kernel::{CountSecond, CountThird, Refine, Scan, Weigh};
        matches!(self, Scan | CountSecond | CountThird | Weigh | Refine)
    }

    fn text(self, spec: &Spec, division: &Division, seeded: bool) -> String {
        let k = &if self.reads_slices() { division.kernel() } else { Ptx::new(row_block::THREADS, 1) };
        match self {
            Kernel::Scan => scan::write(k, spec, division),
            Kernel::FirstDigit => top_k::write_first(k, spec, division),
            Kernel::CountSecond => top_k::write_count(k, spec, division, Digit::Second),
            Kernel::SecondDigit => top_k::write_second(k, spec, division),
            Kernel::CountThird => top_k::write_count(k, spec, division, Digit::Third),
            Kernel::ThirdDigit => top_k::write_third(k, spec, division),
            Kernel::Weigh => top_p::write_weigh(k, spec, division),
            Kernel::Narrow => top_p::write_narrow(k, division),
            Kernel::Refine => top_p::write_refine(k, spec, division),
            Kernel::Draw => draw::write(k, spec, division, seeded),
        }
        k.text(self.name())
    }
}

/// Returns the PTX text of all kernels, for people to read.
pub(super) fn kernel_text(spec: &Spec, gpu: &Gpu) -> String {
    let division = &Division::new(spec, gpu);
    let texts: Vec<String> =
        Kernel::ALL.iter().map(|kernel| kernel.text(spec, division, spec.returns_tokens())).collect();
    texts.join("\n")
}

/// Adds the calls of the kernels to a program. Returns the numbers `[RESULTS, batch]` and the thresholds `[THRESHOLDS,
/// batch]`.
pub(super) fn calls(h: &Hlo, spec: &Spec, gpu: &Gpu, operands: &Operands) -> [Value; 2] {
    let &Operands { logits, parameters, step } = operands;
    let division = &Division::new(spec, gpu);
    let all_slices = spec.batch * division.slices;
    let run = |kernel: Kernel, operands: &[Value], results: &[Vec<usize>]| -> Vec<Value> {
        let text = kernel.text(spec, division, step.is_some());
        let grid = if kernel.reads_slices() {
            (all_slices, division.tile.threads)
        } else {
            (spec.batch, row_block::THREADS)
        };
        call(h, kernel.name(), &text, grid, operands, results)
    };
    let of_rows = |len: usize| vec![spec.batch, len];
    let of_slices = |len: usize| vec![all_slices, len];
    let with_table = |first: &[Vec<usize>], shape: table::Shape| [first, &shape.arrays(all_slices)].concat();

    let scanned =
        run(Kernel::Scan, &[logits, parameters], &with_table(&[of_slices(SCANNED)], Digit::First.shape()));
    let first = run(
        Kernel::FirstDigit,
        &[&[parameters], &scanned[..]].concat(),
        &[of_rows(SCANNED), of_rows(SEARCH)],
    );
    let (rows, search) = (first[0], first[1]);
    let counts =
        run(Kernel::CountSecond, &[logits, parameters, search], &Digit::Second.shape().arrays(all_slices));
    let search =
        run(Kernel::SecondDigit, &[&[parameters, search], &counts[..]].concat(), &[of_rows(SEARCH)])[0];
    let counts =
        run(Kernel::CountThird, &[logits, parameters, search], &Digit::Third.shape().arrays(all_slices));
    let third = [&[logits, parameters, search], &counts[..]].concat();
    let selected = run(Kernel::ThirdDigit, &third, &[of_rows(SELECTED)])[0];

    let weighed =
        run(Kernel::Weigh, &[logits, parameters, rows, selected], &with_table(&[of_slices(WIDE)], BY_WEIGHT));
    let narrowed = run(
        Kernel::Narrow,
        &[parameters, rows, weighed[1], weighed[2]],
        &[of_rows(NARROWED), of_slices(WIDE)],
    );
    let distances = run(
        Kernel::Refine,
        &[logits, parameters, rows, selected, narrowed[0]],
        &BY_DISTANCE.arrays(all_slices),
    );
    let mut operands = vec![logits, parameters, rows, selected, weighed[0], narrowed[1], narrowed[0]];
    operands.extend(distances);
    operands.extend(step);
    let results = [vec![RESULTS, spec.batch], vec![THRESHOLDS, spec.batch]];
    let results = run(Kernel::Draw, &operands, &results);
    [results[0], results[1]]
}
