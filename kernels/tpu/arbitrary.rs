//! The arbitrary-k kernel: any k up to the vocabulary, or none, by searching thresholds and never sorting.
//!
//! Where top-k or the distance at which weights vanish leaves few entries, it finishes on those, as the bounded
//! kernel does. Otherwise every stage is a search over the whole row: the top-k threshold by counting, its ties by
//! chunk sums, then weights once, the top-p threshold by adding them up, and the draw by chunk sums again.

use super::context::{Block, Outcome};
use super::dispatch::Stages;
use super::prefilter::{Summary, LARGEST_BINNED_K};
use crate::kernels::Column;
use crate::mlir::mosaic::LANES;
use crate::semantics::arith::Arith;
use crate::semantics::clean::NEG_INF_KEY;

pub(super) fn kernel(b: &Block<'_>, stages: &Stages) -> (Summary, Outcome) {
    let k = b.k;
    b.rows.begin();
    let summary = stages.cells.summarize(b);
    let wanted = b.param(Column::K);
    let binned = k.i32(LARGEST_BINNED_K as i32);
    let few = stages.cells.bound(b, &summary, k.min(wanted, binned));
    let cells = k.i32((b.layout.cells() * LANES) as i32);
    let more = k.both(k.lt(binned, wanted), k.ge(cells, wanted));
    let many = stages.cells.bound_by_cells(b, &summary, wanted, more);
    let bound = k.choose(k.lt(binned, wanted), k.choose(more, many, k.i32(NEG_INF_KEY)), few);
    let outcome = stages.choose(b, &summary, bound);
    (summary, outcome)
}
