//! The arbitrary-k kernel: any k up to the vocabulary, or none, by searching thresholds and never sorting.
//!
//! Where top-k or the distance at which weights vanish leaves few entries, it finishes on those, as the bounded
//! kernel does. Otherwise every stage is a search over the whole row: the top-k threshold by counting, its ties by
//! chunk sums, then weights once, the top-p threshold by adding them up, and the draw by chunk sums again.

use super::block::{Block, Outcome};
use super::cells::{Summary, LARGEST_BINNED_K};
use super::choose::Stages;
use crate::kernels::Column;
use crate::semantics::clean::NEG_INF_KEY;

pub(super) fn kernel(b: &Block<'_>, stages: &Stages) -> (Summary, Outcome) {
    let k = b.k;
    b.rows.begin();
    let summary = stages.cells.summarize(b);
    let wanted = b.param(Column::K);
    let binned = k.ge(k.i32(LARGEST_BINNED_K as i32), wanted);
    let bound = stages.cells.bound(b, &summary, k.min(wanted, k.i32(LARGEST_BINNED_K as i32)));
    let bound = k.choose(binned, bound, k.i32(NEG_INF_KEY));
    let outcome = stages.choose(b, &summary, bound);
    (summary, outcome)
}
