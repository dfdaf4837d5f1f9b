//! The bounded-k kernel: divide the row into cells, filter by what the cells' maxima say, finish on a few survivors.
//!
//! 1. One pass keeps each cell's largest logit, its place, and the second largest, and in 256 bins the largest of many
//!    cells each.
//! 2. The k-th largest bin is a lower bound of the k-th largest logit: k bins hold as many logits that reach it.
//! 3. The logits that reach the bound are gathered: the maxima of cells that do, and what else is in those few cells
//!    whose second largest does too.
//! 4. On these few, in registers: the exact top-k threshold and its ties, weights, the top-p threshold, the draw.
//!
//! Rows with too many at the bound (ties, mostly) take the arbitrary kernel's way over the whole row.

use super::context::{Block, Outcome};
use super::dispatch::Stages;
use super::prefilter::Summary;
use crate::kernels::Column;

pub(super) fn kernel(b: &Block<'_>, stages: &Stages) -> (Summary, Outcome) {
    b.rows.begin();
    let summary = stages.cells.summarize(b);
    let bound = stages.cells.bound(b, &summary, b.param(Column::K));
    let outcome = stages.choose(b, &summary, bound);
    (summary, outcome)
}
