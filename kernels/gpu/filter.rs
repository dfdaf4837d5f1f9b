//! The first kernel: each block keeps the largest entries of one slice of a row.
//!
//! A block finds a bound that at least k of the maxima of its threads reach, but not many more. So at least k logits of
//! the slice reach it. The block stores the logits that reach the bound. If there are too many, as in a slice of equal
//! logits, it selects exactly k.
//!
//! If the row needs only its maximum, the block stores only the maximum of the slice and its lowest index.

use super::block::{Block, Bound};
use super::layout::{Layout, KEPT, LARGEST_VOCAB};
use super::logits::{key_of, raw_bound, SliceLogits};
use super::order::Order;
use super::parameters::Parameters;
use super::places::Places;
use crate::kernels::spec::Spec;
use crate::ptx::{Float, Int, Mask, Ptx, Shared, Wide};
use crate::semantics::arith::Arith;
use crate::semantics::clean::{order_key, NEG_INF_KEY};
use crate::semantics::rules::{survives_top_k, ROW_HAD_INF, ROW_HAD_NAN};

/// The words that describe a slice.
pub(super) const SLICE_WORDS: usize = 2;
/// The word that contains the status bits of the slice. If the row needs only its maximum, the bits after the first
/// [`STATUS_BITS`] contain the lowest index of the maximum of the slice. Otherwise, they are 0.
pub(super) const SLICE_STATUS: usize = 0;
/// The number of status bits in this word.
pub(super) const STATUS_BITS: u32 = 8;
const _: () =
    assert!((ROW_HAD_NAN | ROW_HAD_INF) >> STATUS_BITS == 0 && LARGEST_VOCAB <= 1 << (31 - STATUS_BITS));
/// The word that contains an order key that at least k entries of the row reach. If the row needs only its maximum, the
/// key is that of the maximum of the slice.
pub(super) const SLICE_BOUND: usize = 1;

/// If more maxima than this reach the bound, the block selects exactly k entries.
const MOST_MAXIMA: usize = KEPT / 4 * 3;

/// Returns the text of the kernel. Its arguments are the logits, the parameters, the entries of the slices
/// ([`Order::halves`], `[batch, slices, KEPT, 2]`), and the descriptions of the slices, `[batch, slices, SLICE_WORDS]`.
pub(super) fn kernel(spec: &Spec, layout: &Layout, name: &str) -> String {
    let k = Ptx::new(layout.threads, layout.resident_blocks);
    write(&k, spec, layout);
    k.text(name)
}

fn write(k: &Ptx, spec: &Spec, layout: &Layout) {
    let [logits, parameters, entries, slices] = [(); 4].map(|()| k.argument());
    let block = Block::new(k);
    let (row, slice) = k.divide(k.block(), layout.slices);
    let parameters = Parameters::new(k, parameters, row);
    let top_k = parameters.top_k(spec);
    let logits = SliceLogits::load(k, (spec, layout), logits, (parameters.row_of_logits(spec), slice));
    let only_maximum = parameters.need_only_maximum(spec);
    let kept = Kept::new(&block);
    kept.places.clear();
    let max = logits.max();
    let (had_nan, had_inf) = (logits.had_nan(), k.at_least(max, k.float(f32::INFINITY)));
    let max_key = key_of(k, max);
    let has_special = || k.barrier_any(k.either(had_nan, had_inf));
    let describe = |has_special: Mask, bound: Int, index: Int| {
        let status = k.variable(k.int(0));
        k.when(has_special, || k.set(status, block.status(had_nan, had_inf)));
        k.set(status, k.or(k.get(status), k.shl(index, STATUS_BITS)));
        k.when(block.is_first(), || {
            let address = k.address(slices, k.block(), SLICE_WORDS * 4);
            k.store(address, 0, &[k.get(status), bound]);
        });
    };
    let find_maximum = || {
        let largest = block.max(max_key);
        let index = first_index(&block, &logits, (max, largest), || k.mul(slice, layout.slice_len()));
        describe(has_special(), largest, index);
    };
    let keep_entries = || {
        let (bound, has_special) =
            keep(&block, (spec, layout), (&logits, max, max_key), (slice, top_k), &kept, has_special);
        kept.store(&block, entries);
        describe(has_special, bound, k.int(0));
    };
    match only_maximum {
        Some(mask) => k.when_else(mask, find_maximum, keep_entries),
        None => keep_entries(),
    }
}

/// The lowest index of the largest key of the slice. `max` is the maximum of this thread, and `largest` is the largest
/// key. `start` returns the first index of the slice.
fn first_index(
    block: &Block<'_>,
    logits: &SliceLogits<'_>,
    (max, largest): (Float, Int),
    start: impl FnOnce() -> Int,
) -> Int {
    let k = block.k;
    let index = k.variable(k.int(i32::MAX));
    k.when_else(
        k.lt(k.int(NEG_INF_KEY), largest),
        || {
            // No key exceeds the largest one. So exactly the values with the largest key reach this bound.
            let raw = raw_bound(k, largest);
            k.when(k.at_least(max, raw), || k.set(index, logits.first_at_least(raw)));
        },
        // The largest key is that of −inf, so all keys are equal.
        || k.set(index, start()),
    );
    block.min(k.get(index))
}

/// Keeps at least the `top_k` first entries of the slice, or all entries if the slice has fewer. `max` and `max_key`
/// are the maximum of this thread and its key. `has_special` contains a barrier. After this barrier, all threads can
/// read the number of entries that were added. Returns a key that at least `top_k` entries of the slice reach, and the
/// result of `has_special`.
fn keep(
    block: &Block<'_>,
    (spec, layout): (&Spec, &Layout),
    (logits, max, max_key): (&SliceLogits<'_>, Float, Int),
    (slice, top_k): (Int, Int),
    kept: &Kept<'_>,
    has_special: impl FnOnce() -> Mask,
) -> (Int, Mask) {
    let k = block.k;
    let Bound { key: bound, reaching } = block.bound_from_maxima(block.range(max_key), max_key, top_k);
    // NaN counts as −inf, but no comparison with a bound of −inf would select it. If very many maxima reach the bound,
    // most of them are equal to it, and there are probably too many entries. Then the block does not count them.
    let has_bound = k.both(k.lt(k.int(NEG_INF_KEY), bound), k.le(reaching, k.int(MOST_MAXIMA as i32)));
    k.when(has_bound, || {
        let raw = raw_bound(k, bound);
        k.when(k.at_least(max, raw), || {
            for (number, &value) in logits.values.iter().enumerate() {
                k.when(k.at_least(value, raw), || kept.push(k.to_bits(value), logits.index(number)));
            }
        });
    });
    let has_special = has_special();
    let bound = k.variable(bound);
    let too_many = k.lt(k.int(KEPT as i32), kept.places.count());
    k.when(k.either(k.not(has_bound), too_many), || {
        k.barrier();
        let start = k.mul(slice, layout.slice_len());
        let len = k.min(k.int(layout.slice_len() as i32), k.sub(k.int(spec.vocab as i32), start));
        let wanted = k.min(top_k, len);
        k.set(bound, keep_exactly(block, (layout, logits), k.get(bound), wanted, kept));
        // A slice with fewer than k entries has no bound for the row.
        k.when(k.lt(len, top_k), || k.set(bound, k.int(NEG_INF_KEY)));
    });
    (k.get(bound), has_special)
}

/// Keeps the `wanted` first entries of the slice in the order (key descending, index ascending). At least `wanted` keys
/// reach `bound`. Returns the least key that was kept.
fn keep_exactly(
    block: &Block<'_>,
    (layout, logits): (&Layout, &SliceLogits<'_>),
    bound: Int,
    wanted: Int,
    kept: &Kept<'_>,
) -> Int {
    let k = block.k;
    let keys: Vec<Int> = (0..logits.values.len()).map(|number| logits.key(number)).collect();
    let count = |test: &dyn Fn(usize, Int) -> Mask| {
        let ones =
            keys.iter().enumerate().map(|(number, &key)| k.select(test(number, key), k.int(1), k.int(0)));
        block.sum(ones.reduce(|a, b| k.add(a, b)).expect("a thread has logits"))
    };
    let max = keys.iter().copied().reduce(|a, b| k.max(a, b)).expect("a thread has logits");
    let reaching = |threshold| count(&|_, key| k.le(threshold, key));
    let (threshold, ties) = block.last_key(wanted, (bound, block.max(max)), reaching);
    let is_tie = |(number, &key)| k.select(k.eq(key, threshold), k.int(1 << number), k.int(0));
    let tied = keys.iter().enumerate().map(is_tie).reduce(|a, b| k.or(a, b)).expect("a thread has logits");
    let last_tie = last_tie(block, (layout, logits), ties, tied);
    kept.places.clear();
    k.barrier();
    for (number, &key) in keys.iter().enumerate() {
        let index = logits.index(number);
        k.when(survives_top_k(k, key, index, threshold, last_tie), || kept.push(order_key(k, key), index));
    }
    k.barrier();
    threshold
}

/// The index of tie number `wanted` of the slice. The ties are numbered from 1, by index. Bit `i` of `ties` says
/// whether value `i` of this thread is a tie. The slice has at least `wanted` ties.
fn last_tie(block: &Block<'_>, (layout, logits): (&Layout, &SliceLogits<'_>), wanted: Int, ties: Int) -> Int {
    let k = block.k;
    // A round consists of one vector of each thread. The indices of a round are consecutive.
    let rounds = layout.per_thread / layout.vector;
    let vector = k.int((1 << layout.vector) - 1);
    let of_round = |round: Int| k.and(k.shr_by(ties, k.mul(round, layout.vector)), vector);
    let before = |round: Int| {
        let earlier = k.sub(k.shl_by(k.int(1), k.mul(round, layout.vector)), k.int(1));
        block.sum(k.count_ones(k.and(ties, earlier)))
    };
    let round = block.place_of_tie(wanted, (k.int(0), k.int(rounds as i32 - 1)), before);
    let in_round = k.sub(wanted, before(round));
    let mine = of_round(round);
    let count = k.count_ones(mine);
    let before = block.sum_before(count);
    let found = k.shared(1);
    k.when(k.both(k.lt(before, in_round), k.le(in_round, k.add(before, count))), || {
        // Removes the ties of the vector that precede the wanted tie.
        let rest = k.variable(mine);
        k.for_range(k.int(1), k.sub(in_round, before), 1, |_| {
            k.set(rest, k.and(k.get(rest), k.sub(k.get(rest), k.int(1))));
        });
        let place = k.count_ones(k.sub(k.and(k.get(rest), k.sub(k.int(0), k.get(rest))), k.int(1)));
        let start = k.mul(round, layout.threads * layout.vector);
        k.store_shared_at(found, 0, k.add(logits.index(0), k.add(start, place)));
    });
    k.barrier();
    k.load_shared_at(found, 0)
}

/// The entries that a block keeps, in shared memory, in any order.
struct Kept<'k> {
    k: &'k Ptx,
    /// The bits of each value as f32, cleaned or not.
    values: Shared,
    indices: Shared,
    places: Places<'k>,
}

impl<'k> Kept<'k> {
    fn new(block: &Block<'k>) -> Kept<'k> {
        let k = block.k;
        Kept { k, values: k.shared(KEPT), indices: k.shared(KEPT), places: Places::new(*block, KEPT) }
    }

    /// Adds an entry if there is space.
    fn push(&self, value: Int, index: Int) {
        self.places.add(|at| {
            self.k.store_shared(self.values, at, value);
            self.k.store_shared(self.indices, at, index);
        });
    }

    /// Stores the entries of the block in the array `entries`. The places after them get [`Order::NONE`].
    fn store(&self, block: &Block<'_>, entries: Wide) {
        let k = self.k;
        let first = k.mul(k.block(), KEPT);
        let count = self.places.count();
        k.for_range(block.thread, k.int(KEPT as i32), k.threads(), |place| {
            let entry = k.address(entries, k.add(first, place), 8);
            k.when_else(
                k.lt(place, count),
                || k.store(entry, 0, &self.entry(place)),
                || k.store(entry, 0, &Order::NONE.map(|half| k.int(half))),
            );
        });
    }

    /// The entry as the halves of an [`Order`].
    fn entry(&self, at: Int) -> [Int; 2] {
        let k = self.k;
        let key = key_of(k, k.from_bits(k.load_shared(self.values, at)));
        Order::new(k, key, k.load_shared(self.indices, at)).halves()
    }
}
