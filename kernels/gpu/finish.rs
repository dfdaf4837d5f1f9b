//! The second kernel: one block selects the k largest entries of a row among those that the first kernel kept, applies
//! top-p and min-p, and draws the token.

use super::block::{Block, Verdict};
use super::filter::{SLICE_BOUND, SLICE_COUNT, SLICE_STATUS, SLICE_WORDS};
use super::layout::{Layout, KEPT, THREADS};
use super::parameters::Parameters;
use crate::kernels::program_arrays::{Column, ResultRow};
use crate::kernels::spec::Spec;
use crate::ptx::{Int, Mask, Ptx, Shared, Wide};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::{order_key, NEG_INF_KEY};
use crate::semantics::draw::remainder;
use crate::semantics::rules::{
    has_no_candidate, has_weight, is_candidate, kept_weight, least_weight, reported_token, survives_top_k,
    top_p_is_off, ROW_NO_CANDIDATE,
};
use crate::semantics::top_p::target;
use crate::semantics::weights::{quantize, weight};

/// The largest number of entries that the kernel ranks: one per thread.
const RANKED: usize = THREADS;

/// The rows of the second result, from which the wide arrays are computed.
#[derive(Clone, Copy)]
pub(super) enum Threshold {
    MaxKey,
    TopK,
    LastTie,
    LeastWeight,
}

/// The number of rows of the second result.
pub(super) const THRESHOLDS: usize = Threshold::LeastWeight as usize + 1;

/// Returns the text of the kernel. Its arguments are the parameters, the entries and the slices of the first kernel,
/// the step if `seeded`, and the results: the numbers `[RESULTS, batch]`, the thresholds `[THRESHOLDS, batch]`, and the
/// k-slices if the spec wants them (indices, order keys and weights).
pub(super) fn kernel(spec: &Spec, layout: &Layout, seeded: bool, name: &str) -> String {
    let k = Ptx::new(THREADS);
    write(&k, spec, layout, seeded);
    k.finish(name)
}

fn write(k: &Ptx, spec: &Spec, layout: &Layout, seeded: bool) {
    let [parameters, entries, slices] = [(); 3].map(|()| k.argument());
    let step = seeded.then(|| k.argument());
    let [numbers, thresholds] = [(); 2].map(|()| k.argument());
    let block = Block::new(k);
    let row = k.block();
    let parameters = Parameters::new(k, parameters, row);
    let top_k = parameters.top_k(spec);
    let words = parameters.random_words(step);

    let entries = Entries::new(&block, layout, entries, slices, row);
    let largest = largest_entries(&block, spec, &entries, top_k);
    let outcome = choose(&block, spec, &parameters, &largest, top_k, words);

    k.barrier();
    let first = k.eq(block.thread, k.int(0));
    k.when(first, || {
        let status =
            k.or(entries.status, k.select(outcome.no_candidate, k.int(ROW_NO_CANDIDATE as i32), k.int(0)));
        let next = reported_token(k, outcome.no_candidate, k.load_shared_at(outcome.next, 0));
        let greedy = reported_token(k, outcome.no_candidate, k.load_shared_at(largest.indices, 0));
        let store = |array: Wide, number: usize, value: Int| {
            k.store(k.address(array, row, 4), number * spec.batch * 4, &[value]);
        };
        store(numbers, ResultRow::NextToken as usize, next);
        store(numbers, ResultRow::Greedy as usize, greedy);
        store(numbers, ResultRow::RandomHigh as usize, k.high(outcome.remainder));
        store(numbers, ResultRow::RandomLow as usize, k.low(outcome.remainder));
        store(numbers, ResultRow::Status as usize, status);
        let last = k.sub(top_k, k.int(1));
        store(thresholds, Threshold::MaxKey as usize, k.load_shared_at(largest.keys, 0));
        store(thresholds, Threshold::TopK as usize, k.load_shared(largest.keys, last));
        store(thresholds, Threshold::LastTie as usize, k.load_shared(largest.indices, last));
        store(thresholds, Threshold::LeastWeight as usize, outcome.least_weight);
    });
    if spec.wanted.slices {
        let arrays = [(); 3].map(|()| k.argument());
        write_slices(&block, spec, row, arrays, &largest, outcome.weights, top_k);
    }
}

/// The entries of a row that the first kernel stored.
struct Entries<'k> {
    block: Block<'k>,
    /// The address of the entries of the row.
    start: Wide,
    /// The number of entries of each slice.
    counts: Shared,
    places: usize,
    /// The status bits of the row.
    status: Int,
    /// An order key that at least k entries reach.
    bound: Int,
}

impl<'k> Entries<'k> {
    fn new(block: &Block<'k>, layout: &Layout, entries: Wide, slices: Wide, row: Int) -> Entries<'k> {
        let k = block.k;
        let counts = k.shared(layout.slices);
        let (status, bound) = (k.variable(k.int(0)), k.variable(k.int(NEG_INF_KEY)));
        k.for_range(block.thread, k.int(layout.slices as i32), THREADS, |slice| {
            let slice_of_row = k.element(row, layout.slices, slice);
            let words = k.address(slices, slice_of_row, SLICE_WORDS * 4);
            k.store_shared(counts, slice, k.load(words, SLICE_COUNT * 4));
            k.set(status, k.or(k.get(status), k.load(words, SLICE_STATUS * 4)));
            k.set(bound, k.max(k.get(bound), k.load(words, SLICE_BOUND * 4)));
        });
        // A maximum would lose bits, so each bit is reduced separately.
        let (status, bound) = (k.get(status), block.max(k.get(bound)));
        let status = [1, 2, 4, 8].into_iter().map(|bit| {
            let any = k.barrier_any(k.eq(k.and(status, k.int(bit)), k.int(bit)));
            k.select(any, k.int(bit), k.int(0))
        });
        let status = status.reduce(|a, b| k.or(a, b)).expect("there are status bits");
        let start = k.far_address(entries, k.far_element(row, layout.slices * KEPT, k.int(0)), 8);
        Entries { block: *block, start: k.base(start), counts, places: layout.slices * KEPT, status, bound }
    }

    /// Calls a function with the key and the index of each entry of this thread.
    fn for_each(&self, function: impl FnOnce(Int, Int)) {
        let k = self.block.k;
        k.for_range(self.block.thread, k.int(self.places as i32), THREADS, |place| {
            let slice = k.shr(place, KEPT.trailing_zeros());
            let at = k.and(place, k.int(KEPT as i32 - 1));
            k.when(k.lt(at, k.load_shared(self.counts, slice)), || {
                let entry = k.address(self.start, place, 8);
                function(k.load(entry, 0), k.load(entry, 4));
            });
        });
    }

    /// The number of entries of the row for which a test is true.
    fn count(&self, test: impl FnOnce(Int, Int) -> Mask) -> Int {
        let k = self.block.k;
        let count = k.variable(k.int(0));
        self.for_each(|key, index| {
            let one = k.select(test(key, index), k.int(1), k.int(0));
            k.set(count, k.add(k.get(count), one));
        });
        self.block.sum(k.get(count))
    }
}

/// Entries in shared memory.
#[derive(Clone, Copy)]
struct List {
    keys: Shared,
    indices: Shared,
}

/// Finds the `top_k` first entries of a row in the order (key descending, index ascending). Returns them in this order.
fn largest_entries(block: &Block<'_>, spec: &Spec, entries: &Entries<'_>, top_k: Int) -> List {
    let k = block.k;
    let max = k.variable(k.int(i32::MIN));
    entries.for_each(|key, _| k.set(max, k.max(k.get(max), key)));
    let max = k.get(max);
    let most = k.add(top_k, k.shr(top_k, 3));
    let row_max = block.max(max);
    let bound = block.largest_threshold((entries.bound, row_max), |threshold| {
        let count = k.barrier_count(k.le(threshold, max));
        Verdict { enough: k.le(top_k, count), close: Some(k.le(count, most)) }
    });

    let found = List { keys: k.shared(RANKED), indices: k.shared(RANKED) };
    let len = k.shared(1);
    let collect = |survives: &dyn Fn(Int, Int) -> Mask| {
        k.when(k.eq(block.thread, k.int(0)), || k.store_shared_at(len, 0, k.int(0)));
        k.barrier();
        entries.for_each(|key, index| {
            k.when(survives(key, index), || {
                let at = k.count_up_shared(len, 0);
                k.when(k.lt(at, k.int(RANKED as i32)), || {
                    k.store_shared(found.keys, at, key);
                    k.store_shared(found.indices, at, index);
                });
            });
        });
        k.barrier();
    };
    collect(&|key, _| k.le(bound, key));
    let too_many = k.lt(k.int(RANKED as i32), k.load_shared_at(len, 0));
    k.barrier();
    k.when(too_many, || {
        let (threshold, last_tie) = exact_threshold(block, spec, entries, (bound, row_max), top_k);
        collect(&|key, index| survives_top_k(k, key, index, threshold, last_tie));
    });
    rank(block, spec, found, k.load_shared_at(len, 0), top_k)
}

/// The key and the index of the last of the `top_k` first entries.
fn exact_threshold(
    block: &Block<'_>,
    spec: &Spec,
    entries: &Entries<'_>,
    range: (Int, Int),
    top_k: Int,
) -> (Int, Int) {
    let k = block.k;
    let threshold = block.largest_threshold(range, |threshold| {
        let enough = k.le(top_k, entries.count(|key, _| k.le(threshold, key)));
        Verdict { enough, close: None }
    });
    let missing = k.sub(top_k, entries.count(|key, _| k.lt(threshold, key)));
    let last_tie = block.largest_threshold((k.int(0), k.int(spec.vocab as i32 - 1)), |index| {
        let before = entries.count(|key, at| k.both(k.eq(key, threshold), k.lt(at, index)));
        Verdict { enough: k.lt(before, missing), close: None }
    });
    (threshold, last_tie)
}

/// Sorts `len` entries, of which there are at least `top_k`. Returns the first `top_k` entries.
fn rank(block: &Block<'_>, spec: &Spec, found: List, len: Int, top_k: Int) -> List {
    let k = block.k;
    let slots = spec.slots();
    let sorted = List { keys: k.shared(slots), indices: k.shared(slots) };
    k.when(k.lt(block.thread, len), || {
        let key = k.load_shared(found.keys, block.thread);
        let index = k.load_shared(found.indices, block.thread);
        let rank = k.variable(k.int(0));
        k.for_range(k.int(0), len, 1, |other| {
            let other_index = k.load_shared(found.indices, other);
            let is_before = survives_top_k(k, k.load_shared(found.keys, other), other_index, key, index);
            k.set(rank, k.add(k.get(rank), k.select(is_before, k.int(1), k.int(0))));
        });
        // The entry itself was counted too.
        let rank = k.sub(k.get(rank), k.int(1));
        k.when(k.lt(rank, top_k), || {
            k.store_shared(sorted.keys, rank, key);
            k.store_shared(sorted.indices, rank, index);
        });
    });
    k.barrier();
    sorted
}

/// What a row reports.
struct Outcome {
    no_candidate: Mask,
    /// The drawn token, in shared memory.
    next: Shared,
    remainder: Wide,
    /// The least weight that top-p and min-p keep.
    least_weight: Int,
    /// The kept weights of the sorted entries, in shared memory.
    weights: Shared,
}

/// Weighs the sorted entries, applies top-p and min-p, and draws. Thread i processes entry i.
fn choose(
    block: &Block<'_>,
    spec: &Spec,
    parameters: &Parameters<'_>,
    sorted: &List,
    top_k: Int,
    words: [Int; 4],
) -> Outcome {
    let k = block.k;
    let slots = spec.slots();
    let (weights, next, theta) = (k.shared(slots), k.shared(1), k.shared(1));
    let max_key = k.load_shared_at(sorted.keys, 0);
    let no_candidate = has_no_candidate(k, max_key);
    let value = |key| k.from_bits(order_key(k, key));

    // Threads without an entry use the first one, with weight 0.
    let has_entry = k.lt(block.thread, top_k);
    let mine = k.select(has_entry, block.thread, k.int(0));
    let (key, index) = (k.load_shared(sorted.keys, mine), k.load_shared(sorted.indices, mine));
    let scale = k.from_bits(parameters.get(Column::Scale));
    let sampled = weight(k, quantize(k, value(max_key), value(key), scale));
    let survives = k.both(has_entry, is_candidate(k, key));
    let sampled_row = k.eq(parameters.get(Column::Greedy), k.int(0));
    let is_greedy = k.eq(block.thread, k.int(0));
    let weight = k.select(has_weight(k, survives, sampled_row, is_greedy), sampled, k.int(0));
    k.when(k.lt(block.thread, k.int(slots as i32)), || k.store_shared(weights, block.thread, weight));
    k.when(is_greedy, || {
        k.store_shared_at(theta, 0, k.int(0));
        k.store_shared_at(next, 0, k.int(0));
    });
    k.barrier();

    let mantissa = parameters.get(Column::TopPMantissa);
    let off = top_p_is_off(k, no_candidate, mantissa);
    let (total, before) = sums(k, weights, top_k, |other, _| k.lt(other, block.thread));
    let target = target(k, total, mantissa, parameters.get(Column::TopPShift));
    let reaches = k.not(k.wlt(k.wadd(before, k.widen(weight)), target));
    let crosses = k.both(k.both(has_entry, k.wlt(before, target)), reaches);
    k.when(crosses, || k.store_shared_at(theta, 0, weight));
    k.barrier();
    let theta = k.select(off, k.int(0), k.load_shared_at(theta, 0));
    let least_weight = least_weight(k, theta, parameters.get(Column::MinWeight));
    let kept = kept_weight(k, weight, least_weight);
    k.when(k.lt(block.thread, k.int(slots as i32)), || k.store_shared(weights, block.thread, kept));
    k.barrier();

    let (total, before) =
        sums(k, weights, top_k, |other, _| k.lt(k.load_shared(sorted.indices, other), index));
    let remainder = remainder(k, words, total);
    let is_next = k.both(k.not(k.wlt(remainder, before)), k.wlt(remainder, k.wadd(before, k.widen(kept))));
    k.when(k.both(has_entry, is_next), || k.store_shared_at(next, 0, index));
    Outcome { no_candidate, next, remainder, least_weight, weights }
}

/// The sum of the first `len` weights, and the sum of those that `counts` selects by their position.
fn sums(k: &Ptx, weights: Shared, len: Int, counts: impl FnOnce(Int, Int) -> Mask) -> (Wide, Wide) {
    let (total, part) = (k.wide_variable(k.wide(0)), k.wide_variable(k.wide(0)));
    k.for_range(k.int(0), len, 1, |other| {
        let weight = k.load_shared(weights, other);
        let wide = k.widen(weight);
        k.set_wide(total, k.wadd(k.get_wide(total), wide));
        let counted = k.wselect(counts(other, weight), wide, k.wide(0));
        k.set_wide(part, k.wadd(k.get_wide(part), counted));
    });
    (k.get_wide(total), k.get_wide(part))
}

/// Writes the k-slices: the kept entries in index order, then unused slots.
fn write_slices(
    block: &Block<'_>,
    spec: &Spec,
    row: Int,
    [indices, keys, weights]: [Wide; 3],
    sorted: &List,
    kept: Shared,
    top_k: Int,
) {
    let k = block.k;
    let slots = spec.slots();
    k.when(k.lt(block.thread, k.int(slots as i32)), || {
        let store = |place: Int, values: [Int; 3]| {
            let at = k.element(row, slots, place);
            for (array, value) in [indices, keys, weights].into_iter().zip(values) {
                k.store(k.address(array, at, 4), 0, &[value]);
            }
        };
        k.when_else(
            k.lt(block.thread, top_k),
            || {
                let index = k.load_shared(sorted.indices, block.thread);
                let place = k.variable(k.int(0));
                k.for_range(k.int(0), top_k, 1, |other| {
                    let is_before = k.lt(k.load_shared(sorted.indices, other), index);
                    k.set(place, k.add(k.get(place), k.select(is_before, k.int(1), k.int(0))));
                });
                let key = k.load_shared(sorted.keys, block.thread);
                store(k.get(place), [index, key, k.load_shared(kept, block.thread)]);
            },
            || store(block.thread, [k.int(-1), k.int(0), k.int(0)]),
        );
    });
}
