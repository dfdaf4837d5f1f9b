//! The kernels of the arbitrary path. They accept any k.
//!
//! There are four kernels. In the first and the third, one block processes a row. In the others, several blocks process
//! a row.
//!
//! 1. [`sample`] finds a bound for each row from a sample of the row.
//! 2. [`scan`] finds the maximum and the status bits. It collects the entries above the bound of the row, counts those
//!    at the bound, and counts those below the bound in bins.
//! 3. [`decide`] stores the results of the rows that need nothing else. For each other row, it finds two weights that
//!    enclose the threshold of top-p.
//! 4. [`finish`] stores the results of these rows. If a row needs the sum of all weights, several blocks sum its
//!    weights together, and collect those between the two weights that `decide` found ([`weigh`]). The block that ends
//!    last selects the entries. If a list was too short or too long, one block selects the entries from the whole row
//!    ([`whole_row`]).
//!
//! In [`scan`], the blocks that process a plain draw wait for each other, for a limited time ([`held`]). No other block
//! waits for another block. A block whose row does not need a step does not read the logits in this step.
//!
//! A file imports only files to the left of it:
//!
//! ```text
//! records, state, list, shared_list, positions, division, weights ← plan, few, bin_entries, maximum, slice_block,
//!   row_block, sample ← held, search, draw, drawn, histogram ← scan ← rest, ties, counted, weigh, interval ←
//!   decide_row ← list_draw, list_top_k ← list_top_p ← decide, whole_row ← finish ← this file
//! ```

mod bin_entries;
mod counted;
mod decide;
mod decide_row;
mod division;
mod draw;
mod drawn;
mod few;
mod finish;
mod held;
mod histogram;
mod interval;
mod list;
mod list_draw;
mod list_top_k;
mod list_top_p;
mod maximum;
mod plan;
mod positions;
mod records;
mod rest;
mod row_block;
mod sample;
mod scan;
mod search;
mod shared_list;
mod slice_block;
mod state;
mod ties;
mod weigh;
mod weights;
mod whole_row;

use super::call::call_in_place;
use super::layout::LARGEST_BATCH;
use super::results;
use crate::kernels::spec::Spec;
use crate::kernels::stablehlo::inputs::Operands;
use crate::kernels::target::Gpu;
use crate::mlir::stablehlo::{Hlo, Value};
use crate::ptx::Ptx;
use plan::Plan;
use records::{COUNTERS, DECIDED, SAMPLED, SCANNED, SUM, WEIGHED};
pub(super) use sample::sampled_indices;
use state::STATE;

// The number of an entry in the lists of all rows fits 31 bits.
const _: () = assert!(LARGEST_BATCH * sample::LARGEST_LIST < 1 << 31);

/// The kernels in the order in which they run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kernel {
    Sample,
    Scan,
    Decide,
    Finish,
}

impl Kernel {
    const ALL: [Kernel; 4] = [Kernel::Sample, Kernel::Scan, Kernel::Decide, Kernel::Finish];

    fn name(self) -> &'static str {
        match self {
            Kernel::Sample => "nucleus_sample",
            Kernel::Scan => "nucleus_scan",
            Kernel::Decide => "nucleus_decide",
            Kernel::Finish => "nucleus_finish_row",
        }
    }

    /// The number of blocks.
    fn blocks(self, spec: &Spec, plan: &Plan) -> usize {
        match self {
            Kernel::Sample | Kernel::Decide => spec.batch,
            Kernel::Scan => spec.batch * plan.division.slices,
            Kernel::Finish => spec.batch * finish::parts(plan),
        }
    }

    /// The number of blocks of a multiprocessor for which the kernel must have enough registers.
    fn resident_blocks(self) -> usize {
        match self {
            Kernel::Sample | Kernel::Decide => 1,
            Kernel::Scan => division::RESIDENT_BLOCKS,
            Kernel::Finish => finish::RESIDENT_BLOCKS,
        }
    }

    /// The number of threads of a block.
    fn threads(self) -> usize {
        match self {
            Kernel::Scan => division::THREADS,
            Kernel::Sample => sample::THREADS,
            Kernel::Decide | Kernel::Finish => row_block::THREADS,
        }
    }

    fn text(self, spec: &Spec, plan: &Plan, seeded: bool) -> String {
        let k = &Ptx::new(self.threads(), self.resident_blocks());
        match self {
            Kernel::Sample => sample::write(k, spec, plan),
            Kernel::Scan => scan::write(k, spec, plan),
            Kernel::Decide => decide::write(k, spec, plan, seeded),
            Kernel::Finish => finish::write(k, spec, plan, seeded),
        }
        k.text(self.name())
    }
}

/// Returns the PTX text of all kernels, for people to read.
pub(super) fn kernel_text(spec: &Spec, gpu: &Gpu) -> String {
    let plan = &Plan::new(spec, gpu);
    let texts: Vec<String> =
        Kernel::ALL.iter().map(|kernel| kernel.text(spec, plan, spec.returns_tokens())).collect();
    texts.join("\n")
}

/// Adds the calls of the kernels to a program. Returns the numbers `[RESULTS, batch]`, the thresholds `[THRESHOLDS,
/// batch]` and the tokens `[1, batch]`.
pub(super) fn calls(h: &Hlo, spec: &Spec, gpu: &Gpu, operands: &Operands) -> [Value; 3] {
    let &Operands { logits, parameters, step } = operands;
    let plan = &Plan::new(spec, gpu);
    let division = &plan.division;
    let run = |kernel: Kernel, operands: &[Value], results: &[Vec<usize>], aliases: &[(usize, usize)]| {
        let text = kernel.text(spec, plan, step.is_some());
        let grid = (kernel.blocks(spec, plan), kernel.threads());
        call_in_place(h, kernel.name(), &text, grid, operands, results, aliases)
    };
    let of_rows = |len: usize| vec![spec.batch, len];
    let of_chunks = |len: usize| vec![spec.batch * division.chunks(), len];
    let results = results::shapes(spec);

    let records = vec![spec.batch * plan.records(), SCANNED];
    let kinds = [of_rows(SAMPLED), records.clone(), of_rows(STATE)];
    let sampled = run(Kernel::Sample, &[logits, parameters], &kinds, &[]);
    let [sampled, slices, state] = sampled[..] else { unreachable!("three results") };
    let mut kinds = vec![records, of_chunks(1), of_rows(2 * sample::capacity(spec)), of_rows(STATE)];
    kinds.extend(plan.group.as_ref().map(|group| vec![spec.batch * group.division.chunks(), SUM]));
    let mut scanned =
        run(Kernel::Scan, &[logits, parameters, sampled, slices, state], &kinds, &[(3, 0), (4, 3)]);
    let sums = plan.group.as_ref().and_then(|_| scanned.pop());
    let slices = scanned[0];
    let mut operands = vec![logits, parameters, sampled];
    operands.extend(&scanned);
    operands.extend(step);
    let kinds = [&results[..], &[of_rows(DECIDED), of_rows(COUNTERS)]].concat();
    let decision = run(Kernel::Decide, &operands, &kinds, &[]);
    let [numbers, thresholds, tokens, decided, counters] = decision[..] else { unreachable!("five results") };
    let mut operands = vec![logits, parameters, decided, slices, counters, numbers, thresholds, tokens];
    operands.extend(sums);
    operands.extend(step);
    let lists = of_rows(2 * weigh::capacity(spec));
    let kinds = [&[of_chunks(WEIGHED), lists, of_rows(COUNTERS)], &results[..]].concat();
    let aliases = [(4, 2), (5, 3), (6, 4), (7, 5)];
    let finished = run(Kernel::Finish, &operands, &kinds, &aliases);
    let [_, _, _, numbers, thresholds, tokens] = finished[..] else { unreachable!("six results") };
    [numbers, thresholds, tokens]
}
