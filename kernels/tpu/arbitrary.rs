//! The arbitrary-k kernel: any k up to the vocabulary, or no top-k. It searches thresholds and never sorts.
//!
//! If top-k, or the distance at which weights become 0, leaves few entries, the kernel processes these like the
//! bounded kernel. Otherwise it samples by passes ([`multi_pass`](super::multi_pass)): it counts entries for the
//! top-k threshold, finds ties by chunk sums, computes the weights once, sums them for the top-p threshold, and
//! draws by chunk sums.

use super::context::{Context, Outcome};
use super::dispatch::Stages;
use super::prefilter::Summary;
use crate::kernels::program_arrays::Column;
use crate::semantics::arith::Arith;
use crate::semantics::clean::NEG_INF_KEY;

pub(super) fn kernel(cx: &Context<'_>, stages: &Stages) -> (Summary, Outcome) {
    let (k, prefilter) = (cx.k, &stages.prefilter);
    cx.logits.begin();
    let summary = prefilter.summarize(cx);
    let wanted = cx.param(Column::K);
    let binned = k.i32(prefilter.largest_binned_k(cx) as i32);
    let from_bins = prefilter.bound_from_bins(cx, &summary, k.min(wanted, binned));
    let cells = k.i32(cx.cells() as i32);
    let larger = k.lt(binned, wanted);
    let use_cells = k.both(larger, k.ge(cells, wanted));
    let from_cells = prefilter.bound_from_cells(cx, &summary, wanted, use_cells);
    let bound = k.choose(larger, k.choose(use_cells, from_cells, k.i32(NEG_INF_KEY)), from_bins);
    let outcome = stages.sample(cx, &summary, bound);
    (summary, outcome)
}
