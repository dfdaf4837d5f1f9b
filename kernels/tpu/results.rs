//! The first result of a kernel, `i32 [rows, 128]`. Each lane contains one number of the row.

use super::context::{Context, Outcome};
use super::prefilter::Summary;
use crate::kernels::program_arrays::RESULTS;
use crate::mlir::mosaic::{Memory, LANES};
use crate::semantics::arith::Arith;
use crate::semantics::rules::{has_no_candidate, row_status};

/// The lanes of the result after the [`ResultRow`](crate::kernels::program_arrays::ResultRow)s. The wide arrays are
/// computed from these lanes.
#[derive(Clone, Copy)]
pub(super) enum Lane {
    MaxKey = RESULTS as isize,
    Threshold,
    LastTie,
    LeastWeight,
}

/// Writes the results of a block.
pub(super) fn write(cx: &Context<'_>, results: &Memory, summary: &Summary, outcome: &Outcome) {
    let k = cx.k;
    let no_candidate = has_no_candidate(k, summary.max_key);
    let status = row_status(k, no_candidate, k.lt(k.i32(0), summary.had_nan), summary.had_inf);
    let lanes = [
        outcome.next,
        outcome.greedy,
        outcome.remainder.high,
        outcome.remainder.low,
        status,
        summary.max_key,
        outcome.threshold,
        outcome.last_tie,
        outcome.least_weight,
    ];
    debug_assert!(lanes.len() == Lane::LeastWeight as usize + 1 && lanes.len() <= LANES);
    let lane = k.lane();
    let mut row = k.splat(k.i32(0));
    for (number, value) in lanes.into_iter().enumerate() {
        row = k.choose(k.eq(lane, k.i32(number as i32)), value, row);
    }
    k.store(results, k.i32(0), row);
}
