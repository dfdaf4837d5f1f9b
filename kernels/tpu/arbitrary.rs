//! The arbitrary-k kernel. It supports any k up to the vocabulary size, and rows without top-k. It searches thresholds
//! and never sorts. The bounded path also uses this kernel if a row has more slots than a register has lanes.
//!
//! If top-k, or the distance at which weights become 0, leaves few entries, the kernel processes these like the
//! bounded kernel. Otherwise it samples by passes ([`multi_pass`](super::multi_pass)): it counts entries for the
//! top-k threshold, finds ties by chunk sums, computes the weights once, sums them for the top-p threshold, and
//! draws by chunk sums.

use super::context::{Context, Outcome};
use super::dispatch::{largest_entries, Stages};
use super::prefilter::Summary;
use crate::kernels::program_arrays::Column;
use crate::mlir::mosaic::SUBLANES;
use crate::semantics::arith::Arith;
use crate::semantics::clean::NEG_INF_KEY;

/// Returns the number of bins that reach the bound in a row without top-k. If the logits are independent, the average
/// number of bins that contain at least one of the `n` largest entries is `bins · (1 − e^(−n / bins))`.
fn bins_of_largest(cells: usize, bins: usize) -> i32 {
    let entries = largest_entries(cells) as f64;
    (bins as f64 * (1.0 - (-entries / bins as f64).exp())).ceil() as i32
}

pub(super) fn kernel(cx: &Context<'_>, stages: &Stages) -> (Summary, Outcome) {
    let (k, prefilter) = (cx.k, &stages.prefilter);
    cx.logits.begin();
    let summary = prefilter.summarize(cx);
    let wanted = cx.param(Column::K);
    let binned = k.i32(prefilter.largest_binned_k(cx) as i32);
    // In a row without top-k, the bound selects the largest entries, because the sum of their weights may reach the
    // target of top-p.
    let largest = k.i32(bins_of_largest(cx.cells(), prefilter.largest_binned_k(cx)));
    // A row with a larger k does not need the bound from the bins. In a block of eight rows, another row usually needs
    // the whole search, so nothing would be saved.
    let closed = (cx.layout.rows < SUBLANES).then(|| k.lt(binned, wanted));
    let from_bins = k.choose(k.eq(wanted, k.i32(0)), largest, k.min(wanted, binned));
    let from_bins = prefilter.bound_from_bins(cx, &summary, from_bins, closed);
    let cells = k.i32(cx.cells() as i32);
    let larger = k.lt(binned, wanted);
    let use_cells = k.both(larger, k.ge(cells, wanted));
    let from_cells = prefilter.bound_from_cells(cx, &summary, wanted, use_cells);
    let bound = k.choose(larger, k.choose(use_cells, from_cells, k.i32(NEG_INF_KEY)), from_bins);
    let outcome = stages.sample(cx, &summary, bound);
    (summary, outcome)
}
