//! The bounded-k kernel: divides the row into cells, filters by the cells' maxima, and processes few survivors.
//!
//! 1. One pass computes the largest logit of each cell, its place, and the second largest logit. It also computes
//!    256 bins; each contains the largest logit of many cells ([`prefilter`](super::prefilter)).
//! 2. The k-th largest bin is a lower bound of the k-th largest logit, because k bins contain k logits that reach
//!    it.
//! 3. The logits that reach the bound are gathered: maxima of cells, and the other entries of the few cells whose
//!    second largest logit reaches it too ([`gather`](super::gather)).
//! 4. The rest runs in registers on these few logits: the exact top-k threshold and its ties, weights, the top-p
//!    threshold, and the draw ([`survivors`](super::survivors)).
//!
//! Blocks with too many entries at the bound (mostly ties) are sampled by passes
//! ([`multi_pass`](super::multi_pass)).

use super::context::{Context, Outcome};
use super::dispatch::Stages;
use super::prefilter::Summary;
use crate::kernels::program_arrays::Column;

pub(super) fn kernel(cx: &Context<'_>, stages: &Stages) -> (Summary, Outcome) {
    cx.logits.begin();
    let summary = stages.prefilter.summarize(cx);
    let bound = stages.prefilter.bound_from_bins(cx, &summary, cx.param(Column::K));
    let outcome = stages.sample(cx, &summary, bound);
    (summary, outcome)
}
