//! The second kernel: one block selects the k largest entries of a row among those that the first kernel kept, applies
//! top-p and min-p, and draws the token. If the row needs only its maximum, the block compares the maxima of the
//! slices.

use super::block::{load_records, max_of_slices, maximum_of_slices, status_of_slices, Block};
use super::filter::{SLICE_BOUND, SLICE_STATUS, SLICE_WORDS, STATUS_BITS};
use super::layout::{Layout, KEPT, THREADS};
use super::order::Order;
use super::parameters::{shared_remainder_of_maximum, Parameters};
use super::remainder::remainder;
use super::results::{Results, Summary, Threshold};
use crate::kernels::program_arrays::Column;
use crate::kernels::spec::Spec;
use crate::ptx::{Int, Mask, Ptx, Shared, Wide, WARP};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::{order_key, NEG_INF_KEY};
use crate::semantics::rules::{
    has_no_candidate, has_weight, is_candidate, kept_weight, least_weight, reported_token, survives_top_k,
    top_p_is_off, NO_TOKEN,
};
use crate::semantics::top_p::target;
use crate::semantics::weights::{quantize, weight};

/// The largest number of entries that the kernel ranks.
const RANKED: usize = THREADS;
/// The number of slots of the sorted entries, used or not. One warp weighs them, [`PER_LANE`] in each thread.
const SLOTS: usize = 128;
const PER_LANE: usize = SLOTS / WARP;
/// The number of threads that together compare an entry with all others.
const GROUP: usize = THREADS / SLOTS;

/// Returns the text of the kernel. Its arguments are the parameters, the entries and the slices of the first kernel,
/// the step if `seeded`, the arrays of [`Results`], and the k-slices if the spec wants them (indices, order keys and
/// weights).
pub(super) fn kernel(spec: &Spec, layout: &Layout, seeded: bool, name: &str) -> String {
    let k = Ptx::new(THREADS, 1);
    write(&k, spec, layout, seeded);
    k.text(name)
}

fn write(k: &Ptx, spec: &Spec, layout: &Layout, seeded: bool) {
    let [parameters, entries, slices] = [(); 3].map(|()| k.argument());
    let step = seeded.then(|| k.argument());
    let row = k.block();
    let results = Results::arguments(k, spec, row);
    let block = Block::new(k);
    let parameters = Parameters::new(k, parameters, row);
    let words = parameters.share_random_words(step);
    let slices = Slices::load(k, slices, row, layout.slices);
    let (top_k, factors) = (parameters.top_k(spec), Factors::new(&parameters));
    let report_maximum = || {
        let ([max_key, index], status) = (slices.maximum(), slices.status());
        let no_candidate = has_no_candidate(k, max_key);
        let remainder = shared_remainder_of_maximum(k, words, no_candidate);
        let (top_k, least) = ([max_key, index], factors.min_weight);
        k.when(block.is_first(), || {
            results.token(reported_token(k, no_candidate, index));
            results.summary(&Summary { max_key, index, remainder, status, top_k, least });
        });
    };
    let sample = || sample(&block, (spec, layout), (entries, &slices), (top_k, &factors), words, &results);
    match parameters.need_only_maximum(spec) {
        Some(mask) => k.when_else(mask, report_maximum, sample),
        None => sample(),
    }
}

/// Samples a row. `words` is the array of random words that [`Parameters::share_random_words`] returned.
fn sample(
    block: &Block<'_>,
    (spec, layout): (&Spec, &Layout),
    (entries, slices): (Wide, &Slices<'_>),
    (top_k, factors): (Int, &Factors),
    words: Shared,
    results: &Results<'_>,
) {
    let (k, row) = (block.k, block.k.block());
    let entries = Entries::load(block, layout, entries, row);
    let (bound, status) = (slices.bound(), slices.status());
    let sorted = largest_entries(block, spec, (&entries, bound), top_k);
    let kept = Kept { weights: k.shared(SLOTS), remainder: k.shared(2) };
    k.when(k.lt(block.thread, k.int(WARP as i32)), || {
        let words = k.load_shared_words_at(words, 0);
        let least = weigh(block, factors, &sorted, &kept, top_k, words);
        k.when(block.is_first(), || {
            let last = k.sub(top_k, k.int(1));
            results.threshold(Threshold::MaxKey, k.load_shared_at(sorted.keys, 0));
            results.threshold(Threshold::TopK, k.load_shared(sorted.keys, last));
            results.threshold(Threshold::LastTie, k.load_shared(sorted.indices, last));
            results.threshold(Threshold::LeastWeight, least);
        });
    });
    k.barrier();

    let no_candidate = has_no_candidate(k, k.load_shared_at(sorted.keys, 0));
    let remainder = k.load_shared_wide(kept.remainder, k.int(0));
    draw(block, &sorted, &kept, top_k, remainder, |token| {
        results.token(token);
    });
    k.when(block.is_first(), || {
        k.when(no_candidate, || results.token(k.int(NO_TOKEN)));
        results.numbers(no_candidate, k.load_shared_at(sorted.indices, 0), remainder, status);
    });
    if spec.wanted.slices {
        let arrays = [(); 3].map(|()| k.argument());
        write_slices(block, spec, row, arrays, &sorted, &kept, top_k);
    }
}

/// The descriptions of the slices of a row that the first kernel stored. Each warp has all of them.
struct Slices<'k> {
    k: &'k Ptx,
    words: Vec<Vec<Int>>,
}

impl<'k> Slices<'k> {
    fn load(k: &'k Ptx, slices: Wide, row: Int, count: usize) -> Slices<'k> {
        Slices { k, words: load_records::<SLICE_WORDS>(k, slices, row, count) }
    }

    fn word(&self, word: usize) -> impl Iterator<Item = Int> + Clone + '_ {
        self.words.iter().map(move |words| words[word])
    }

    /// An order key that at least k entries reach.
    fn bound(&self) -> Int {
        let k = self.k;
        max_of_slices(k, self.word(SLICE_BOUND))
    }

    /// The status bits of the row.
    fn status(&self) -> Int {
        status_of_slices(self.k, self.word(SLICE_STATUS))
    }

    /// The key of the maximum and its lowest index. The row must be one that needs only its maximum.
    fn maximum(&self) -> [Int; 2] {
        let k = self.k;
        let indices = self.word(SLICE_STATUS).map(|word| k.shr(word, STATUS_BITS));
        maximum_of_slices(k, self.word(SLICE_BOUND), indices)
    }
}

/// The entries of a row that the first kernel stored. The entries of a thread are in registers.
struct Entries<'k> {
    block: Block<'k>,
    /// Some elements can be places without an entry.
    mine: Vec<Order>,
}

impl<'k> Entries<'k> {
    fn load(block: &Block<'k>, layout: &Layout, entries: Wide, row: Int) -> Entries<'k> {
        let k = block.k;
        let places = layout.slices * KEPT;
        let start = k.far_address(entries, k.far_element(row, places, block.thread), 8);
        let mine: Vec<Order> = (0..places.div_ceil(THREADS))
            .map(|number| {
                let place = k.add(block.thread, k.int((number * THREADS) as i32));
                let is_place = k.lt(place, k.int(places as i32));
                let words = k.load_words_if(is_place, start, number * THREADS * 8, 2, k.int(0));
                Order::of_halves([words[0], words[1]])
            })
            .collect();
        Entries { block: *block, mine }
    }

    /// The number of entries of the row for which a test of key and index is true.
    fn count(&self, test: impl Fn(Int, Int) -> Mask) -> Int {
        let k = self.block.k;
        let ones =
            self.mine.iter().map(|entry| k.select(test(entry.key(k), entry.index(k)), k.int(1), k.int(0)));
        self.block.sum(ones.reduce(|a, b| k.add(a, b)).expect("a thread has entries"))
    }
}

/// The first entries of a row in the order (key descending, index ascending), sorted. In shared memory. Slots without
/// an entry have the key of −inf and the index `i32::MAX`.
#[derive(Clone, Copy)]
struct Sorted {
    keys: Shared,
    indices: Shared,
}

/// Finds the `top_k` first entries of a row. `bound` is an order key that at least `top_k` entries reach.
fn largest_entries(
    block: &Block<'_>,
    spec: &Spec,
    (entries, bound): (&Entries<'_>, Int),
    top_k: Int,
) -> Sorted {
    let k = block.k;
    let keys = entries.mine.iter().map(|entry| entry.key(k));
    let max = keys.reduce(|a, b| k.max(a, b)).expect("a thread has entries");
    let row_max = block.max(max);
    let bound = block.bound_from_maxima((bound, row_max), max, top_k).key;

    let found = Found { entries: k.shared(2 * (RANKED + Found::STEP)), len: k.shared(1) };
    // In most warps, no thread has an entry. These warps skip the tests of their entries.
    let reaches = k.le(bound, max);
    found.collect(block, entries, reaches, |key, _| k.le(bound, key));
    let too_many = k.lt(k.int(RANKED as i32), found.count(k));
    k.barrier();
    k.when(too_many, || {
        let reaching = |threshold| entries.count(|key, _| k.le(threshold, key));
        let (threshold, ties) = block.last_key(top_k, (bound, row_max), reaching);
        let last_tie = block.place_of_tie(ties, (k.int(0), k.int(spec.vocab as i32 - 1)), |index| {
            entries.count(|key, at| k.both(k.eq(key, threshold), k.lt(at, index)))
        });
        let survives = |key, index| survives_top_k(k, key, index, threshold, last_tie);
        found.collect(block, entries, reaches, survives);
    });
    found.sort(block, top_k)
}

/// Entries in shared memory, in any order.
struct Found {
    /// The halves of each [`Order`].
    entries: Shared,
    /// The number of entries that were counted. It can exceed [`RANKED`], the number that are stored.
    len: Shared,
}

impl Found {
    /// The number of entries that a group of threads compares in each round of a loop.
    const STEP: usize = 8 * GROUP;

    fn count(&self, k: &Ptx) -> Int {
        k.load_shared_at(self.len, 0)
    }

    /// Stores the entries that a test of key and index selects. If there are more than [`RANKED`], counts the others.
    /// If `may_select` is false in a thread, the test must not select an entry of this thread.
    fn collect(
        &self,
        block: &Block<'_>,
        entries: &Entries<'_>,
        may_select: Mask,
        test: impl Fn(Int, Int) -> Mask,
    ) {
        let k = block.k;
        k.when(block.is_first(), || k.store_shared_at(self.len, 0, k.int(0)));
        k.barrier();
        // One atomic operation counts all selected entries of a thread, because each atomic operation delays the
        // warp.
        let is_selected = |entry: &Order| test(entry.key(k), entry.index(k));
        k.when(may_select, || {
            let selected = k.count_true(entries.mine.iter().map(is_selected));
            k.when(k.lt(k.int(0), selected), || {
                let place = k.variable(k.fetch_add_shared(self.len, 0, selected));
                for entry in &entries.mine {
                    k.when(is_selected(entry), || {
                        let at = k.get(place);
                        k.when(k.lt(at, k.int(RANKED as i32)), || {
                            k.store_shared_words(self.entries, k.shl(at, 1), entry.halves());
                        });
                        k.set(place, k.add(at, k.int(1)));
                    });
                }
            });
        });
        k.barrier();
    }

    /// Sorts the entries, of which there are at least `top_k`. Returns the first `top_k`.
    fn sort(&self, block: &Block<'_>, top_k: Int) -> Sorted {
        let k = block.k;
        let sorted = Sorted { keys: k.shared(SLOTS), indices: k.shared(SLOTS) };
        let len = self.count(k);
        // The loops below read places after the last entry. [`Order::NONE`] is after every entry, so it changes no
        // rank.
        k.when(k.lt(block.thread, k.int(Self::STEP as i32)), || {
            let place = k.add(len, block.thread);
            k.store_shared_words(self.entries, k.shl(place, 1), Order::NONE.map(|half| k.int(half)));
        });
        k.when(k.lt(block.thread, k.int(SLOTS as i32)), || {
            k.store_shared(sorted.keys, block.thread, k.int(NEG_INF_KEY));
            k.store_shared(sorted.indices, block.thread, k.int(i32::MAX));
        });
        k.barrier();
        let (first, part) =
            (k.shr(block.thread, GROUP.trailing_zeros()), k.and(block.thread, k.int(GROUP as i32 - 1)));
        k.for_range(k.int(0), len, SLOTS, |start| {
            // A group without an entry takes the place after the last entry.
            let place = k.min(k.add(start, first), len);
            let mine = Order::of_halves(k.load_shared_words(self.entries, k.shl(place, 1)));
            let rank = k.variable(k.int(0));
            k.for_range(k.int(0), len, Self::STEP, |from| {
                for pair in 0..Self::STEP / GROUP / 2 {
                    let place = k.add(from, k.shl(k.add(part, k.int((pair * GROUP) as i32)), 1));
                    let [a, b, c, d] = k.load_shared_words(self.entries, k.shl(place, 1));
                    for other in [[a, b], [c, d]].map(Order::of_halves) {
                        let one = k.select(other.is_before(k, mine), k.int(1), k.int(0));
                        k.set(rank, k.add(k.get(rank), one));
                    }
                }
            });
            let rank = k.group_sum(k.get(rank), GROUP);
            let is_entry = k.both(k.lt(k.add(start, first), len), k.lt(rank, top_k));
            k.when(k.both(is_entry, k.eq(part, k.int(0))), || {
                k.store_shared(sorted.keys, rank, mine.key(k));
                k.store_shared(sorted.indices, rank, mine.index(k));
            });
        });
        k.barrier();
        sorted
    }
}

/// The parameters of a row that [`weigh`] uses. The kernel loads them early, so that [`weigh`] does not wait for them.
struct Factors {
    scale: Int,
    greedy: Int,
    mantissa: Int,
    shift: Int,
    min_weight: Int,
}

impl Factors {
    fn new(parameters: &Parameters<'_>) -> Factors {
        Factors {
            scale: parameters.get(Column::Scale),
            greedy: parameters.get(Column::Greedy),
            mantissa: parameters.get(Column::TopPMantissa),
            shift: parameters.get(Column::TopPShift),
            min_weight: parameters.get(Column::MinWeight),
        }
    }
}

/// The weights that top-p and min-p keep, in shared memory.
struct Kept {
    /// The weights of the sorted entries; 0 in slots without an entry.
    weights: Shared,
    /// The remainder, a 64-bit integer.
    remainder: Shared,
}

/// Weighs the sorted entries, applies top-p and min-p, and computes the remainder. One warp calls this; each thread has
/// [`PER_LANE`] entries. Returns the least weight that top-p and min-p keep.
fn weigh(
    block: &Block<'_>,
    factors: &Factors,
    sorted: &Sorted,
    kept: &Kept,
    top_k: Int,
    words: [Int; 4],
) -> Int {
    let k = block.k;
    let max_key = k.load_shared_at(sorted.keys, 0);
    let no_candidate = has_no_candidate(k, max_key);
    let value = |key| k.from_bits(order_key(k, key));
    let sampled_row = k.eq(factors.greedy, k.int(0));

    let first = k.mul(block.thread, PER_LANE);
    let keys: [Int; PER_LANE] = k.load_shared_words(sorted.keys, first);
    let mut weights = Vec::new();
    for (number, key) in keys.into_iter().enumerate() {
        let slot = k.add(first, k.int(number as i32));
        let sampled = weight(k, quantize(k, value(max_key), value(key), k.from_bits(factors.scale)));
        let survives = k.both(k.lt(slot, top_k), is_candidate(k, key));
        let weighs = has_weight(k, survives, sampled_row, k.eq(slot, k.int(0)));
        weights.push(k.select(weighs, sampled, k.int(0)));
    }
    let sum = |weights: &[Int]| {
        weights.iter().map(|&weight| k.widen(weight)).reduce(|a, b| k.wadd(a, b)).expect("a thread has slots")
    };

    let upto = k.warp_prefix_sum(sum(&weights));
    let total = k.wide_from_lane(upto, WARP - 1);
    let off = top_p_is_off(k, no_candidate, factors.mantissa);
    let target = target(k, total, factors.mantissa, factors.shift);
    // The threshold is the first weight at which the running sum reaches the target. The weights are descending, so it
    // is the largest weight at which the sum has reached the target.
    let mut reached = upto;
    let mut threshold = k.int(0);
    for &weight in weights.iter().rev() {
        let is_enough = k.not(k.wlt(reached, target));
        threshold = k.max(threshold, k.select(is_enough, weight, k.int(0)));
        reached = k.wide_difference(reached, k.widen(weight));
    }
    let threshold = k.select(off, k.int(0), k.warp_max(threshold));
    let least = least_weight(k, threshold, factors.min_weight);
    let kept_weights: Vec<Int> = weights.iter().map(|&weight| kept_weight(k, weight, least)).collect();
    for (number, &weight) in kept_weights.iter().enumerate() {
        k.store_shared(kept.weights, k.add(first, k.int(number as i32)), weight);
    }
    let total = k.wide_group_sum(sum(&kept_weights), WARP);
    let remainder = remainder(k, words, total);
    k.when(block.is_first(), || k.store_shared_wide(kept.remainder, k.int(0), remainder));
    least
}

/// Calls `found` with the drawn token, in one thread. Calls it in no thread if the row has no candidate.
fn draw(
    block: &Block<'_>,
    sorted: &Sorted,
    kept: &Kept,
    top_k: Int,
    remainder: Wide,
    found: impl FnOnce(Int),
) {
    let k = block.k;
    let (slot, part) =
        (k.shr(block.thread, GROUP.trailing_zeros()), k.and(block.thread, k.int(GROUP as i32 - 1)));
    let (index, weight) = (k.load_shared(sorted.indices, slot), k.load_shared(kept.weights, slot));
    let before = k.wide_variable(k.wide(0));
    k.for_range(k.int(0), top_k, 4 * GROUP, |first| {
        let place = k.add(first, k.shl(part, 2));
        let indices = k.load_shared_words::<4>(sorted.indices, place);
        let weights = k.load_shared_words::<4>(kept.weights, place);
        let of_four = indices.into_iter().zip(weights).map(|(other, weight)| {
            // A slot without an entry has weight 0.
            k.select(k.lt(other, index), weight, k.int(0))
        });
        let sum = of_four.reduce(|a, b| k.add(a, b)).expect("four weights");
        k.set_wide(before, k.wadd(k.get_wide(before), k.widen(sum)));
    });
    let before = k.wide_group_sum(k.get_wide(before), GROUP);
    let after = k.wadd(before, k.widen(weight));
    let is_drawn = k.both(k.not(k.wlt(remainder, before)), k.wlt(remainder, after));
    k.when(k.both(is_drawn, k.eq(part, k.int(0))), || found(index));
}

/// Writes the k-slices: the kept entries in index order, then unused slots.
fn write_slices(
    block: &Block<'_>,
    spec: &Spec,
    row: Int,
    [indices, keys, weights]: [Wide; 3],
    sorted: &Sorted,
    kept: &Kept,
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
                store(k.get(place), [index, key, k.load_shared(kept.weights, block.thread)]);
            },
            || store(block.thread, [k.int(-1), k.int(0), k.int(0)]),
        );
    });
}
