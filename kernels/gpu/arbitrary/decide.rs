//! The kernel after the scan. It stores the results of a row if the maximum or the list of the row determines them. The
//! maximum determines the results of greedy rows without top-k. The list determines the results of rows with top-k, and
//! of rows in which top-p or min-p keeps only entries of the list. For each other row, the kernel finds two weights
//! that enclose the threshold of top-p.

use super::decide_row::{Found, Inputs, Row, SharedArrays};
use super::draw;
use super::histogram::Histogram;
use super::list::Entry;
use super::list_top_k::{KeptTies, ListTopK};
use super::list_top_p::ListTopP;
use super::maximum;
use super::plan::{Group, Plan};
use super::positions::Positions;
use super::records::{Records, COUNTERS, DECIDED, DONE, FAILED, HAS_LIST, SUMMED, WEIGH};
use super::row_block::RowBlock;
use super::sample::needs_top_k;
use super::search::Bins;
use super::weights::{has_top_p, is_drawn, Weights};
use crate::kernels::gpu::parameters::Parameters;
use crate::kernels::gpu::results::Results;
use crate::kernels::program_arrays::Column;
use crate::kernels::spec::Spec;
use crate::ptx::{Int, Ptx};
use crate::semantics::arith::Arith;

/// Writes the kernel, with one block per row. Its arguments are the logits, the parameters, the sampled records, the
/// slices, the number of entries at the bound in each chunk, the lists, the state, the step if `seeded`, the arrays of
/// [`Results`], the decided records, and the counters of the last kernel, which this kernel sets to 0.
pub(super) fn write(k: &Ptx, spec: &Spec, plan: &Plan, seeded: bool) {
    let [logits, parameters] = [(); 2].map(|()| k.argument());
    let number = k.block();
    let inputs = Inputs::arguments(k, number);
    let step = seeded.then(|| k.argument());
    let results = &Results::arguments(k, spec, number);
    let (decided, counters) = (Records::argument(k, DECIDED), Records::argument(k, COUNTERS));
    // The block starts all these loads before it computes with loaded values, so that the loads overlap.
    let parameters = &Parameters::load(k, parameters, number);
    let block = &RowBlock::new(k, number, spec, &plan.division, logits, parameters.row_of_logits(spec));
    let stored = &inputs.load(block, spec, plan);
    // The block clears its arrays while it waits for the loads.
    let bins = &Bins::new(block);
    let arrays = &SharedArrays::cleared(bins, spec, parameters, step);
    let scanned = maximum::combine(k, &stored.of_slices);
    let is_drawn = is_drawn(k, parameters, scanned[0]);
    let with_top_k = needs_top_k(k, spec, parameters);
    let found = Found::new(k, parameters);
    let row =
        Row { k, block, spec, parameters, scanned, is_drawn, with_top_k, stored, arrays, results, found };
    k.when(k.either(is_drawn, with_top_k), || {
        k.when_else(
            stored.has(HAS_LIST),
            || decide_with_list(&row),
            || decide_without_list(&row, plan.group.as_ref()),
        );
    });
    let state = k.get(found.state);
    k.when(k.eq(state, k.int(DONE)), || {
        let outcome = row.outcome();
        draw::report(block, arrays.words, results, &outcome, is_drawn, || k.get_wide(found.remainder));
    });
    let ([max_key, greedy, status], zero) = (scanned, k.int(0));
    let words = [max_key, greedy, status, state, k.get(found.low), k.get(found.high), zero, zero];
    decided.store_if(block.is_first(), number, &words);
    counters.store_if(block.is_first(), number, &[zero; COUNTERS]);
}

/// Sets the state of a row without a list. Such a row has a large k, or no top-k, top-p and min-p.
fn decide_without_list(row: &Row<'_, '_>, group: Option<&Group>) {
    let (k, state) = (row.k, row.found.state);
    k.set(state, k.select(row.with_top_k, k.int(FAILED), k.int(WEIGH)));
    // Only the slices of plain draws are summed.
    if let (Some(group), Some(summed)) = (group, row.stored.summed) {
        let is_summed = k.eq(summed, k.int(group.division.slices as i32));
        k.set(state, k.select(is_summed, k.int(SUMMED), k.get(state)));
    }
}

/// Selects the entries of a row from its list, unless the list is too short or too long.
fn decide_with_list(row: &Row<'_, '_>) {
    let (k, list) = (row.k, &row.stored.list);
    let positions = Positions::new(k, row.spec.dtype, row.max_key());
    // This sum contains a barrier. After it, the threads can add entries to the cleared arrays.
    let ties_at_bound = row.block.block.sum_once(row.stored.ties_of_chunk);
    let too_few = k.both(row.with_top_k, k.lt(k.add(list.count(), ties_at_bound), row.top_k()));
    k.when_else(
        k.either(too_few, list.is_too_long()),
        || k.set(row.found.state, k.int(FAILED)),
        || decide_by_list(row, &positions, ties_at_bound),
    );
}

/// Applies top-k, top-p and min-p, and draws the token. `ties_at_bound` is the number of entries at the bound in the
/// row.
fn decide_by_list<'k>(row: &Row<'_, 'k>, positions: &Positions<'k>, ties_at_bound: Int) {
    let (k, list, counted) = (row.k, &row.stored.list, &row.arrays.counted);
    let (parameters, max_key) = (row.parameters, row.max_key());
    let kept_ties = KeptTies::all(k, ties_at_bound);
    let is_last_in_list = k.both(row.with_top_k, k.le(row.top_k(), list.count()));
    let weights = Weights::without_top_k(k, parameters, max_key);
    let (range, scale) = ([max_key, row.stored.bound], parameters.get(Column::Scale));
    let histogram = Histogram::new(row.block.block, row.arrays.bins.parts, range, scale);
    let kept = list.keep(|[key, _]| [weights.of_kept(key), histogram.bin(key)]);
    let weight_and_bin = |entry: Entry| kept.of(entry);
    let searches = k.either(is_last_in_list, has_top_p(k, parameters, max_key));
    counted.fill(k.both(row.is_drawn, searches), list, &histogram, weight_and_bin);
    ListTopK::new(row, positions, &weight_and_bin, ties_at_bound).select(is_last_in_list, &kept_ties);
    k.when(row.is_drawn, || ListTopP::new(row, positions, &weight_and_bin, &kept_ties).sample());
}
