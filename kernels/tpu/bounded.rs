//! The bounded-k kernel. It is for programs with at most one slot per lane. It divides each row into groups, filters
//! the entries by the maxima of the groups, and processes the few survivors.
//!
//! 1. One pass computes the largest logit of each group, its place, and the second largest logit. It also computes 256
//!    bins. Each bin contains the largest logit of many registers ([`prefilter`](super::prefilter)).
//! 2. The value of the k-th largest bin is a lower bound of the k-th largest logit: each of the k largest bins contains
//!    a logit that reaches this value.
//! 3. The kernel gathers the logits that reach the bound. Most of them are maxima of groups. The others are in the few
//!    groups whose second largest logit also reaches the bound ([`gather`](super::gather)).
//! 4. The remaining steps process these few logits in registers. They compute the exact top-k threshold and its ties,
//!    the weights, the top-p threshold, and the draw ([`survivors`](super::survivors)).
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
    let bound = stages.prefilter.bound_from_bins(cx, &summary, cx.param(Column::K), None);
    let outcome = stages.sample(cx, &summary, bound);
    (summary, outcome)
}
